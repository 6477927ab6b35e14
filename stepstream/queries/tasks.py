"""Requested tasks: which wait and why, who runs them, the story of one, each agent's queue."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.parameters import (
    AGENT,
    ENVIRONMENT,
    PROJECT,
    WINDOW,
    Parameter,
    limit,
)
from stepstream.queries.question import Question, Values
from stepstream.schemas.formatting import format_number_of
from stepstream.schemas.task_state import FINAL

_ENDED: Final = ", ".join(f"'{state}'" for state in sorted(FINAL))
_IS_OPEN: Final = f"state NOT IN ({_ENDED})"

ID: Final = Parameter("id", "text", "Id of the task, or a beginning of it.", is_positional=True)
TASK_ID: Final = Parameter("task", "text", "Id of the task.")
TASK_PROJECT: Final = Parameter("in_project", "text", "Project of the task.")
SUBMITTED_US: Final = Parameter(
    "submitted_us", "text", "When it was submitted, in microseconds since 1970."
)
STATE: Final = Parameter("state", "pattern", "Only tasks in this state.", "*")
WAITING_FOR: Final = Parameter("waiting_for", "pattern", "Only tasks that wait for this.", "*")
USER: Final = Parameter("user", "pattern", "Only tasks for this user.", "*")
SESSION: Final = Parameter("session", "pattern", "Only tasks of this session.", "*")
KEY: Final = Parameter("key", "pattern", "Only tasks with this key.", "*")
EXECUTOR: Final = Parameter("executor", "pattern", "Only tasks of this executor.", "*")
# Its values become the expression by which rows are sorted, so only these are accepted.
SORT: Final = Parameter(
    "sort",
    "choice",
    "What comes first: the newest submit, the task that is to run next, or the last change.",
    "newest",
    choices={
        "newest": "submitted_at DESC",
        "next": "priority DESC, submitted_at",
        "changed": "changed_at DESC",
    },
)

TASK_COLUMNS: Final = {
    "task_id": "the task",
    "project": "its project",
    "state": "waiting, bound, running; finally ok, failed, cancelled, expired, dead or refused",
    "waiting_for": "why it waits",
    "waiting_until": "until when, where that is known",
    "reason": "why it is in this state, as a word",
    "detail": "and as a sentence",
    "agent": "the agent that was requested",
    "version": "the version that was requested; empty: any",
    "run_agent": "the agent that runs it",
    "run_version": "its version",
    "attempt": "number of its current or last attempt",
    "max_attempts": "attempts at most, as submitted",
    "priority": "0 to 9",
    "key": "its key",
    "executor_id": "the executor of its attempt",
    "trace_id": "the run of its attempt",
    "user_id": "the user that it is for",
    "session_id": "the conversation",
    "submitted_at": "when it was submitted, UTC",
    "not_before": "end of its delay",
    "deadline_at": "when it expires",
    "started_at": "when its attempt began",
    "ended_at": "when it ended",
    "changed_at": "its last change",
    "cancelling": "it was asked to stop",
    "error_type": "error of its last attempt that failed",
    "error_message": "its message, the first 500 characters",
}
_COLUMNS: Final = ", ".join(
    "substring(t.error_message, 1, 500) AS error_message"
    if name == "error_message"
    else f"t.{name}"
    for name in TASK_COLUMNS
)
_OWNED: Final = "project LIKE {project:String} AND agent LIKE {agent:String}"


def _tasks_sql(values: Values) -> str:
    # A task that has not ended is listed whenever it was submitted; the window is for the others.
    return f"""
SELECT {_COLUMNS}
FROM tasks AS t
WHERE ({_IS_OPEN} OR (submitted_at >= {{since:DateTime64(6, 'UTC')}}
        AND submitted_at < {{until:DateTime64(6, 'UTC')}}))
    AND {_OWNED} AND environment LIKE {{environment:String}}
    AND state LIKE {{state:String}} AND waiting_for LIKE {{waiting_for:String}}
    AND user_id LIKE {{user:String}} AND session_id LIKE {{session:String}}
    AND key LIKE {{key:String}} AND executor_id LIKE {{executor:String}}
ORDER BY {values["sort"]}, task_id
LIMIT {{limit:UInt64}}"""


# The exact id first: one task's id may be the beginning of another's.
_TASK: Final = """
SELECT * EXCEPT (kafka_topic_id, kafka_partition, kafka_offset, append_time)
FROM tasks
WHERE project LIKE {project:String} AND startsWith(task_id, {id:String})
ORDER BY task_id = {id:String} DESC, submitted_at DESC
LIMIT 4"""

_ABOUT: Final = """project = {in_project:String} AND task_id = {task:String}
    AND submitted_at = fromUnixTimestamp64Micro(toInt64OrZero({submitted_us:String}))"""
_EVENTS: Final = f"""
SELECT revision, changed_at, event, state, waiting_for, waiting_until, reason, detail, by,
    target, run_agent, run_version, attempt, executor_id, trace_id, error_type,
    substring(error_message, 1, 500) AS error_message
FROM task_events
WHERE {_ABOUT}
ORDER BY revision
LIMIT {{limit:UInt64}}"""

# The ids of its runs first: an index of ids then finds the rows of runs and findings.
_RUN_IDS: Final = f"SELECT DISTINCT trace_id FROM task_events WHERE {_ABOUT} AND trace_id != ''"
_RUNS: Final = f"""
SELECT trace_id, task_id, attempt, status, success, agent, agent_version, start_time, end_time,
    duration_us, steps, error_steps, cost_usd, unpriced_steps, error_type,
    substring(r.error_message, 1, 500) AS error_message, findings
FROM runs AS r
WHERE trace_id IN ({_RUN_IDS})
ORDER BY start_time"""
_FINDINGS: Final = f"""
SELECT trace_id, min(time) AS first_seen, alert, any(rule) AS rule,
    argMax(severity, time) AS severity, argMax(message, time) AS message
FROM findings
WHERE trace_id IN ({_RUN_IDS}) AND state != 'marked'
GROUP BY trace_id, alert, subject
HAVING NOT max(withdrawn)
ORDER BY first_seen
LIMIT {{limit:UInt64}}"""

_REFUSALS: Final = """
SELECT refused_at, refused, reason, detail FROM task_refusals
WHERE project = {in_project:String} AND task_id = {task:String}
ORDER BY refused_at DESC
LIMIT {limit:UInt64}"""

# Executors that have left stay listed for an hour.
_EXECUTORS: Final = f"""
SELECT e.project AS project, executor_id, state, reason, host, pid, slots,
    toUInt32(ifNull(own.running, 0)) AS used, agents, started_at, last_beat, drain_by, changed_at,
    toUInt32(ifNull(own.done, 0)) AS ended_1h
FROM executors AS e
LEFT JOIN
(
    SELECT project, executor_id, countIf({_IS_OPEN}) AS running,
        countIf(ended_at >= now64(6) - toIntervalHour(1)) AS done
    FROM tasks
    WHERE executor_id != '' AND changed_at >= now64(6) - toIntervalDay(31)
    GROUP BY project, executor_id
) AS own ON own.project = e.project AND own.executor_id = e.executor_id
WHERE e.project LIKE {{project:String}}
    AND ({{agent:String}} = '%' OR arrayExists(one -> one.1 LIKE {{agent:String}}, agents))
    AND (state NOT IN ('lost', 'left') OR changed_at >= now64(6) - toIntervalHour(1))
ORDER BY state IN ('lost', 'left'), e.project, executor_id
LIMIT {{limit:UInt64}}"""

# A slot is of every agent of its executor, so slots of several agents must not be added up.
_QUEUES: Final = f"""
SELECT if(queue.project = '', offered.project, queue.project) AS project,
    if(queue.agent = '', offered.agent, queue.agent) AS agent, waiting, waiting_for, oldest,
    running, started_1h, ended_1h, ok_1h, failed_1h, retried_1h,
    toUInt32(ifNull(offered.executors, 0)) AS executors,
    toUInt32(ifNull(offered.slots, 0)) AS slots, ifNull(offered.versions, []) AS versions
FROM
(
    SELECT project, agent, countIf(state = 'waiting') AS waiting,
        arraySort(groupUniqArrayIf(t.waiting_for, state = 'waiting')) AS waiting_for,
        minOrNullIf(greatest(submitted_at, ifNull(not_before, submitted_at)),
            state = 'waiting' AND t.waiting_for NOT IN ('delay', 'after')) AS oldest,
        countIf(state IN ('bound', 'running')) AS running,
        countIf(started_at >= now64(6) - toIntervalHour(1)) AS started_1h,
        countIf(ended_at >= now64(6) - toIntervalHour(1)) AS ended_1h,
        countIf(ended_at >= now64(6) - toIntervalHour(1) AND state = 'ok') AS ok_1h,
        countIf(ended_at >= now64(6) - toIntervalHour(1)
            AND state IN ('failed', 'dead', 'expired')) AS failed_1h,
        countIf(ended_at >= now64(6) - toIntervalHour(1) AND attempt > 1) AS retried_1h
    FROM tasks AS t
    WHERE {_OWNED} AND ({_IS_OPEN} OR changed_at >= now64(6) - toIntervalDay(1))
    GROUP BY project, agent
) AS queue
FULL OUTER JOIN
(
    SELECT project, offer.1 AS agent, uniqExact(executor_id) AS executors,
        sum(if(offer.3 = 0, slots, least(offer.3, slots))) AS slots,
        arraySort(groupUniqArray(offer.2)) AS versions
    FROM executors ARRAY JOIN agents AS offer
    WHERE state IN ('ready', 'not_ready') AND project LIKE {{project:String}}
        AND offer.1 LIKE {{agent:String}}
    GROUP BY project, agent
) AS offered ON offered.project = queue.project AND offered.agent = queue.agent
ORDER BY waiting DESC, project, agent
LIMIT {{limit:UInt64}}"""

# After a repetition not_before is the end of the pause before it, and no longer that of the delay.
_FIGURES: Final = f"""
SELECT countIf(state = 'waiting') AS waiting, countIf(state IN ('bound', 'running')) AS running,
    countIf(ended_at >= now64(6) - toIntervalHour(1)) AS ended,
    countIf(ended_at >= now64(6) - toIntervalHour(1) AND state = 'ok') AS ok,
    countIf(ended_at >= now64(6) - toIntervalHour(1) AND state = 'failed') AS failed,
    countIf(ended_at >= now64(6) - toIntervalHour(1) AND state = 'dead') AS dead,
    sumIf(attempt, ended_at >= now64(6) - toIntervalHour(1)) AS attempts,
    countIf(ended_at >= now64(6) - toIntervalHour(1) AND attempt > 0) AS attempted,
    quantilesExactIf(0.5, 0.99)(
        dateDiff('microsecond',
            if(attempt > 1, submitted_at, greatest(submitted_at, ifNull(not_before, submitted_at))),
            ifNull(first_start, submitted_at)),
        first_start >= now64(6) - toIntervalHour(1)) AS start_us
FROM
(
    SELECT *, if(empty(attempts), started_at, ifNull(attempts[1].8, started_at)) AS first_start
    FROM tasks
    WHERE {_OWNED} AND ({_IS_OPEN} OR changed_at >= now64(6) - toIntervalHour(2))
)"""


def _counted(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'row')}."


def _named(*names: str) -> dict[str, str]:
    return {name: name.replace("_", " ") for name in names}


_ABOUT_ONE: Final = (TASK_PROJECT, TASK_ID, SUBMITTED_US)
_WHOLE: Final = _named(
    "project", "task_id", "submitted_at", "epoch", "revision", "changed_at", "event", "state",
    "waiting_for", "waiting_until", "reason", "detail", "by", "agent", "version", "environment",
    "user_id", "session_id", "submitted_by", "priority", "key", "on_busy", "after",
    "parent_task_id", "max_attempts", "timeout_us", "budget_usd", "not_before", "deadline_at",
    "attempt", "fence", "executor_id", "target", "run_agent", "run_version", "trace_id",
    "bound_at", "started_at", "ended_at", "lease_us", "timeout_at", "cancelling", "stopping",
    "attempts", "fallbacks", "executors_lost", "once", "input", "input_ref", "result",
    "error_type", "error_message",
)  # fmt: skip

QUESTIONS: Final = (
    Question(
        "tasks",
        "Which tasks are there?",
        _tasks_sql,
        (
            *WINDOW, PROJECT, ENVIRONMENT, AGENT, STATE, WAITING_FOR, USER, SESSION, KEY, EXECUTOR,
            SORT, limit(50),
        ),
        TASK_COLUMNS,
        _counted,
        is_listed=False,
    ),
    Question(
        "task", "What is known of a task?", _TASK, (ID, PROJECT), _WHOLE, _counted,
        is_listed=False,
    ),
    Question(
        "task-events",
        "What has happened to a task?",
        _EVENTS,
        (*_ABOUT_ONE, limit(1_000)),
        _named(
            "revision", "changed_at", "event", "state", "waiting_for", "waiting_until", "reason",
            "detail", "by", "target", "run_agent", "run_version", "attempt", "executor_id",
            "trace_id", "error_type", "error_message",
        ),
        _counted,
        is_listed=False,
    ),
    Question(
        "task-runs",
        "Which runs are attempts at a task?",
        _RUNS,
        _ABOUT_ONE,
        _named(
            "trace_id", "task_id", "attempt", "status", "success", "agent", "agent_version",
            "start_time", "end_time", "duration_us", "steps", "error_steps", "cost_usd",
            "unpriced_steps", "error_type", "error_message", "findings",
        ),
        _counted,
        is_listed=False,
    ),
    Question(
        "task-findings",
        "What was found in the runs of a task?",
        _FINDINGS,
        (*_ABOUT_ONE, limit(200)),
        _named("trace_id", "first_seen", "alert", "rule", "severity", "message"),
        _counted,
        is_listed=False,
    ),
    Question(
        "task-refusals",
        "Which submits and commands for a task were refused?",
        _REFUSALS,
        (TASK_PROJECT, TASK_ID, limit(20)),
        _named("refused_at", "refused", "reason", "detail"),
        _counted,
        is_listed=False,
    ),
    Question(
        "executors",
        "Which executors are there, and how many of their slots are in use?",
        _EXECUTORS,
        (PROJECT, AGENT, limit(500)),
        _named(
            "project", "executor_id", "state", "reason", "host", "pid", "slots", "used", "agents",
            "started_at", "last_beat", "drain_by", "changed_at", "ended_1h",
        ),
        _counted,
        is_listed=False,
    ),
    Question(
        "queues",
        "How many tasks wait for each agent, why, and who could run them?",
        _QUEUES,
        (PROJECT, AGENT, limit(500)),
        _named(
            "project", "agent", "waiting", "waiting_for", "oldest", "running", "started_1h",
            "ended_1h", "ok_1h", "failed_1h", "retried_1h", "executors", "slots", "versions",
        ),
        _counted,
        is_listed=False,
    ),
    Question(
        "task-figures",
        "How many tasks wait, run and have ended in the last hour?",
        _FIGURES,
        (PROJECT, AGENT),
        _named(
            "waiting", "running", "ended", "ok", "failed", "dead", "attempts", "attempted",
            "start_us",
        ),
        _counted,
        is_listed=False,
    ),
)  # fmt: skip
