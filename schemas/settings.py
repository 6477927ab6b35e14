"""The table of settings: every name, default, meaning, and the processes that read it.

A setting ``kafka_brokers`` is the environment variable ``STEPSTREAM_KAFKA_BROKERS``, the key
``kafka_brokers`` of a settings file (TOML) and the flag ``--kafka-brokers`` of the processes that
read it. Flags, ``--help``, docs/settings.md and docs/cli.md are made from this table.
``stepstream.common.settings`` reads the environment and files; this module reads nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from stepstream.schemas.capture import OFF, Capture, parse_capture
from stepstream.schemas.content_limits import EVERY_KIND, parse_content_limits
from stepstream.schemas.durations import DurationUs, parse_duration_us
from stepstream.schemas.step import KINDS as STEP_KINDS
from stepstream.schemas.times import DAY_US, HOUR_US, MINUTE_US, SECOND_US

ENV_PREFIX: Final = "STEPSTREAM_"
# Variables with this prefix are secrets that subscriptions name, not settings.
NOTIFY_SECRET_PREFIX: Final = "STEPSTREAM_NOTIFY_SECRET_"

# One project's retention for one kind of data: PROJECT.KIND=DAYS.
OWN_DAYS: Final = r"[^\s=,'\\]+\.(steps|runs|alerts|metrics|tasks)=[1-9][0-9]?[0-9]?[0-9]?[0-9]?"

KIB: Final = 1024
MIB: Final = 1024 * KIB

Process = Literal[
    "sdk",
    "worker",
    "sink",
    "notify",
    "gateway",
    "console",
    "up",
    "kafka",
    "clickhouse",
    "topics",
    "store",
]
"""Who reads a setting. ``sdk``: programs that use the SDK, and the commands that take its settings;
``kafka`` and ``clickhouse``: every process and command that connects there; ``topics`` and
``store``: the commands that create topics and tables; ``up``: `stepstream up`, which passes it to
the processes it starts. A setting without any is read by commands from the environment or a file.
"""

# The processes that share the settings of metrics and logs.
PROCESSES: Final[tuple[Process, ...]] = ("worker", "sink", "notify")
_SENDERS: Final[tuple[Process, ...]] = ("sdk", "gateway")


@dataclass(frozen=True, slots=True)
class SettingInfo:
    """What the table holds about one setting besides its default and its limits."""

    section: str
    processes: tuple[Process, ...]
    metavar: str
    """The word that stands for the value in ``--help``; empty for a switch."""
    rare: bool = False
    """Left out of ``--help`` (the flag works): usually set in the environment or a file."""


def setting(
    default: Any,
    description: str,
    *,
    section: str,
    processes: tuple[Process, ...],
    metavar: str = "",
    rare: bool = False,
    **limits: Any,
) -> Any:
    """A field of ``Settings`` with what flags and documents need; ``limits`` are pydantic's."""
    field = Field(default, description=description, **limits)
    # Metadata that pydantic does not know is kept with the field, as in Annotated[T, SettingInfo].
    field.metadata.append(SettingInfo(section, processes, metavar, rare))
    return field


_sdk = partial(setting, section="The SDK", processes=("sdk",))
_kafka = partial(setting, section="Kafka", processes=("kafka",))
_topics = partial(setting, section="Kafka", processes=("topics", "up"), metavar="INT")
_clickhouse = partial(setting, section="ClickHouse", processes=("clickhouse",))
_store = partial(setting, section="ClickHouse", processes=("store", "sink", "up"))
_worker = partial(setting, section="The worker", processes=("worker",))
_sink = partial(setting, section="The sink", processes=("sink",))
_notify = partial(setting, section="The notifier", processes=("notify",))
_gateway = partial(setting, section="The gateway", processes=("gateway", "up"))
_console = partial(setting, section="The console", processes=("console", "up"))
_process = partial(setting, section="Metrics, health and logs", processes=(*PROCESSES, "up"))
_local = partial(setting, section="stepstream up", processes=("up",))


class Settings(BaseModel):
    """Every setting of every process and of the SDK."""

    # hide_input_in_errors: an input may be a secret.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # The SDK
    endpoint: str = _sdk(
        "",
        "Where events are sent: kafka://host:9092, or a gateway's https://host or "
        "http://host:4318. Empty: kafka_brokers, else the address of a running `stepstream up`.",
        metavar="URL",
    )
    endpoint_key: SecretStr = _sdk(
        SecretStr(""),
        "Key for an endpoint that is a gateway, from `stepstream keys create`.",
        metavar="KEY",
    )
    project: str = _sdk(
        "default", "The project that runs belong to.", processes=_SENDERS, metavar="NAME"
    )
    environment: str = _sdk(
        "", "The environment: prod, staging, dev ...", processes=_SENDERS, metavar="NAME"
    )
    agent: str = _sdk("", "The agent's name. Empty: the file name of the program.", metavar="NAME")
    agent_version: str = _sdk("", "The agent's version.", metavar="VERSION")
    enabled: bool = _sdk(True, "Record runs. Off: the SDK does nothing at all.")
    capture_content: bool = _sdk(
        True,
        "Send inputs, outputs and the texts of documents. Off: only their sizes are sent.",
        processes=_SENDERS,
    )
    capture: str = _sdk(
        "",
        "Contents by kind of step: on, off, or the bytes at which they are truncated: "
        "llm_call=off,tool_call=2KB (KB: 1,024 bytes); * is every other kind. "
        "capture_content=false turns all of them off.",
        processes=_SENDERS,
        metavar="KIND=MODE,...",
    )
    capture_sample: float = _sdk(
        1.0,
        "Share of runs whose contents are sent, from 0 to 1, by a hash of the trace id. All other "
        "fields of every run are sent.",
        processes=_SENDERS,
        metavar="SHARE",
        ge=0,
        le=1,
    )
    redact_hook: str = _sdk(
        "",
        "Function from text to text, as module:function, that is applied to every text of a step "
        "after the built-in redaction. If it raises, a note that the hook failed is sent instead "
        "of the text.",
        processes=_SENDERS,
        metavar="MODULE:FUNCTION",
        rare=True,
    )
    user_id_key: SecretStr = _sdk(
        SecretStr(""),
        "Key with which user ids are replaced by their HMAC-SHA256 before they are sent. Empty: "
        "they are sent as they are.",
        processes=_SENDERS,
        metavar="KEY",
        rare=True,
    )
    max_content_bytes: int = _sdk(
        16 * KIB,
        "Maximum size of an input or output; longer ones are truncated before they are sent.",
        processes=_SENDERS,
        metavar="BYTES",
        ge=0,
    )
    content_limits: str = _sdk(
        "",
        "Maximum size of an input or output for some kinds of step, instead of max_content_bytes: "
        "llm_call=1MB,tool_call=256KB (at most 1MB, 1,048,576 bytes); * is every other kind. "
        "Worker, sink and gateway need the same value as the agents.",
        processes=("sdk", "gateway", "worker", "sink", "up"),
        metavar="KIND=BYTES,...",
    )
    recordings: str = _sdk(
        "",
        "Folder in which the calls of each run are recorded whole, for `stepstream eval replay`. "
        "Empty: they are not. Files have the mode 0600; known forms of secrets are replaced.",
        metavar="PATH",
    )
    queue_events: int = _sdk(
        50_000,
        "Maximum number of events in the SDK's queue. When it is full, the call that records an "
        "event blocks for up to 100 ms; then the event is dropped and counted.",
        metavar="INT",
        gt=0,
    )
    queue_bytes: int = _sdk(64 * MIB, "Maximum size of the SDK's queue.", metavar="BYTES", gt=0)
    spool_bytes: int = _sdk(
        256 * MIB,
        "Maximum size of the spool, a file for events that cannot be delivered at the moment. 0: "
        "no spool; such events are kept in memory only.",
        metavar="BYTES",
        ge=0,
    )
    spool_dir: str = _sdk(
        "",
        "Directory of the spool, on a local disk. Empty: spool in the state directory.",
        metavar="PATH",
    )
    compression: str = _sdk(
        "lz4",
        "Compression of Kafka batches: none, lz4, zstd, gzip or snappy.",
        metavar="CODEC",
        pattern="^(none|lz4|zstd|gzip|snappy)$",
    )
    thread_context: bool = _sdk(
        True,
        "New threads, and functions passed to thread pools, inherit the caller's current step. "
        "Off: only functions that went through `stepstream.propagate` do.",
    )
    handle_sigterm: bool = _sdk(
        True,
        "On SIGTERM end open runs as cancelled and send their events. Then the handler is called "
        "that was installed when the program's first run began; without one the process ends.",
    )
    quiet: bool = _sdk(False, "Print no summary line when the agent's program exits.")
    control: bool = _sdk(
        True,
        "Receive commands (stop, pause, resume, warn). Off: the SDK does not listen for them.",
    )
    control_lookback: DurationUs = _sdk(
        10 * MINUTE_US,
        "How far back the SDK reads commands at its start. A command to a whole agent or project "
        "is valid for at most this long.",
    )
    pause_limit: DurationUs = _sdk(
        15 * MINUTE_US,
        "A run that stays paused for longer than this is stopped. A call that waits for an "
        "approval for longer than this is refused.",
    )
    guardrails: bool = _sdk(
        True,
        "Evaluate the guardrails of policies before tools and models are called. Needs control. "
        "Off: they are neither read nor evaluated.",
    )
    guardrail_wait: DurationUs = _sdk(
        1_000,
        "How long the first run waits until the guardrails at the endpoint are read. Then it "
        "begins with the last known ones, or without any if none are known.",
    )

    # Kafka
    kafka_brokers: str = _kafka(
        "",
        "Bootstrap servers: host:port,host:port. Empty: the address of a running `stepstream up`.",
        metavar="HOST:PORT",
    )
    kafka_sasl_mechanism: str = _kafka(
        "",
        "SASL mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Empty: no SASL.",
        metavar="MECHANISM",
        rare=True,
    )
    kafka_sasl_username: str = _kafka("", "SASL user name.", metavar="USER", rare=True)
    kafka_sasl_password: SecretStr = _kafka(
        SecretStr(""), "SASL password.", metavar="PASSWORD", rare=True
    )
    kafka_token_hook: str = _kafka(
        "",
        "For OAUTHBEARER: module:function that returns (token, expiry in Unix seconds).",
        metavar="MODULE:FUNCTION",
        rare=True,
    )
    kafka_tls: bool = _kafka(
        False,
        "Encrypt connections. Implied when a CA or a client certificate is given.",
        rare=True,
    )
    kafka_ca_file: str = _kafka(
        "",
        "CA certificates (PEM). Empty with kafka_tls: those of the system.",
        metavar="PATH",
        rare=True,
    )
    kafka_certificate_file: str = _kafka("", "Client certificate (PEM).", metavar="PATH", rare=True)
    kafka_key_file: str = _kafka(
        "", "Private key of the client certificate (PEM).", metavar="PATH", rare=True
    )
    topic_prefix: str = _kafka(
        "stepstream",
        "Prefix of all topic names: PREFIX.steps ...",
        metavar="PREFIX",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
    )
    partitions: int = _topics(
        2,
        "Number of partitions of the steps topic, used only when the topic is created. It must not "
        "be changed afterwards: a run whose steps are in two partitions would be seen as two. "
        "Choose at least the number of workers that you will ever run.",
        gt=0,
    )
    fleet_partitions: int = _topics(
        2,
        "Number of partitions of the findings, usage and alerts topics, when they are created.",
        gt=0,
    )
    replication_factor: int = _topics(
        1, "Replicas of each topic when it is created. Use 3 in production.", gt=0
    )
    min_insync_replicas: int = _topics(
        1, "Replicas that must acknowledge a record. Use 2 in production.", gt=0
    )
    steps_topic_retention: DurationUs = _topics(
        7 * DAY_US, "How long Kafka keeps step events.", metavar=""
    )

    # ClickHouse
    clickhouse_url: str = _clickhouse(
        "",
        "Address of ClickHouse: http(s)://host:8123. Empty: the address of a running "
        "`stepstream up`. http://user:password@host:8123 also sets clickhouse_user and "
        "clickhouse_password.",
        metavar="URL",
    )
    clickhouse_user: str = _clickhouse(
        "default", "User that writes rows and creates tables.", metavar="USER"
    )
    clickhouse_password: SecretStr = _clickhouse(
        SecretStr(""),
        "Password of clickhouse_user. Empty with the store of `stepstream up`: the password that "
        "`up` generated.",
        metavar="PASSWORD",
    )
    clickhouse_reader_user: str = _clickhouse(
        "",
        "User of the commands that only read (runs, trace, sql ...). Empty: clickhouse_user, with "
        "readonly=1.",
        metavar="USER",
        rare=True,
    )
    clickhouse_reader_password: SecretStr = _clickhouse(
        SecretStr(""), "Password of clickhouse_reader_user.", metavar="PASSWORD", rare=True
    )
    clickhouse_ca_file: str = _clickhouse(
        "", "CA certificate (PEM) for https.", metavar="PATH", rare=True
    )
    clickhouse_database: str = _clickhouse(
        "stepstream",
        "Database of the tables and views.",
        metavar="NAME",
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
    )
    steps_retention_days: int = _store(
        30,
        "How long ClickHouse keeps steps. Steps that are older than this on arrival are written to "
        "the dead letter topic, not stored.",
        processes=("store", "worker", "sink", "gateway", "up"),
        metavar="DAYS",
        gt=0,
    )
    runs_retention_days: int = _store(180, "How long ClickHouse keeps runs.", metavar="DAYS", gt=0)
    alerts_retention_days: int = _store(
        365, "How long ClickHouse keeps alerts.", metavar="DAYS", gt=0
    )
    metrics_retention_days: int = _store(
        365,
        "How long ClickHouse keeps the rollups behind metrics_1m and metrics_1h.",
        metavar="DAYS",
        gt=0,
    )
    tasks_retention_days: int = _store(
        180,
        "How long ClickHouse keeps tasks and executors of tasks after their last change.",
        metavar="DAYS",
        gt=0,
    )
    retention_by_project: str = _store(
        "",
        "Different retention for some projects: dev.steps=7,dev.runs=30,shop.metrics=730.",
        processes=("store", "worker", "sink", "gateway", "up"),
        metavar="PROJECT.KIND=DAYS,...",
        pattern=f"^$|^{OWN_DAYS}(, *{OWN_DAYS})*$",
    )
    text_search: bool = _store(
        False,
        "Index the words of inputs and outputs. Needs 60 % more disk; inserts take nearly twice "
        "as long.",
    )
    clickhouse_cluster: str = _store(
        "",
        "Cluster on which replicated tables are created (untested). Empty: a single server.",
        metavar="NAME",
        pattern="^[A-Za-z0-9_.-]*$",
    )

    # The worker
    worker_group: str = _worker(
        "worker",
        "Consumer group of the workers: PREFIX.GROUP.",
        processes=("worker", "notify"),
        metavar="GROUP",
    )
    close_after: DurationUs = _worker(
        2 * SECOND_US,
        "Once its root step has ended, a run closes this long after its last record if no step is "
        "open. With open steps rootless_idle applies.",
    )
    rootless_idle: DurationUs = _worker(
        MINUTE_US,
        "A run without a root step, or with an ended root and other steps still open, closes when "
        "no record arrives for this long.",
    )
    stuck_after: DurationUs = _worker(
        30 * MINUTE_US,
        "Has no effect. The rule stuck_run of a policy sets this time, in its field `after`.",
        rare=True,
    )
    max_run_age: DurationUs = _worker(
        DAY_US,
        "A run closes this long after its first record was appended, even if steps are open.",
    )
    late_horizon: DurationUs = _worker(
        HOUR_US,
        "A step that arrives more than this after its run closed is stored, but does not change "
        "the run.",
    )
    revision_interval: DurationUs = _worker(
        SECOND_US, "Minimum time between two published revisions of an open run."
    )
    usage_interval: DurationUs = _worker(
        5 * SECOND_US, "Minimum time between two usage records of an open run."
    )
    max_steps_per_run: int = _worker(
        20_000,
        "Maximum number of steps in one trajectory. Further steps are stored and counted, but "
        "not merged.",
        metavar="INT",
        gt=0,
    )
    max_open_runs: int = _worker(
        200_000,
        "Maximum number of open runs in memory per partition. Above it the runs that have been "
        "idle longest are closed.",
        metavar="INT",
        gt=0,
    )
    max_held_bytes: int = _worker(
        1024 * MIB,
        "Maximum memory for runs per partition. Above it the worker first forgets closed runs, so "
        "that late steps no longer change them, then closes the runs that have been idle longest.",
        metavar="BYTES",
        gt=0,
    )
    replay_records: int = _worker(
        200_000,
        "Maximum number of records to read again after a restart: an open run that needs an older "
        "record is checkpointed, a run of at most 64 steps after 10 seconds at the latest. The "
        "maximum is raised to 16 records for each open run above 1,000, if that is more.",
        metavar="INT",
        gt=0,
    )
    content_detectors: bool = _worker(True, "Run the detectors that read inputs and outputs.")
    flap_window: DurationUs = _worker(
        10 * MINUTE_US,
        "A problem that is found again within this time after its alert was resolved reopens that "
        "alert.",
    )
    incident_runs: int = _worker(
        3,
        "Number of runs with the same cause (such as a broken tool) that are grouped into one "
        "incident. 0: no incidents.",
        metavar="INT",
        ge=0,
        le=50,
    )
    incident_window: DurationUs = _worker(
        10 * MINUTE_US,
        "Time within which incident_runs runs must be affected. An incident is resolved when no "
        "run is affected for this long.",
    )
    dead_letter_limit: int = _worker(
        600,
        "The alert dead-letter-rate is raised when more than this many records of one partition "
        "are refused within a minute. 0: never.",
        metavar="INT",
        ge=0,
    )
    watchdog: DurationUs = _worker(
        2 * MINUTE_US,
        "A worker whose event loop or partition makes no progress for this long exits, so that it "
        "is restarted.",
    )
    window_lateness: DurationUs = _worker(
        10 * MINUTE_US,
        "How long usage windows wait for late records before they are sealed.",
    )
    max_window_owners: int = _worker(
        5_000,
        "Maximum number of combinations of project, environment, agent, version and task with "
        "usage windows, per partition; users are counted separately, up to four times as many. "
        "Further ones are added up under one name per project and environment.",
        metavar="INT",
        gt=0,
    )
    max_window_records: int = _worker(
        500_000,
        "Maximum number of usage records in memory per partition. Above it windows are sealed "
        "early.",
        metavar="INT",
        gt=0,
    )
    session_timeout: DurationUs = _worker(
        10 * SECOND_US,
        "Kafka assigns the partitions of a worker, sink or notifier to others when it sends no "
        "heartbeat for this long. Brokers refuse less than 6s.",
        processes=("worker", "sink", "notify"),
        ge=6 * SECOND_US,
    )

    # The sink
    sink_group: str = _sink(
        "sink",
        "Consumer group of the sinks: PREFIX.GROUP.",
        processes=("sink", "notify", "console"),
        metavar="GROUP",
    )
    sink_batch_rows: int = _sink(
        20_000, "Maximum number of rows of one insert.", metavar="INT", gt=0
    )
    sink_batch_bytes: int = _sink(
        32 * MIB, "Maximum size of the records of one insert.", metavar="BYTES", gt=0
    )
    sink_batch_interval: DurationUs = _sink(
        250_000,
        "How long a batch waits for more rows. Up to 4 times as long while inserts are slow, and "
        "up to 12 times as long for runs and alerts.",
    )

    # The notifier
    notify_group: str = _notify(
        "notify", "Consumer group of the notifiers: PREFIX.GROUP.", metavar="GROUP"
    )
    notify_port: int = _notify(
        0,
        "Port of the admin API and the alert stream, on the loopback interface. 0: a free port, "
        "printed in the log. -1: no server.",
        processes=("notify", "up"),
        metavar="PORT",
        ge=-1,
        le=65535,
    )
    notify_url: str = _notify(
        "",
        "Address of the notifier's admin API, for commands: http://host:8124. Empty: the address "
        "of a running `stepstream up`.",
        processes=("sdk",),
        metavar="URL",
    )
    notify_token: SecretStr = _notify(
        SecretStr(""),
        "Token for notify_url, from `stepstream credentials add`. Empty: the token of a running "
        "`stepstream up`.",
        processes=("sdk",),
        metavar="TOKEN",
    )
    credentials_file: str = _notify(
        "",
        "File with users of the admin API, the alert stream and /metrics (maintained by "
        "`stepstream credentials`) and keys of the gateway and the console (`stepstream keys`). "
        "Empty: the admin API refuses every request, and the gateway accepts only programs of this "
        "machine. `up` has a file of its own.",
        processes=(*PROCESSES, "gateway", "console", "up"),
        metavar="PATH",
    )
    notify_allow_private: bool = _notify(
        False,
        "Allow webhooks to loopback, link-local and private addresses.",
        processes=("notify", "up"),
    )
    notify_allow_commands: bool = _notify(
        False,
        "Allow subscriptions to run programs on the notifier's machine.",
        processes=("notify", "up"),
    )
    notify_secrets_dir: str = _notify(
        "/run/secrets",
        "Directory of the files that subscriptions may name as file:/path.",
        processes=("notify", "up"),
        metavar="PATH",
    )
    notify_secret_variables: str = _notify(
        "",
        "Environment variables that subscriptions may name as env:NAME, besides "
        "STEPSTREAM_NOTIFY_SECRET_...; separated by commas.",
        processes=("notify", "up"),
        metavar="NAME,...",
        pattern=r"^[A-Za-z0-9_, ]*$",
    )
    watch_after: DurationUs = _notify(
        MINUTE_US,
        "The alert pipeline-stalled is raised when workers or sinks make no progress for this "
        "long.",
    )
    watch_lag_share: float = _notify(
        0.5,
        "The alert pipeline-stalled is raised when this share of the records that Kafka keeps is "
        "not processed yet.",
        metavar="FLOAT",
        gt=0,
        le=1,
    )
    synthetic_runs: bool = _notify(
        False,
        "Send a synthetic run through the pipeline every minute, and raise pipeline-stalled when "
        "its alert does not arrive.",
        processes=("notify", "up"),
    )

    # The gateway
    gateway_host: str = _gateway(
        "127.0.0.1",
        "Address that the gateway listens on. On the loopback interface, programs of this machine "
        "need no key.",
        metavar="HOST",
    )
    gateway_port: int = _gateway(
        0,
        "Port of the gateway's HTTP server. 0: a free port, printed in the log (`up`: 4318 if it "
        "is free). -1: `up` starts no gateway.",
        metavar="PORT",
        ge=-1,
        le=65535,
    )
    gateway_grpc_port: int = _gateway(
        -1,
        "Port of the gateway's gRPC server, usually 4317; needs the extra grpc. 0: a free port, "
        "printed in the log. -1: no server.",
        metavar="PORT",
        ge=-1,
        le=65535,
    )
    gateway_from_kafka: str = _gateway(
        "",
        "Topic that the Kafka exporter of an OpenTelemetry Collector writes: the gateway reads it, "
        "in the group <prefix>.gateway. Empty: none.",
        metavar="TOPIC",
    )
    gateway_url: str = _gateway(
        "",
        "Address of the gateway, for commands: http://host:4318. Empty: the address of a running "
        "`stepstream up`.",
        processes=(),
        metavar="URL",
    )
    gateway_other_spans: str = _gateway(
        "bare",
        "What is kept of spans without attributes of an agent convention (HTTP, SQL). bare: ids, "
        "parent, name, times and status; keep: their attributes too; drop: as bare, and calls to "
        "databases are not stored.",
        metavar="CHOICE",
        pattern="^(bare|keep|drop)$",
    )
    gateway_rate_limit: int = _gateway(
        0,
        "Maximum rate of spans per second of one project; more are refused with 429. 0: no limit.",
        metavar="INT",
        ge=0,
    )
    gateway_max_body_bytes: int = _gateway(
        20 * MIB,
        "Maximum size of a request's body as it is sent; larger ones are refused with 413.",
        metavar="BYTES",
        gt=0,
    )
    gateway_in_flight_bytes: int = _gateway(
        64 * MIB,
        "Upper bound of the limit for the bytes of all requests in progress, which adapts to how "
        "long requests take; more are refused with 503 before they are read.",
        metavar="BYTES",
        gt=0,
    )

    # The console
    console_host: str = _console(
        "127.0.0.1", "Address that the console listens on.", metavar="HOST"
    )
    console_port: int = _console(
        0,
        "Port of the console. 0: 8125 if it is free, else a free port, printed in the log. -1: "
        "`up` starts no console.",
        metavar="PORT",
        ge=-1,
        le=65535,
    )
    console_url: str = _console(
        "",
        "Address of the console for people: https://console.example.com. Alert messages and the "
        "runs that commands and agents print link to it. Empty: commands on a terminal link to a "
        "console of this machine, messages have no link.",
        processes=("sdk", "notify", "console", "up"),
        metavar="URL",
        pattern=r"^(https?://[^\s/?#@]+[^\s?#@]*)?$",
    )
    console_hosts: str = _console(
        "",
        "Names in the header Host that the console accepts in addition to its address; separated "
        "by commas.",
        metavar="NAME,...",
        pattern=r"^[A-Za-z0-9._, -]*$",
    )
    console_read_only: bool = _console(
        False, "Refuse every action in the console: stop, approve, acknowledge ..."
    )
    console_query_timeout: DurationUs = _console(
        10 * SECOND_US, "Longest time of one query of the console.", gt=0
    )
    console_proxy_header: str = _console(
        "",
        "Header in which a proxy with single sign-on sends the user's name: X-Forwarded-User. "
        "Empty: none is trusted.",
        metavar="NAME",
        pattern=r"^[A-Za-z0-9-]*$",
    )
    console_proxy_addresses: str = _console(
        "127.0.0.1, ::1",
        "Addresses or networks of that proxy; separated by commas. The header of other senders is "
        "ignored.",
        metavar="ADDRESS,...",
        pattern=r"^[0-9A-Fa-f.:/, ]*$",
    )
    console_proxy_scopes: str = _console(
        "read",
        "What every user of that proxy may do: read, or read,act to stop runs and to acknowledge "
        "alerts as well. admin is accepted and allows nothing more in the console.",
        metavar="SCOPE,...",
        pattern=r"^(read|act|admin)(, ?(read|act|admin))*$",
    )

    # Worker, sink and notifier
    metrics_host: str = _process(
        "127.0.0.1", "Address that serves /metrics, /healthz and /readyz.", metavar="HOST"
    )
    metrics_port: int = _process(
        0,
        "Port of /metrics, /healthz and /readyz. 0: a free port, printed in the log. -1: no "
        "server. `up` uses three ports from this one on (worker, sink, notifier); with 0 it uses "
        "9464 to 9466, or free ports that it keeps for its next start.",
        metavar="PORT",
        ge=-1,
        # `up` needs this port and the next two.
        le=65533,
    )
    log_level: str = _process(
        "warning",
        "Minimum level of log lines on stderr: debug, info, warning, error or critical.",
        processes=(*PROCESSES, "gateway", "console", "up"),
        metavar="LEVEL",
        pattern="^(debug|info|warning|error|critical)$",
    )
    log_format: str = _process(
        "text",
        "Format of log lines: text, or json for one JSON object a line.",
        processes=(*PROCESSES, "gateway", "console", "up"),
        metavar="FORMAT",
        pattern="^(text|json)$",
    )

    # stepstream up
    state_dir: str = _local(
        "",
        "Directory in which `up` writes its addresses and passwords, and where commands look for "
        "them. Empty: stepstream in the user's state directory.",
        processes=("kafka", "clickhouse", "up"),
        metavar="PATH",
    )
    data_dir: str = _local(
        "",
        "Directory of the data of the embedded Kafka and ClickHouse. Empty: data in the state "
        "directory.",
        metavar="PATH",
    )
    kafka_port: int = _local(
        0, "Port of the embedded Kafka. 0: 9092, or a free port.", metavar="PORT", ge=0, le=65535
    )
    kafka_auth: bool = _local(
        False,
        "Require user name and password (SASL) for the embedded Kafka. `up` generates them; "
        "clients of this user on this machine find them.",
    )
    clickhouse_port: int = _local(
        0,
        "Port of the embedded ClickHouse. 0: 8123, or a free port.",
        metavar="PORT",
        ge=0,
        le=65535,
    )
    kafka_heap_mb: int = _local(
        384, "Java heap of the embedded Kafka, in MiB.", metavar="MIB", ge=128
    )
    kafka_jars_dir: str = _local(
        "",
        "Directory with Kafka's jars, for machines without a network. Empty: downloaded once.",
        metavar="PATH",
    )
    documents_dir: str = _local(
        "",
        "Directory of documents (policies, Criteria, subscriptions, prices) that `up` applies and "
        "watches for changes.",
        metavar="PATH",
    )

    @model_validator(mode="before")
    @classmethod
    def _take_login(cls, values: Any) -> Any:
        """Move a login in ``clickhouse_url`` to user and password: URLs are printed and logged.

        A ``clickhouse_user`` or ``clickhouse_password`` that is given wins over the URL's.
        """
        if not isinstance(values, dict) or not isinstance(values.get("clickhouse_url"), str):
            return values
        url, user, password = split_login(values["clickhouse_url"])
        # The password of the URL is of no use for another user: then both are left out.
        wanted = user and values.get("clickhouse_user", user) == user
        login = {"clickhouse_user": user, "clickhouse_password": password} if wanted else {}
        return {**login, **values, "clickhouse_url": url}

    @field_validator("content_limits")
    @classmethod
    def _check_content_limits(cls, text: str) -> str:
        parse_content_limits(text, STEP_KINDS)
        return text

    @field_validator("capture")
    @classmethod
    def _check_capture(cls, text: str) -> str:
        parse_capture(text, STEP_KINDS)
        return text

    @cached_property
    def content_capture(self) -> Capture:
        """The settings ``capture_content``, ``capture`` and ``capture_sample``."""
        if not self.capture_content:
            return Capture(default=OFF)
        limits = parse_capture(self.capture, STEP_KINDS)
        default = limits.pop(EVERY_KIND, Capture.default)
        return Capture(limits, default, self.capture_sample)

    @property
    def content_bytes_by_kind(self) -> dict[str, int]:
        """The setting ``content_limits``: bytes by kind of step."""
        return dict(_content_limits(self.content_limits))

    def content_bytes(self, kind: str) -> int:
        """The limit at which an agent or a gateway truncates an input or output."""
        # Read for each input and output of an agent's step: most agents have no limits by kind.
        if not self.content_limits:
            return self.max_content_bytes
        return _content_limits(self.content_limits).get(kind, self.max_content_bytes)

    @property
    def kafka(self) -> dict[str, Any]:
        """Connection settings of librdkafka."""
        # 2 is critical: its other lines repeat the errors that callers get and log themselves.
        config: dict[str, Any] = {"bootstrap.servers": self.kafka_brokers, "log_level": 2}
        tls = self.kafka_tls or bool(self.kafka_ca_file or self.kafka_certificate_file)
        if self.kafka_sasl_mechanism:
            config["security.protocol"] = "SASL_SSL" if tls else "SASL_PLAINTEXT"
            config["sasl.mechanism"] = self.kafka_sasl_mechanism
            if self.kafka_sasl_username:
                config["sasl.username"] = self.kafka_sasl_username
                config["sasl.password"] = self.kafka_sasl_password.get_secret_value()
        elif tls:
            config["security.protocol"] = "SSL"
        files = {
            "ssl.ca.location": self.kafka_ca_file,
            "ssl.certificate.location": self.kafka_certificate_file,
            "ssl.key.location": self.kafka_key_file,
        }
        return config | {key: path for key, path in files.items() if path}


@lru_cache(16)
def _content_limits(text: str) -> dict[str, int]:
    return parse_content_limits(text, STEP_KINDS)


def split_login(url: str) -> tuple[str, str, str]:
    """Returns (URL without login, user, password); the last two are empty if it has no login."""
    head, at, tail = url.partition("//")
    login, has_login, rest = tail.rpartition("@")
    if not at or not has_login or "/" in login:
        return url, "", ""
    user, _, password = login.partition(":")
    return f"{head}//{rest}", _unquoted(user), _unquoted(password)


def _unquoted(text: str) -> str:
    # urllib.parse.unquote would do; importing urllib is not allowed here, and costs the SDK time.
    plain = re.sub(
        rb"%([0-9A-Fa-f]{2})",
        lambda match: bytes([int(match[1], 16)]),
        text.encode("utf-8", "surrogateescape"),
    )
    return plain.decode("utf-8", "replace")


def environment_name(field: str) -> str:
    """The environment variable of a setting."""
    return ENV_PREFIX + field.upper()


SECRETS: Final = frozenset(
    name for name, info in Settings.model_fields.items() if info.annotation is SecretStr
)
"""Settings whose value may be in a file: ``<NAME>_FILE`` in the environment, ``file:/path``
anywhere."""

DURATIONS: Final = frozenset(
    name
    for name, info in Settings.model_fields.items()
    if any(
        isinstance(part, BeforeValidator) and part.func is parse_duration_us
        for part in info.metadata
    )
)


def setting_info(name: str) -> SettingInfo:
    """What the table holds about a setting."""
    found = next(
        part for part in Settings.model_fields[name].metadata if isinstance(part, SettingInfo)
    )
    return replace(found, metavar="DURATION") if name in DURATIONS else found


def settings_of(*processes: Process) -> tuple[str, ...]:
    """The settings that any of these processes reads, in the order of the table."""
    return tuple(
        name
        for name in Settings.model_fields
        if not set(processes).isdisjoint(setting_info(name).processes)
    )
