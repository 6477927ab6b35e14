"""For tests of programs that use the SDK: what was recorded, in memory, and assertions on it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.step import StepEvent

FLUSH_S = 30.0


@dataclass(frozen=True)
class RecordedRun:
    """One run: its ended steps in the order of their starts."""

    trace_id: str
    steps: tuple[StepEvent, ...]

    @property
    def root(self) -> StepEvent:
        """The run itself. Raises ``AssertionError`` if it has not ended."""
        found = [step for step in self.steps if not step.parent_step_id]
        assert len(found) == 1, f"run {self.trace_id} has {len(found)} ended roots: {self.names}"
        return found[0]

    @property
    def names(self) -> list[str]:
        """The names of the steps."""
        return [step.name for step in self.steps]

    @property
    def tools(self) -> list[str]:
        """The tools that were called."""
        return [step.tool or step.name for step in self.of_kind("tool_call")]

    @property
    def input_tokens(self) -> int:
        """Tokens that model calls read."""
        return sum(step.usage.input_tokens for step in self.steps if step.usage is not None)

    @property
    def output_tokens(self) -> int:
        """Tokens that model calls wrote."""
        return sum(step.usage.output_tokens for step in self.steps if step.usage is not None)

    def of_kind(self, kind: str) -> list[StepEvent]:
        """The steps of a kind, such as ``llm_call``."""
        return [step for step in self.steps if step.kind == kind]

    def step(self, name: str) -> StepEvent:
        """The one step with a name. Raises ``AssertionError`` if there is none, or several."""
        found = [step for step in self.steps if step.name == name]
        assert len(found) == 1, f"{len(found)} steps have the name {name!r}: {self.names}"
        return found[0]

    def parent_of(self, step: StepEvent) -> StepEvent | None:
        """The step that a step belongs to; None for the root."""
        found = [other for other in self.steps if other.step_id == step.parent_step_id]
        return found[0] if found else None

    def assert_no_errors(self) -> None:
        """Raises ``AssertionError`` with the errors if a step failed."""
        failed = [
            f"{step.name}: {step.error_type} {step.error_message}"
            for step in self.steps
            if step.status == "error"
        ]
        assert not failed, "steps failed: " + "; ".join(failed)


class Recorded:
    """What the program has recorded so far."""

    def __init__(self, module: Any, transport: MemoryTransport) -> None:
        self._module = module
        self._transport = transport

    @property
    def events(self) -> list[StepEvent]:
        """Every event, starts and ends, in the order in which they were sent."""
        assert self._module.flush(FLUSH_S), "events are still not sent"
        return self._transport.events

    @property
    def runs(self) -> list[RecordedRun]:
        """The runs, in the order of their starts."""
        by_run: dict[str, list[StepEvent]] = {}
        for event in sorted(self.events, key=lambda event: event.start_time):
            if event.phase == "end":
                by_run.setdefault(event.trace_id, []).append(event)
        return [RecordedRun(trace_id, tuple(steps)) for trace_id, steps in by_run.items()]

    def only_run(self) -> RecordedRun:
        """The one run. Raises ``AssertionError`` if there is none, or several."""
        runs = self.runs
        assert len(runs) == 1, f"{len(runs)} runs were recorded: {[run.names for run in runs]}"
        return runs[0]


@contextmanager
def recording(**settings: Any) -> Iterator[Recorded]:
    """Keep what ``stepstream`` records inside the block in memory; nothing is sent.

    ``settings`` are those of ``stepstream.configure``. Afterwards the settings are read anew, as at
    the start of a program. Tracers of the program's own need a ``MemoryTransport`` of their own.
    """
    # Here and not at the top: packages below `stepstream` do not import it (docs/architecture.md).
    module = importlib.import_module("stepstream")
    transport = MemoryTransport()
    module.configure(transport=transport, quiet=True, **settings)
    try:
        yield Recorded(module, transport)
        module.flush(FLUSH_S)
    finally:
        module.configure()
