"""Compares rollups with the rows, per closed day and project, and replaces the days that differ.

The sink keeps repeats of the last million offsets out of the rollups. Later repeats, and changes
made by hand, are found here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from stepstream.schemas.retention import retention
from stepstream.schemas.settings import Settings
from stepstream.schemas.usage import TOTALLED
from stepstream.sinks.clickhouse.client import connect, explained
from stepstream.sinks.clickhouse.errors import StoreError
from stepstream.sinks.clickhouse.schema import template_values

logger = logging.getLogger(__name__)

ROLLUPS: Final = {"rollup_1m": "steps_to_rollup_1m", "rollup_1h": "steps_to_rollup_1h"}
"""Each rollup and the materialized view that adds up its rows; another view subtracts amended rows,
which FINAL does not count.
"""

QUIET: Final = timedelta(minutes=10)
"""A day to which steps were added this recently is not closed."""

_OTHERS: Final = ""
"""Stands for all projects without a retention of their own; no project has an empty name."""

_FROM_ROWS: Final = (
    "SELECT toDate(start_time) AS day, project, count(), countIf(status = 'error'), "
    "countIf(status = 'cancelled'), "
    f"countIf(cost_source = 'unpriced'), {', '.join(f'sum({name})' for name in TOTALLED)}, "
    "sum(ifNull(cost_usd, 0)), "
    "sum(duration_us) FROM steps_raw FINAL "
    "WHERE toDate(start_time) BETWEEN {first:Date} AND {last:Date} GROUP BY day, project"
)
_FROM_ROLLUP: Final = (
    "SELECT toDate(time) AS day, project, sum(r.steps), sum(r.error_steps), "
    "sum(r.cancelled_steps), sum(r.unpriced_steps), "
    f"{', '.join(f'sum(r.{name})' for name in TOTALLED)}, sum(r.cost_usd), sum(r.duration_us) "
    f"FROM {{table}} AS r "
    "WHERE toDate(time) BETWEEN {{first:Date}} AND {{last:Date}} GROUP BY day, project"
)

Sums = tuple[Any, ...]
Place = tuple[date, str]
"""A day and a project."""


@dataclass(frozen=True)
class Difference:
    """A day of a project on which a rollup differs from the rows.

    The sums begin with the number of steps.
    """

    day: date
    rollup: str
    project: str
    rows: Sums
    rolled_up: Sums
    repaired: bool


@dataclass(frozen=True)
class ReconcileReport:
    """What was compared and found."""

    first: date
    last: date
    days: int
    busy: list[date] = field(default_factory=list)
    """Days left out because steps are still being added to them."""
    differences: list[Difference] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether rows and rollups agree now."""
        return all(difference.repaired for difference in self.differences)


def reconcile(
    settings: Settings, *, repair: bool = True, now: datetime | None = None, at_rest: bool = False
) -> ReconcileReport:
    """Compare, and repair what differs. Only one may run at a time; sinks may run meanwhile.

    Compares the days before yesterday whose rows have not begun to expire, or all days up to
    tomorrow with ``at_rest``, for when no sink runs. Raises a ``StoreError``.
    """
    client = connect(settings)
    try:
        return _Reconciler(client, settings, now or datetime.now(UTC), at_rest).run(repair)
    except ClickHouseError as error:
        raise explained(error, settings) from error
    finally:
        client.close()


class _Reconciler:
    def __init__(self, client: Client, settings: Settings, now: datetime, at_rest: bool) -> None:
        self._client = client
        self._database = settings.clickhouse_database
        self._on_cluster = template_values(settings)["on_cluster"]
        self._now = now
        self._at_rest = at_rest
        self._kept = retention(settings, "steps")
        self._first = min(map(self._first_of, [_OTHERS, *self._kept.by_project]))
        self._last = now.date() + timedelta(days=1 if at_rest else -2)

    def _first_of(self, project: str) -> date:
        """The first day of which no row can have expired.

        A row may have arrived a day before its own time.
        """
        return self._now.date() - timedelta(days=self._kept.of(project) - 2)

    def run(self, repair: bool) -> ReconcileReport:
        rows = self._sums(_FROM_ROWS)
        busy = set() if self._at_rest else self._busy()
        differences = []
        for rollup in ROLLUPS:
            rolled_up = self._sums(_FROM_ROLLUP.format(table=rollup))
            different = sorted(
                place
                for place in rows.keys() | rolled_up.keys()
                if place[0] not in busy and rows.get(place) != rolled_up.get(place)
            )
            for day in sorted({day for day, _ in different}):
                repaired = repair and self._repair(rollup, day, _of_day(rows, day))
                differences += [
                    Difference(
                        day,
                        rollup,
                        project,
                        rows.get((day, project), ()),
                        rolled_up.get((day, project), ()),
                        repaired,
                    )
                    for found, project in different
                    if found == day
                ]
        days = {day for day, _ in rows}
        return ReconcileReport(self._first, self._last, len(days), sorted(busy), differences)

    def _sums(self, sql: str) -> dict[Place, Sums]:
        """The sums of each project and day whose rows have not begun to expire."""
        result = self._client.query(sql, parameters={"first": self._first, "last": self._last})
        return {
            (row[0], row[1]): tuple(row[2:])
            for row in result.result_rows
            if row[0] >= self._first_of(row[1])
        }

    def _busy(self) -> set[date]:
        rows = self._client.query(
            "SELECT toDate(start_time) AS day FROM steps_raw WHERE append_time > "
            "{since:DateTime64(3, 'UTC')} "
            "AND toDate(start_time) BETWEEN {first:Date} AND {last:Date} GROUP BY day",
            parameters={"since": self._now - QUIET, "first": self._first, "last": self._last},
        ).result_rows
        return {row[0] for row in rows}

    def _repair(self, rollup: str, day: date, rows: dict[Place, Sums]) -> bool:
        """Build the day from its rows and replace the partition; False when rows were added
        meanwhile.

        Projects whose rows of that day have begun to expire keep the sums of the rollup.
        """
        built = f"{self._database}.rebuilt_{rollup}{self._on_cluster}"
        plain = f"{self._database}.rebuilt_{rollup}"
        whole = self._whole(day)
        self._client.command(f"DROP TABLE IF EXISTS {built}")
        try:
            self._client.command(f"CREATE TABLE {built} AS {self._database}.{rollup}")
            self._client.command(f"INSERT INTO {plain} {self._select(rollup, day, whole)}")
            if self._kept.projects:
                kept = (
                    f"toDate(r.time) = '{day}' AND NOT ({whole.replace('s.project', 'r.project')})"
                )
                self._client.command(
                    f"INSERT INTO {plain} SELECT * FROM {self._database}.{rollup} AS r WHERE {kept}"
                )
            # Rows that came while the day was built are not in it.
            if _of_day(self._sums(_FROM_ROWS), day) != rows:
                return False
            self._client.command(
                f"ALTER TABLE {self._database}.{rollup} REPLACE PARTITION '{day}' FROM {plain}"
            )
        finally:
            self._client.command(f"DROP TABLE IF EXISTS {built}")
        logger.warning("%s of %s differed from its rows and was rebuilt", rollup, day)
        return True

    def _whole(self, day: date) -> str:
        """The SQL condition for projects that still have all rows of the day."""
        named = ", ".join(
            f"'{project}'" for project in self._kept.by_project if day >= self._first_of(project)
        )
        gone = ", ".join(
            f"'{project}'" for project in self._kept.by_project if day < self._first_of(project)
        )
        if day >= self._first_of(_OTHERS):
            return f"s.project NOT IN ({gone})" if gone else "1"
        return f"s.project IN ({named})" if named else "0"

    def _select(self, rollup: str, day: date, whole: str) -> str:
        """The query of the materialized view, for one day and without repeated rows."""
        select: str = self._client.query(
            "SELECT as_select FROM system.tables WHERE database = {db:String} AND name = "
            "{name:String}",
            parameters={"db": self._database, "name": ROLLUPS[rollup]},
        ).result_rows[0][0]
        source = f"FROM {self._database}.steps_raw AS s"
        if select.count(source) != 1:
            raise StoreError(
                f"the view {ROLLUPS[rollup]} does not select from steps_raw as expected; correct "
                f"it by hand: {select}"
            )
        return select.replace(
            source, f"{source} FINAL WHERE toDate(s.start_time) = '{day}' AND ({whole})"
        )


def _of_day(sums: dict[Place, Sums], day: date) -> dict[Place, Sums]:
    return {place: values for place, values in sums.items() if place[0] == day}
