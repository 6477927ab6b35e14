"""How long things take: slowest steps, the critical path of a run, percentiles, two versions."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer, Record
from stepstream.queries.common import OWNED, RUNS_WITHIN, STEPS_WITHIN
from stepstream.queries.parameters import OWNER, RUN, WINDOW, Parameter, Unanswerable, limit
from stepstream.queries.question import Question, Rows, Values
from stepstream.queries.uncertainty import Sample, mean_difference, rate_difference
from stepstream.schemas.critical_path import Span, critical_path
from stepstream.schemas.formatting import format_dollars, format_duration, format_number_of

KIND: Final = Parameter("kind", "pattern", "Only steps of this kind.", "*")

_SLOWEST: Final = f"""
SELECT trace_id, step_id, kind, name, tool, model, agent, duration_us, start_time, status,
    cost_usd, output_tokens
FROM steps
WHERE {STEPS_WITHIN} AND {OWNED} AND kind LIKE {{kind:String}} AND kind != 'agent'
ORDER BY duration_us DESC, trace_id, step_id
LIMIT {{limit:UInt64}}"""

_PATH_STEPS: Final = """
SELECT step_id, parent_step_id, kind, name, tool, model,
    toUnixTimestamp64Micro(start_time) AS start_us, toUnixTimestamp64Micro(end_time) AS end_us,
    status, cost_usd
FROM trace(id = {run:String})
WHERE status != 'running'"""

# Quantiles need every value, and there are too many steps to sort those of whole days: durations
# and costs come from the runs, times to the first token from the streamed model calls alone.
_PERCENTILES: Final = f"""
SELECT runs.agent AS agent, runs.agent_version AS agent_version, runs, errors / runs AS error_rate,
    times[1] AS p50_duration_us, times[2] AS p95_duration_us, times[3] AS p99_duration_us,
    costs[1] AS p50_cost_usd, costs[2] AS p95_cost_usd, costs[3] AS p99_cost_usd,
    if(streamed = 0, NULL, tokens[1]) AS p50_first_token_us,
    if(streamed = 0, NULL, tokens[2]) AS p95_first_token_us, streamed
FROM
(
    SELECT agent, agent_version, count() AS runs, countIf(status = 'error') AS errors,
        quantiles(0.5, 0.95, 0.99)(duration_us) AS times,
        quantiles(0.5, 0.95, 0.99)(toFloat64(cost_usd)) AS costs
    FROM runs
    WHERE {RUNS_WITHIN} AND {OWNED} AND closed
    GROUP BY agent, agent_version
) AS runs
LEFT JOIN
(
    SELECT agent, agent_version, count() AS streamed,
        quantiles(0.5, 0.95)(dateDiff('microsecond', start_time, assumeNotNull(first_token_time)))
            AS tokens
    FROM steps
    WHERE {STEPS_WITHIN} AND {OWNED} AND isNotNull(first_token_time)
    GROUP BY agent, agent_version
) AS steps ON runs.agent = steps.agent AND runs.agent_version = steps.agent_version
ORDER BY runs DESC, agent, agent_version
LIMIT {{limit:UInt64}}"""

OLD: Final = Parameter("old", "text", "The version to compare with.", is_positional=True)
NEW: Final = Parameter("new", "text", "The version to compare.", is_positional=True)
TASK: Final = Parameter("task", "pattern", "Only this task.", "*")
AN_AGENT: Final = Parameter("agent", "pattern", "Only this agent.", "*", is_positional=True)

_COMPARED: Final = f"""
SELECT one.1 AS measure, countIf(NOT is_new) AS old_runs, countIf(is_new) AS new_runs,
    avgIf(one.2, NOT is_new) AS old_value, avgIf(one.2, is_new) AS new_value,
    varSampIf(one.2, NOT is_new) AS old_variance, varSampIf(one.2, is_new) AS new_variance
FROM
(
    SELECT agent_version = {{new:String}} AS is_new,
        arrayJoin([('error rate', toFloat64(status = 'error')),
            ('cost in dollars', toFloat64(cost_usd)), ('seconds', duration_us / 1e6),
            ('steps', toFloat64(steps)),
            ('tokens', toFloat64(input_tokens + output_tokens))]) AS one
    FROM runs
    WHERE {RUNS_WITHIN} AND {OWNED} AND closed AND task LIKE {{task:String}}
        AND agent_version IN ({{old:String}}, {{new:String}})
)
GROUP BY measure
ORDER BY indexOf(['error rate', 'cost in dollars', 'seconds', 'steps', 'tokens'], measure)"""


def _with_intervals(found: list[Record], values: Values, rows: Rows) -> list[Record]:
    return [_compared(row) for row in found]


def _compared(row: Record) -> Record:
    old = Sample(row["old_runs"], row["old_value"], row["old_variance"])
    new = Sample(row["new_runs"], row["new_value"], row["new_variance"])
    # A rate of few runs is not normally distributed: its interval has a formula of its own.
    interval_of = rate_difference if row["measure"] == "error rate" else mean_difference
    interval = interval_of(old, new)
    return {
        "measure": row["measure"],
        "old_runs": old.size,
        "new_runs": new.size,
        "old_value": old.mean if old.size else None,
        "new_value": new.mean if new.size else None,
        "difference": new.mean - old.mean if old.size and new.size else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "is_clear": interval is not None and interval.leaves_out_zero,
    }


def _on_path(steps: list[Record], values: Values, rows: Rows) -> list[Record]:
    if not steps:
        raise Unanswerable(f"run {values['run'][:8]} has no ended step yet")
    known = {step["step_id"]: step for step in steps}
    spans = [
        Span(step["step_id"], step["parent_step_id"], step["start_us"], step["end_us"])
        for step in steps
    ]
    whole = max(step["end_us"] for step in steps) - min(step["start_us"] for step in steps)
    found = []
    for part in critical_path(spans)[: values["limit"]]:
        step = known[part.step_id]
        found.append(
            {
                "step_id": part.step_id,
                "kind": step["kind"],
                "name": step["name"],
                "tool": step["tool"],
                "model": step["model"],
                "own_us": part.own_us,
                # A run of one step without duration has no time to divide.
                "share": part.own_us / max(1, whole),
                "duration_us": step["end_us"] - step["start_us"],
                "start_us": step["start_us"],
                "status": step["status"],
                "cost_usd": step["cost_usd"],
            }
        )
    return found


def _slowest_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No step ran in this time."
    first = answer.records()[0]
    return (
        f"The slowest step is {first['name']} of run {first['trace_id'][:8]} with "
        f"{format_duration(first['duration_us'])}."
    )


def _path_sentence(answer: Answer) -> str:
    rows = sorted(answer.records(), key=lambda row: -row["own_us"])
    whole = sum(row["own_us"] for row in rows)
    first = rows[0]
    return (
        f"{format_number_of(len(rows), 'step')} determine how long the run takes "
        f"({format_duration(whole)}); {first['name']} makes {first['share']:.0%} of it."
    )


def _percentiles_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No run ended in this time."
    first = answer.records()[0]
    return (
        f"Half of the {format_number_of(first['runs'], 'run')} of {first['agent']} "
        f"{first['agent_version']} took at most {format_duration(first['p50_duration_us'])} and "
        f"cost at most {format_dollars(first['p50_cost_usd'])}; 95 % took at most "
        f"{format_duration(first['p95_duration_us'])}."
    )


def _compared_sentence(answer: Answer) -> str:
    rows = answer.records()
    # Every measure has the same runs, so the first row has the numbers for all.
    if not rows or not min(rows[0]["old_runs"], rows[0]["new_runs"]):
        return "There are no closed runs of one of these versions in this time."
    clear = [row for row in rows if row["is_clear"]]
    sizes = f"{rows[0]['old_runs']:,} and {rows[0]['new_runs']:,} runs"
    if not clear:
        return f"With {sizes} no difference is larger than its uncertainty (95 % interval)."
    return f"With {sizes} these differ: {', '.join(map(_difference, clear))} (95 % interval)."


def _difference(row: Record) -> str:
    interval = f"{row['low']:+.3g} to {row['high']:+.3g}"
    return f"{row['measure']} by {row['difference']:+.3g} ({interval})"


QUESTIONS: Final = (
    Question(
        "slowest",
        "Which steps took longest?",
        _SLOWEST,
        (*WINDOW, *OWNER, KIND, limit(20)),
        {
            "duration_us": "how long it took, microseconds",
            "name": "its name",
            "kind": "its kind",
            "tool": "its tool",
            "model": "its model",
            "agent": "its agent",
            "trace_id": "the run",
            "step_id": "the step",
            "start_time": "its start, UTC",
            "status": "how it ended",
            "cost_usd": "its cost; NULL where unknown or none",
            "output_tokens": "tokens that it wrote",
        },
        _slowest_sentence,
    ),
    Question(
        "critical-path",
        "Which steps determine how long a run takes?",
        _PATH_STEPS,
        (RUN, limit(200)),
        {
            "step_id": "the step, in order of time",
            "kind": "its kind",
            "name": "its name",
            "tool": "its tool",
            "model": "its model",
            "own_us": "time on the path during which none of its own steps ran",
            "share": "part of the run's time, 0 to 1",
            "duration_us": "how long it took altogether",
            "start_us": "its start, microseconds since 1970",
            "status": "how it ended",
            "cost_usd": "its cost",
        },
        _path_sentence,
        _on_path,
    ),
    Question(
        "percentiles",
        "How long do runs of each agent and version take, until the first token, at what cost?",
        _PERCENTILES,
        (*WINDOW, *OWNER, limit(50)),
        {
            "agent": "the agent",
            "agent_version": "its version",
            "runs": "closed runs",
            "error_rate": "part of them that failed",
            "p50_duration_us": "half of the runs took at most so long",
            "p95_duration_us": "95 % did",
            "p99_duration_us": "99 % did",
            "p50_cost_usd": "half of the runs cost at most so much",
            "p95_cost_usd": "95 % did",
            "p99_cost_usd": "99 % did",
            "p50_first_token_us": "half of the streamed model calls gave a token within this time; "
            "NULL without any",
            "p95_first_token_us": "95 % did",
            "streamed": "model calls whose first token has a time",
        },
        _percentiles_sentence,
    ),
    Question(
        "versions",
        "How do two versions of an agent differ, and how certain is that?",
        _COMPARED,
        (AN_AGENT, OLD, NEW, TASK, *WINDOW, *OWNER[:2]),
        {
            "measure": "what is compared; means per run",
            "old_runs": "closed runs of the old version",
            "new_runs": "closed runs of the new version",
            "old_value": "mean of the old version",
            "new_value": "mean of the new version",
            "difference": "new minus old",
            "low": "lower end of the 95 % interval of the difference; NULL for too few runs",
            "high": "upper end",
            "is_clear": "whether the interval leaves out 0",
        },
        _compared_sentence,
        _with_intervals,
    ),
)
