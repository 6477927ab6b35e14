"""Decides whether workers and sinks make progress, from what they commit and write. Pure.

A component is stalled when there is work for it and no progress, when its consumer group has no
members, or when it is so far behind that Kafka will soon delete records it has not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.findings import pipeline_finding
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.ids import derived_id

PROJECT: Final = "stepstream"
PROBE_AGENT: Final = "stepstream-probe"
ALERT: Final = "pipeline-stalled"
RULE: Final = "pipeline_stalled"
SUSPENDED_FACTOR: Final = 4
"""After a pause of this many check intervals the machine must have been suspended."""


@dataclass(frozen=True, slots=True)
class ProgressReading:
    """The progress of one component on one topic that it reads, at one moment."""

    part: str
    topic: str
    inputs: int
    """Number of records ever written to the topic."""
    progress: int
    """A number that grows with everything the component commits or writes."""
    lag: int
    """Records not processed yet; -1 if the lag does not show progress."""
    share: float = 0.0
    """The lag as a share of what Kafka keeps, in the worst partition; 0 until it deletes some."""
    members: int = 1
    """Members of the consumer group."""


@dataclass(frozen=True, slots=True)
class StallChange:
    """A component that is stalled from now on, or no longer."""

    part: str
    stalled: bool
    reason: str = ""


@dataclass(slots=True)
class _LastProgress:
    progress: int
    inputs: int
    moved_us: int
    """When it last made progress or had nothing to do."""
    had_members_us: int


@dataclass(slots=True)
class PipelineMonitor:
    """The stalled components, and the last progress of each."""

    after_us: int
    lag_share: float
    interval_us: int
    _last: dict[tuple[str, str], _LastProgress] = field(default_factory=dict)
    _stalled: dict[str, str] = field(default_factory=dict)
    _checked_us: int = 0

    def check(self, readings: Sequence[ProgressReading], now_us: int) -> list[StallChange]:
        """Returns the components whose state changes."""
        if self._checked_us and now_us - self._checked_us > SUSPENDED_FACTOR * self.interval_us:
            self._last.clear()
        self._checked_us = now_us
        reasons: dict[str, str] = {}
        for reading in readings:
            reason = self._reason(reading, now_us)
            if reason:
                reasons.setdefault(reading.part, reason)
        return self._changes(reasons, {reading.part for reading in readings})

    def set_stalled(self, part: str, reason: str) -> list[StallChange]:
        """A stall that was found elsewhere; an empty reason ends it."""
        return self._changes({part: reason} if reason else {}, {part})

    def adopt(self, parts: Iterable[str]) -> None:
        """Components that were stalled before this monitor began."""
        self._stalled |= dict.fromkeys(parts, "")

    @property
    def stalled(self) -> frozenset[str]:
        """The components that are stalled now."""
        return frozenset(self._stalled)

    def _changes(self, reasons: dict[str, str], checked: set[str]) -> list[StallChange]:
        found = []
        for part in sorted(checked):
            if part in reasons and part not in self._stalled:
                self._stalled[part] = reasons[part]
                found.append(StallChange(part, True, reasons[part]))
            elif part not in reasons and part in self._stalled:
                del self._stalled[part]
                found.append(StallChange(part, False))
        return found

    def _reason(self, reading: ProgressReading, now_us: int) -> str:
        """Why the component is stalled; empty if it is not."""
        last = self._update(reading, now_us)
        if now_us - last.had_members_us >= self.after_us:
            return f"no {reading.part} runs, for {format_duration(now_us - last.had_members_us)}"
        if now_us - last.moved_us >= self.after_us:
            if reading.lag >= 0:
                work = f"{reading.lag:,} records wait"
            else:
                work = f"{reading.inputs - last.inputs:,} records came"
            return f"the {reading.part} makes no progress on {reading.topic}: {work}"
        if reading.share >= self.lag_share:
            return (
                f"the {reading.part} is behind on {reading.topic} by {reading.share:.0%} of what "
                f"Kafka keeps: records will be deleted unread"
            )
        return ""

    def _update(self, reading: ProgressReading, now_us: int) -> _LastProgress:
        key = (reading.part, reading.topic)
        last = self._last.get(key)
        if last is None:
            last = _LastProgress(reading.progress, reading.inputs, now_us, now_us)
            self._last[key] = last
        if reading.members:
            last.had_members_us = now_us
        is_idle = reading.inputs == last.inputs if reading.lag < 0 else reading.lag == 0
        if is_idle or reading.progress != last.progress:
            last.progress, last.inputs, last.moved_us = reading.progress, reading.inputs, now_us
        return last


def finding_of(change: StallChange, now_us: int, opened_us: int) -> FindingStruct:
    """The finding of a change, for the findings topic."""
    state = "firing" if change.stalled else "resolved"
    advice = "what is not processed waits in Kafka; `stepstream doctor` shows more"
    return pipeline_finding(
        ALERT,
        RULE,
        change.part,
        change.reason or f"the {change.part} works again",
        now_us,
        names=("finding", RULE, change.part, opened_us, state),
        state=state,
        severity="critical",
        detail=advice if change.stalled else "",
    )


def alert_of(finding: FindingStruct, opened_us: int) -> AlertStruct:
    """The alert that the alert stage makes of the finding, with the same id.

    The notifier delivers it without waiting for a worker, which may be what is stalled. The same
    id prevents a second delivery when the worker makes the alert later.
    """
    group = (PROJECT, "", "", ALERT, "", finding.subject)
    is_resolved = finding.state == "resolved"
    return AlertStruct(
        alert_id=derived_id("alert", *group, opened_us),
        seq=2 if is_resolved else 1,
        change="resolved" if is_resolved else "opened",
        state="resolved" if is_resolved else "firing",
        severity="critical",
        alert=ALERT,
        rule=RULE,
        project=PROJECT,
        subject=finding.subject,
        message=finding.message,
        detail=finding.detail,
        opened_at=opened_us,
        updated_at=finding.time,
        resolved_at=finding.time if is_resolved else 0,
        finding_ids=[finding.finding_id],
    )
