"""Every metric that a process serves: its name, kind, labels and meaning. Declared here and nowhere
else.

Names follow Prometheus: the unit at the end, ``_total`` for what only grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

LATENCY_BUCKETS_S: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
SIZE_BUCKETS: Final = (
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as declared."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


RECORDS: Final = Metric(
    "stepstream_worker_records_total", "counter", "records read from the steps topic"
)
ACCEPTED: Final = Metric(
    "stepstream_worker_accepted_total", "counter", "records that are valid steps"
)
REJECTED: Final = Metric(
    "stepstream_worker_rejected_total", "counter", "records dead-lettered", ("reason",)
)
CLAMPED: Final = Metric(
    "stepstream_worker_clamped_total", "counter", "accepted steps with repaired values", ("clamp",)
)
DUPLICATES: Final = Metric(
    "stepstream_worker_duplicates_total",
    "counter",
    "records whose (trace, step, phase) had come before",
)
LATE: Final = Metric(
    "stepstream_worker_late_total", "counter", "steps merged into a run that was closed"
)
TOO_LATE: Final = Metric(
    "stepstream_worker_too_late_total", "counter", "steps that came after the late horizon"
)
ORPHANS: Final = Metric(
    "stepstream_worker_orphans_total",
    "counter",
    "steps whose parent was never seen when their run closed",
)
MISROUTED: Final = Metric(
    "stepstream_worker_misrouted_total", "counter", "steps sent on to the right partition"
)
OVER_LIMIT: Final = Metric(
    "stepstream_worker_over_limit_total", "counter", "records beyond the limit of steps per run"
)
RUNS_OPENED: Final = Metric("stepstream_worker_runs_opened_total", "counter", "runs begun")
RUNS_CLOSED: Final = Metric("stepstream_worker_runs_closed_total", "counter", "runs closed")
FORCED_CLOSED: Final = Metric(
    "stepstream_worker_runs_forced_closed_total",
    "counter",
    "idle runs closed because too many were open",
)
CLOSED_FORGOTTEN: Final = Metric(
    "stepstream_worker_closed_runs_forgotten_total",
    "counter",
    "closed runs of which only the id was kept, to save memory",
)
TRAJECTORIES: Final = Metric(
    "stepstream_worker_trajectories_total", "counter", "trajectory revisions published"
)
TRAJECTORIES_DELAYED: Final = Metric(
    "stepstream_worker_trajectories_delayed_total",
    "counter",
    "times that a growing trajectory was due and waited, because there were too many of them",
)
FINDINGS: Final = Metric("stepstream_worker_findings_total", "counter", "findings raised")
FINDINGS_OVER_LIMIT: Final = Metric(
    "stepstream_worker_findings_over_limit_total",
    "counter",
    "findings beyond the limit for one run and alert name",
)
CONTENTS_UNREAD: Final = Metric(
    "stepstream_worker_contents_unread_total",
    "counter",
    "ended steps that a detector did not read because it had read enough of their run",
)
ALERTS: Final = Metric("stepstream_worker_alerts_total", "counter", "alert records published")
COMMANDS: Final = Metric(
    "stepstream_worker_commands_total", "counter", "commands ordered by policies"
)
STATES: Final = Metric("stepstream_worker_states_total", "counter", "state records written")
USAGE_RECORDS: Final = Metric(
    "stepstream_worker_usage_records_total", "counter", "usage records taken into windows"
)
USAGE_REPEATS: Final = Metric(
    "stepstream_worker_usage_repeats_total",
    "counter",
    "usage records that were not newer than the known ones",
)
RUNS_NOT_LEARNT: Final = Metric(
    "stepstream_worker_runs_not_learnt_total",
    "counter",
    "closed runs that no baseline learnt from: too many were pending",
)
BASELINES_FORGOTTEN: Final = Metric(
    "stepstream_worker_baselines_forgotten_total",
    "counter",
    "baselines forgotten because there were too many, the longest unused first",
)
OWNERS_NOT_LEARNT: Final = Metric(
    "stepstream_worker_owners_not_learnt_total",
    "counter",
    "times a closed run named an agent and task beyond what baselines are kept for: ids instead "
    "of names",
)
USAGE_TOO_LATE: Final = Metric(
    "stepstream_worker_usage_too_late_total",
    "counter",
    "usage records of windows that were sealed: they are in no window",
)
USAGE_OVER_LIMIT: Final = Metric(
    "stepstream_worker_usage_over_limit_total",
    "counter",
    "usage records counted under (others): too many owners or users",
)
USAGE_FORCED_SEALS: Final = Metric(
    "stepstream_worker_usage_forced_seals_total",
    "counter",
    "windows sealed early because too many records were in memory",
)
USAGE_UNKNOWN: Final = Metric(
    "stepstream_worker_usage_unknown_total", "counter", "usage records of a kind not known yet"
)
WINDOWS_SEALED: Final = Metric(
    "stepstream_worker_windows_sealed_total", "counter", "windows sealed to the fleet topic"
)
WINDOW_OWNERS: Final = Metric(
    "stepstream_worker_window_owners",
    "gauge",
    "project, agent, version and task together that windows are kept for",
    ("partition",),
)
WINDOW_RECORDS: Final = Metric(
    "stepstream_worker_window_held_records",
    "gauge",
    "usage records in memory until their windows are sealed",
    ("partition",),
)
WINDOW_AGE: Final = Metric(
    "stepstream_worker_window_behind_seconds",
    "gauge",
    "from the oldest unsealed minute to the newest reported progress",
    ("partition",),
)
OPEN_RUNS: Final = Metric("stepstream_worker_open_runs", "gauge", "runs in memory", ("partition",))
CLOSED_RUNS: Final = Metric(
    "stepstream_worker_closed_runs", "gauge", "closed runs kept for late steps", ("partition",)
)
HELD_BYTES: Final = Metric(
    "stepstream_worker_held_bytes", "gauge", "memory that runs take, about", ("partition",)
)
LAG: Final = Metric(
    "stepstream_worker_lag_records",
    "gauge",
    "records after the last one processed",
    ("topic", "partition"),
)
SAFE_OFFSET_LAG: Final = Metric(
    "stepstream_worker_floor_lag_records",
    "gauge",
    "records that a restart would read again",
    ("topic", "partition"),
)
SAFE_OFFSET_AGE: Final = Metric(
    "stepstream_worker_floor_age_seconds",
    "gauge",
    "log time between the safe offset and the newest record",
    ("partition",),
)
HALTED: Final = Metric(
    "stepstream_worker_halted",
    "gauge",
    "1: the partition is halted by poison",
    ("topic", "partition"),
)
DEAD_LETTER_RATE: Final = Metric(
    "stepstream_worker_dead_letter_fuse",
    "gauge",
    "1: more records are refused than dead_letter_limit",
    ("topic", "partition"),
)
FUSES: Final = Metric(
    "stepstream_worker_dead_letter_fuses_total",
    "counter",
    "times a partition exceeded its limit of dead letters",
)
HALTS: Final = Metric(
    "stepstream_worker_halts_total", "counter", "times a partition was halted by poison"
)
SKIPPED: Final = Metric(
    "stepstream_worker_poison_skipped_total",
    "counter",
    "records that processing failed on, dead-lettered",
)
DETECTOR_ERRORS: Final = Metric(
    "stepstream_worker_detector_errors_total",
    "counter",
    "times a detector raised and was switched off for a run or an agent",
    ("detector",),
)
RULE_ERRORS: Final = Metric(
    "stepstream_worker_rule_errors_total",
    "counter",
    "times the expression of a policy's rule had no result, by the rule's alert name",
    ("alert",),
)
RUNS_GIVEN_UP: Final = Metric(
    "stepstream_worker_runs_given_up_total",
    "counter",
    "runs whose publishing, state or timers raised: closed, their records dead-lettered",
)
IN_FLIGHT: Final = Metric(
    "stepstream_worker_in_flight_outputs", "gauge", "outputs sent and not acknowledged"
)
BACKLOG: Final = Metric(
    "stepstream_worker_backlog_records", "gauge", "records fetched and not processed"
)
WAITS: Final = Metric(
    "stepstream_worker_back_pressure_total",
    "counter",
    "times processing waited for acknowledgements",
)
BATCH: Final = Metric(
    "stepstream_worker_batch_records", "histogram", "records of one batch", (), SIZE_BUCKETS
)
OUTPUT_LATENCY: Final = Metric(
    "stepstream_worker_event_to_output_seconds",
    "histogram",
    "from a record's append time to the acknowledgement of what it led to",
    ("output",),
    LATENCY_BUCKETS_S,
)

SINK_READ: Final = Metric("stepstream_sink_records_total", "counter", "records read", ("topic",))
SINK_INSERTED: Final = Metric("stepstream_sink_rows_total", "counter", "rows inserted", ("table",))
SINK_SKIPPED: Final = Metric(
    "stepstream_sink_skipped_total", "counter", "records left out", ("topic", "reason")
)
SINK_DEAD_LETTERED: Final = Metric(
    "stepstream_sink_dead_lettered_total", "counter", "records that the store refused", ("topic",)
)
SINK_BATCHES: Final = Metric(
    "stepstream_sink_batches_total", "counter", "batches inserted", ("topic",)
)
SINK_REPLAYED: Final = Metric(
    "stepstream_sink_replayed_batches_total", "counter", "batches that another sink had in flight"
)
SINK_RETRIES: Final = Metric("stepstream_sink_retries_total", "counter", "inserts tried again")
SINK_INSERT_SECONDS: Final = Metric(
    "stepstream_sink_insert_seconds_total", "counter", "time spent in inserts that succeeded"
)
SINK_RULE_EVALUATIONS: Final = Metric(
    "stepstream_sink_rule_evaluations_total",
    "counter",
    "evaluations of rules sql, by the rule's alert name",
    ("alert",),
)
SINK_RULE_ERRORS: Final = Metric(
    "stepstream_sink_rule_errors_total",
    "counter",
    "evaluations of rules sql that failed, by the rule's alert name",
    ("alert",),
)
SINK_LAG: Final = Metric(
    "stepstream_sink_lag_records",
    "gauge",
    "records between what is stored and the partition's end",
    ("topic", "partition"),
)

NOTIFY_ALERTS: Final = Metric(
    "stepstream_notify_alerts_total", "counter", "records read from the alerts topic"
)
NOTIFY_UNREADABLE: Final = Metric(
    "stepstream_notify_unreadable_total",
    "counter",
    "records of the alerts topic that are no alert, passed over",
)
NOTIFY_TRIES: Final = Metric(
    "stepstream_notify_tries_total",
    "counter",
    "attempts to deliver a notification, by outcome: told (delivered), failed, refused",
    ("channel", "outcome"),
)
NOTIFY_TRY_SECONDS: Final = Metric(
    "stepstream_notify_try_seconds",
    "histogram",
    "time that a try took",
    ("channel",),
    LATENCY_BUCKETS_S,
)
NOTIFY_LATENCY: Final = Metric(
    "stepstream_notify_alert_to_delivery_seconds",
    "histogram",
    "from an alert's append to the channel's yes, at the first try",
    ("channel",),
    LATENCY_BUCKETS_S,
)
NOTIFY_WAITING: Final = Metric(
    "stepstream_notify_waiting_groups",
    "gauge",
    "groups of alerts whose notification is pending",
    ("channel",),
)
NOTIFY_PARKED: Final = Metric(
    "stepstream_notify_parked_alerts",
    "gauge",
    "alerts whose delivery has ended without success",
    ("channel",),
)
NOTIFY_UNDER_WAY: Final = Metric("stepstream_notify_under_way", "gauge", "tries under way")
NOTIFY_SUBSCRIPTIONS: Final = Metric(
    "stepstream_notify_subscriptions", "gauge", "subscriptions in force"
)
NOTIFY_LAG: Final = Metric(
    "stepstream_notify_lag_records", "gauge", "alerts not read yet", ("partition",)
)
NOTIFY_STREAMS: Final = Metric(
    "stepstream_notify_streams", "gauge", "open alert streams (server-sent events)"
)
GATEWAY_REQUESTS: Final = Metric(
    "stepstream_gateway_requests_total",
    "counter",
    "requests answered by the gateway, by what was sent and by HTTP status",
    ("signal", "status"),
)
GATEWAY_ITEMS: Final = Metric(
    "stepstream_gateway_items_total",
    "counter",
    "spans, log records and steps that were acknowledged: accepted, rejected, or ignored",
    ("signal", "outcome"),
)
GATEWAY_REFUSED: Final = Metric(
    "stepstream_gateway_rejected_total",
    "counter",
    "spans, log records and steps that were rejected, by reason",
    ("reason",),
)
GATEWAY_IN_FLIGHT: Final = Metric(
    "stepstream_gateway_in_flight_bytes", "gauge", "bytes of requests being worked on"
)
GATEWAY_STREAMS: Final = Metric(
    "stepstream_gateway_control_streams", "gauge", "open control streams (server-sent events)"
)
GATEWAY_QUEUED: Final = Metric(
    "stepstream_gateway_queued_records", "gauge", "records that Kafka has not acknowledged yet"
)
NOTIFY_STALLED: Final = Metric(
    "stepstream_notify_stalled", "gauge", "1: this part makes no progress", ("part",)
)

TASKS: Final = Metric(
    "stepstream_worker_tasks_total",
    "counter",
    "requested tasks, by what happened: submitted, bound, retries, fallbacks, refused, leases_lost,"
    " stale (reports about attempts that are over), ended_ok, ended_failed, ended_cancelled,"
    " ended_expired, ended_dead, ended_refused",
    ("event",),
)
TASKS_OPEN: Final = Metric(
    "stepstream_worker_open_tasks",
    "gauge",
    "requested tasks that have not ended, by partition and state (of a waiting task: what it waits"
    " for)",
    ("partition", "state"),
)
QUEUE_TASKS: Final = Metric(
    "stepstream_worker_queue_tasks",
    "gauge",
    "requested tasks of an agent that have not ended, by state (of a waiting task: what it waits"
    " for); of the 500 largest queues of each partition",
    ("project", "agent", "state"),
)
QUEUE_OLDEST_WAIT: Final = Metric(
    "stepstream_worker_queue_oldest_wait_seconds",
    "gauge",
    "for how long the first task of an agent has waited that neither a delay nor another task keeps"
    " from running; 0: none waits",
    ("project", "agent"),
)
EXECUTORS: Final = Metric(
    "stepstream_worker_executors",
    "gauge",
    "executors by partition and state",
    ("partition", "state"),
)
TASK_SLOTS: Final = Metric(
    "stepstream_worker_task_slots",
    "gauge",
    "slots of executors that are alive, by partition and use: free, busy",
    ("partition", "use"),
)

METRICS: Final[tuple[Metric, ...]] = tuple(
    value for value in dict(globals()).values() if isinstance(value, Metric)
)


def markdown() -> str:
    """The page ``docs/metrics.md``."""
    head = (
        "# Metrics\n\n"
        "<!-- Made by `python -m stepstream.schemas.metrics`; a test keeps it current. -->\n\n"
        "Worker, sink and notifier serve `/metrics` for Prometheus, `/healthz` (503: it hangs,\n"
        "restart it) and `/readyz` (503: not ready yet) at `metrics_host:metrics_port`; by\n"
        "default on the loopback interface and a free port.\n\n"
        "Under `stepstream up` each of the three has its own port, which it keeps for the next\n"
        "start: 9464 (worker), 9465 (sink) and 9466 (notifier) if they are free, or\n"
        "`metrics_port` and the next two. They are printed at the start and stored in\n"
        "`endpoints.json`. Configuration of a Prometheus on the same machine:\n\n"
        "```yaml\n"
        "scrape_configs:\n"
        "  - job_name: stepstream\n"
        "    static_configs:\n"
        "      - targets: [127.0.0.1:9464, 127.0.0.1:9465, 127.0.0.1:9466]\n"
        "```\n\n"
        "| metric | kind | labels | meaning |\n"
        "|---|---|---|---|\n"
    )
    rows = (f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.meaning} |\n" for m in METRICS)
    return head + "".join(rows)


if __name__ == "__main__":
    print(markdown(), end="")
