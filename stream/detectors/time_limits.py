"""Time limits: long runs, long steps, steps that hang, runs without records.

A timer evaluates them, so they are reported without a further record.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Literal

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.rule_base import Glob, RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import (
    NOTHING,
    DetectorBase,
    Observation,
    Observations,
)
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class RunDuration(RuleBase):
    """The run is still going after a limit of time, or took longer."""

    fires_when = "the run takes longer than the limit, also while it is running"
    usual_severity = "error"

    rule: Literal["run_duration"]
    limit: DurationUs


class StepDuration(RuleBase):
    """A step, of one kind, tool or model, is still going after a limit of time, or took longer."""

    about_one_run = True
    fires_when = "a step takes longer than the limit, also while it is running"
    usual_severity = "warning"

    rule: Literal["step_duration"]
    limit: DurationUs
    kind: Glob = "*"
    tool: Glob = "*"
    model: Glob = "*"


class HungStep(RuleBase):
    """A step was started and does not end while nothing else happens in the run."""

    on_by_default = True
    about_one_run = True
    fires_when = "a step does not end while nothing else happens in the run"
    usual_severity = "error"

    rule: Literal["hung_step"]
    after: DurationUs = 300_000_000


class StuckRun(RuleBase):
    """The root is open and nothing has happened for a while."""

    on_by_default = True
    fires_when = "the root step is open and no record has arrived for a while"
    usual_severity = "error"

    rule: Literal["stuck_run"]
    after: DurationUs = 1_800_000_000


def _observation(
    message: str,
    severity: FindingSeverity,
    took_us: int,
    limit_us: int,
    *,
    step_ids: tuple[str, ...],
    subject: str = "",
    detail: str = "",
) -> Observation:
    """A time that is longer than its limit."""
    return Observation(
        message=message,
        severity=severity,
        subject=subject,
        step_ids=step_ids,
        value=float(took_us),
        threshold=float(limit_us),
        unit="us",
        detail=detail,
    )


def _is_early(run: Run, alert: str, due_us: int, now_us: int) -> bool:
    """Whether a time has not come yet; then the timer is set for it."""
    # One timer a run, set again where records have moved the deadline meanwhile: setting it with
    # each record would cost more than one call in so long a time.
    if now_us < due_us:
        run.set_timer(alert, due_us)
        return True
    return False


@detector_for(RunDuration)
class RunDurationDetector(DetectorBase[RunDuration]):
    """Evaluated by the append time while the run is going, by its own times once it has ended."""

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """True: records arrive out of order, so any step may be the first after the root's end."""
        return True

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Report the root's own duration once it has ended."""
        root = run.root
        if (
            root is None
            or not root.ended
            or root.end_us - root.start_us <= self.rule.limit
            or self.has_fired(run)
        ):
            return NOTHING
        return (self._observation(run, root.end_us - root.start_us),)

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report an open run; its time counts from the append time of its first record."""
        if not run.live or run.root_ended or run.closed or self.has_fired(run):
            return NOTHING
        due_us = run.first_append_us + self.rule.limit
        if _is_early(run, self.name, due_us, now_us):
            return NOTHING
        return (self._observation(run, now_us - run.first_append_us),)

    def _observation(self, run: Run, took_us: int) -> Observation:
        waiting = sorted(run.open.values(), key=lambda info: -info.start_us)[:3]
        inner = [info for info in waiting if info is not run.root]
        limit = format_duration(self.rule.limit)
        return _observation(
            f"{format_duration(took_us)}, the limit is {limit}",
            self.severity("error"),
            took_us,
            self.rule.limit,
            step_ids=tuple(info.step_id for info in inner),
            detail=f"waiting for {inner[0].kind} {inner[0].label}" if inner else "",
        )


@detector_for(StepDuration)
class StepDurationDetector(DetectorBase[StepDuration]):
    """A step of one kind, tool or model takes longer than a limit."""

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        return True

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Report an ended step by its own times; set the timer of one that has started."""
        if not self._is_matched(step):
            return NOTHING
        if step.is_open and run.live:
            run.set_timer(self.name, step.append_us + self.rule.limit)
        took_us = step.end_us - step.start_us
        if not step.ended or took_us <= self.rule.limit:
            return NOTHING
        return (self._observation(run, step, took_us),)

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report the open steps whose limit has passed."""
        deadlines = list(self._deadlines(run))
        later = [due for due, _ in deadlines if due > now_us]
        if later:
            run.set_timer(self.name, min(later))
        return [
            self._observation(run, step, now_us - step.append_us)
            for due, step in deadlines
            if now_us >= due
        ]

    def _deadlines(self, run: Run) -> Iterator[tuple[int, StepInfo]]:
        if not run.live:
            return
        for step in run.open.values():
            if self._is_matched(step) and not self.has_fired(run, step.step_id):
                yield step.append_us + self.rule.limit, step

    def _is_matched(self, step: StepInfo) -> bool:
        rule = self.rule
        if not step.parent and rule.kind == "*":
            return False  # the run itself: run_duration evaluates it
        return (
            (rule.kind == "*" or fnmatchcase(step.kind, rule.kind))
            and (rule.tool == "*" or fnmatchcase(step.tool, rule.tool))
            and (rule.model == "*" or fnmatchcase(step.model, rule.model))
        )

    def _observation(self, run: Run, step: StepInfo, took_us: int) -> Observation:
        state = "took" if step.ended else "has been running for"
        limit = format_duration(self.rule.limit)
        return _observation(
            f"{step.kind} {step.label} {state} {format_duration(took_us)}, the limit is {limit}",
            self.severity("warning"),
            took_us,
            self.rule.limit,
            subject=step.step_id,
            step_ids=(step.step_id,),
        )


@detector_for(HungStep)
class HungStepDetector(DetectorBase[HungStep]):
    """A step was started and does not end while nothing else happens in the run.

    Resolved when it ends after all.
    """

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """False: the rule fires by timer. Once it has, ``on_step`` is called to resolve it."""
        return False

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Resolve the finding of a step that has ended."""
        if run.fired and step.ended and self.has_fired(run, step.step_id):
            message = (
                f"{step.kind} {step.label} ended after "
                f"{format_duration(step.end_us - step.start_us)}"
            )
            return (
                Observation(
                    message, "info", subject=step.step_id, step_ids=(step.step_id,), resolved=True
                ),
            )
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report the innermost open steps once no record has arrived for ``after``."""
        if not run.live:
            return NOTHING
        due_us = run.last_append_us + self.rule.after
        if _is_early(run, self.name, due_us, now_us):
            return NOTHING
        run.set_timer(self.name, now_us + self.rule.after)
        return [
            self._observation(run, step, now_us - step.append_us) for step in self._hanging(run)
        ]

    def _hanging(self, run: Run) -> Iterator[StepInfo]:
        """Open steps below the root with no open child, not reported yet."""
        if len(run.open) - (run.root is not None and run.root.is_open) == 0:
            return
        if any(step.kind == "control" for step in run.open.values()):
            # a command is not acknowledged yet, or the run is paused: stop_ignored reports it
            return
        parents = {step.parent for step in run.open.values()}
        for step in run.open.values():
            if (
                step.parent
                and step.step_id not in parents
                and not self.has_fired(run, step.step_id)
            ):
                yield step

    def _observation(self, run: Run, step: StepInfo, open_us: int) -> Observation:
        return _observation(
            f"{step.kind} {step.label} started {format_duration(open_us)} ago, has not ended, "
            "and nothing else happens in the run",
            self.severity("error"),
            open_us,
            self.rule.after,
            subject=step.step_id,
            step_ids=(step.step_id,),
        )


@detector_for(StuckRun)
class StuckRunDetector(DetectorBase[StuckRun]):
    """The root is open and nothing has happened for a while.

    Resolved when something happens again.
    """

    def wants_step(self, kind: str, *, ended: bool) -> bool:
        """False: the rule fires by timer. Once it has, ``on_step`` is called to resolve it."""
        return False

    def on_step(self, run: Run, step: StepInfo, now_us: int) -> Observations:
        """Resolve the finding with any record."""
        before = run.fired.get(f"{self.name}||") if run.fired else None
        if before is not None and not before.resolved:
            return (
                Observation(
                    f"the run went on with {step.kind} {step.label}", "info", resolved=True
                ),
            )
        return NOTHING

    def on_timer(self, run: Run, now_us: int) -> Observations:
        """Report an open root once no record has arrived for ``after``."""
        if not run.live or run.root_ended or self.has_fired(run):
            return NOTHING
        due_us = run.last_append_us + self.rule.after
        if _is_early(run, self.name, due_us, now_us):
            return NOTHING
        if run.root is None:
            run.set_timer(self.name, now_us + self.rule.after)  # the root may still arrive
            return NOTHING
        silent_us = now_us - run.last_append_us
        return (
            _observation(
                f"nothing has happened for {format_duration(silent_us)}, and the run has not ended",
                self.severity("error"),
                silent_us,
                self.rule.after,
                step_ids=tuple(run.open)[:5],
            ),
        )
