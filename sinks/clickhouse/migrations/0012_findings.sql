-- Findings: what detectors saw, notes that open no alert included, and what people said about alerts. One row a record.
CREATE TABLE IF NOT EXISTS ${database}.findings_raw${on_cluster}
(
    finding_id       String                            CODEC(ZSTD(1)),
    state            LowCardinality(String)            CODEC(ZSTD(1)),
    time             DateTime64(6, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    severity         LowCardinality(String)            CODEC(ZSTD(1)),
    alert            LowCardinality(String)            CODEC(ZSTD(1)),
    rule             LowCardinality(String)            CODEC(ZSTD(1)),
    policy           LowCardinality(String)            CODEC(ZSTD(1)),
    project          LowCardinality(String)            CODEC(ZSTD(1)),
    environment      LowCardinality(String)            CODEC(ZSTD(1)),
    agent            LowCardinality(String)            CODEC(ZSTD(1)),
    agent_version    LowCardinality(String)            CODEC(ZSTD(1)),
    task             LowCardinality(String)            CODEC(ZSTD(1)),
    user_id          String                            CODEC(ZSTD(1)),
    trace_id         String                            CODEC(ZSTD(1)),
    subject          String                            CODEC(ZSTD(1)),
    step_ids         Array(String)                     CODEC(ZSTD(1)),
    value            Nullable(Float64)                 CODEC(ZSTD(1)),
    threshold        Nullable(Float64)                 CODEC(ZSTD(1)),
    unit             LowCardinality(String)            CODEC(ZSTD(1)),
    baseline         Nullable(Float64)                 CODEC(ZSTD(1)),
    baseline_runs    UInt64                            CODEC(ZSTD(1)),
    message          String                            CODEC(ZSTD(1)),
    quoted           String                            CODEC(ZSTD(1)),
    detail           String                            CODEC(ZSTD(1)),
    running          Bool                              CODEC(ZSTD(1)),
    withdrawn        Bool                              CODEC(ZSTD(1)),
    action           LowCardinality(String)            CODEC(ZSTD(1)),
    by               String                            CODEC(ZSTD(1)),
    alert_id         String                            CODEC(ZSTD(1)),
    append_time      DateTime64(3, 'UTC')              CODEC(Delta(8), ZSTD(1)),
    kafka_topic_id   LowCardinality(String)            CODEC(ZSTD(1)),
    kafka_partition  Int32                             CODEC(ZSTD(1)),
    kafka_offset     Int64                             CODEC(Delta(8), ZSTD(1)),
    INDEX ix_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (project, finding_id, state)
TTL toDateTime(time) + toIntervalDay(${alerts_retention_days})
SETTINGS ${deduplication};

ALTER TABLE ${database}.alerts_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS withdrawn Bool CODEC(ZSTD(1));

ALTER TABLE ${database}.alert_events_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS withdrawn Bool CODEC(ZSTD(1));

ALTER TABLE ${database}.alert_events_to_alerts${on_cluster} MODIFY QUERY
SELECT
    alert_id, seq, state, severity, alert, rule, policy, project, environment, agent, agent_version, task, trace_id,
    subject, step_ids, value, threshold, unit, baseline, baseline_runs, message, detail, running, findings, opened_at,
    updated_at, resolved_at, acknowledged_by, silenced_until, action, finding_ids, source_partition, source_offset,
    append_time, kafka_topic_id, kafka_partition, kafka_offset, change, by, reopened, runs, trace_ids, incident_id,
    opened_by, user_id, quoted, withdrawn
FROM ${database}.alert_events_raw;
