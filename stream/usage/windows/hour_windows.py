"""The hours that are not sealed to their end, minute by minute, and the records that seal them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stepstream.schemas.fleet import FleetWindowStruct, fleet_key
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.usage.windows.records import Owner
from stepstream.stream.usage.windows.totals import (
    COST,
    Totals,
    totals_from_minute,
    totals_to_minute,
)


class HourWindow:
    """One owner's hour.

    Rows by their minute within it, and the parts of it that were sealed before.
    """

    __slots__ = ("parts", "rows")

    def __init__(self) -> None:
        self.rows: dict[int, Totals] = {}
        self.parts: list[tuple[int, int]] = []


class HourWindows:
    """One cell for each owner and hour."""

    def __init__(self) -> None:
        self.hours: dict[Owner, dict[int, HourWindow]] = {}

    def cell(self, owner: Owner, start: int) -> HourWindow:
        """The cell of an hour."""
        hours = self.hours.get(owner)
        if hours is None:
            hours = self.hours[owner] = {}
        cell = hours.get(start)
        if cell is None:
            cell = hours[start] = HourWindow()
        return cell

    def row(self, owner: Owner, minute: int) -> Totals:
        """The row of a minute."""
        within = minute % HOUR_US
        rows = self.cell(owner, minute - within).rows
        row = rows.get(within // MINUTE_US)
        if row is None:
            row = rows[within // MINUTE_US] = Totals()
        return row

    def seal(
        self, since: int, until: int, through: int
    ) -> Iterator[tuple[bytes, FleetWindowStruct | None]]:
        """Keys and records of what lies between the two times.

        An hour that is over replaces its parts.
        """
        for owner in list(self.hours):
            hours = self.hours[owner]
            # In the order of time, so that every worker writes the same records in the same order.
            for start in [start for start in sorted(hours) if start < until]:
                yield from _seal(owner, start, hours[start], max(since, start), until, through)
                if start + HOUR_US <= until:
                    del hours[start]
            if not hours:
                del self.hours[owner]

    def restore(
        self, windows: Iterable[FleetWindowStruct], until: int
    ) -> Iterator[tuple[Owner, int, Totals]]:
        """Take over what was sealed before ``until``: owner, minute and row of each."""
        by_hour: dict[tuple[Owner, int], list[FleetWindowStruct]] = {}
        for window in windows:
            by_hour.setdefault(
                (owner_of(window), window.start - window.start % HOUR_US), []
            ).append(window)
        for (owner, start), found in by_hour.items():
            is_open = start + HOUR_US > until
            if is_open:
                self.cell(owner, start).parts = [
                    (w.start, w.end) for w in found if w.end - w.start < HOUR_US
                ]
            # An hour and its parts may both be there, if a crash came before the parts were
            # deleted.
            for window in [w for w in found if w.end - w.start == HOUR_US] or found:
                for item in window.minutes:
                    minute = start + item.minute * MINUTE_US
                    if minute < until:
                        row = totals_from_minute(item)
                        if is_open:
                            self.row(owner, minute).join(row)
                        yield owner, minute, row


def _seal(
    owner: Owner, start: int, cell: HourWindow, since: int, until: int, through: int
) -> Iterator[tuple[bytes, FleetWindowStruct | None]]:
    end = start + HOUR_US
    if until < end:
        # A part without rows would be a record that no reader needs.
        if any(since <= start + minute * MINUTE_US < until for minute in cell.rows):
            cell.parts.append((since, until))
            yield (
                window_key(owner, since, until),
                _window(owner, start, cell.rows, since, until, through),
            )
        return
    yield window_key(owner, start, end), _window(owner, start, cell.rows, start, end, through)
    # Deleted after the hour is written: a reader in between finds both and ignores the parts.
    for part in cell.parts:
        yield window_key(owner, *part), None


def owner_of(window: FleetWindowStruct) -> Owner:
    """The owner whose usage the window contains."""
    return (
        window.project,
        window.environment,
        window.agent,
        window.agent_version,
        window.task,
        window.user_id,
    )


def window_key(owner: Owner, start: int, end: int) -> bytes:
    """The key of a window on the fleet topic."""
    project, *rest = owner
    return fleet_key(project, "window", *rest, start, end)


def _window(
    owner: Owner, hour: int, rows: dict[int, Totals], start: int, end: int, through: int
) -> FleetWindowStruct:
    sealed = [
        (minute, row)
        for minute, row in sorted(rows.items())
        if start <= hour + minute * MINUTE_US < end and not row.is_empty
    ]
    project, environment, agent, agent_version, task, user_id = owner
    return FleetWindowStruct(
        project=project,
        environment=environment,
        agent=agent,
        agent_version=agent_version,
        task=task,
        user_id=user_id,
        start=start,
        end=end,
        through=through,
        cost_usd=usd_from_nanos(sum(row.sums[COST] for _, row in sealed)),
        minutes=[totals_to_minute(minute, row) for minute, row in sealed],
    )
