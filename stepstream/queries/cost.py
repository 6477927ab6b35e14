"""What agents cost."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, REST_OF_STEPS, RUNS_WITHIN, WHOLE_HOURS
from stepstream.queries.parameters import OWNER, WINDOW, Parameter, limit
from stepstream.queries.question import Question, Values
from stepstream.schemas.formatting import format_dollars, format_number_of

# Hourly sums have these columns; the others would multiply their rows, and are taken from the runs.
OF_STEPS: Final = {
    "agent": "agent",
    "model": "model",
    "provider": "provider",
    "tool": "tool",
    "kind": "kind",
    "version": "agent_version",
    "project": "project",
    "environment": "environment",
    "error": "error_type",
}
OF_RUNS: Final = {"task": "task", "user": "user_id", "session": "session_id", "status": "status"}
BY: Final = Parameter("by", "choice", "What to add up by.", "agent", choices=OF_STEPS | OF_RUNS)

_SUMS: Final = """\
SELECT of AS value, sum(n) AS steps, sum(errors) AS error_steps, sum(usd) AS cost_usd,
    toFloat64(cost_usd) / greatest(toFloat64(sum(cost_usd) OVER ()), 1e-9) AS share,
    sum(unpriced) AS unpriced_steps, sum(tokens_in) AS input_tokens,
    sum(tokens_out) AS output_tokens"""

_STEPS: Final = f"""
{_SUMS}
FROM
(
    SELECT toString({{by:Identifier}}) AS of, sum(steps) AS n, sum(error_steps) AS errors,
        sum(cost_usd) AS usd, sum(unpriced_steps) AS unpriced, sum(input_tokens) AS tokens_in,
        sum(output_tokens) AS tokens_out
    FROM metrics_1h
    WHERE {WHOLE_HOURS} AND {OWNED}
    GROUP BY of
    UNION ALL
    SELECT toString({{by:Identifier}}) AS of, count() AS n, countIf(status = 'error') AS errors,
        sum(ifNull(cost_usd, 0)) AS usd, countIf(cost_source = 'unpriced') AS unpriced,
        sum(input_tokens) AS tokens_in, sum(output_tokens) AS tokens_out
    FROM steps
    WHERE {REST_OF_STEPS} AND {OWNED}
    GROUP BY of
)
GROUP BY of
ORDER BY cost_usd DESC, steps DESC, value
LIMIT {{limit:UInt64}}"""

_RUNS: Final = f"""
{_SUMS}
FROM
(
    SELECT toString({{by:Identifier}}) AS of, steps AS n, error_steps AS errors, cost_usd AS usd,
        unpriced_steps AS unpriced, input_tokens AS tokens_in, output_tokens AS tokens_out
    FROM runs
    WHERE {RUNS_WITHIN} AND {OWNED}
)
GROUP BY of
ORDER BY cost_usd DESC, steps DESC, value
LIMIT {{limit:UInt64}}"""


def _cost_sql(values: Values) -> str:
    return _RUNS if values["by"] in OF_RUNS.values() else _STEPS


def _cost_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No step ran in this time."
    rows = answer.records()
    unpriced = sum(row["unpriced_steps"] for row in rows)
    first = rows[0]
    text = (
        f"{format_dollars(sum(row['cost_usd'] for row in rows))} in "
        f"{format_number_of(sum(row['steps'] for row in rows), 'step')}; "
        f"{first['value'] or '(none)'} has {first['share']:.0%} of the cost."
    )
    if unpriced:
        text += f" The cost of {format_number_of(unpriced, 'step')} is unknown and not in it."
    return text


QUESTIONS: Final = (
    Question(
        "cost",
        "What did agents, tasks, models, tools, versions or users cost?",
        _cost_sql,
        (BY, *WINDOW, *OWNER, limit(50)),
        {
            "value": "the agent, task, model ... of this row; empty where a step has none",
            "steps": "ended steps",
            "error_steps": "of them failed",
            "cost_usd": "their cost, exact to the nano-dollar",
            "share": "part of the whole cost, 0 to 1",
            "unpriced_steps": "steps whose cost is unknown; they are not in cost_usd",
            "input_tokens": "tokens read",
            "output_tokens": "tokens written",
        },
        _cost_sentence,
    ),
)
