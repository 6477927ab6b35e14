"""Queries of the reading commands; they use the public views only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from stepstream.cli.errors import FAILED, USAGE, Failure
from stepstream.render.alerts import Note
from stepstream.render.rows import (
    RunRow,
    StepRow,
    caught_up,
    run_from_steps,
    run_row,
    step_row,
)
from stepstream.schemas.alert import TIME_FIELDS, Alert
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import time_of, us_of

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from stepstream.queries.parameters import QuestionError
    from stepstream.stream.baselines.history import Owner


@dataclass(frozen=True)
class Scope:
    """A filter of rows: values may be patterns with * and ?."""

    project: str | None = None
    environment: str | None = None
    agent: str | None = None
    status: str | None = None
    severity: str | None = None
    alert: str | None = None
    state: str | None = None
    since: datetime | None = None
    limit: int = 50

    def where(self, time_column: str) -> tuple[str, dict[str, Any]]:
        """The WHERE clause and the values of its parameters."""
        from stepstream.queries.parameters import like

        conditions: list[str] = []
        values: dict[str, Any] = {}
        # Columns are from this list and values are parameters: no text of a user is in the SQL.
        for column in ("project", "environment", "agent", "status", "severity", "alert", "state"):
            wanted = getattr(self, column)
            if wanted is not None:
                conditions.append(f"{column} LIKE {{{column}:String}}")
                values[column] = like(wanted)
        if self.since is not None:
            conditions.append(f"{time_column} >= fromUnixTimestamp64Micro({{since:Int64}})")
            values["since"] = us_of(self.since)
        return (f"WHERE {' AND '.join(conditions)}" if conditions else ""), values


def parse_since(text: str | None, now: datetime, option: str = "--since") -> datetime | None:
    """The time of an age (``90s``, ``2h``) or of a date or time; local time without a zone."""
    from stepstream.queries.parameters import QuestionError, parse_time

    if text is None:
        return None
    try:
        return parse_time(option, text, now)
    except QuestionError as error:
        raise failure(error) from None


def failure(error: QuestionError) -> Failure:
    """What cannot be asked so is wrong usage; that the store has no such run is a failure."""
    from stepstream.queries.parameters import Ambiguous, Unanswerable

    is_missing = isinstance(error, Unanswerable) and not isinstance(error, Ambiguous)
    return Failure(str(error), FAILED if is_missing else USAGE)


@contextmanager
def store(settings: Settings) -> Iterator[Client]:
    """A read-only connection. Errors of ClickHouse become ``Failure`` with its message."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.client import connect
    from stepstream.sinks.clickhouse.errors import StoreError

    require_clickhouse(settings)
    # The message of a failed connection is for users already; those of queries are explained below.
    try:
        client = connect(settings, readonly=True)
    except StoreError as error:
        raise Failure(str(error)) from None
    try:
        yield client
    except ClickHouseError as error:
        raise Failure(_complaint(error)) from error
    finally:
        client.close()


def _complaint(error: Exception) -> str:
    """The message of an error; for a missing table also the command that creates it."""
    from stepstream.schemas.suggestions import did_you_mean
    from stepstream.sinks.clickhouse import errors
    from stepstream.sinks.clickhouse.migrated import BASE_TABLES
    from stepstream.sinks.clickhouse.public_views import VIEW_NAMES

    table = errors.missing_table(error)
    if table in BASE_TABLES or table in VIEW_NAMES:
        return f"{table} is missing in the store: {errors.MIGRATE}, which creates it again"
    if table:
        return f"there is no table {table}; {did_you_mean(table, VIEW_NAMES)}"
    hint = ""
    if errors.error_code(error) in errors.SCHEMA_CODES and any(
        f".{name}" in str(error) for name in BASE_TABLES
    ):
        hint = "; `stepstream store status` lists what is missing in the store"
    return f"ClickHouse: {errors.sentence(error)}{hint}"


def list_runs(client: Client, scope: Scope) -> list[dict[str, Any]]:
    """Runs, the newest first, without the long columns."""
    where, values = scope.where("start_time")
    # The two columns are the whole path of a run: long, and no listing prints them.
    columns = "* EXCEPT (path, path_json)"
    sql = (
        f"SELECT {columns} FROM runs {where} "
        "ORDER BY start_time DESC, trace_id LIMIT {limit:UInt32}"
    )
    return records(client, sql, {**values, "limit": scope.limit})


def alert_counts(client: Client, trace_ids: list[str]) -> dict[str, int]:
    """Number of alerts by run."""
    sql = (
        "SELECT trace_id, count() AS alerts FROM alerts "
        "WHERE trace_id IN {ids:Array(String)} GROUP BY trace_id"
    )
    return (
        {row["trace_id"]: row["alerts"] for row in records(client, sql, {"ids": trace_ids})}
        if trace_ids
        else {}
    )


def learnt_runs(client: Client, projects: list[str]) -> dict[Owner, int]:
    """Number of runs that baselines learn from, by agent and task.

    These are complete runs with known costs, not older than the days that baselines keep.
    """
    from stepstream.stream.baselines.days import KEPT_DAYS
    from stepstream.stream.baselines.history import Owner

    sql = """
        SELECT project, environment, agent, task, count() AS learnt FROM runs
        WHERE project IN {projects:Array(String)} AND status IN ('ok', 'error')
            AND unpriced_steps = 0
            AND end_time > now() - toIntervalDay({days:UInt16})
        GROUP BY project, environment, agent, task"""
    found = records(client, sql, {"days": KEPT_DAYS, "projects": projects})
    return {
        Owner(row["project"], row["environment"], row["agent"], row["task"]): row["learnt"]
        for row in found
    }


def list_alerts(client: Client, scope: Scope) -> list[Alert]:
    """The newest alerts, in ascending order of time."""
    where, values = scope.where("updated_at")
    # The newest ones within the limit, and reversed: on a terminal the newest stands last.
    sql = f"SELECT * FROM alerts {where} ORDER BY opened_at DESC LIMIT {{limit:UInt32}}"
    return [
        alert_of(row) for row in reversed(records(client, sql, {**values, "limit": scope.limit}))
    ]


def find_run(client: Client, prefix: str) -> str:
    """The id of the one run whose id begins with ``prefix``."""
    from stepstream.queries.ask import whole_id
    from stepstream.queries.parameters import QuestionError, run_prefix
    from stepstream.queries.question import rows_of

    try:
        return whole_id(run_prefix(prefix), rows_of(client))
    except QuestionError as error:
        raise failure(error) from None


def find_alert(client: Client, prefix: str) -> Alert:
    """The newest state of the one alert whose id begins with ``prefix``."""
    wanted = prefix.strip().lower()
    # Fewer than four digits match alerts by accident, and ack and resolve act on the result.
    if not re.fullmatch(r"[0-9a-f-]{4,36}", wanted):
        raise Failure(
            f"{prefix!r} is not an alert id: give at least four digits; `stepstream alerts` lists "
            "them",
            USAGE,
        )
    found = records(
        client,
        "SELECT * FROM alerts WHERE startsWith(alert_id, {id:String}) LIMIT 2",
        {"id": wanted},
    )
    if not found:
        raise Failure(
            f"no alert has an id that begins with {wanted}; "
            "`stepstream alerts --format json` lists them"
        )
    if len(found) > 1:
        raise Failure(
            f"several alerts have an id that begins with {wanted}; give more digits", USAGE
        )
    return alert_of(found[0])


def alert_marks(client: Client, alert_ids: list[str]) -> dict[str, dict[str, Any]]:
    """The newest mark of each alert that has one, by its id."""
    if not alert_ids:
        return {}
    sql = "SELECT * FROM alert_marks WHERE alert_id IN {ids:Array(String)}"
    return {row["alert_id"]: row for row in records(client, sql, {"ids": alert_ids})}


def alert_history(client: Client, alert_id: str) -> list[Alert]:
    """All states of an alert, in order."""
    # By seq, not by time: two changes may have the same time.
    sql = "SELECT * FROM alert_events WHERE alert_id = {id:String} ORDER BY seq"
    return [alert_of(row) for row in records(client, sql, {"id": alert_id})]


def last_run(client: Client, scope: Scope) -> str:
    """The newest run."""
    found = list_runs(client, scope)
    # With a filter the store may be full of other runs: the hint differs.
    if not found and scope != Scope(limit=scope.limit):
        raise Failure("no run matches; `stepstream runs` lists all runs")
    if not found:
        raise Failure("there are no runs yet; a run appears a second or two after its first step")
    return str(found[0]["trace_id"])


@dataclass(frozen=True)
class Trace:
    """A run with its steps, alerts and notes, for drawing and as records."""

    run: RunRow
    steps: list[StepRow]
    alerts: list[Alert]
    run_record: dict[str, Any]
    step_records: list[dict[str, Any]]
    notes: list[Note] = field(default_factory=list)


def read_trace(
    client: Client, trace_id: str, *, contents: bool = False, whole: bool = False
) -> Trace:
    """Read a run as it is now.

    Without ``whole`` only what a picture needs; with ``contents`` also the beginnings of inputs,
    outputs and documents. Raises ``Failure`` where the whole contents do not fit in memory.
    """
    if whole:
        _require_readable(client, trace_id, "", {})
    columns = "*" if whole else DRAWN + (PREVIEWS if contents else SCORES)
    step_records = records(
        client, f"SELECT {columns} FROM trace(id = {{id:String}})", {"id": trace_id}
    )
    runs = records(
        client,
        "SELECT * EXCEPT (path, path_json) FROM runs WHERE trace_id = {id:String}",
        {"id": trace_id},
    )
    alerts = records(
        client,
        "SELECT * FROM alerts WHERE trace_id = {id:String} ORDER BY opened_at",
        {"id": trace_id},
    )
    steps = [step_row(record) for record in step_records]
    if not runs and not steps:
        raise Failure(f"the store has no run {trace_id}")
    # A run's row is written a second or two after its first step; until then steps are summed.
    run = caught_up(run_row(runs[0]), steps) if runs else run_from_steps(trace_id, steps)
    return Trace(
        run,
        steps,
        [alert_of(row) for row in alerts],
        runs[0] if runs else {},
        step_records,
        _notes(client, trace_id),
    )


def _require_readable(
    client: Client, trace_id: str, where: str, parameters: dict[str, Any]
) -> None:
    sql = f"""
        SELECT sum(length(input) + length(output) + arraySum(d -> length(d.3), documents)) AS size
        FROM trace(id = {{id:String}}) {where}"""
    size = int(records(client, sql, {"id": trace_id, **parameters})[0]["size"])
    if size > MAX_WHOLE_BYTES:
        raise Failure(
            f"the contents of run {trace_id[:8]} have {size // 2**20:,} MB, and at most "
            f"{MAX_WHOLE_BYTES // 2**20} MB are read at once: --step ID reads those of one step"
        )


def read_step(client: Client, trace_id: str, wanted: str) -> Trace:
    """The steps of a run with this name, or the step whose id begins so, in full."""
    found = only_step(read_trace(client, trace_id), wanted)
    where = "WHERE step_id IN {steps:Array(String)}"
    parameters = {"steps": [step.step_id for step in found.steps]}
    _require_readable(client, trace_id, where, parameters)
    sql = f"SELECT * FROM trace(id = {{id:String}}) {where}"
    whole = records(client, sql, {"id": trace_id, **parameters})
    return replace(found, step_records=whole)


def only_step(trace: Trace, wanted: str) -> Trace:
    """The trace with only the steps of this name, or the step whose id begins so."""
    # A name goes first: `abc` may be a name and the beginning of an id.
    chosen = [step for step in trace.steps if step.name == wanted]
    chosen = chosen or [step for step in trace.steps if step.step_id.startswith(wanted.lower())]
    if not chosen:
        from stepstream.schemas.suggestions import did_you_mean

        names = list(dict.fromkeys(step.name for step in trace.steps))
        raise Failure(
            f"run {trace.run.trace_id[:8]} has no step {wanted}; {did_you_mean(wanted, names)}",
            USAGE,
        )
    ids = {step.step_id for step in chosen}
    records = [record for record in trace.step_records if record["step_id"] in ids]
    return replace(trace, steps=chosen, step_records=records)


def _notes(client: Client, trace_id: str) -> list[Note]:
    """The run's findings that opened no alert and were not withdrawn, the oldest first."""
    sql = """
        SELECT min(time) AS at, any(alert) AS name, argMin(message, time) AS text FROM findings
        WHERE trace_id = {id:String} AND severity = 'note' AND state != 'marked'
        GROUP BY alert, subject, step_ids[1] HAVING NOT max(withdrawn)
        ORDER BY at LIMIT {most:UInt32}"""
    found = records(client, sql, {"id": trace_id, "most": MAX_NOTES})
    return [Note(us_of(row["at"]), row["name"], row["text"]) for row in found]


MAX_WHOLE_BYTES: Final = 512 << 20
"""Maximum size of the contents that are read at once."""

MAX_NOTES: Final = 50
"""Maximum number of notes that are printed below a run."""

DRAWN: Final = """
    step_id, parent_step_id, kind, name, tool, model, agent, start_time, end_time, status,
    error_type, substring(error_message, 1, 500) AS error_message, attempt, retry_of, fallback_of,
    input_tokens, output_tokens, cost_usd, cost_source"""
SCORES: Final = ", arrayMap(d -> (d.1, d.2), documents) AS documents"
# 2,000 characters fill a terminal's line many times; contents may have megabytes.
PREVIEWS: Final = """, substring(input, 1, 2000) AS input, substring(output, 1, 2000) AS output,
    arrayMap(d -> (d.1, d.2, substring(d.3, 1, 2000)), documents) AS documents"""


def alert_of(record: Mapping[str, Any]) -> Alert:
    """The alert in a row of the views ``alerts`` and ``alert_events``."""
    times = {name: 0 if record[name] is None else us_of(record[name]) for name in TIME_FIELDS}
    return Alert.model_validate({**record, **times})


def alert_record(alert: Alert) -> dict[str, Any]:
    """The alert as it is printed in JSON and CSV: its times as times, None where there is none."""
    fields: dict[str, Any] = alert.model_dump()
    for name in TIME_FIELDS:
        fields[name] = time_of(fields[name]) if fields[name] else None
    return fields


def records(
    client: Client, sql: str, parameters: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The rows of a query as dicts."""
    return list(client.query(sql, parameters=parameters).named_results())
