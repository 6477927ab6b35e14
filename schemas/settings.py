"""Settings: one table. The fields below are all there are; name, default and meaning stand here and nowhere else.

A setting ``kafka_brokers`` is the environment variable ``STEPSTREAM_KAFKA_BROKERS``, the key ``kafka_brokers`` in a settings
file (TOML) and the flag ``--kafka-brokers``. This module is pure: ``stepstream.common.settings`` reads the environment and files.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from stepstream.schemas.durations import DurationUs

ENV_PREFIX: Final = "STEPSTREAM_"
NOTIFY_SECRET_PREFIX: Final = "STEPSTREAM_NOTIFY_SECRET_"
"""Variables that are no settings but secrets for subscriptions."""

OWN_DAYS: Final = r"[^\s=,'\\]+\.(steps|runs|alerts|metrics)=[1-9][0-9]?[0-9]?[0-9]?[0-9]?"
"""One project's days for one kind of data."""


class Settings(BaseModel):
    """Every setting of every process and of the SDK."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True
    )  # an input may be a secret

    # the SDK
    endpoint: str = Field(
        "",
        description="where events go: kafka://host:9092; empty: kafka_brokers, else what `stepstream up` wrote",
    )
    project: str = Field("default", description="project that runs belong to")
    environment: str = Field("", description="prod, staging, dev ...")
    agent: str = Field("", description="the agent's name; empty: the program's file name")
    agent_version: str = Field("", description="the agent's version")
    enabled: bool = Field(True, description="off: the SDK does nothing at all")
    capture_content: bool = Field(
        True, description="off: inputs, outputs and document texts are not sent, only their sizes"
    )
    max_content_bytes: int = Field(
        16_384, ge=0, description="inputs and outputs are cut to this size by the SDK"
    )
    queue_events: int = Field(
        10_000,
        gt=0,
        description="events the SDK holds at most; what does not fit is dropped and counted",
    )
    queue_bytes: int = Field(67_108_864, gt=0, description="bytes the SDK holds at most")
    compression: str = Field(
        "lz4", pattern="^(none|lz4|zstd|gzip|snappy)$", description="compression of Kafka batches"
    )
    quiet: bool = Field(False, description="no line on stderr when an agent's program ends")
    control: bool = Field(
        True, description="off: the SDK does not listen for commands (stop, pause, resume, warn)"
    )
    control_lookback: DurationUs = Field(
        600_000_000,
        description="how far back the SDK reads commands; a command to a whole agent binds no longer than this",
    )
    pause_limit: DurationUs = Field(
        900_000_000, description="a paused run that nobody resumes for this long is stopped"
    )

    # Kafka
    kafka_brokers: str = Field(
        "", description="bootstrap servers, host:port,host:port; empty: what `stepstream up` wrote"
    )
    kafka_sasl_mechanism: str = Field(
        "", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; empty: no SASL"
    )
    kafka_sasl_username: str = Field("", description="SASL user")
    kafka_sasl_password: SecretStr = Field(SecretStr(""), description="SASL password")
    kafka_token_hook: str = Field(
        "",
        description="module:function that returns (token, expiry in unix seconds), for OAUTHBEARER",
    )
    kafka_tls: bool = Field(
        False, description="encrypt connections; on by itself when a CA or certificate is given"
    )
    kafka_ca_file: str = Field(
        "", description="CA certificates in PEM; empty with kafka_tls: the system's"
    )
    kafka_certificate_file: str = Field("", description="client certificate in PEM")
    kafka_key_file: str = Field("", description="the client certificate's key in PEM")
    topic_prefix: str = Field(
        "stepstream",
        pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$",
        description="topics are named <prefix>.steps ...",
    )
    partitions: int = Field(
        2,
        gt=0,
        description="partitions of the steps topic when it is created, never changed later: at least as many as workers one day",
    )
    fleet_partitions: int = Field(
        2, gt=0, description="partitions of findings, usage and alerts when they are created"
    )
    replication_factor: int = Field(
        1, gt=0, description="replicas of each topic when it is created; 3 in production"
    )
    min_insync_replicas: int = Field(
        1, gt=0, description="replicas that must acknowledge; 2 in production"
    )
    steps_topic_retention: DurationUs = Field(
        7 * 86_400_000_000, description="how long Kafka keeps step events"
    )

    # ClickHouse
    clickhouse_url: str = Field(
        "",
        description="http(s)://host:8123; empty: what `stepstream up` wrote; http://user:password@host:8123 sets clickhouse_user and clickhouse_password too",
    )
    clickhouse_user: str = Field("default", description="user that writes and migrates")
    clickhouse_password: SecretStr = Field(
        SecretStr(""),
        description="its password; empty with the store of `stepstream up`: the random one that `up` made",
    )
    clickhouse_reader_user: str = Field(
        "",
        description="user that commands read with (runs, trace, sql ...); empty: clickhouse_user, with readonly=1",
    )
    clickhouse_reader_password: SecretStr = Field(SecretStr(""), description="its password")
    clickhouse_ca_file: str = Field("", description="CA certificate in PEM for https")
    clickhouse_database: str = Field(
        "stepstream", pattern="^[A-Za-z_][A-Za-z0-9_]*$", description="database of tables and views"
    )
    steps_retention_days: int = Field(
        30, gt=0, description="how long ClickHouse keeps steps; older ones are dead-lettered"
    )
    runs_retention_days: int = Field(180, gt=0, description="how long ClickHouse keeps runs")
    alerts_retention_days: int = Field(365, gt=0, description="how long ClickHouse keeps alerts")
    metrics_retention_days: int = Field(
        365,
        gt=0,
        description="how long ClickHouse keeps the rollups behind metrics_1m and metrics_1h",
    )
    retention_by_project: str = Field(
        "",
        pattern=f"^$|^{OWN_DAYS}(, *{OWN_DAYS})*$",
        description="other days for some projects: dev.steps=7,dev.runs=30,shop.metrics=730",
    )
    text_search: bool = Field(
        False,
        description="index the words of inputs and outputs: 60 % more disk, inserts take nearly twice as long",
    )
    clickhouse_cluster: str = Field(
        "",
        pattern="^[A-Za-z0-9_.-]*$",
        description="cluster to create replicated tables on (untested); empty: one server",
    )

    # worker
    worker_group: str = Field("worker", description="consumer group of workers: <prefix>.<group>")
    close_after: DurationUs = Field(
        2_000_000,
        description="a run closes when its root has ended and no step is open for this long",
    )
    rootless_idle: DurationUs = Field(
        60_000_000, description="a run whose root was never seen closes after this much silence"
    )
    stuck_after: DurationUs = Field(
        1_800_000_000, description="an open root with this much silence raises stuck-run"
    )
    max_run_age: DurationUs = Field(
        86_400_000_000, description="a run is closed at this age, whatever is open"
    )
    late_horizon: DurationUs = Field(
        3_600_000_000,
        description="a step this much later than its run's close is stored and changes nothing",
    )
    revision_interval: DurationUs = Field(
        1_000_000, description="a growing trajectory is published at most this often"
    )
    usage_interval: DurationUs = Field(
        5_000_000, description="what a growing run used is told to windows at most this often"
    )
    max_steps_per_run: int = Field(
        20_000, gt=0, description="steps merged into one trajectory; more are stored and counted"
    )
    max_open_runs: int = Field(
        200_000,
        gt=0,
        description="open runs a worker holds per partition before the oldest idle ones close",
    )
    max_held_bytes: int = Field(
        1_073_741_824,
        gt=0,
        description="memory for runs a worker holds per partition before it forgets closed ones, then closes the idlest",
    )
    replay_records: int = Field(
        50_000,
        gt=0,
        description="open runs that hold a floor back by more records are checkpointed; with very many open, by 16 records each",
    )
    content_detectors: bool = Field(
        True, description="off: no detector looks at inputs and outputs"
    )
    flap_window: DurationUs = Field(
        600_000_000,
        description="a trouble that comes back within this after it was resolved is the same alert",
    )
    incident_runs: int = Field(
        3,
        ge=0,
        le=50,
        description="runs that one trouble (a broken tool) hits before they are one incident; 0: no incidents",
    )
    incident_window: DurationUs = Field(
        600_000_000,
        description="within which they are hit; an incident that hits no run for this long is resolved",
    )
    dead_letter_limit: int = Field(
        600,
        ge=0,
        description="records refused in a minute of one partition that raise the alert dead-letter-rate; 0: never",
    )
    watchdog: DurationUs = Field(
        120_000_000,
        description="a worker whose loop or partition stands still for this long ends, to be started again",
    )
    window_lateness: DurationUs = Field(
        600_000_000,
        description="windows are sealed when what ended in them may have come this late",
    )
    max_window_owners: int = Field(
        5_000,
        gt=0,
        description="project, agent, version and task together that windows are kept for, per partition",
    )
    max_window_records: int = Field(
        500_000,
        gt=0,
        description="usage records held per partition until their windows are sealed; more seal them early",
    )
    session_timeout: DurationUs = Field(
        10_000_000,
        ge=6_000_000,
        description="Kafka takes partitions from a silent worker or sink after this; brokers refuse less than 6s",
    )

    # sink
    sink_group: str = Field("sink", description="consumer group of sinks: <prefix>.<group>")
    sink_batch_rows: int = Field(20_000, gt=0, description="rows of one insert at most")
    sink_batch_bytes: int = Field(
        33_554_432, gt=0, description="bytes of records of one insert at most"
    )
    sink_batch_interval: DurationUs = Field(
        250_000,
        description="how long a batch waits for more rows: up to four times as long while inserts are slow, and up to twelve "
        "times where it is of runs or alerts",
    )

    # notify
    notify_group: str = Field("notify", description="consumer group of notifiers: <prefix>.<group>")
    notify_port: int = Field(
        0,
        ge=-1,
        le=65535,
        description="port of the admin API and the alert stream, on loopback; 0: a free one, named in the log; -1: none",
    )
    notify_url: str = Field(
        "",
        description="where commands reach the notifier's admin API: http://host:8124; empty: what `stepstream up` wrote",
    )
    notify_token: SecretStr = Field(
        SecretStr(""),
        description="token for notify_url, from `stepstream credentials add`; empty: what `stepstream up` wrote",
    )
    credentials_file: str = Field(
        "",
        description="file of who may call the admin API and the alert stream, kept by `stepstream credentials`; empty: nobody may (`up`: its own)",
    )
    notify_allow_private: bool = Field(
        False, description="webhooks may go to loopback, link-local and private addresses"
    )
    notify_allow_commands: bool = Field(
        False, description="subscriptions may run programs on the notifier's machine"
    )
    notify_secrets_dir: str = Field(
        "/run/secrets",
        description="folder that the secrets named file:/path in subscriptions lie in",
    )
    notify_secret_variables: str = Field(
        "",
        pattern=r"^[A-Za-z0-9_, ]*$",
        description="variables that subscriptions may name as env:NAME, separated by commas, besides STEPSTREAM_NOTIFY_SECRET_...",
    )
    watch_after: DurationUs = Field(
        60_000_000,
        description="pipeline-stalled is raised when workers or sinks make no progress for this long",
    )
    watch_lag_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="pipeline-stalled is raised when this share of what Kafka keeps is not processed yet",
    )
    synthetic_runs: bool = Field(
        False,
        description="notify sends a run of its own through the pipeline every minute and raises pipeline-stalled when its alert does not come",
    )

    # every process
    metrics_host: str = Field(
        "127.0.0.1", description="address that /metrics, /healthz and /readyz are served at"
    )
    metrics_port: int = Field(
        0,
        ge=-1,
        le=65533,
        description="their port; 0: a free one, named in the log; -1: none. `up` takes three from here on: worker, sink, notify; 0: 9464 to 9466, or free ones that it keeps",
    )

    log_level: str = Field(
        "warning",
        pattern="^(debug|info|warning|error|critical)$",
        description="what processes say on stderr, and what is graver",
    )
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="text for people, or one JSON object a line"
    )

    # one machine
    state_dir: str = Field(
        "",
        description="where `up` writes its addresses; empty: stepstream in the user's state folder",
    )
    data_dir: str = Field(
        "",
        description="where the embedded engines keep their data; empty: data in the state folder",
    )
    kafka_port: int = Field(
        0, ge=0, le=65535, description="port of the embedded Kafka; 0: 9092 or a free one"
    )
    kafka_auth: bool = Field(
        False,
        description="the embedded Kafka asks for a user and a password (SASL), which `up` makes and clients here find",
    )
    clickhouse_port: int = Field(
        0, ge=0, le=65535, description="port of the embedded ClickHouse; 0: 8123 or a free one"
    )
    kafka_heap_mb: int = Field(384, ge=128, description="Java heap of the embedded Kafka")
    kafka_jars_dir: str = Field(
        "",
        description="folder with Kafka's jars, for machines without a network; empty: fetched once",
    )
    documents_dir: str = Field("", description="folder of documents that `up` applies and watches")

    @model_validator(mode="before")
    @classmethod
    def _take_login(cls, values: Any) -> Any:
        """A login in the store's URL becomes user and password, so that no URL that is shown holds a password."""
        if not isinstance(values, dict) or not isinstance(values.get("clickhouse_url"), str):
            return values
        url, user, password = split_login(values["clickhouse_url"])
        wanted = user and values.get("clickhouse_user", user) == user
        login = {"clickhouse_user": user, "clickhouse_password": password} if wanted else {}
        return {**login, **values, "clickhouse_url": url}

    @property
    def kafka(self) -> dict[str, Any]:
        """librdkafka's connection settings."""
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


def split_login(url: str) -> tuple[str, str, str]:
    """The URL without its login, the user and the password; empty texts where the URL has none."""
    head, at, tail = url.partition("//")
    login, has_login, rest = tail.rpartition("@")
    if not at or not has_login or "/" in login:
        return url, "", ""
    user, _, password = login.partition(":")
    return f"{head}//{rest}", _unquoted(user), _unquoted(password)


def _unquoted(text: str) -> str:
    """Percent escapes as the characters that they stand for."""
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
"""Settings whose value may be given as a file: ``<NAME>_FILE`` in the environment, ``file:/path`` anywhere."""
