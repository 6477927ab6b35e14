"""Who watches the watcher: whether workers and sinks get on, judged by what they have committed and written. Pure.

A part is stalled when there is work for it and no progress, when nobody is left of it, or when it is so far behind that Kafka
will soon delete what it has not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.alert import AlertStruct, FindingStruct
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.ids import derived_id

PROJECT: Final = "stepstream"
PROBE_AGENT: Final = "stepstream-probe"
ALERT: Final = "pipeline-stalled"
RULE: Final = "pipeline_stalled"
ASLEEP: Final = 4
"""A look that comes so many times later than planned: the machine slept, and the parts with it."""


@dataclass(frozen=True, slots=True)
class ProgressReading:
    """One part and one topic that it reads, at one moment."""

    part: str
    topic: str
    inputs: int
    """Records that were ever written to the topic."""
    progress: int
    """Grows with everything that the part commits or writes."""
    lag: int
    """Records that are not done; -1 where a lag says nothing about progress."""
    share: float = 0.0
    """How much of what Kafka keeps is not done, at the worst partition; 0 while nothing was deleted yet."""
    members: int = 1


@dataclass(frozen=True, slots=True)
class StallChange:
    """A part that is in trouble, or no longer."""

    part: str
    stalled: bool
    reason: str = ""


@dataclass(slots=True)
class _Seen:
    progress: int
    inputs: int
    """At the last progress."""
    moved_us: int
    """When it last moved, or had nothing to do."""
    manned_us: int


@dataclass(slots=True)
class PipelineMonitor:
    """What was seen of each part so far."""

    after_us: int
    lag_share: float
    every_us: int
    _seen: dict[tuple[str, str], _Seen] = field(default_factory=dict)
    _troubled: dict[str, str] = field(default_factory=dict)
    _looked_us: int = 0

    def look(self, readings: Sequence[ProgressReading], now_us: int) -> list[StallChange]:
        """What has changed: parts that are stalled from now on, and parts that are well again."""
        if self._looked_us and now_us - self._looked_us > ASLEEP * self.every_us:
            self._seen.clear()
        self._looked_us = now_us
        reasons: dict[str, str] = {}
        for reading in readings:
            reason = self._judge(reading, now_us)
            if reason:
                reasons.setdefault(reading.part, reason)
        return self._changes(reasons, {reading.part for reading in readings})

    def troubled(self, part: str, reason: str) -> list[StallChange]:
        """Trouble that was seen elsewhere (empty: it is over)."""
        return self._changes({part: reason} if reason else {}, {part})

    def adopt(self, parts: Iterable[str]) -> None:
        """Parts that were in trouble before this watch began."""
        self._troubled |= dict.fromkeys(parts, "")

    @property
    def stalled(self) -> frozenset[str]:
        """Parts in trouble now."""
        return frozenset(self._troubled)

    def _changes(self, reasons: dict[str, str], looked_at: set[str]) -> list[StallChange]:
        found = []
        for part in sorted(looked_at):
            if part in reasons and part not in self._troubled:
                self._troubled[part] = reasons[part]
                found.append(StallChange(part, True, reasons[part]))
            elif part not in reasons and part in self._troubled:
                del self._troubled[part]
                found.append(StallChange(part, False))
        return found

    def _judge(self, reading: ProgressReading, now_us: int) -> str:
        key = (reading.part, reading.topic)
        seen = self._seen.get(key)
        if seen is None:
            seen = self._seen[key] = _Seen(reading.progress, reading.inputs, now_us, now_us)
        if reading.members:
            seen.manned_us = now_us
        idle = reading.inputs == seen.inputs if reading.lag < 0 else reading.lag == 0
        if reading.progress != seen.progress or idle:
            seen.progress, seen.inputs, seen.moved_us = reading.progress, reading.inputs, now_us
        if now_us - seen.manned_us >= self.after_us:
            return f"no {reading.part} runs, for {format_duration(now_us - seen.manned_us)}"
        if now_us - seen.moved_us >= self.after_us:
            waiting = (
                f"{reading.lag:,} records wait"
                if reading.lag >= 0
                else f"{reading.inputs - seen.inputs:,} records came"
            )
            return f"the {reading.part} makes no progress on {reading.topic}: {waiting}"
        if reading.share >= self.lag_share:
            return (
                f"the {reading.part} is behind on {reading.topic} by {reading.share:.0%} of what Kafka keeps: "
                f"records will be deleted unread"
            )
        return ""


def finding_of(verdict: StallChange, now_us: int, opened_us: int) -> FindingStruct:
    """The finding that says so; it goes the way of all findings, too."""
    state = "firing" if verdict.stalled else "resolved"
    return FindingStruct(
        finding_id=derived_id("finding", RULE, verdict.part, opened_us, state),
        state=state,
        time=now_us,
        project=PROJECT,
        alert=ALERT,
        rule=RULE,
        severity="critical",
        subject=verdict.part,
        message=verdict.reason or f"the {verdict.part} works again",
        detail="what is not processed waits in Kafka; `stepstream doctor` shows more"
        if verdict.stalled
        else "",
    )


def alert_of(finding: FindingStruct, opened_us: int) -> AlertStruct:
    """The alert as the fleet stage makes it of that finding, with the same id: so that it is told once, whoever is first."""
    group = (PROJECT, "", "", ALERT, "", finding.subject)
    over = finding.state == "resolved"
    return AlertStruct(
        alert_id=derived_id("alert", *group, opened_us),
        seq=2 if over else 1,
        change="resolved" if over else "opened",
        state="resolved" if over else "firing",
        severity="critical",
        alert=ALERT,
        rule=RULE,
        project=PROJECT,
        subject=finding.subject,
        message=finding.message,
        detail=finding.detail,
        opened_at=opened_us,
        updated_at=finding.time,
        resolved_at=finding.time if over else 0,
        finding_ids=[finding.finding_id],
    )
