-- Runs that are made of spans: steps that stand in for a root elsewhere, and calls that nested instrumentations report twice.
ALTER TABLE ${database}.steps_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS parent_remote Bool CODEC(ZSTD(1)) AFTER parent_step_id,
    ADD COLUMN IF NOT EXISTS usage_may_repeat Bool CODEC(ZSTD(1)) AFTER usage_details;

ALTER TABLE ${database}.steps_open${on_cluster}
    ADD COLUMN IF NOT EXISTS parent_remote Bool CODEC(ZSTD(1)) AFTER parent_step_id;

ALTER TABLE ${database}.runs_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS provisional Bool CODEC(ZSTD(1)) AFTER closed,
    ADD COLUMN IF NOT EXISTS repeated_step_ids Array(String) CODEC(ZSTD(1)) AFTER path_truncated;

-- How far the run had got, and the finding that opened the alert.
ALTER TABLE ${database}.findings_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS run_steps UInt64 CODEC(ZSTD(1)) AFTER running;

ALTER TABLE ${database}.alerts_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS run_steps UInt64 CODEC(ZSTD(1)) AFTER running,
    ADD COLUMN IF NOT EXISTS opened_offset Int64 CODEC(ZSTD(1)) AFTER opened_by;

ALTER TABLE ${database}.alert_events_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS run_steps UInt64 CODEC(ZSTD(1)) AFTER running,
    ADD COLUMN IF NOT EXISTS opened_offset Int64 CODEC(ZSTD(1)) AFTER opened_by;

ALTER TABLE ${database}.alert_events_to_alerts${on_cluster} MODIFY QUERY
SELECT
    alert_id, seq, state, severity, alert, rule, policy, project, environment, agent, agent_version, task, trace_id,
    subject, step_ids, value, threshold, unit, baseline, baseline_runs, message, detail, running, findings, opened_at,
    updated_at, resolved_at, acknowledged_by, silenced_until, action, finding_ids, source_partition, source_offset,
    append_time, kafka_topic_id, kafka_partition, kafka_offset, change, by, reopened, runs, trace_ids, incident_id,
    opened_by, user_id, quoted, withdrawn, run_steps, opened_offset
FROM ${database}.alert_events_raw;

-- Which calls repeat others is known only when the run is put together, so their usage is in the rollups: the views of metrics
-- subtract it again. Both tables are filled from both sides, because steps and trajectories come in any order.
CREATE TABLE IF NOT EXISTS ${database}.repeated_steps${on_cluster}
(
    trace_id            String                                        CODEC(ZSTD(1)),
    step_id             String                                        CODEC(ZSTD(1)),
    project             LowCardinality(String)                        CODEC(ZSTD(1)),
    run_day             Date                                          CODEC(ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (trace_id, step_id)
TTL run_day + toIntervalDay(${metrics_retention_days})
SETTINGS ${deduplication};

CREATE TABLE IF NOT EXISTS ${database}.repeatable_usage${on_cluster}
(
    trace_id            String                                        CODEC(ZSTD(1)),
    step_id             String                                        CODEC(ZSTD(1)),
    start_time          DateTime('UTC')                               CODEC(Delta(4), ZSTD(1)),
    project             LowCardinality(String)                        CODEC(ZSTD(1)),
    environment         LowCardinality(String)                        CODEC(ZSTD(1)),
    agent               LowCardinality(String)                        CODEC(ZSTD(1)),
    agent_version       LowCardinality(String)                        CODEC(ZSTD(1)),
    kind                LowCardinality(String)                        CODEC(ZSTD(1)),
    tool                LowCardinality(String)                        CODEC(ZSTD(1)),
    model               LowCardinality(String)                        CODEC(ZSTD(1)),
    provider            LowCardinality(String)                        CODEC(ZSTD(1)),
    error_type          LowCardinality(String)                        CODEC(ZSTD(1)),
    unpriced_steps      UInt8                                         CODEC(ZSTD(1)),
    input_tokens        UInt64                                        CODEC(ZSTD(1)),
    output_tokens       UInt64                                        CODEC(ZSTD(1)),
    cached_input_tokens UInt64                                        CODEC(ZSTD(1)),
    cache_write_tokens  UInt64                                        CODEC(ZSTD(1)),
    reasoning_tokens    UInt64                                        CODEC(ZSTD(1)),
    cost_usd            Decimal(38, 9)                                CODEC(ZSTD(1))
)
ENGINE = ${replicated}ReplacingMergeTree
ORDER BY (trace_id, step_id)
TTL start_time + toIntervalDay(${metrics_retention_days})
SETTINGS ${deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.runs_to_repeated_steps${on_cluster} TO ${database}.repeated_steps AS
SELECT
    r.trace_id AS trace_id,
    arrayJoin(r.repeated_step_ids) AS step_id,
    r.project AS project,
    r.run_day AS run_day
FROM ${database}.runs_raw AS r
WHERE notEmpty(r.repeated_step_ids);

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.steps_to_repeatable_usage${on_cluster} TO ${database}.repeatable_usage AS
SELECT
    s.trace_id AS trace_id,
    s.step_id AS step_id,
    toDateTime(s.start_time, 'UTC') AS start_time,
    s.project AS project,
    s.environment AS environment,
    s.agent AS agent,
    s.agent_version AS agent_version,
    s.kind AS kind,
    s.tool AS tool,
    s.model AS model,
    s.provider AS provider,
    s.error_type AS error_type,
    toUInt8(s.cost_source = 'unpriced') AS unpriced_steps,
    s.input_tokens AS input_tokens,
    s.output_tokens AS output_tokens,
    s.cached_input_tokens AS cached_input_tokens,
    s.cache_write_tokens AS cache_write_tokens,
    s.reasoning_tokens AS reasoning_tokens,
    toDecimal128(ifNull(s.cost_usd, 0), 9) AS cost_usd
FROM ${database}.steps_raw AS s
WHERE s.usage_may_repeat;
