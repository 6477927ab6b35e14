"""Where the cost spiked, and which steps, models or tools made the difference."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, similar_runs
from stepstream.queries.parameters import OWNER, RUN, WINDOW, Parameter, limit
from stepstream.queries.question import Question
from stepstream.schemas.formatting import format_dollars, format_number_of

TIMES: Final = Parameter(
    "times", "number", "How many times the normal cost of an hour counts as a spike.", 3
)

# The tool, else the model, else the kind of a step: what a person would change to change the cost.
_PART: Final = "multiIf(tool != '', tool, model != '', model, kind)"

# Normal is a median, so that a spike does not raise it. Of an agent: over the hours in which it
# ran. Of a part: over the same hours, with 0 for those without it; arrayResize adds these zeros.
# Everything of an agent is in arrays, so that the sums of eight days are read once.
_SPIKES: Final = f"""
WITH toStartOfHour({{since:DateTime64(6, 'UTC')}}) AS first_hour
SELECT spike.1 AS time, p AS project, e AS environment, a AS agent, spike.2 AS cost_usd,
    normal AS normal_usd, cost_usd - normal AS excess_usd, cost_usd / normal AS times,
    arrayReverseSort(x -> x.2, arrayMap(part -> (
        part.2,
        part.3 - arraySort(arrayResize(arrayFilter((usd, what) -> what = part.2, parts.3, parts.2),
            active, 0.))[intDiv(active + 1, 2)],
        part.4,
        arraySort(arrayResize(arrayFilter((calls, what) -> what = part.2, parts.4, parts.2),
            active, 0))[intDiv(active + 1, 2)]),
        arrayFilter(x -> x.1 = time, parts))) AS differences,
    differences[1].1 AS part, differences[1].2 AS part_excess_usd, differences[1].3 AS part_calls,
    differences[1].4 AS part_normal_calls
FROM
(
    SELECT p, e, a, groupArray((hour, total)) AS hours, length(hours) AS active,
        arrayReduce('quantileExact(0.5)', hours.2) AS normal, groupArrayArray(of_hour) AS parts
    FROM
    (
        SELECT p, e, a, hour, sum(usd) AS total,
            groupArray((hour, toString(what), usd, calls)) AS of_hour
        FROM
        (
            SELECT project AS p, environment AS e, agent AS a, time AS hour, {_PART} AS what,
                sum(steps) AS calls, toFloat64(sum(cost_usd)) AS usd
            FROM metrics_1h
            WHERE time >= first_hour - toIntervalDay(7)
                AND time < {{until:DateTime64(6, 'UTC')}} AND {OWNED}
            GROUP BY p, e, a, hour, what
        )
        GROUP BY p, e, a, hour
    )
    GROUP BY p, e, a
)
ARRAY JOIN arrayFilter(x -> x.1 >= first_hour AND x.2 >= {{times:Float64}} * normal, hours) AS spike
WHERE active > 2 AND normal > 0
ORDER BY excess_usd DESC, time, agent
LIMIT {{limit:UInt64}}"""

# The runs are a scalar, which is computed once, and steps before the first of them are not read.
_RUN_COST: Final = f"""
WITH
    (
        SELECT (groupArray(trace_id), min(start_time))
        FROM ({similar_runs("trace_id, start_time")})
    ) AS similar,
    length(similar.1) AS normal_runs
SELECT who AS agent, sort AS kind, what AS name, of_tool AS tool, of_model AS model,
    sumIf(n, own) AS calls, sumIf(usd, own) AS cost_usd,
    if(normal_runs = 0, NULL, arraySort(arrayResize(groupArrayIf(usd, NOT own), normal_runs, 0.))[
        intDiv(normal_runs + 1, 2)]) AS normal_usd,
    if(normal_runs = 0, NULL, sumIf(n, NOT own) / normal_runs) AS normal_calls,
    cost_usd - ifNull(normal_usd, 0) AS excess_usd,
    normal_runs AS runs,
    sumIf(unpriced, own) AS unpriced_steps,
    anyIf(costliest, own).2 AS step_ids
FROM
(
    SELECT agent AS who, kind AS sort, name AS what, tool AS of_tool, model AS of_model, trace_id,
        trace_id = {{run:String}} AS own, count() AS n, toFloat64(sum(ifNull(cost_usd, 0))) AS usd,
        countIf(cost_source = 'unpriced') AS unpriced,
        groupArraySorted(5)((-toFloat64(ifNull(cost_usd, 0)), step_id)) AS costliest
    FROM steps
    WHERE start_time >= if(normal_runs = 0, {{run_start:DateTime64(6, 'UTC')}}, similar.2)
            - toIntervalHour(1)
        AND start_time < {{run_end:DateTime64(6, 'UTC')}} + toIntervalDay(1)
        AND trace_id IN (arrayPushBack(similar.1, {{run:String}}))
    GROUP BY who, sort, what, of_tool, of_model, trace_id
)
GROUP BY agent, kind, name, tool, model
ORDER BY excess_usd DESC, calls DESC, name
LIMIT {{limit:UInt64}}"""


def _spikes_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No agent had an hour that cost clearly more than is normal for it."
    first = answer.records()[0]
    part, calls = first["part"] or "(none)", first["part_calls"]
    return (
        f"{format_number_of(len(answer), 'hour')} with a spike. The largest: {first['agent']} at "
        f"{first['time']:%Y-%m-%d %H:%M} UTC cost {format_dollars(first['cost_usd'])} and normally "
        f"{format_dollars(first['normal_usd'])}; {part} made "
        f"{format_dollars(first['part_excess_usd'])} of the difference with {calls:,} calls, "
        f"normally {first['part_normal_calls']:,}."
    )


def _run_cost_sentence(answer: Answer) -> str:
    if not len(answer):
        return "This run has no ended step."
    rows = answer.records()
    total = format_dollars(sum(row["cost_usd"] for row in rows))
    if not rows[0]["runs"]:
        return f"This run cost {total}; no earlier run of its agent and task went well."
    normal = format_dollars(sum(row["normal_usd"] for row in rows))
    first = rows[0]
    return (
        f"This run cost {total}, normally {normal} (the last "
        f"{format_number_of(first['runs'], 'good run')}); {first['name']} made "
        f"{format_dollars(first['excess_usd'])} of the difference with {first['calls']:,} calls, "
        f"normally {first['normal_calls']:.3g}."
    )


QUESTIONS: Final = (
    Question(
        "spikes",
        "In which hours did an agent cost much more than is normal for it, and why?",
        _SPIKES,
        (TIMES, *WINDOW, *OWNER, limit(20)),
        {
            "time": "beginning of the hour, UTC",
            "project": "the project",
            "environment": "the environment",
            "agent": "the agent",
            "cost_usd": "what its steps cost in this hour",
            "normal_usd": "median of its active hours in the time range and the seven days before",
            "excess_usd": "the difference",
            "times": "cost_usd / normal_usd",
            "part": "the tool, model or kind of step with the largest part of the difference",
            "part_excess_usd": "its part",
            "part_calls": "its steps in this hour",
            "part_normal_calls": "its median steps an hour",
            "differences": "all parts, the largest first: name, difference, steps, median steps",
        },
        _spikes_sentence,
    ),
    Question(
        "run-cost",
        "Which steps, models or tools of a run cost more than is normal for its agent and task?",
        _RUN_COST,
        (RUN, limit(50)),
        {
            "agent": "the agent of the steps",
            "kind": "their kind",
            "name": "their name",
            "tool": "their tool",
            "model": "their model",
            "calls": "steps of the run",
            "normal_calls": "mean of the earlier good runs; NULL where there are none",
            "cost_usd": "cost of these steps in the run",
            "normal_usd": "median cost of these steps in the earlier good runs",
            "excess_usd": "the difference",
            "unpriced_steps": "of the run's steps, those whose cost is unknown",
            "runs": "number of earlier good runs that are compared, at most 50",
            "step_ids": "the most expensive of the run's steps, at most five",
        },
        _run_cost_sentence,
    ),
)
