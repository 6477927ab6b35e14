"""Calls the detectors of a run and sends what they find.

An exception of a detector is contained: the detector is off for that run from then on, and the run
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from stepstream.schemas.step import Step
from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.contained_failures import ContainedFailures, pipeline_output
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors.base import Detector, Observation, RuleError
from stepstream.stream.detectors.findings import closing_findings, command_for, findings_from
from stepstream.stream.detectors.reading import within_budget
from stepstream.stream.detectors.stop_ignored import note_stop_command
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.steps import StepInfo

_encode = msgspec.json.Encoder().encode

Send = Callable[[ActiveRun, Output], None]


class Detection:
    """The detectors of the runs of one partition."""

    def __init__(
        self,
        clock: PartitionClock,
        limits: AssembleLimits,
        counters: Counters,
        failures: ContainedFailures,
        send: Send,
        outbox: list[Output],
    ) -> None:
        """``send`` sends an output of a run; outputs that belong to no run are appended to
        ``outbox``.
        """
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._failures = failures
        self._send = send
        self._outbox = outbox

    def run_began(self, active: ActiveRun) -> None:
        """Let the detectors of a new run set their first timers."""
        timers = active.run.rules.timers
        if timers:
            self._call_timers(active, frozenset(detector.name for detector in timers))

    def record_merged(self, active: ActiveRun, info: StepInfo, step: Step) -> None:
        """A record was merged into ``info``: show it to the detectors that it may concern."""
        run, now_us = active.run, self._clock.now_us
        rules = run.rules
        # Where nothing was found yet most steps concern few detectors; a finding may be resolved by
        # any step.
        detectors = rules.observing if run.fired else rules.observers(info)
        for detector in detectors if not run.off else still_on(active, detectors):
            try:
                if observations := detector.on_step(run, info, now_us):
                    is_deferred = detector.wanted_runs > 0 and not run.closed
                    self._report(active, detector, observations, deferred=is_deferred)
            except Exception as error:
                self.switch_off(active, detector, error)
        if (
            step.phase == "end"
            and self._limits.content_detectors
            and (readers := rules.readers(step.kind))
        ):
            self._show_contents(active, readers, info, step)
        if info is run.root:
            active.scheduled_us = None  # its end may be due before what is scheduled
            if info.ended and not run.open:
                active.publication.is_urgent = True

    def contents_added(self, active: ActiveRun, info: StepInfo, step: Step) -> None:
        """Contents of an ended step came apart from it."""
        if self._limits.content_detectors and (readers := active.run.rules.readers(step.kind)):
            self._show_contents(active, readers, info, step)

    def _show_contents(
        self, active: ActiveRun, readers: Sequence[Detector], info: StepInfo, step: Step
    ) -> None:
        run, now_us, contents = active.run, self._clock.now_us, Contents(step)
        characters = len(contents.input) + len(contents.output)
        reading = within_budget(run.detector_state, readers, step.kind, characters)
        if reading is not readers:
            self._counters.contents_unread += len(readers) - len(reading)
            readers = reading
        for detector in readers if not run.off else still_on(active, readers):
            try:
                if observations := detector.on_content(run, info, contents, now_us):
                    self._report(active, detector, observations)
            except Exception as error:
                self.switch_off(active, detector, error)

    def time_passed(self, active: ActiveRun) -> None:
        """Call what is due of an open run."""
        if due := active.run.take_due_timers(self._clock.now_us):
            self._call_timers(active, due)

    def _call_timers(self, active: ActiveRun, names: frozenset[str]) -> None:
        run, now_us = active.run, self._clock.now_us
        for detector in still_on(active, run.rules.timers):
            if detector.name not in names:
                continue
            try:
                if observations := detector.on_timer(run, now_us):
                    self._report(active, detector, observations, deferred=True)
            except Exception as error:
                self.switch_off(active, detector, error)

    def run_closes(self, active: ActiveRun) -> None:
        """The run is about to close."""
        run, now_us = active.run, self._clock.now_us
        for detector in still_on(active, run.rules.detectors):
            try:
                if observations := detector.on_close(run, now_us):
                    self._report(active, detector, observations, deferred=True)
            except Exception as error:
                self.switch_off(active, detector, error)

    def switch_off(self, active: ActiveRun, detector: Detector, error: Exception) -> None:
        """A detector raised: switch it off for this run, and drop the state that it has kept of the
        run. A ``RuleError`` is only counted and reported.
        """
        run = active.run
        if isinstance(error, RuleError):
            self._rule_failed(detector, error)
            return
        run.off |= {detector.name}
        run.detector_state.pop(detector.name, None)
        finding = self._failures.report_detector(
            detector.applied.rule.rule,
            detector.name,
            error,
            self._clock.now_us,
            f"run {run.trace_id}",
        )
        if finding is not None:
            self._outbox.append(pipeline_output(finding))

    def _rule_failed(self, detector: Detector, error: RuleError) -> None:
        applied = detector.applied
        finding = self._failures.rule(applied.policy, detector.name, error, self._clock.now_us)
        if finding is not None:
            self._outbox.append(pipeline_output(finding))

    def switch_off_unencodable(self, active: ActiveRun) -> bool:
        """Switch off the detectors whose state of a run is no plain data. Returns whether there
        were any.
        """
        run, found = active.run, False
        for detector in run.rules.detectors:
            kept = run.detector_state.get(detector.name)
            if kept is None:
                continue
            try:
                msgspec.msgpack.encode(kept)
            except Exception as error:
                self.switch_off(active, detector, error)
                found = True
        return found

    def resolve_all(self, active: ActiveRun) -> None:
        """Send the findings that end what is still open about a closed run."""
        for finding in closing_findings(active.run, self._clock.now_us):
            self._send(active, Output("findings", finding.project.encode(), _encode(finding)))

    def _report(
        self,
        active: ActiveRun,
        detector: Detector,
        observations: Iterable[Observation],
        *,
        deferred: bool = False,
    ) -> None:
        """Send what is new in ``observations``. ``deferred``: only once it is in an acknowledged
        state record.

        A replay of the log finds again what follows from the records alone. What only time or a
        baseline has shown it may not find again.
        """
        run, now_us, counters = active.run, self._clock.now_us, self._counters
        for finding in findings_from(run, detector.applied, observations, now_us, counters):
            counters.findings += 1
            active.publication.is_outdated = active.publication.is_urgent = True
            self._send_or_defer(
                active, Output("findings", finding.project.encode(), _encode(finding)), deferred
            )
            command = command_for(finding)
            if command is not None:
                counters.commands += 1
                note_stop_command(run, command, now_us)
                self._send_or_defer(
                    active, Output("control", command.trace_id.encode(), _encode(command)), deferred
                )
        if run.closed:
            self.resolve_all(active)

    def _send_or_defer(self, active: ActiveRun, output: Output, deferred: bool) -> None:
        checkpoint = active.checkpoint
        if deferred or checkpoint.deferred:  # outputs keep the order in which they were found
            checkpoint.defer_output(output)
        else:
            self._send(active, output)


def still_on(active: ActiveRun, detectors: Iterable[Detector]) -> Iterable[Detector]:
    """Those that have not raised in this run."""
    off = active.run.off
    return [detector for detector in detectors if detector.name not in off] if off else detectors
