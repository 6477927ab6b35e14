"""Reads what a backtest needs from the store: the runs of a window, their steps and alerts."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from stepstream.backtest.history import Row
from stepstream.schemas.step import FIELDS
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.usage import TOTALLED
from stepstream.sinks.clickhouse.migrated import shown_columns

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SLICE: Final = timedelta(hours=1)
"""Steps are read in slices of their start: a sort of the whole window would need its size in
memory."""

LONGEST_RUN: Final = timedelta(days=1)
"""Runs that begin near the end of the window are followed so far beyond it."""

ON_THE_WAY_US: Final = MINUTE_US
"""An alert that is younger than this may not be in the store yet."""

_IN_SCOPE: Final = """
    start_time >= {since:DateTime64(6, 'UTC')} AND start_time < {until:DateTime64(6, 'UTC')}
    AND project LIKE {project:String} AND environment LIKE {environment:String}
    AND agent LIKE {agent:String}"""
_RUNS: Final = f"SELECT trace_id FROM runs WHERE {_IN_SCOPE}"
# For each slice only the runs that may have steps in it: a set of all runs of a week, made for each
# of its hours, takes longer than the steps. A worker closes runs after a day; an hour for clocks.
_RUNS_NEAR: Final = f"""{_RUNS}
    AND start_time >= {{slice_start:DateTime64(6, 'UTC')}} - toIntervalHour(25)
    AND start_time < {{slice_end:DateTime64(6, 'UTC')}} + toIntervalHour(1)"""
_IN_SLICE: Final = """
    start_time >= {slice_start:DateTime64(6, 'UTC')}
    AND start_time < {slice_end:DateTime64(6, 'UTC')}"""
_ALERTS: Final = f"""
SELECT alert_id, alert, rule, severity, trace_id, subject, opened_at
FROM alerts WHERE trace_id IN ({_RUNS})"""


@dataclass(frozen=True)
class Scope:
    """Which runs: those that began in the window and whose names match the LIKE patterns."""

    since: datetime
    until: datetime
    project: str = "%"
    environment: str = "%"
    agent: str = "%"

    def parameters(self) -> dict[str, Any]:
        """The values of the queries' parameters."""
        return {
            "since": _text(self.since),
            "until": _text(self.until),
            "project": self.project,
            "environment": self.environment,
            "agent": self.agent,
        }


def counts(client: Client, scope: Scope) -> tuple[int, int]:
    """Number of runs and of their steps."""
    sql = f"SELECT count(), sum(steps) FROM runs WHERE {_IN_SCOPE}"
    runs, steps = client.query(sql, parameters=scope.parameters()).result_rows[0]
    return int(runs), int(steps)


def steps_without_contents(client: Client, scope: Scope) -> int:
    """Ended steps of these runs whose input or output was not captured, only its size."""
    sql = (
        f"SELECT count() FROM steps WHERE trace_id IN ({_RUNS}) "
        "AND ((input = '' AND input_bytes > 0) OR (output = '' AND output_bytes > 0))"
    )
    return int(client.query(sql, parameters=scope.parameters()).result_rows[0][0])


def statuses(client: Client, scope: Scope) -> dict[str, tuple[str, int]]:
    """Status and nano-dollars of each run."""
    sql = f"SELECT trace_id, status, toInt64(cost_usd * 1000000000) FROM runs WHERE {_IN_SCOPE}"
    rows = client.query(sql, parameters=scope.parameters()).result_rows
    return {trace_id: (str(status), int(nanos)) for trace_id, status, nanos in rows}


def alerts(client: Client, scope: Scope) -> tuple[list[Mapping[str, Any]], int]:
    """The alerts that were raised about these runs, and the time until which they are complete.

    Alerts of the last minutes may be on their way, and a sink that is behind has not stored the
    steps yet that belong to alerts.
    """
    ((us,),) = client.query(
        "SELECT toUnixTimestamp64Micro(least(now64(6), toDateTime64(max(append_time), 6))) "
        "FROM steps WHERE start_time >= {since:DateTime64(6, 'UTC')}",
        parameters=scope.parameters(),
    ).result_rows
    found: list[Mapping[str, Any]] = list(
        client.query(_ALERTS, parameters=scope.parameters()).named_results()
    )
    return found, int(us) - ON_THE_WAY_US


def steps(client: Client, scope: Scope) -> Iterator[Row]:
    """The steps of these runs in the order of their start; those that have not ended as well."""
    parts = (_ended(client, scope), _open(client, scope))
    yield from heapq.merge(*parts, key=itemgetter("start_time"))


def _ended(client: Client, scope: Scope) -> Iterator[Row]:
    columns = _columns("steps_raw")
    sql = (
        f"SELECT {_listed(columns)} FROM steps WHERE {_IN_SLICE} AND trace_id IN ({_RUNS_NEAR}) "
        "ORDER BY start_time, kafka_offset"
    )
    # Hours without steps are not asked for: a week of few runs took 192 pairs of queries before.
    for start in _hours(client, scope):
        given = {"slice_start": _text(start), "slice_end": _text(start + SLICE)}
        parameters = scope.parameters() | given
        with client.query_row_block_stream(sql, parameters=parameters) as blocks:
            for block in blocks:
                for values in block:
                    yield dict(zip(columns, values, strict=True))


def _hours(client: Client, scope: Scope) -> list[datetime]:
    """The hours in which steps of these runs began: most windows have hours without any."""
    sql = (
        f"SELECT DISTINCT toStartOfHour(start_time) AS hour FROM steps WHERE {_IN_SLICE} "
        f"AND trace_id IN ({_RUNS}) ORDER BY hour"
    )
    rows = client.query(sql, parameters=scope.parameters() | _whole(scope)).result_rows
    return [hour if hour.tzinfo else hour.replace(tzinfo=UTC) for (hour,) in rows]


def _open(client: Client, scope: Scope) -> Iterator[Row]:
    """Steps that have not ended; the store has those of the last two days."""
    # One query for the whole range: the view reads the tables of three days, whatever the hour.
    columns = _listed(_columns("steps_open"))
    sql = (
        f"SELECT {columns} FROM open_steps WHERE {_IN_SLICE} AND trace_id IN ({_RUNS}) "
        "ORDER BY start_time"
    )
    yield from client.query(sql, parameters=scope.parameters() | _whole(scope)).named_results()


def _whole(scope: Scope) -> dict[str, str]:
    """The time range, and a day in which its runs go on."""
    return {"slice_start": _text(scope.since), "slice_end": _text(scope.until + LONGEST_RUN)}


def _columns(table: str) -> list[str]:
    """The columns that step events are made of."""
    known = {*FIELDS, *TOTALLED, "usage_details"}
    return [name for name in shown_columns(table) if name in known]


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
