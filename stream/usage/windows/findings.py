"""Findings over windows: what is firing, and its finding records, with ids derived from the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from stepstream.schemas.alert import FindingSeverity, FindingStruct, Unit
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id


@dataclass(frozen=True, slots=True)
class WindowObservation:
    """What a window detector observes now. ``level`` distinguishes degrees of the same subject."""

    message: str
    severity: FindingSeverity
    level: str = ""
    subject: str = ""
    agent_version: str = ""
    detail: str = ""
    value: float | None = None
    threshold: float | None = None
    unit: Unit = ""
    baseline: float | None = None
    baseline_runs: int = 0


class GroupKey(NamedTuple):
    """A rule's alert, and the agent that it is about."""

    alert: str
    policy: str
    project: str
    environment: str
    agent: str


class Firing(msgspec.Struct):
    """A finding that was sent and is not resolved.

    ``until``: it is resolved at this time; 0: once it was not observed for a while.
    """

    alert: str
    rule: str
    policy: str
    project: str
    environment: str
    agent: str
    subject: str
    level: str
    severity: FindingSeverity
    opened_at: int
    until: int = 0
    clear_since: int = 0

    @property
    def key(self) -> str:
        """Its key among those that are firing."""
        return firing_key(self.group, self.subject, self.level)

    @property
    def group(self) -> GroupKey:
        """The policy, alert and owner that the finding belongs to."""
        return GroupKey(self.alert, self.policy, self.project, self.environment, self.agent)


def firing_key(group: GroupKey, subject: str, level: str) -> str:
    """The key of a firing finding."""
    # Ids of findings are derived from this text: another order would be other findings.
    parts = (group.policy, group.alert, group.project, group.environment, group.agent)
    return "\x1f".join((*parts, subject, level))


def finding(
    firing: Firing, observed: WindowObservation, time_us: int, *, revision: int = 0
) -> FindingStruct:
    """The finding record of an observation; ``revision`` is that of its policy."""
    return new_finding(
        firing,
        _id(firing, "firing"),
        time_us,
        severity=firing.severity,
        agent_version=observed.agent_version,
        value=observed.value,
        threshold=observed.threshold,
        unit=observed.unit,
        baseline=observed.baseline,
        baseline_runs=observed.baseline_runs,
        message=observed.message,
        detail=observed.detail,
        policy_revision=revision,
    )


def ended(firing: Firing, message: str, time_us: int) -> FindingStruct:
    """The finding record that resolves it."""
    return new_finding(
        firing,
        _id(firing, "resolved"),
        time_us,
        state="resolved",
        severity="info",
        message=message,
    )


def _id(firing: Firing, state: str) -> str:
    return derived_id("window", firing.key, firing.opened_at, state)
