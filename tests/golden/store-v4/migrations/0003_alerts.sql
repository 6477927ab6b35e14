-- Every record of an alert: one row for each change (alert_id, seq). Few rows, so no partitions.
CREATE TABLE IF NOT EXISTS ${database}.alert_events_raw${on_cluster}
(
    alert_id         String                            CODEC(ZSTD(1)),
    seq              UInt64                            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    severity         LowCardinality(String)            CODEC(ZSTD(1)),
    alert            LowCardinality(String)            CODEC(ZSTD(1)),
    rule             LowCardinality(String)            CODEC(ZSTD(1)),
    policy           LowCardinality(String)            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    environment      LowCardinality(String)            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    agent_version    LowCardinality(String)            CODEC(ZSTD(1)),
    task             LowCardinality(String)            CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    subject          String                            CODEC(ZSTD(1)),
    step_ids         Array(String)                     CODEC(ZSTD(1)),
    value            Nullable(Float64)                 CODEC(ZSTD(1)),
    threshold        Nullable(Float64)                 CODEC(ZSTD(1)),
    unit             LowCardinality(String)            CODEC(ZSTD(1)),
    baseline         Nullable(Float64)                 CODEC(ZSTD(1)),
    baseline_runs    UInt64                            CODEC(ZSTD(1)),
    message          String                            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    running          Bool                              CODEC(ZSTD(1)),
    findings         UInt64                            CODEC(ZSTD(1)),
    opened_at        DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    updated_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    resolved_at      Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    acknowledged_by  String                            CODEC(ZSTD(1)),
    silenced_until   Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    action           LowCardinality(String)            CODEC(ZSTD(1)),
    finding_ids      Array(String)                     CODEC(ZSTD(1)),
    source_partition Int32                             CODEC(ZSTD(1)),
    source_offset    Int64                             CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    ver              UInt64 MATERIALIZED toUInt64(4611686018427387904 - kafka_offset) CODEC(Delta(8), ZSTD(1)),
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(ver)
ORDER BY (alert_id, seq)
TTL toDateTime(updated_at) + toIntervalDay(${alerts_retention_days})
SETTINGS ${deduplication};

-- Alerts as they stand: the highest seq of each.
CREATE TABLE IF NOT EXISTS ${database}.alerts_raw${on_cluster}
(
    alert_id         String                            CODEC(ZSTD(1)),
    seq              UInt64                            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    severity         LowCardinality(String)            CODEC(ZSTD(1)),
    alert            LowCardinality(String)            CODEC(ZSTD(1)),
    rule             LowCardinality(String)            CODEC(ZSTD(1)),
    policy           LowCardinality(String)            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    environment      LowCardinality(String)            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    agent_version    LowCardinality(String)            CODEC(ZSTD(1)),
    task             LowCardinality(String)            CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    subject          String                            CODEC(ZSTD(1)),
    step_ids         Array(String)                     CODEC(ZSTD(1)),
    value            Nullable(Float64)                 CODEC(ZSTD(1)),
    threshold        Nullable(Float64)                 CODEC(ZSTD(1)),
    unit             LowCardinality(String)            CODEC(ZSTD(1)),
    baseline         Nullable(Float64)                 CODEC(ZSTD(1)),
    baseline_runs    UInt64                            CODEC(ZSTD(1)),
    message          String                            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    running          Bool                              CODEC(ZSTD(1)),
    findings         UInt64                            CODEC(ZSTD(1)),
    opened_at        DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    updated_at       DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    resolved_at      Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    acknowledged_by  String                            CODEC(ZSTD(1)),
    silenced_until   Nullable(DateTime64(6, 'UTC'))    CODEC(Delta(8), ZSTD(1)),
    action           LowCardinality(String)            CODEC(ZSTD(1)),
    finding_ids      Array(String)                     CODEC(ZSTD(1)),
    source_partition Int32                             CODEC(ZSTD(1)),
    source_offset    Int64                             CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree(seq)
ORDER BY alert_id
TTL toDateTime(updated_at) + toIntervalDay(${alerts_retention_days})
SETTINGS ${deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.alert_events_to_alerts${on_cluster} TO ${database}.alerts_raw AS
SELECT * FROM ${database}.alert_events_raw;
