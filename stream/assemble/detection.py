"""The detectors of a run: asked about its records, the time and its end, and what they say is sent or announced.

Whatever a detector raises is contained here: it is off for that run from then on, and the run goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from stepstream.schemas.step import Step
from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.assemble.schedule import DetectorRaised, next_look
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.contained_failures import ContainedFailures, pipeline_output
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors.base import Detector, Observation
from stepstream.stream.detectors.findings import closing_findings, command_for, findings_from
from stepstream.stream.detectors.stop_ignored import note_order
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.limits import NEVER_US, AssembleLimits
from stepstream.stream.run.steps import StepInfo

_encode = msgspec.json.Encoder().encode


class Outbox(Protocol):
    """Where what is found goes."""

    def __call__(self, tracked: RunCheckpoint, output: Output) -> None:
        """Send an output of a run."""


class Detection:
    """Asks the detectors of the runs of one partition."""

    def __init__(
        self,
        clock: PartitionClock,
        limits: AssembleLimits,
        counters: Counters,
        failures: ContainedFailures,
        send: Outbox,
        post: list[Output],
    ) -> None:
        """``post`` takes outputs that belong to no run."""
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._failures = failures
        self._send = send
        self._post = post

    def step(self, tracked: RunCheckpoint, info: StepInfo, step: Step) -> None:
        """One record was merged into ``info``."""
        run, now_us = tracked.run, self._clock.now_us
        rules = run.rules
        detectors = rules.observing if run.fired else rules.observers(info)
        for detector in detectors if not run.off else still_on(tracked, detectors):
            try:
                if observations := detector.observe(run, info, now_us):
                    self._raise(
                        tracked,
                        detector,
                        observations,
                        by_time=detector.writes_first and not run.closed,
                    )
            except Exception as error:
                self.switch_off(tracked, detector, error)
        if (
            step.phase == "end"
            and self._limits.content_detectors
            and (readers := rules.readers(step.kind))
        ):
            contents = Contents(step)
            for detector in readers if not run.off else still_on(tracked, readers):
                try:
                    if observations := detector.read(run, info, contents, now_us):
                        self._raise(tracked, detector, observations)
                except Exception as error:
                    self.switch_off(tracked, detector, error)
        if info is run.root:
            tracked.wants_look = True
            tracked.urgent |= (
                info.ended and not run.open
            )  # whoever looks now is told that it is over
        elif run.look_us < NEVER_US or run.next_timer_us < (tracked.scheduled_us or 0):
            tracked.wants_look = True

    def time(self, tracked: RunCheckpoint) -> None:
        """Time has passed for an open run."""
        run, now_us = tracked.run, self._clock.now_us
        if due := run.take_due_timers(now_us):
            self._fire(tracked, due)
        for detector in still_on(tracked, run.rules.timed):
            try:
                if observations := detector.on_time(run, now_us):
                    self._raise(tracked, detector, observations, by_time=True)
            except Exception as error:
                self.switch_off(tracked, detector, error)

    def begin(self, tracked: RunCheckpoint) -> None:
        """A run has begun: let its detectors set their first timers."""
        if tracked.run.rules.timers:
            self._fire(tracked, frozenset(detector.name for detector in tracked.run.rules.timers))

    def _fire(self, tracked: RunCheckpoint, names: frozenset[str]) -> None:
        run, now_us = tracked.run, self._clock.now_us
        for detector in still_on(tracked, run.rules.timers):
            if detector.name not in names:
                continue
            try:
                if observations := detector.on_timer(run, now_us):
                    self._raise(tracked, detector, observations, by_time=True)
            except Exception as error:
                self.switch_off(tracked, detector, error)

    def end(self, tracked: RunCheckpoint) -> None:
        """The run is about to close."""
        run, now_us = tracked.run, self._clock.now_us
        for detector in still_on(tracked, run.rules.detectors):
            try:
                if observations := detector.on_close(run, now_us):
                    self._raise(tracked, detector, observations, by_time=True)
            except Exception as error:
                self.switch_off(tracked, detector, error)

    def next_look(self, tracked: RunCheckpoint) -> int | None:
        """When to look at the run next, where that is before what is scheduled."""
        while True:
            try:
                return next_look(tracked, self._limits, self._clock.now_us)
            except DetectorRaised as raised:  # it is off from now on, so this ends
                self.switch_off(tracked, raised.detector, raised.error)

    def switch_off(self, tracked: RunCheckpoint, detector: Detector, error: Exception) -> None:
        """A detector raised: it is off for this run, and what it kept of the run is dropped."""
        run = tracked.run
        run.off |= {detector.name}
        run.detector_state.pop(detector.name, None)
        finding = self._failures.detector(
            detector.applied.rule.rule,
            detector.name,
            error,
            self._clock.now_us,
            f"run {run.trace_id}",
        )
        if finding is not None:
            self._post.append(pipeline_output(finding))

    def switch_off_unencodable(self, tracked: RunCheckpoint) -> bool:
        """Switch off the detectors whose state of a run is no plain data; whether there were any."""
        run, found = tracked.run, False
        for detector in run.rules.detectors:
            kept = run.detector_state.get(detector.name)
            if kept is None:
                continue
            try:
                msgspec.msgpack.encode(kept)
            except Exception as error:
                self.switch_off(tracked, detector, error)
                found = True
        return found

    # -- what they say -------------------------------------------------------------------------------------------------

    def resolve_all(self, tracked: RunCheckpoint) -> None:
        """Troubles end with their run."""
        for finding in closing_findings(tracked.run, self._clock.now_us):
            self._send(tracked, Output("findings", finding.project.encode(), _encode(finding)))

    def send_announced(self, tracked: RunCheckpoint) -> None:
        """The state that names what was announced is acknowledged."""
        ready, tracked.announced = (
            tracked.announced[: tracked.announcing],
            tracked.announced[tracked.announcing :],
        )
        tracked.announcing = 0
        for output in ready:
            self._send(tracked, output)

    def _raise(
        self,
        tracked: RunCheckpoint,
        detector: Detector,
        observations: Iterable[Observation],
        *,
        by_time: bool = False,
    ) -> None:
        for finding in findings_from(
            tracked.run, detector.applied, observations, self._clock.now_us, self._counters
        ):
            self._counters.findings += 1
            tracked.dirty = tracked.urgent = True
            self._tell(
                tracked, Output("findings", finding.project.encode(), _encode(finding)), by_time
            )
            command = command_for(finding)
            if command is not None:
                self._counters.commands += 1
                note_order(tracked.run, command, self._clock.now_us)
                self._tell(
                    tracked, Output("control", command.trace_id.encode(), _encode(command)), by_time
                )
        if tracked.run.closed:
            self.resolve_all(tracked)

    def _tell(self, tracked: RunCheckpoint, output: Output, by_time: bool) -> None:
        """Send what a replay of the log would find again. What only time or a baseline has shown is in the state first.

        Else a crash after sending it would leave a trouble that nobody knows of, and that nobody ends.
        """
        if by_time or tracked.announced:  # in the order in which they were found
            tracked.announced.append(output)
            tracked.wants_cover = True
        else:
            self._send(tracked, output)


def still_on(tracked: RunCheckpoint, detectors: Iterable[Detector]) -> Iterable[Detector]:
    """Those that have not raised in this run."""
    off = tracked.run.off
    return [detector for detector in detectors if detector.name not in off] if off else detectors
