"""Retention of the store: days by kind of data, with different days for some projects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.accept import Limits
from stepstream.schemas.content_limits import record_bytes
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US

KINDS: Final = ("steps", "runs", "alerts", "metrics", "tasks")
"""Each has a setting ``KIND_retention_days``."""

_ENTRY: Final = re.compile(r" *(.+)\.(\w+)=(\d+)")


@dataclass(frozen=True)
class Retention:
    """Retention of one kind of data; ``projects`` has the projects with different days, sorted."""

    days: int
    projects: tuple[tuple[str, int], ...] = ()
    by_project: Mapping[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_project", dict(self.projects))

    def of(self, project: str) -> int:
        """Retention of a project in days."""
        return self.by_project.get(project, self.days)

    @property
    def shortest(self) -> int:
        """The shortest retention of any project."""
        return min([self.days, *self.by_project.values()])

    def __str__(self) -> str:
        own = ", ".join(f"{project} {days}" for project, days in self.projects)
        return f"{self.days} days ({own})" if own else f"{self.days} days"


def retention(settings: Settings, kind: str) -> Retention:
    """The retention of a kind of data. Projects with the default days are left out."""
    days: int = getattr(settings, f"{kind}_retention_days")
    own = {}
    for entry in filter(None, settings.retention_by_project.split(",")):
        found = _ENTRY.fullmatch(entry)
        if found is not None and found[2] == kind:
            own[found[1]] = int(found[3])
    return Retention(
        days, tuple(sorted((project, kept) for project, kept in own.items() if kept != days))
    )


def record_limits(settings: Settings) -> Limits:
    """Limits of step records; the worker and the sink must use the same."""
    kept = retention(settings, "steps")
    ages_us = tuple((project, days * DAY_US) for project, days in kept.projects)
    # Without projects of their own every project has the same age, which max_age_us already is.
    others = (("", kept.days * DAY_US),) if ages_us else ()
    return Limits(
        max_record_bytes=record_bytes(settings.content_bytes_by_kind),
        content_bytes_by_kind=settings.content_bytes_by_kind,
        max_age_us=kept.shortest * DAY_US,
        project_ages_us=ages_us + others,
    )
