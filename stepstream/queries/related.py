"""Runs by what they contain or are related to: text, a session, a user, a run like this one."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, RUNS_WITHIN, STEPS_WITHIN
from stepstream.queries.parameters import OWNER, RUN, WINDOW, Parameter, limit
from stepstream.queries.question import Question
from stepstream.queries.runs import RUN_COLUMNS
from stepstream.schemas.formatting import format_dollars, format_number_of

TEXT: Final = Parameter("text", "text", "The text, in any case.", is_positional=True)
USER: Final = Parameter("user", "text", "The user.", is_positional=True)
SESSION: Final = Parameter("session", "text", "The session.", is_positional=True)
STATUS: Final = Parameter("status", "pattern", "Only runs of this status.", "*")
_WEEK: Final = (Parameter("since", "time", WINDOW[0].help, "7d"), WINDOW[1])

# The excerpt begins 60 characters before the text. One column after the other, so that an excerpt
# is of the first that contains it.
_SEARCH: Final = f"""
WITH {{text:String}} AS wanted
SELECT trace_id, step_id, kind, name, agent, start_time, status,
    multiIf(positionCaseInsensitiveUTF8(output, wanted) > 0, 'output',
        positionCaseInsensitiveUTF8(input, wanted) > 0, 'input', 'error') AS found_in,
    multiIf(found_in = 'output', output, found_in = 'input', input, error_message) AS content,
    substringUTF8(content, greatest(1, toInt64(positionCaseInsensitiveUTF8(content, wanted)) - 60),
        200) AS excerpt
FROM steps
WHERE {STEPS_WITHIN} AND {OWNED} AND (
    positionCaseInsensitiveUTF8(output, wanted) > 0
    OR positionCaseInsensitiveUTF8(input, wanted) > 0
    OR positionCaseInsensitiveUTF8(error_message, wanted) > 0)
ORDER BY start_time DESC, trace_id, step_id
LIMIT {{limit:UInt64}}"""

# Runs by steps in common: each 'kind name' as often as both have it, by the larger number of steps.
_SIMILAR: Final = """
WITH
    (SELECT path FROM runs WHERE trace_id = {run:String}) AS own,
    arrayMap((k, n) -> (k, n), arrayDistinct(own), arrayMap(k -> countEqual(own, k),
        arrayDistinct(own))) AS counted
SELECT trace_id, start_time, status, agent_version,
    arraySum(arrayMap(one -> least(countEqual(path, one.1), one.2), counted))
        / greatest(length(path), length(own), 1) AS similarity,
    steps, toInt64(steps) - toInt64(length(own)) AS more_steps, duration_us, cost_usd, error_type,
    error_message, arrayFilter(one -> NOT has(own, one), arrayDistinct(path)) AS only_there,
    arrayFilter(one -> NOT has(path, one), arrayDistinct(own)) AS only_here
FROM runs
WHERE run_day >= {run_day:Date} - 7 AND run_day <= {run_day:Date} + 7
    AND project = {run_project:String} AND environment = {run_environment:String}
    AND agent = {run_agent:String} AND task = {run_task:String} AND trace_id != {run:String}
    AND status LIKE {status:String} AND closed
ORDER BY similarity DESC, start_time DESC, trace_id
LIMIT {limit:UInt64}"""


def _search_sentence(answer: Answer) -> str:
    if not len(answer):
        return f"No step of this time contains {answer.parameters['text']!r}."
    runs = len(set(answer.data["trace_id"]))
    return f"{format_number_of(len(answer), 'step')} of {format_number_of(runs, 'run')} have it."


def _all_of_sentence(answer: Answer) -> str:
    if not len(answer):
        return "There are no runs of it in this time."
    rows = answer.records()
    failed = sum(row["status"] == "error" for row in rows)
    cost = format_dollars(sum(row["cost_usd"] for row in rows))
    return (
        f"{format_number_of(len(rows), 'run')} from {rows[0]['start_time']:%Y-%m-%d %H:%M} to "
        f"{rows[-1]['start_time']:%Y-%m-%d %H:%M} UTC, {failed:,} failed; together {cost}."
    )


def _similar_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No other closed run of its agent and task lies within seven days of it."
    first = answer.records()[0]
    return (
        f"The most similar is run {first['trace_id'][:8]} ({first['status']}): "
        f"{first['similarity']:.0%} of the steps are the same."
    )


def _all_of(name: str, asks: str, column: str, of: Parameter) -> Question:
    sql = f"""
SELECT {", ".join(RUN_COLUMNS)} FROM runs
WHERE {RUNS_WITHIN} AND {column} = {{{of.name}:String}}
ORDER BY start_time, trace_id LIMIT {{limit:UInt64}}"""
    return Question(name, asks, sql, (of, *_WEEK, limit(1_000)), RUN_COLUMNS, _all_of_sentence)


QUESTIONS: Final = (
    Question(
        "similar",
        "Which runs are like this one, and how did they go?",
        _SIMILAR,
        (RUN, STATUS, limit(10)),
        {
            "trace_id": "the other run",
            "similarity": "steps in common (kind and name), by the larger number of steps; 0 to 1",
            "status": "how it went",
            "start_time": "its start, UTC",
            "agent_version": "its version",
            "steps": "its steps",
            "more_steps": "how many more it has than this run",
            "duration_us": "how long it took",
            "cost_usd": "its cost",
            "error_type": "its error type",
            "error_message": "its error message",
            "only_there": "steps that only the other run has",
            "only_here": "steps that only this run has",
        },
        _similar_sentence,
    ),
    _all_of("session", "What happened in a session?", "session_id", SESSION),
    _all_of("user", "What did agents do for a user?", "user_id", USER),
    Question(
        "search",
        "Which steps contain a text, in input, output or error?",
        _SEARCH,
        (TEXT, *WINDOW, *OWNER, limit(50)),
        {
            "trace_id": "the run",
            "step_id": "the step",
            "kind": "its kind",
            "name": "its name",
            "agent": "its agent",
            "start_time": "its start, UTC",
            "status": "how it ended",
            "found_in": "output, input or error",
            "excerpt": "200 characters around the text",
        },
        _search_sentence,
    ),
)
