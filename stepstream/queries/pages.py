"""What the console's pages show besides the questions that people ask by name."""

from __future__ import annotations

from typing import Any, Final

from stepstream.queries.answer import Answer, Record
from stepstream.queries.common import OWNED, similar_runs
from stepstream.queries.parameters import (
    OWNER,
    PROJECT,
    RUN,
    WINDOW,
    Parameter,
    limit,
    time_text,
)
from stepstream.queries.question import Finish, Question, Rows, Values
from stepstream.queries.runs import RUN_COLUMNS
from stepstream.schemas.formatting import format_number_of

# Columns with which runs of every length are listed: the path of a run may have 1 MB.
_RUN: Final = "SELECT * EXCEPT (path, path_json) FROM runs WHERE trace_id = {run:String}"

_ABOUT: Final = {
    "trace_id": "the run",
    "project": "its project",
    "status": "its status",
    "root_step_id": "its root step",
    "environment": "its environment",
    "agent": "its agent",
    "agent_version": "its agent's version",
    "task": "its task",
}

# A run that has just begun has rows of steps before it has one of runs. Where it has one, the
# condition is false before anything is read; else the steps are found by an index of ids.
_TARGET: Final = """
SELECT trace_id, project, status, root_step_id, environment, agent, agent_version, task
FROM runs WHERE trace_id = {run:String}
UNION ALL
SELECT trace_id, project, 'running', '', environment, agent, agent_version, task
FROM trace(id = {run:String})
WHERE (SELECT count() FROM runs WHERE trace_id = {run:String}) = 0
LIMIT 1"""

NORMAL: Final = ("cost_usd", "duration_us", "input_tokens", "output_tokens", "steps")
_PARTS: Final = ", ".join(
    f"quantilesExact(0.05, 0.5, 0.95)(toFloat64({name})) AS {name}" for name in NORMAL
)
_NORMAL: Final = f"""
SELECT count() AS runs, {_PARTS}
FROM ({similar_runs(", ".join(NORMAL))})"""

# Cost so far at 25 moments up to 1.2 times the 95th percentile of the duration. The runs are a
# scalar, which is computed once, and steps before the first of them are not read.
_BAND: Final = f"""
WITH
    (
        SELECT groupArray((trace_id, start_time, duration_us))
        FROM ({similar_runs("trace_id, start_time, duration_us")})
    ) AS known,
    known.1 AS traces, known.2 AS starts,
    arrayReduce('quantileExact(0.95)', known.3) * 1.2 AS longest
SELECT elapsed_us, count() AS runs, quantilesExact(0.05, 0.5, 0.95)(usd) AS cost_usd
FROM
(
    SELECT arrayJoin(range(25)) AS n, toUInt64(n * longest / 24) AS elapsed_us,
        arraySum(arrayFilter((cost, at) -> at <= elapsed_us, costs, ats)) AS usd
    FROM
    (
        SELECT s.trace_id AS trace, groupArray(toFloat64(ifNull(s.cost_usd, 0))) AS costs,
            groupArray(dateDiff('microsecond', starts[indexOf(traces, s.trace_id)], s.end_time))
                AS ats
        FROM steps AS s
        WHERE s.start_time >= arrayMin(starts) - toIntervalHour(1)
            AND s.start_time < {{run_start:DateTime64(6, 'UTC')}} + toIntervalDay(1)
            AND s.trace_id IN (traces)
        GROUP BY trace
    )
)
GROUP BY elapsed_us
ORDER BY elapsed_us"""

_LAST_STEP: Final = {
    "last_step_id": "its newest open step",
    "last_kind": "that step's kind",
    "last_name": "its name",
    "last_tool": "its tool",
    "last_model": "its model",
    "last_start": "its start",
}
_RUNNING: Final = f"""
SELECT {", ".join(RUN_COLUMNS)}, root_step_id
FROM runs
WHERE run_day >= today() - 2 AND NOT closed AND status = 'running' AND {OWNED}
ORDER BY start_time DESC, trace_id
LIMIT {{limit:UInt64}}"""
# Not by the view open_steps, which looks for the ends of every step of two days: of the runs that
# are listed an index of ids finds them.
_NEWEST: Final = """
SELECT trace_id, argMax((step_id, kind, name, tool, model, start_time), start_time) AS newest
FROM steps_open FINAL
WHERE trace_id IN {traces:Array(String)} AND (trace_id, step_id) NOT IN
(
    SELECT trace_id, step_id FROM steps_raw
    WHERE trace_id IN {traces:Array(String)}
        AND start_time >= {first:DateTime64(6, 'UTC')} - toIntervalHour(1)
)
GROUP BY trace_id"""


def _with_newest(runs: list[Record], _values: Values, rows: Rows) -> list[Record]:
    """The runs with their newest open steps."""
    if not runs:
        return []
    first = time_text(min(run["start_time"] for run in runs))
    found = rows(_NEWEST, {"traces": [run["trace_id"] for run in runs], "first": first})
    newest = {row["trace_id"]: row["newest"] for row in found}
    none = (*("",) * (len(_LAST_STEP) - 1), None)
    return [
        run | dict(zip(_LAST_STEP, newest.get(run["trace_id"], none), strict=True)) for run in runs
    ]


_NORMAL_COSTS: Final = f"""
SELECT project, environment, agent, task, count() AS runs,
    quantiles(0.05, 0.5, 0.95)(toFloat64(cost_usd)) AS cost_usd
FROM runs
WHERE run_day >= today() - 7 AND closed AND status = 'ok' AND {OWNED}
GROUP BY project, environment, agent, task
ORDER BY runs DESC
LIMIT {{limit:UInt64}}"""

_ENDED: Final = f"""
SELECT count() AS runs, countIf(status = 'error') AS failed
FROM runs
WHERE run_day >= today() - 1 AND status != 'running' AND end_time >= now64(6) - toIntervalMinute(10)
    AND {OWNED}"""

_SPEND: Final = f"""
SELECT agent,
    toFloat64(sumIf(cost_usd, time >= toStartOfMinute(now()) - 3600)) AS hour_usd,
    toFloat64(sumIf(cost_usd, time < toStartOfMinute(now()) - 3600)) AS hour_before_usd
FROM metrics_1m
WHERE time >= toStartOfMinute(now()) - 7200 AND {OWNED}
GROUP BY agent
ORDER BY hour_usd DESC
LIMIT {{limit:UInt64}}"""

STATE: Final = Parameter("state", "pattern", "Only this state: firing or resolved.", "*")
SEVERITY: Final = Parameter("severity", "pattern", "Only this severity.", "*")
NAME: Final = Parameter("alert", "pattern", "Only alerts with this name.", "*")
TRACE: Final = Parameter("trace", "pattern", "Only alerts about this run.", "*")
ALERT_ID: Final = Parameter("id", "text", "Id of the alert, or a beginning of it.")
RUN_TEXT: Final = Parameter("id", "text", "What was given as the id of a run.")

_ALERT: Final = "SELECT * EXCEPT (kafka_topic_id, kafka_partition, kafka_offset) FROM"
_MATCHING: Final = f"""{OWNED} AND severity LIKE {{severity:String}}
    AND alert LIKE {{alert:String}}
    AND ({{trace:String}} = '%' OR trace_id LIKE {{trace:String}}
        OR arrayExists(one -> one LIKE {{trace:String}}, trace_ids))"""
# A firing alert is listed whenever it opened; the window is for the others.
_ALERTS: Final = f"""
{_ALERT} alerts
WHERE (state = 'firing' OR (updated_at >= {{since:DateTime64(6, 'UTC')}}
        AND opened_at < {{until:DateTime64(6, 'UTC')}}))
    AND state LIKE {{state:String}} AND {_MATCHING}
ORDER BY state = 'firing' DESC, updated_at DESC, alert_id
LIMIT {{limit:UInt64}}"""
_ALERT_COUNTS: Final = f"""
SELECT state, severity, count() AS alerts FROM alerts
WHERE (state = 'firing' OR updated_at >= {{since:DateTime64(6, 'UTC')}}) AND {_MATCHING}
GROUP BY state, severity ORDER BY state, severity"""
_ONE_ALERT: Final = f"""
{_ALERT} alerts WHERE startsWith(alert_id, {{id:String}}) ORDER BY updated_at DESC LIMIT 3"""
_ALERT_EVENTS: Final = """
SELECT alert_id, seq, state, severity, updated_at, change, by, value, message, acknowledged_by,
    silenced_until
FROM alert_events WHERE alert_id = {id:String} ORDER BY seq DESC LIMIT 200"""

STEP: Final = Parameter("step", "text", "Id of the step.")
BYTES: Final = Parameter("bytes", "number", "Longest input and output.", 65_536)
_CONTENT: Final = """
SELECT step_id, substring(t.input, 1, toUInt64({bytes:Float64})) AS input,
    substring(t.output, 1, toUInt64({bytes:Float64})) AS output,
    ifNull(t.input_bytes, length(t.input)) AS input_bytes,
    ifNull(t.output_bytes, length(t.output)) AS output_bytes,
    length(t.input) > {bytes:Float64} AS input_cut,
    length(t.output) > {bytes:Float64} AS output_cut,
    t.documents AS documents, t.attributes AS attributes, t.tool_schema AS tool_schema,
    t.error_message AS error_message
FROM trace(id = {run:String}) AS t WHERE t.step_id = {step:String} LIMIT 1"""

_NEAR: Final = """
SELECT trace_id FROM
(
    SELECT DISTINCT trace_id, ngramDistance(trace_id, {id:String}) AS distance FROM runs
    WHERE run_day >= today() - 2 AND project LIKE {project:String}
    ORDER BY start_time DESC LIMIT 20000
)
WHERE startsWith(trace_id, substring({id:String}, 1, 4)) OR distance < 0.5
ORDER BY startsWith(trace_id, substring({id:String}, 1, 4)) DESC, distance, trace_id LIMIT 3"""

_PROJECTS: Final = """
SELECT DISTINCT project FROM runs WHERE run_day >= today() - 30 ORDER BY project
LIMIT {limit:UInt64}"""


def _counted(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'row')}."


def _page(
    name: str, asks: str, sql: str, parameters: Any, columns: Any, finish: Finish | None = None
) -> Question:
    return Question(name, asks, sql, parameters, columns, _counted, finish, is_listed=False)


def _named(*names: str) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in names}


_RUN_ROW: Final = _named(
    "run_day", "trace_id", "revision", "status", "success", "success_reason", "closed",
    "project", "environment", "agent",
    "agent_version", "task", "session_id", "user_id", "root_step_id", "name", "start_time",
    "end_time", "duration_us", "steps", "ended_steps", "open_steps", "error_steps",
    "cancelled_steps", "llm_calls", "tool_calls", "retrievals", "unpriced_steps", "orphan_steps",
    "extra_roots", "duplicates", "late_steps", "steps_over_limit", "skewed_steps", "input_tokens",
    "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens", "cost_usd",
    "tools", "models", "failed_step_id", "failed_kind", "failed_tool", "error_type",
    "error_message", "findings", "release", "config_drift", "task_id", "attempt",
)  # fmt: skip
_ALERT_ROW: Final = _named(
    "alert_id", "seq", "state", "severity", "alert", "rule", "policy", "project", "environment",
    "agent", "agent_version", "task", "trace_id", "subject", "step_ids", "value", "threshold",
    "unit", "baseline", "baseline_runs", "message", "detail", "running", "findings", "opened_at",
    "updated_at", "resolved_at", "acknowledged_by", "silenced_until", "action", "change", "by",
    "reopened", "runs", "trace_ids", "incident_id", "user_id", "quoted", "withdrawn",
)  # fmt: skip
_FILTERS: Final = (*OWNER, SEVERITY, NAME, TRACE)

QUESTIONS: Final = (
    _page("run", "What is known of a run?", _RUN, (RUN,), _RUN_ROW),
    _page("target", "Which run does a command go to?", _TARGET, (RUN,), _ABOUT),
    _page(
        "normal",
        "What is normal for a run: the 5th, 50th and 95th percentile of good runs?",
        _NORMAL,
        (RUN,),
        _named("runs", *NORMAL),
    ),
    _page(
        "band",
        "What had good runs cost after some time?",
        _BAND,
        (RUN,),
        _named("elapsed_us", "runs", "cost_usd"),
    ),
    _page(
        "running",
        "What runs now, and what is it doing?",
        _RUNNING,
        (*OWNER, limit(200)),
        {**RUN_COLUMNS, "root_step_id": "its root step", **_LAST_STEP},
        _with_newest,
    ),
    _page(
        "normal-costs",
        "What do good runs of each agent and task cost?",
        _NORMAL_COSTS,
        (*OWNER, limit(1_000)),
        _named("project", "environment", "agent", "task", "runs", "cost_usd"),
    ),
    _page(
        "ended",
        "How many runs have ended in the last ten minutes?",
        _ENDED,
        OWNER,
        _named("runs", "failed"),
    ),
    _page(
        "spend",
        "What did agents cost in the last hour and the one before?",
        _SPEND,
        (*OWNER, limit(20)),
        _named("agent", "hour_usd", "hour_before_usd"),
    ),
    _page(
        "alerts", "Which alerts are there?", _ALERTS, (*WINDOW, STATE, *_FILTERS, limit(200)),
        _ALERT_ROW,
    ),
    _page(
        "alert-counts",
        "How many alerts are there by state and severity?",
        _ALERT_COUNTS,
        (*WINDOW, *_FILTERS),
        _named("state", "severity", "alerts"),
    ),
    _page("alert", "What is an alert?", _ONE_ALERT, (ALERT_ID,), _ALERT_ROW),
    _page(
        "alert-events",
        "What has happened to an alert?",
        _ALERT_EVENTS,
        (ALERT_ID,),
        _named(
            "alert_id", "seq", "state", "severity", "updated_at", "change", "by", "value",
            "message", "acknowledged_by", "silenced_until",
        ),
    ),
    _page(
        "content",
        "What did a step read and write?",
        _CONTENT,
        (RUN, STEP, BYTES),
        _named(
            "step_id", "input", "output", "input_bytes", "output_bytes", "input_cut", "output_cut",
            "documents", "attributes", "tool_schema", "error_message",
        ),
    ),
    _page("near", "Which runs have a similar id?", _NEAR, (RUN_TEXT, PROJECT), _named("trace_id")),
    _page(
        "projects", "Which projects had runs in 30 days?", _PROJECTS, (limit(200),),
        _named("project"),
    ),
)  # fmt: skip
