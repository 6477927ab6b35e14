"""The stages of a worker on one partition, in memory: step events in, findings and alerts out.

The stages are the worker's own code. Everything that a stage sends is handed to the next stage
at once and acknowledged. No I/O and no clock: events carry their times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from stepstream.backtest.timeline import PolicyChange, changed
from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.trajectory import RunSummaryStruct, TrajectoryStruct
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.progress import ProgressReporter
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.records import apply_baselines
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.records import LogRecord
from stepstream.stream.detectors.book import rule_book
from stepstream.stream.run.limits import NEVER_US, AssembleLimits
from stepstream.stream.usage.partition import WindowPartition
from stepstream.stream.usage.windows.rules import WindowRules

TICK_US: Final = 2_000_000
"""Log time between two ticks, while any run is open. Timers fire so much later at most."""
QUIET_US: Final = 120_000_000
"""Up to this long after an event the clock is advanced in steps of ``TICK_US``, after that in steps
of ``QUIET_TICK_US``: after two quiet minutes only timers of minutes or hours remain.
"""
QUIET_TICK_US: Final = 10_000_000
AFTER_LAST_RUN_US: Final = 120_000_000
"""How long the clock goes on after the last run has closed, for findings about windows."""
BATCH_US: Final = 2_000_000
"""Log time after which a batch of events ends; a finding ends it at once."""
_decode_finding: Final = msgspec.json.Decoder(FindingStruct).decode
_decode_alert: Final = msgspec.json.Decoder(AlertStruct).decode
_decode_trajectory: Final = msgspec.json.Decoder(TrajectoryStruct).decode
_decode_summary: Final = msgspec.json.Decoder(RunSummaryStruct).decode


class Stage(Protocol):
    """A stage of the worker."""

    def take_outputs(self) -> list[Output]: ...
    def acknowledged(self, output: Output) -> None: ...


@dataclass(frozen=True, slots=True)
class _KeyValue:
    """A record as ``apply_baselines`` reads it."""

    own_key: bytes | None
    own_value: bytes | None

    def key(self) -> bytes | None:
        return self.own_key

    def value(self) -> bytes | None:
        return self.own_value


@dataclass(frozen=True, slots=True)
class Raised:
    """A finding, and what its run had used when it was raised; 0 if it is about no open run."""

    finding: FindingStruct
    cost_nanos: int
    steps: int


@dataclass(slots=True)
class Outcome:
    """Everything that was found."""

    raised: list[Raised] = field(default_factory=list)
    """Findings in the order in which they were raised, resolved ones as well."""
    alerts: dict[str, AlertStruct] = field(default_factory=dict)
    """The newest record of each alert, by its id."""
    trajectories: dict[str, TrajectoryStruct] = field(default_factory=dict)
    """The newest trajectory of each closed run that Criteria documents match, by its trace id."""
    runs: dict[str, RunSummaryStruct] = field(default_factory=dict)
    """The newest summary of each closed run, by its trace id."""


class OfflinePipeline:
    """What a worker with these policies would find in a log of step events."""

    def __init__(
        self,
        policies: Iterable[Policy] = (),
        *,
        criteria: Iterable[Criteria] = (),
        changes: Iterable[PolicyChange] = (),
        prices: PriceBook | None = None,
        limits: AssembleLimits | None = None,
    ) -> None:
        """``changes`` of the policies take effect at their times, for runs that begin later."""
        self._policies = policies = tuple(policies)
        self._criteria = tuple(criteria)
        self._changes = deque(changes)
        self._next_change_us = self._changes[0].at_us if self._changes else NEVER_US
        limits = limits or AssembleLimits()
        self.outcome = Outcome()
        self._baselines = Baselines()
        self._steps = AssemblePartition(
            0,
            1,
            rules=rule_book(policies, self._criteria),
            prices=prices or PriceBook(),
            baselines=self._baselines,
            limits=limits,
        )
        # A tenth of the time of an evaluation; only those with a success are noted.
        self._steps.publisher.with_trajectories = bool(self._criteria)
        self._progress = ProgressReporter(1, limits)
        self._windows = WindowPartition(0, 1, WindowRules(policies), learner=Learner())
        self._alerts = AlertPartition(0)
        self._next_offset = dict.fromkeys(("steps", "usage", "findings"), 0)
        self._now_us = 0
        self._last_event_us = 0
        self._delivered_us = 0
        self._delivered_findings = 0
        self._ticked_us = 0

    @property
    def open_runs(self) -> int:
        """Runs that have not closed."""
        return len(self._steps.runs)

    def event(self, trace_id: str, value: bytes, at_us: int) -> None:
        """Process the value of a step record that is appended at ``at_us``.

        First advances the clock to ``at_us``. An event with an earlier time than the last one gets
        the time of the last one.
        """
        # The clock of a partition never goes back (docs/architecture.md, rule 4).
        at_us = max(at_us, self._now_us)
        while at_us >= self._next_change_us:
            self._change_policies()
        self.wait(at_us)
        self._now_us = self._last_event_us = at_us
        self._steps.process(self._record("steps", trace_id.encode(), value))
        # At once after a finding, so that it is noted with what its run has used by then.
        found = self._steps.counters.findings
        if at_us - self._delivered_us >= BATCH_US or found != self._delivered_findings:
            self._deliver_all()

    def wait(self, until_us: int) -> None:
        """Advance the clock to ``until_us`` without events."""
        while until_us - self._ticked_us >= TICK_US:
            self._now_us = self._ticked_us = self._next_tick(until_us)
            self._tick()
        self._now_us = max(self._now_us, until_us)

    def finish(self, at_most_us: int) -> None:
        """Advance the clock until every run has closed, by at most ``at_most_us``, and then by
        ``AFTER_LAST_RUN_US``.
        """
        until_us = self._now_us + at_most_us
        while self._steps.runs and self._now_us < until_us:
            self.wait(min(until_us, self._now_us + QUIET_US))
        self.wait(self._now_us + AFTER_LAST_RUN_US)

    def _change_policies(self) -> None:
        change = self._changes.popleft()
        self._next_change_us = self._changes[0].at_us if self._changes else NEVER_US
        self.wait(change.at_us)
        self._policies = changed(self._policies, [change])
        self._steps.rules = rule_book(self._policies, self._criteria)
        self._windows.change_rules(WindowRules(self._policies))

    def _next_tick(self, until_us: int) -> int:
        # Without open runs nothing is timed so finely: a weekend is one step instead of 172,800.
        if not self._ticked_us or not self._steps.runs:
            return until_us
        is_quiet = self._ticked_us - self._last_event_us > QUIET_US
        return min(until_us, self._ticked_us + (QUIET_TICK_US if is_quiet else TICK_US))

    def _tick(self) -> None:
        # Not with ``tick``: a clock that moves by more than two seconds takes it that nothing was
        # read meanwhile, and delays the timers. Here nothing is read late.
        self._steps.clock.advance(self._now_us, watching=False)
        self._deliver_all()
        reported = self._progress.due(self._steps)
        for output in reported:
            self._handle(output)
        self._alerts.tick(self._now_us)
        if self._send_outputs(self._alerts) or reported:
            self._deliver_all()

    def _deliver_all(self) -> None:
        """End the batch of every stage, until no stage has anything to send."""
        self._delivered_us = self._now_us
        self._delivered_findings = self._steps.counters.findings
        self._steps.flush()  # the other stages do nothing at the end of a batch
        sent = True
        while sent:
            sent = False
            for stage in (self._steps, self._windows, self._alerts):
                sent |= self._send_outputs(stage)

    def _send_outputs(self, stage: Stage) -> bool:
        outputs = stage.take_outputs()
        for output in outputs:
            self._handle(output)
            stage.acknowledged(output)
        return bool(outputs)

    def _handle(self, output: Output) -> None:
        value = output.value
        if value is None:
            if output.topic == "fleet":
                # A record without a value withdraws a baseline, as a deleted key of the topic does.
                apply_baselines(self._baselines, [_KeyValue(output.key, None)])
        elif output.topic == "findings":
            self._note_finding(value)
            self._alerts.process(self._record("findings", output.key, value))
        elif output.topic == "trajectories":
            self._note_trajectory(value)
        elif output.topic == "usage":
            self._note_usage(value)
            self._windows.process(self._record("usage", output.key, value))
        elif output.topic == "fleet":
            apply_baselines(self._baselines, [_KeyValue(output.key, value)])
        elif output.topic == "alerts":
            alert = _decode_alert(value)
            self.outcome.alerts[alert.alert_id] = alert
        # Other topics (state, control, dead letter) have no reader here.

    def _note_finding(self, value: bytes) -> None:
        finding = _decode_finding(value)
        # Read now: when the run has closed, its cost at this moment is known no more.
        active = self._steps.runs.get(finding.trace_id)
        cost_nanos = 0 if active is None else active.run.cost_nanos
        steps = 0 if active is None else len(active.run.steps)
        self.outcome.raised.append(Raised(finding, cost_nanos, steps))

    def _note_trajectory(self, value: bytes) -> None:
        # Only runs with Criteria are asked for (``Outcome.trajectories``), and decoding takes long.
        if b'"success":' not in value:
            return
        found = _decode_trajectory(value)
        known = self.outcome.trajectories.get(found.trace_id)
        if found.closed and (known is None or found.revision >= known.revision):
            self.outcome.trajectories[found.trace_id] = found

    def _note_usage(self, value: bytes) -> None:
        # Records of minutes and of progress go the same way. Searched as bytes, because decoding
        # each of them takes long; in the text of a field the quotes would be escaped.
        if b'"kind":"run"' not in value:
            return
        summary = _decode_summary(value)
        known = self.outcome.runs.get(summary.trace_id)
        if known is None or summary.revision >= known.revision:
            self.outcome.runs[summary.trace_id] = summary

    def _record(self, topic: str, key: bytes | None, value: bytes) -> LogRecord:
        offset = self._next_offset[topic]
        self._next_offset[topic] = offset + 1
        return LogRecord(offset, self._now_us // 1_000, key, value)
