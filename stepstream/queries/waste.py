"""Money in failed runs, retries and loops; loops; models without a price."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, RUNS_WITHIN, STEPS_WITHIN
from stepstream.queries.parameters import OWNER, WINDOW, limit
from stepstream.queries.question import Question
from stepstream.schemas.formatting import format_dollars, format_number_of

LOOP_RULES: Final = ("loop", "repetition")
"""The rules whose findings are loops: the same call again and again."""

_RULES: Final = ", ".join(f"'{rule}'" for rule in LOOP_RULES)

# The evidence of a loop is every repetition that its detector kept, at most some tens.
_LOOPING: Final = f"""
    SELECT DISTINCT trace_id, arrayJoin(step_ids) AS step_id
    FROM findings
    WHERE rule IN ({_RULES}) AND NOT withdrawn AND time >= {{since:DateTime64(6, 'UTC')}}
        AND {OWNED}"""

# 1e-9, the smallest cost, instead of 0: a window without costs has shares of 0, not NaN.
_WASTE: Final = f"""
WITH
    looping AS ({_LOOPING})
SELECT what AS waste, who AS agent, sum(n) AS number, toFloat64(sum(usd)) AS cost_usd,
    cost_usd / greatest(toFloat64((SELECT sum(cost_usd) FROM runs WHERE {RUNS_WITHIN} AND {OWNED})),
        1e-9) AS share
FROM
(
    SELECT 'failed runs' AS what, agent AS who, count() AS n, sum(cost_usd) AS usd
    FROM runs
    WHERE {RUNS_WITHIN} AND {OWNED} AND status = 'error'
    GROUP BY who
    UNION ALL
    SELECT arrayJoin(wastes) AS what, agent AS who, count() AS n, sum(ifNull(cost_usd, 0)) AS usd
    FROM
    (
        SELECT agent, cost_usd, arrayConcat(if(attempt > 1 OR retry_of != '', ['retries'], []),
            if((trace_id, step_id) IN (looping), ['loops'], [])) AS wastes
        FROM steps
        WHERE {STEPS_WITHIN} AND {OWNED}
            AND (attempt > 1 OR retry_of != '' OR (trace_id, step_id) IN (looping))
    )
    GROUP BY what, who
)
GROUP BY waste, agent
ORDER BY cost_usd DESC, number DESC, waste, agent
LIMIT {{limit:UInt64}}"""

# Without the findings that resolve others: their message is why, such as the end of the run.
_LOOPS: Final = f"""
SELECT f.trace_id AS trace_id, f.agent AS agent, f.task AS task, f.subject AS subject,
    max(f.value) AS times, argMax(f.message, f.time) AS message, min(f.time) AS time,
    any(r.status) AS status, any(r.cost_usd) AS run_cost_usd
FROM findings AS f
LEFT JOIN (SELECT trace_id, status, cost_usd FROM runs WHERE {RUNS_WITHIN}) AS r USING (trace_id)
WHERE f.rule IN ({_RULES}) AND NOT f.withdrawn AND f.state != 'resolved' AND f.trace_id != ''
    AND f.time >= {{since:DateTime64(6, 'UTC')}} AND f.time < {{until:DateTime64(6, 'UTC')}}
    AND f.project LIKE {{project:String}} AND f.environment LIKE {{environment:String}}
    AND f.agent LIKE {{agent:String}}
GROUP BY trace_id, agent, task, subject
ORDER BY times DESC, time DESC, trace_id
LIMIT {{limit:UInt64}}"""

# From hourly sums: the window is widened to whole hours, as the column `steps` states.
_UNPRICED: Final = f"""
SELECT provider, model, sum(steps) AS steps, sum(unpriced_steps) AS unpriced_steps,
    unpriced_steps / steps AS share, sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens, groupUniqArray(5)(agent) AS agents
FROM metrics_1h
WHERE time >= toStartOfHour({{since:DateTime64(6, 'UTC')}})
    AND time < {{until:DateTime64(6, 'UTC')}} AND {OWNED}
GROUP BY provider, model
HAVING unpriced_steps > 0
ORDER BY unpriced_steps DESC, provider, model
LIMIT {{limit:UInt64}}"""


def _waste_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No run failed, and there were no retries and no loops."
    sums: dict[str, float] = {}
    for row in answer:
        sums[row["waste"]] = sums.get(row["waste"], 0.0) + row["cost_usd"]
    listed = ", ".join(f"{format_dollars(usd)} in {waste}" for waste, usd in sums.items())
    return f"{listed}; a step may be in more than one of them."


def _loops_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No loop was found."
    first = answer.records()[0]
    runs = len(set(answer.data["trace_id"]))
    return f"Loops in {format_number_of(runs, 'run')}. The longest: {first['message']}."


def _unpriced_sentence(answer: Answer) -> str:
    if not len(answer):
        return "The cost of every step is known."
    first = answer.records()[0]
    return (
        f"The cost of {format_number_of(sum(answer.data['unpriced_steps']), 'step')} is unknown; "
        f"most are of {first['model'] or 'no model'}. A document of kind Prices sets a price."
    )


QUESTIONS: Final = (
    Question(
        "waste",
        "What did failed runs, retries and loops cost?",
        _WASTE,
        (*WINDOW, *OWNER, limit(50)),
        {
            "waste": "failed runs, retries or loops; a step may be in more than one of them",
            "agent": "the agent",
            "number": "runs that failed; steps that are retries, or repetitions in a loop",
            "cost_usd": "what they cost",
            "share": "part of the cost of all runs of the time range, 0 to 1",
        },
        _waste_sentence,
    ),
    Question(
        "loops",
        "Which runs repeated the same call again and again?",
        _LOOPS,
        (*WINDOW, *OWNER, limit(50)),
        {
            "trace_id": "the run",
            "agent": "its agent",
            "task": "its task",
            "subject": "the call that was repeated",
            "times": "how often",
            "message": "what the detector reported",
            "time": "when it was first reported, UTC",
            "status": "the run's status",
            "run_cost_usd": "the run's cost",
        },
        _loops_sentence,
    ),
    Question(
        "unpriced",
        "Of which models is the cost unknown?",
        _UNPRICED,
        (*WINDOW, *OWNER, limit(50)),
        {
            "provider": "the provider",
            "model": "the model",
            "steps": "all its steps in the hours of the time range",
            "unpriced_steps": "of them those whose cost is unknown",
            "share": "part of its steps, 0 to 1",
            "input_tokens": "tokens that its steps read",
            "output_tokens": "tokens that its steps wrote",
            "agents": "agents that use it, at most five",
        },
        _unpriced_sentence,
    ),
)
