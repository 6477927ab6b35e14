"""Asks a question: checks what it is asked with, finds the run it is about, runs its query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from stepstream.queries.answer import Answer, Record, from_records
from stepstream.queries.catalogue import find
from stepstream.queries.parameters import Ambiguous, Unanswerable, time_text, values_of
from stepstream.queries.question import Question, Rows, Values, rows_of, used_parameters

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

FIND_RUN: Final = """
SELECT DISTINCT trace_id FROM (
    SELECT trace_id FROM runs WHERE startsWith(trace_id, {run:String})
    UNION ALL SELECT trace_id FROM steps WHERE startsWith(trace_id, {run:String})
    UNION ALL SELECT trace_id FROM open_steps WHERE startsWith(trace_id, {run:String})
) ORDER BY trace_id LIMIT 6"""
"""Runs by a beginning of their id. Steps as well: a run has rows there before its row in runs."""

ABOUT_RUN: Final = """
SELECT trace_id, run_day, project, environment, agent, agent_version, task, status, start_time,
    end_time, closed
FROM runs WHERE trace_id = {run:String}"""

WHOLE_ID: Final = 32


def ask(
    client: Client,
    question: str,
    *,
    now: datetime | None = None,
    timeout_s: float | None = None,
    **given: Any,
) -> Answer:
    """The answer to a question of the catalogue.

    ``given`` are its parameters: times as ages (``24h``), texts or datetimes; patterns with * and
    ?. Raises ``QuestionError`` for an unknown question, a wrong parameter and an unknown run, and
    ``clickhouse_connect``'s errors; ``timeout_s`` limits each query.
    """
    rows = rows_of(client, timeout_s)
    return answered(prepared(rows, question, given, now or datetime.now(UTC)), rows)


@dataclass(frozen=True)
class Prepared:
    """A question with the values of its parameters, before its query has run."""

    asked: Question
    values: Values
    sql: str


def prepared(rows: Rows, question: str, given: Values, now: datetime) -> Prepared:
    """The question with checked parameters and the whole id of the run that it is about."""
    asked = find(question)
    values = values_of(asked.parameters, given, now)
    # A query about a run reads its own day and project only, so these are looked up first.
    for parameter in asked.parameters:
        if parameter.kind == "run" and values[parameter.name]:
            values = {**values, **run_values(parameter.name, values[parameter.name], rows)}
    return Prepared(asked, values, asked.text(values))


def answered(what: Prepared, rows: Rows) -> Answer:
    """Run the query."""
    found = rows(what.sql, what.values)
    if what.asked.finish is not None:
        found = what.asked.finish(found, what.values, rows)
    data = from_records(found, list(what.asked.columns))
    used = used_parameters(what.sql, what.values)
    answer = Answer(what.asked.name, data, what.sql, used)
    return replace(answer, sentence=what.asked.sentence(answer))


def run_values(name: str, prefix: str, rows: Rows) -> dict[str, Any]:
    """What queries about a run are bound to: its id, its owner and its time.

    Raises ``Unanswerable`` where no run or several have an id that begins so.
    """
    trace_id = prefix if len(prefix) == WHOLE_ID else whole_id(prefix, rows)
    known = rows(ABOUT_RUN, {"run": trace_id})
    about: Record = known[0] if known else {}
    if not known and trace_id == prefix:
        # It may have steps before its row in runs; this raises where it has none either.
        whole_id(trace_id, rows)
    start, end = about.get("start_time"), about.get("end_time")
    return {
        name: trace_id,
        f"{name}_project": about.get("project", ""),
        f"{name}_environment": about.get("environment", ""),
        f"{name}_agent": about.get("agent", ""),
        f"{name}_task": about.get("task", ""),
        f"{name}_version": about.get("agent_version", ""),
        f"{name}_day": str(about.get("run_day", "1970-01-01")),
        f"{name}_start": time_text(start) if start else "1970-01-01 00:00:00",
        f"{name}_end": time_text(end) if end else "1970-01-01 00:00:00",
    }


def whole_id(prefix: str, rows: Rows) -> str:
    """The id of the one run whose id begins with ``prefix``.

    Raises ``Unanswerable`` where there is none, its subclass ``Ambiguous`` where there are several.
    """
    found = [record["trace_id"] for record in rows(FIND_RUN, {"run": prefix})]
    if not found:
        raise Unanswerable(
            f"no run has an id that begins with {prefix}; `stepstream runs` lists them"
        )
    if len(found) > 1:
        shown = ", ".join(trace_id[:12] for trace_id in found[:5])
        more = " and more" if len(found) > 5 else ""
        raise Ambiguous(
            f"several runs have an id that begins with {prefix}: {shown}{more}; give more digits"
        )
    return str(found[0])
