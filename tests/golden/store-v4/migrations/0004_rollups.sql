-- Rollups: additive integers only, so that they can be compared with the rows exactly.
-- latency: duration bucket -> steps, bucket = round(16 * log2(microseconds)); a quantile from it is within 2.2 %.
-- Partitioned by day, so that a day can be built anew and swapped in.
-- Each source column carries the alias s: an output column of the same name would shadow it.
CREATE TABLE IF NOT EXISTS ${database}.rollup_1m${on_cluster}
(
    time                DateTime('UTC')                               CODEC(Delta(4), ZSTD(1)),
    project             LowCardinality(String)                        CODEC(ZSTD(1)),
    environment         LowCardinality(String)                        CODEC(ZSTD(1)),
    agent               LowCardinality(String)                        CODEC(ZSTD(1)),
    agent_version       LowCardinality(String)                        CODEC(ZSTD(1)),
    kind                LowCardinality(String)                        CODEC(ZSTD(1)),
    steps               SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    error_steps         SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    cancelled_steps     SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    unpriced_steps      SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    input_tokens        SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    output_tokens       SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cache_write_tokens  SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    reasoning_tokens    SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cost_usd            SimpleAggregateFunction(sum, Decimal(38, 9))  CODEC(ZSTD(1)),
    duration_us         SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    max_duration_us     SimpleAggregateFunction(max, UInt64)          CODEC(ZSTD(1)),
    latency             SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(ZSTD(1))
)
ENGINE = ${replicated}AggregatingMergeTree
PARTITION BY toDate(time)
ORDER BY (project, environment, agent, agent_version, kind, time)
TTL time + toIntervalDay(${metrics_retention_days})
SETTINGS ttl_only_drop_parts = 1, ${deduplication};

CREATE TABLE IF NOT EXISTS ${database}.rollup_1h${on_cluster}
(
    time                DateTime('UTC')                               CODEC(Delta(4), ZSTD(1)),
    project             LowCardinality(String)                        CODEC(ZSTD(1)),
    environment         LowCardinality(String)                        CODEC(ZSTD(1)),
    agent               LowCardinality(String)                        CODEC(ZSTD(1)),
    agent_version       LowCardinality(String)                        CODEC(ZSTD(1)),
    kind                LowCardinality(String)                        CODEC(ZSTD(1)),
    tool                LowCardinality(String)                        CODEC(ZSTD(1)),
    model               LowCardinality(String)                        CODEC(ZSTD(1)),
    provider            LowCardinality(String)                        CODEC(ZSTD(1)),
    error_type          LowCardinality(String)                        CODEC(ZSTD(1)),
    steps               SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    error_steps         SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    cancelled_steps     SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    unpriced_steps      SimpleAggregateFunction(sum, UInt64)          CODEC(T64, ZSTD(1)),
    input_tokens        SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    output_tokens       SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cached_input_tokens SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cache_write_tokens  SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    reasoning_tokens    SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    cost_usd            SimpleAggregateFunction(sum, Decimal(38, 9))  CODEC(ZSTD(1)),
    duration_us         SimpleAggregateFunction(sum, UInt64)          CODEC(ZSTD(1)),
    max_duration_us     SimpleAggregateFunction(max, UInt64)          CODEC(ZSTD(1)),
    latency             SimpleAggregateFunction(sumMap, Map(UInt16, UInt64)) CODEC(ZSTD(1))
)
ENGINE = ${replicated}AggregatingMergeTree
PARTITION BY toDate(time)
ORDER BY (project, environment, agent, agent_version, kind, tool, model, provider, error_type, time)
TTL time + toIntervalDay(${metrics_retention_days})
SETTINGS ttl_only_drop_parts = 1, ${deduplication};

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.steps_to_rollup_1m${on_cluster} TO ${database}.rollup_1m AS
SELECT
    toStartOfMinute(s.start_time) AS time,
    s.project AS project,
    s.environment AS environment,
    s.agent AS agent,
    s.agent_version AS agent_version,
    s.kind AS kind,
    count() AS steps,
    countIf(s.status = 'error') AS error_steps,
    countIf(s.status = 'cancelled') AS cancelled_steps,
    countIf(s.cost_source = 'unpriced') AS unpriced_steps,
    sum(s.input_tokens) AS input_tokens,
    sum(s.output_tokens) AS output_tokens,
    sum(s.cached_input_tokens) AS cached_input_tokens,
    sum(s.cache_write_tokens) AS cache_write_tokens,
    sum(s.reasoning_tokens) AS reasoning_tokens,
    sum(ifNull(s.cost_usd, 0)) AS cost_usd,
    sum(s.duration_us) AS duration_us,
    max(s.duration_us) AS max_duration_us,
    sumMap(map(toUInt16(round(16 * log2(greatest(s.duration_us, 1)))), toUInt64(1))) AS latency
FROM ${database}.steps_raw AS s
GROUP BY time, project, environment, agent, agent_version, kind;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.steps_to_rollup_1h${on_cluster} TO ${database}.rollup_1h AS
SELECT
    toStartOfHour(s.start_time) AS time,
    s.project AS project,
    s.environment AS environment,
    s.agent AS agent,
    s.agent_version AS agent_version,
    s.kind AS kind,
    s.tool AS tool,
    s.model AS model,
    s.provider AS provider,
    s.error_type AS error_type,
    count() AS steps,
    countIf(s.status = 'error') AS error_steps,
    countIf(s.status = 'cancelled') AS cancelled_steps,
    countIf(s.cost_source = 'unpriced') AS unpriced_steps,
    sum(s.input_tokens) AS input_tokens,
    sum(s.output_tokens) AS output_tokens,
    sum(s.cached_input_tokens) AS cached_input_tokens,
    sum(s.cache_write_tokens) AS cache_write_tokens,
    sum(s.reasoning_tokens) AS reasoning_tokens,
    sum(ifNull(s.cost_usd, 0)) AS cost_usd,
    sum(s.duration_us) AS duration_us,
    max(s.duration_us) AS max_duration_us,
    sumMap(map(toUInt16(round(16 * log2(greatest(s.duration_us, 1)))), toUInt64(1))) AS latency
FROM ${database}.steps_raw AS s
GROUP BY time, project, environment, agent, agent_version, kind, tool, model, provider, error_type;
