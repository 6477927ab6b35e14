"""What detectors over windows evaluate, and their base class.

A detector evaluates a group of owners (the versions and tasks of one agent) as of a whole minute of
log time. It keeps nothing that cannot be computed again from the windows; which of its observations
are new is decided by ``windows.evaluation``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from stepstream.schemas.rule_base import WindowRuleBase
from stepstream.schemas.times import HOUR_US
from stepstream.stream.usage.windows.findings import WindowObservation
from stepstream.stream.usage.windows.series import Series, total
from stepstream.stream.usage.windows.totals import Totals
from stepstream.stream.usage.windows.version_book import VersionBook


@dataclass(frozen=True, slots=True)
class Group:
    """One agent in one environment. Minutes before ``sealed_until`` do not change any more."""

    project: str
    environment: str
    agent: str
    owners: Sequence[Series]
    sealed_until: int = 0

    def total(self, start: int, end: int) -> Totals:
        """What was used from ``start`` to before ``end``."""
        return total(self.owners, start, end)

    def hour(self, start: int) -> Totals:
        """What was used in a whole hour."""
        sums = Totals()
        for series in self.owners:
            row = series.hours.get(start)
            if row is not None:
                sums.join(row)
        return sums

    @property
    def first_hour(self) -> int | None:
        """The earliest hour that anything is known of."""
        return min((min(series.hours) for series in self.owners if series.hours), default=None)

    def sealed_hours(self, since: int) -> Iterator[int]:
        """The hours from ``since`` on that do not change any more, also those without steps."""
        yield from range(since, self.sealed_until - HOUR_US + 1, HOUR_US)

    @property
    def name(self) -> str:
        """For people."""
        return "/".join(part for part in (self.project, self.environment, self.agent) if part)


R = TypeVar("R", bound=WindowRuleBase)


class WindowDetectorBase(ABC, Generic[R]):
    """Evaluates one group by one rule.

    Each group has an instance of its own, as long as policies do not change.
    """

    def __init__(self, rule: R, versions: VersionBook) -> None:
        self.rule = rule
        self.versions = versions

    @abstractmethod
    def evaluate(self, group: Group, now_us: int) -> Iterable[WindowObservation]:
        """What is wrong as of ``now_us``, a whole minute of log time."""
