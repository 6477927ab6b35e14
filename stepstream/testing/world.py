"""A partition with one detector.

Records are fed, time passes, everything sent is acknowledged at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import StepEvent
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state, encode_state, restore_run
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.records import LogRecord
from stepstream.stream.run.rules import Applied, RuleBook, RuleSet
from stepstream.stream.run.run import Run
from stepstream.testing.cases import BEGIN_US, DetectorCase

TICK_US: Final = 500_000
AFTER_US: Final = 90_000_000
"""Time that passes after the last record: enough to settle and to close."""


class OneRule(RuleBook):
    """A rule book of one rule, which may be of a kind that no policy knows."""

    def __init__(self, case: DetectorCase) -> None:
        super().__init__((), case.make)
        self._only = RuleSet((Applied(case.rule, case.policy),), case.make)

    def rules_for(
        self, project: str, environment: str, agent: str, agent_version: str, task: str
    ) -> RuleSet:
        """The one rule, for every run."""
        return self._only

    def restored(self, pinned: str) -> RuleSet:
        """The one rule, whatever was in force when the run began."""
        return self._only


class World:
    """A worker's partition from an empty log on."""

    def __init__(self, case: DetectorCase) -> None:
        self._case = case
        self.rules = OneRule(case)
        self.stage = self.new_stage()
        self.outputs: list[Output] = []
        self.log: list[LogRecord] = []

    def new_stage(self) -> AssemblePartition:
        """A worker that knows nothing yet."""
        return AssemblePartition(0, 1, rules=self.rules, prices=PriceBook())

    def play(
        self,
        events: Iterable[StepEvent],
        times_us: Iterable[int],
        between: Callable[[], None] | None = None,
    ) -> None:
        """Append each event at its time.

        Time passes between them, and after the last until the run has closed.
        """
        now_us = 0
        for event, at_us in zip(events, times_us, strict=True):
            if now_us:
                self.wait(now_us, at_us)
            self.append(event, at_us)
            now_us = max(now_us, at_us)
            if between is not None:
                between()
        # Findings that depend on a timer or on the close of the run come only now.
        self.wait(now_us, now_us + AFTER_US)

    def append(self, event: StepEvent, at_us: int) -> None:
        """One record at the end of the log, read at once."""
        value = event.model_dump_json(exclude_defaults=True).encode()
        self.log.append(LogRecord(len(self.log), at_us // 1_000, event.trace_id.encode(), value))
        self.stage.process(self.log[-1])
        self.turn()

    def wait(self, from_us: int, to_us: int) -> None:
        """Time passes without records."""
        for now_us in range(from_us + TICK_US, to_us + 1, TICK_US):
            self.stage.tick(now_us)
            self.turn()

    def turn(self) -> None:
        """The end of a batch."""
        self.stage.flush()
        # Acknowledging an output may release the next one: a state record, then its deferred
        # findings.
        while outputs := self.stage.take_outputs():
            self.outputs += outputs
            for output in outputs:
                self.stage.acknowledged(output)

    def swap(self) -> None:
        """Every run is written down and read again, by detectors that are made anew."""
        self.rules = self.stage.rules = OneRule(self._case)
        for active in self.stage.runs.values():
            active.run = restore_run(
                decode_state(encode_state(active.run, active.checkpoint.merged_through)), self.rules
            )

    def crash(self) -> None:
        """The worker crashes.

        Another one restores the acknowledged states and reads the log from the safe offset.
        """
        newest: dict[str, Any] = {}
        for output in self.outputs:
            if output.topic == "state":
                state = decode_state(output.value or b"")
                # As compaction and the loader do: of one run the newest record counts.
                if state.trace_id not in newest or state.order >= newest[state.trace_id].order:
                    newest[state.trace_id] = state
        resume_at = self.stage.offsets.safe
        self.rules = OneRule(self._case)
        self.stage = self.new_stage()
        self.stage.restore(newest.values(), resume_at)
        for record in self.log[resume_at:]:
            self.stage.process(record)
        self.turn()

    def checkpoint(self) -> None:
        """Every open run is written down, as it is when it holds the log back for long."""
        self.stage.request_checkpoints()
        self.turn()

    @property
    def runs(self) -> list[Run]:
        """Runs that are open."""
        return [active.run for active in self.stage.runs.values()]

    def findings(self) -> list[dict[str, Any]]:
        """What was raised, in order; resolved findings are left out."""
        values = [
            msgspec.json.decode(output.value or b"")
            for output in self.outputs
            if output.topic == "findings"
        ]
        return [value for value in values if value.get("state", "firing") == "firing"]

    def ids(self) -> set[str]:
        """The findings' ids: the same ids are the same findings."""
        return {str(value["finding_id"]) for value in self.findings()}


def as_they_happen(events: Sequence[StepEvent], shift_us: int = 0) -> list[int]:
    """When records are appended that come as things happen."""
    times = [
        (event.end_time or event.start_time) if event.phase == "end" else event.start_time
        for event in events
    ]
    return [time_us + shift_us for time_us in times]


def all_at_once(events: Sequence[StepEvent]) -> list[int]:
    """When records are appended that come within a moment, after all has happened."""
    last_us = max(as_they_happen(events), default=BEGIN_US)
    return [last_us + 2_000 * number for number in range(len(events))]
