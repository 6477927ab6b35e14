"""What is firing over windows, and the findings that say so: named by the log, so that a replay makes the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from stepstream.schemas.alert import FindingSeverity, FindingStruct, Unit
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id


@dataclass(frozen=True, slots=True)
class WindowObservation:
    """What a window detector sees now. ``level`` tells apart what is worse about the same subject."""

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


class Firing(msgspec.Struct):
    """A trouble that was told and has not ended. ``until``: it ends then; 0: when it is no longer seen for a while."""

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
        """What tells it from others that are firing."""
        return firing_key(
            self.policy,
            self.alert,
            self.project,
            self.environment,
            self.agent,
            self.subject,
            self.level,
        )


def firing_key(
    policy: str, alert: str, project: str, environment: str, agent: str, subject: str, level: str
) -> str:
    """The key of a trouble."""
    return "\x1f".join((policy, alert, project, environment, agent, subject, level))


def finding(firing: Firing, trouble: WindowObservation, time_us: int) -> FindingStruct:
    """The finding that tells of a trouble."""
    return new_finding(
        firing,
        _id(firing, "firing"),
        time_us,
        severity=firing.severity,
        agent_version=trouble.agent_version,
        value=trouble.value,
        threshold=trouble.threshold,
        unit=trouble.unit,
        baseline=trouble.baseline,
        baseline_runs=trouble.baseline_runs,
        message=trouble.message,
        detail=trouble.detail,
    )


def ended(firing: Firing, message: str, time_us: int) -> FindingStruct:
    """The finding that ends a trouble."""
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
