"""A synthetic run: a small run of our own that every worker takes for a loop, so that an alert must come of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.times import MINUTE_US
from stepstream.sinks.notify.pipeline_monitor import PROBE_AGENT, PROJECT

EVERY_US: Final = MINUTE_US
CALLS: Final = 6


def synthetic_run(trace_id: str, now_us: int) -> Iterator[bytes]:
    """Step events of a run that calls one tool again and again with the same input."""
    root = new_step_id()
    yield _event(trace_id, root, "", "agent", "probe", now_us, now_us)
    for _ in range(CALLS):
        yield _event(
            trace_id,
            new_step_id(),
            root,
            "tool_call",
            "probe",
            now_us,
            now_us,
            tool="probe",
            input="probe",
            output="same",
        )
    yield _event(trace_id, root, "", "agent", "probe", now_us, now_us + 1)


def _event(
    trace_id: str,
    step_id: str,
    parent: str,
    kind: str,
    name: str,
    begin_us: int,
    end_us: int,
    **more: Any,
) -> bytes:
    event = {
        "schema_version": 1, "trace_id": trace_id, "step_id": step_id, "parent_step_id": parent, "kind": kind, "name": name,
        "phase": "end" if parent or end_us > begin_us else "start", "project": PROJECT, "agent": PROBE_AGENT, "task": "probe",
        "start_time": begin_us, "status": "ok", **more,
    }  # fmt: skip
    if event["phase"] == "end":
        event["end_time"] = end_us
    return json.dumps({key: value for key, value in event.items() if value != ""}).encode()


@dataclass(slots=True)
class SyntheticRuns:
    """Which synthetic run is on its way, and whether its alert came."""

    patience_us: int
    trace_id: str = ""
    sent_us: int = 0
    came_us: int = 0
    latency_us: int = field(default=0)

    def due(self, now_us: int) -> str:
        """The id of a run to be sent now; empty when none is due."""
        if self.sent_us and now_us - self.sent_us < EVERY_US:
            return ""
        self.trace_id, self.sent_us, self.came_us = new_trace_id(), now_us, 0
        return self.trace_id

    def came(self, trace_id: str, now_us: int) -> None:
        """An alert about a synthetic run has come."""
        if trace_id == self.trace_id and not self.came_us:
            self.came_us, self.latency_us = now_us, now_us - self.sent_us

    def trouble(self, now_us: int) -> str | None:
        """Why something is wrong; empty when all is well; None while that is not known."""
        if self.came_us:
            return ""
        if self.sent_us and now_us - self.sent_us >= min(self.patience_us, EVERY_US - 5_000_000):
            return "the alert of a synthetic run did not come: steps go in and no alert comes out"
        return None
