"""Everything that the worker counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Counters:
    """Counts since the process started, of what this process did: a record that is read again
    counts again.
    """

    records: int = 0
    accepted: int = 0
    duplicates: int = 0
    late: int = 0
    too_late: int = 0
    orphans: int = 0
    misrouted: int = 0
    over_limit: int = 0
    runs_opened: int = 0
    runs_closed: int = 0
    forced_closed: int = 0
    closed_forgotten: int = 0
    trajectories: int = 0
    trajectories_delayed: int = 0
    findings: int = 0
    findings_over_limit: int = 0
    contents_unread: int = 0
    alerts: int = 0
    commands: int = 0
    states: int = 0
    halts: int = 0
    fuses: int = 0
    poison_skipped: int = 0
    usage_records: int = 0
    usage_repeats: int = 0
    usage_too_late: int = 0
    usage_over_limit: int = 0
    usage_forced_seals: int = 0
    usage_unknown: int = 0
    windows_sealed: int = 0
    runs_not_learnt: int = 0
    baselines_forgotten: int = 0
    owners_not_learnt: int = 0
    runs_given_up: int = 0
    # By rule, alert, reason and field; of tasks by what happened.
    detector_errors: Counter[str] = field(default_factory=Counter)
    rule_errors: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    clamped: Counter[str] = field(default_factory=Counter)

    def nonzero(self) -> dict[str, int]:
        """The counts above 0 by name, for a log line."""
        counts: dict[str, int] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Counter):
                counts.update({f"{item.name}_{reason}": count for reason, count in value.items()})
            elif value:
                counts[item.name] = value
        return counts
