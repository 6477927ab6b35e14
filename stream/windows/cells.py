"""The hours that are not sealed to their end, minute by minute, and the records that seal them."""

from __future__ import annotations

from collections.abc import Iterator

from stepstream.schemas.calendar import HOUR_US
from stepstream.schemas.fleet import FleetWindowStruct, fleet_key
from stepstream.schemas.money import usd_from_nanos
from stepstream.stream.windows.records import MINUTE_US, Owner
from stepstream.stream.windows.rows import COST, Row, row_from_minute, row_to_minute

Hours = dict[int, dict[int, Row]]
"""By the hour's beginning: rows by their minute within the hour."""


class Cells:
    """One cell for each owner and hour."""

    def __init__(self) -> None:
        self.hours: dict[Owner, Hours] = {}

    def row(self, owner: Owner, minute: int) -> Row:
        """The row of a minute."""
        within = minute % HOUR_US
        start = minute - within
        hours = self.hours.get(owner)
        if hours is None:
            hours = self.hours[owner] = {}
        rows = hours.get(start)
        if rows is None:
            rows = hours[start] = {}
        row = rows.get(within // MINUTE_US)
        if row is None:
            row = rows[within // MINUTE_US] = Row()
        return row

    def seal(self, since: int, until: int, through: int) -> Iterator[FleetWindowStruct]:
        """A record for each hour with minutes between the two times; hours that are over are let go."""
        for owner in list(self.hours):
            hours = self.hours[owner]
            for start in [start for start in sorted(hours) if start < until]:
                if start + HOUR_US > since and _has_minutes(start, hours[start], since, until):
                    yield _window(owner, start, hours[start], until, through)
                if start + HOUR_US <= until:
                    del hours[start]
            if not hours:
                del self.hours[owner]

    def restore(self, window: FleetWindowStruct, until: int) -> Iterator[tuple[Owner, int, Row]]:
        """Take over what a record says of the time before ``until``: owner, minute and row of each."""
        owner = owner_of(window)
        for item in window.minutes:
            minute = window.start + item.minute * MINUTE_US
            if minute >= until:
                continue
            row = row_from_minute(item)
            if window.start + HOUR_US > until:
                self.row(owner, minute).join(row)
            yield owner, minute, row


def owner_of(window: FleetWindowStruct) -> Owner:
    """Whose window it is."""
    return (window.project, window.environment, window.agent, window.agent_version, window.task, window.user_id)


def window_key(owner: Owner, start: int) -> bytes:
    """The key of a window on the fleet topic."""
    project, *rest = owner
    return fleet_key(project, "window", *rest, start)


def _has_minutes(start: int, rows: dict[int, Row], since: int, until: int) -> bool:
    return any(since <= start + minute * MINUTE_US < until for minute in rows)


def _window(owner: Owner, start: int, rows: dict[int, Row], until: int, through: int) -> FleetWindowStruct:
    sealed = [(minute, row) for minute, row in sorted(rows.items()) if start + minute * MINUTE_US < until and not row.is_empty]
    project, environment, agent, agent_version, task, user_id = owner
    return FleetWindowStruct(
        project=project,
        environment=environment,
        agent=agent,
        agent_version=agent_version,
        task=task,
        user_id=user_id,
        start=start,
        sealed_until=min(until, start + HOUR_US),
        through=through,
        cost_usd=usd_from_nanos(sum(row.sums[COST] for _, row in sealed)),
        minutes=[row_to_minute(minute, row) for minute, row in sealed],
    )
