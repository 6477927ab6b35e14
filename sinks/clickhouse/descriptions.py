"""The comments of tables and columns, mostly the field descriptions of the models.

``DESCRIBE`` and the data dictionary show them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pydantic import BaseModel

from stepstream.schemas.alert import Alert, Finding
from stepstream.schemas.delivery import Delivery
from stepstream.schemas.step import StepEvent
from stepstream.schemas.task_state import ExecutorState, TaskRefusal, TaskState
from stepstream.schemas.trajectory import Trajectory
from stepstream.schemas.usage import TokenUsage

_ARRIVAL: Final = {
    "append_time": "when Kafka stored the record",
    "kafka_topic_id": "id of the Kafka topic that the record came from",
    "kafka_partition": "its partition",
    "kafka_offset": "its offset",
}
_OURS: Final = {
    "ver": "version of the row: of the rows of a step or change the lowest offset wins",
    "is_deleted": "1: the run is removed",
    "cost_nanos": "the cost as it is inserted, in nano-dollars; not stored",
}
_SHARED: Final = {
    "trace_id": "the run: 32 lower-case hex digits",
    "project": "the project that the run belongs to",
    "environment": "prod, staging, dev ...",
    "agent": "the agent's name",
    "agent_version": "the agent's version",
    "task": "task type, e.g. refund",
    "session_id": "conversation that the run belongs to",
    "user_id": "the user that the run was for",
}
_STEPS: Final = {
    "start_time": "when the step started",
    "end_time": "when the step ended",
    "first_token_time": "when the first streamed output arrived",
    "duration_us": "end_time - start_time in microseconds",
    "cost_usd": "the step's own cost, exact to the nano-dollar; NULL where unknown",
    "cost_source": "given, priced or unpriced; empty: the step used nothing that costs",
    "usage_is_repeated": (
        "its usage and cost repeat those of calls below it: they are 0 here and counted there"
    ),
    "usage_details": "other priced counts by name, e.g. audio, images, searches; without zeros",
}
_OPEN_STEPS: Final = {"age_us": "microseconds since the step started"}
_RUNS: Final = {
    "run_day": "UTC day of the run's first record",
    "revision": "grows with every step merged; readers keep the highest",
    "closed": "whether the run is closed",
    "root_step_id": "id of the root step",
    "start_time": "start of the root, else of the earliest step",
    "end_time": "end of the root; until it ended, the latest time seen in a step",
    "duration_us": "end_time - start_time in microseconds",
    "ended_steps": "steps that ended",
    "error_steps": "steps that ended with an error",
    "cancelled_steps": "steps that were cancelled",
    "llm_calls": "steps of kind llm_call",
    "tool_calls": "steps of kind tool_call",
    "retrievals": "steps of kind retrieval",
    "cost_usd": "sum of the costs of the priced steps, exact to the nano-dollar",
    "models": "models used, in order of their first call",
    "failed_kind": "kind of the failed step",
    "failed_tool": "tool of the failed step",
    "error_type": "exception class or error code of the failed step",
    "error_message": "error message of the failed step",
    "path": "steps by start time, each 'kind name'",
    "path_json": "the path with ids, parents and status, as JSON",
    "path_truncated": "the run has more steps than the path shows",
}
_ALERTS: Final = {
    "state": "firing or resolved",
    "severity": "info, warning, error or critical",
    "alert": "the rule's name in the policy",
    "rule": "the rule that was checked, e.g. run_cost",
    "value": "what was measured",
    "threshold": "the limit that was exceeded",
    "unit": "unit of value, threshold and baseline: usd, tokens, steps, us, ratio, count",
    "opened_at": "when the problem began",
    "updated_at": "when this record was written",
    "resolved_at": "when the problem ended; NULL while it lasts",
    "acknowledged_by": "the person who acknowledged it",
    "silenced_until": "end of the silence; NULL without one",
    "opened_offset": (
        "offset of the finding that opened it; -1, and 0 in rows of older releases: not known"
    ),
    "source_partition": "partition of the findings topic that it is made from",
}
_METRICS: Final = {
    "time": "start of the minute or hour that the steps started in, UTC",
    "kind": "kind of the steps",
    "tool": "the tool that was called or chosen",
    "model": "the model that answered",
    "provider": "the model's provider",
    "error_type": "exception class or error code",
    "steps": "steps that ended",
    "error_steps": "steps that ended with an error",
    "cancelled_steps": "steps that were cancelled",
    "unpriced_steps": "steps of unknown cost: without a price, or a model call without usage",
    "cost_usd": "sum of the steps' own costs, exact to the nano-dollar",
    "duration_us": "sum of the steps' durations in microseconds",
    "avg_duration_us": "mean duration",
    "max_duration_us": "longest duration",
    "p50_duration_us": "median duration, within 2.2 %",
    "p90_duration_us": "90th percentile of durations, within 2.2 %",
    "p99_duration_us": "99th percentile of durations, within 2.2 %",
    "latency": (
        "histogram of durations: bucket round(16 * log2(microseconds)) -> steps; merge with sumMap"
    ),
}
_DELIVERIES: Final = {
    "subscription": "the subscription's name",
    "alert_id": "id of the alert",
    "state": "pending, failed, delivered, parked, grouped or silenced",
    "next_try": "time of the next attempt; NULL: there is none",
    "since": "since when it waits for delivery; NULL: it does not wait",
    "told_state": "state of the alert that was delivered last",
    "told_severity": "severity that was delivered last",
    "told_at": "time of the last delivery; NULL: not delivered yet",
    "severity": "the alert's severity",
    "alert_state": "the alert's state",
}
_FINDINGS: Final = {
    "finding_id": "derived from the log: the same finding has the same id",
    "state": "firing, resolved; acknowledged, silenced or marked by a person",
    "severity": "note, info, warning, error or critical; a note opens no alert",
    "time": "when it was seen",
    "value": "what was measured",
    "threshold": "the limit that was exceeded",
    "unit": "unit of value, threshold and baseline: usd, tokens, steps, us, ratio, count",
}
_MARKS: Final = {
    "alert_id": "the alert that was marked",
    "verdict": "true: it reported a real problem; false: a false alarm",
    "marked_by": "who marked it last",
    "marked_at": "when",
    "note": "why, in the words of that person",
}
_TASKS: Final = {
    "project": "the project that the task belongs to; a task's id is unique in it",
    "task_id": "the task's id, chosen by the sender",
    "submitted_at": "when Kafka stored its submit",
    "epoch": "one higher with each worker that takes over its partition",
    "revision": "one higher with each change; readers keep the highest of the highest epoch",
    "changed_at": "log time of the change",
    "event": (
        "the change: submitted, waiting, bound, started, attempt_ended, attempt_lost, retrying, "
        "fallback, cancelling, ended, refused ..."
    ),
    "state": "waiting, bound, running; finally ok, failed, cancelled, expired, dead or refused",
    "waiting_for": (
        "why it waits: delay, retry, slot (all are busy), executor (none offers the agent), limit, "
        "budget, after (another task) or key (a task with its key)"
    ),
    "waiting_until": "when it goes on; NULL where that is not known",
    "reason": "a word for programs, e.g. retries_used, lease_lost",
    "detail": "the reason in words",
    "by": "the person who caused the change",
    "agent": "the agent that was requested",
    "version": "the version that was requested; empty: any",
    "input": "the input as JSON; empty: null, or input_ref",
    "input_ref": "where a larger input is, e.g. a URL",
    "result": "the result as JSON; empty: null or none",
    "once": "values that task.once kept, as JSON by key",
    "submitted_by": "who submitted it",
    "priority": "0 to 9, higher ones run first",
    "key": "tasks with the same key run one at a time; empty: none",
    "on_busy": "what happens while another task has its key; empty: the agent's",
    "parent_task_id": "the task that submitted it; empty: none",
    "after": "tasks that must have ended ok before it runs",
    "max_attempts": "attempts at most, as submitted; 0: the agent's",
    "timeout_us": "limit of one attempt, as submitted; 0: the agent's",
    "budget_usd": "limit of its cost, as submitted; empty: the agent's",
    "not_before": "the end of its delay; NULL: none",
    "deadline_at": "when it expires; NULL: never",
    "attempt": "the number of its current or last attempt; 0: none was bound yet",
    "fence": "the fencing number of that attempt: it only grows",
    "executor_id": "the executor of that attempt",
    "target": "the agent, or agent@version, that is to run it: the requested one or a fallback",
    "run_agent": "the agent of the attempt",
    "run_version": "that agent's version",
    "trace_id": "the run of the attempt: 32 lower-case hex digits",
    "bound_at": "when the attempt was given to the executor",
    "started_at": "when the attempt began",
    "ended_at": "when the task ended",
    "lease_us": "the attempt is lost this long after its executor's last heartbeat",
    "timeout_at": "when the attempt times out; NULL: never",
    "cancelling": "it was cancelled, and its attempt stops",
    "stopping": "why its attempt was asked to stop: cancel, timeout or deadline",
    "attempts": "ended attempts, the newest 20",
    "error_type": "exception class or error code of the last attempt that failed",
    "error_message": "its message",
}
_EXECUTORS: Final = {
    "project": "the project whose tasks it runs",
    "executor_id": "unique for each start of an executor",
    "event": "the change",
    "state": "ready, not_ready, draining, lost (no heartbeat) or left (it has ended)",
    "reason": "why it is not ready, lost ...",
    "host": "its machine",
    "pid": "its process",
    "slots": "attempts at a time",
    "running": "attempts that it had as of this change",
    "agents": "the agents that it runs, each with version, slots and limits",
    "started_at": "when it registered",
    "last_beat": "its last heartbeat as of this change; heartbeats are not recorded",
    "drain_by": "until when its attempts may go on; NULL: no limit",
}
_EVALUATIONS: Final = {
    "project": "the project that they were published for",
    "suite": "the suite of cases",
    "suite_version": "digest of its cases and criteria",
    "published_at": "when it was published",
    "trials": "trials of each case and side that were used",
}
_EVAL_TRIALS: Final = {
    "results_id": "digest of the file of results that the trial is part of",
    "agent": "the agent, as the results name it",
    "case_id": "the case",
    "trial": "number of the trial, from 0",
    "success": "true, false or unknown; a crashed trial is false",
    "reason": "why it failed or is unknown",
    "crashed": "the agent raised, or reached its time limit",
    "cost_usd": "cost of the run; NULL: unknown",
    "latency_s": "time in seconds",
    "tokens": "input and output tokens",
    "tool_errors": "steps that failed",
    "trace_id": "the run, which is in the store if its events were sent",
    "grades": "what graders and functions returned, as JSON",
}
_EVAL_VERDICTS: Final = {
    "verdict_id": "digest of both results and of the policy",
    "outcome": "pass, fail or inconclusive",
    "baseline": "the agent in use",
    "candidate": "the agent that is compared with it",
    "baseline_id": "results_id of the baseline",
    "candidate_id": "results_id of the candidate",
    "cases": "cases that were compared",
    "reasons": "a sentence for each metric that decided it",
    "notes": "what was not compared, and what the trials can show",
    "verdict": "the whole verdict as JSON: metrics with intervals, sides, cases that moved",
}
TABLES: Final = {
    "steps_raw": "Steps that ended, as inserted; read the view steps",
    "steps_open": "Starts of steps; read the view open_steps",
    "runs_raw": "Revisions of runs, as inserted; read the view runs",
    "alert_events_raw": "Changes of alerts, as inserted; read the view alert_events",
    "alerts_raw": "Alerts, newest change each; read the view alerts",
    "findings_raw": "What detectors saw, as inserted; read the view findings",
    "deliveries_raw": "The delivery log; read the views deliveries and delivery_events",
    "task_events_raw": "Changes of tasks, as inserted; read the view task_events",
    "tasks_raw": "Tasks, newest state each; read the view tasks",
    "task_refusals_raw": "Refused submits and commands; read the view task_refusals",
    "executor_events_raw": (
        "Changes of executors, as inserted; read the views executors and executor_events"
    ),
    "eval_trials_raw": "Published trials of suites, as inserted; read the view eval_trials",
    "eval_verdicts_raw": "Published verdicts of the gate, as inserted; read the view eval_verdicts",
    "rollup_1m": "Sums per minute, filled from steps_raw; read the view metrics_1m",
    "rollup_1h": "Sums per hour, filled from steps_raw; read the view metrics_1h",
    "repeated_steps": "Steps whose usage repeats that of calls below them, filled from runs_raw",
    "repeatable_usage": (
        "Usage of steps that may be among them, filled from steps_raw; metrics views subtract it"
    ),
    "schema_migrations": "Which migrations of this schema have been applied",
}
"""The comment of each table."""


def fields(model: type[BaseModel]) -> dict[str, str]:
    """Field descriptions of a model; fields without one are left out."""
    return {name: info.description for name, info in model.model_fields.items() if info.description}


@lru_cache(maxsize=1)
def columns() -> dict[str, dict[str, str]]:
    """The comment of every described column, by table and by view."""
    tokens = fields(TokenUsage)
    step = {**_SHARED, **fields(StepEvent), **tokens, **_STEPS, **_ARRIVAL, **_OURS}
    run = {**_SHARED, **tokens, **fields(Trajectory), **_RUNS, **_ARRIVAL, **_OURS}
    alert = {**_SHARED, **fields(Finding), **fields(Alert), **_ALERTS, **_ARRIVAL, **_OURS}
    delivery = {**_SHARED, **fields(Delivery), **_DELIVERIES, **_ARRIVAL}
    finding = {**_SHARED, **fields(Finding), **_FINDINGS, **_ARRIVAL}
    metrics = {**_SHARED, **tokens, **_METRICS}
    trial = {**_EVALUATIONS, **_EVAL_TRIALS}
    verdict = {**_EVALUATIONS, **_EVAL_VERDICTS}
    mark = {**_SHARED, **fields(Finding), **_FINDINGS, **_MARKS}
    task = {**_SHARED, **fields(TaskState), **_TASKS, **_ARRIVAL, **_OURS}
    refusal = {**task, **fields(TaskRefusal), "refused_at": "log time of the refusal"}
    executor = {**fields(ExecutorState), **_TASKS, **_EXECUTORS, **_ARRIVAL}
    return {
        "steps_raw": step,
        "steps": step,
        "steps_open": step,
        "open_steps": {**step, **_OPEN_STEPS},
        "runs_raw": run,
        "runs": run,
        "alert_events_raw": alert,
        "alert_events": alert,
        "alerts_raw": alert,
        "alerts": alert,
        "findings_raw": finding,
        "findings": finding,
        "alert_marks": mark,
        "deliveries_raw": delivery,
        "deliveries": delivery,
        "delivery_events": delivery,
        "task_events_raw": task,
        "task_events": task,
        "tasks_raw": task,
        "tasks": task,
        "task_refusals_raw": refusal,
        "task_refusals": refusal,
        "executor_events_raw": executor,
        "executor_events": executor,
        "executors": executor,
        "eval_trials_raw": trial,
        "eval_trials": trial,
        "eval_verdicts_raw": verdict,
        "eval_verdicts": verdict,
        "rollup_1m": metrics,
        "metrics_1m": metrics,
        "rollup_1h": metrics,
        "metrics_1h": metrics,
        "repeated_steps": {"step_id": step["step_id"], **run},
        "repeatable_usage": {**step, **metrics},
    }
