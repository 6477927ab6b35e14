-- Steps whose contents came apart from them are stored once more with their contents. That row replaces the first one, by a
-- higher version, and rollups, which have counted the step, do not count it again.
ALTER TABLE ${database}.steps_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS amends Bool CODEC(ZSTD(1)) AFTER phase;

ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN ver UInt64 MATERIALIZED toUInt64(if(amends, 4611686018427387904 + kafka_offset, 4611686018427387904 - kafka_offset)) CODEC(T64, ZSTD(1));

-- The views of the rollups add such a row up as any other; these views subtract it, modulo 2^64.
-- A condition in the views of the rollups would need MODIFY QUERY. After it ClickHouse 26.9 derives other tokens for what the
-- view inserts until the server starts again: a batch that is repeated after that start would count twice.
CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.amended_to_rollup_1m${on_cluster} TO ${database}.rollup_1m AS
SELECT
    toStartOfMinute(s.start_time) AS time,
    s.project AS project,
    s.environment AS environment,
    s.agent AS agent,
    s.agent_version AS agent_version,
    s.kind AS kind,
    toUInt64(-count()) AS steps,
    toUInt64(-countIf(s.status = 'error')) AS error_steps,
    toUInt64(-countIf(s.status = 'cancelled')) AS cancelled_steps,
    toUInt64(-countIf(s.cost_source = 'unpriced')) AS unpriced_steps,
    toUInt64(-sum(s.input_tokens)) AS input_tokens,
    toUInt64(-sum(s.output_tokens)) AS output_tokens,
    toUInt64(-sum(s.cached_input_tokens)) AS cached_input_tokens,
    toUInt64(-sum(s.cache_write_tokens)) AS cache_write_tokens,
    toUInt64(-sum(s.reasoning_tokens)) AS reasoning_tokens,
    -sum(ifNull(s.cost_usd, 0)) AS cost_usd,
    toUInt64(-sum(s.duration_us)) AS duration_us,
    toUInt64(0) AS max_duration_us,
    sumMap(map(toUInt16(round(16 * log2(greatest(s.duration_us, 1)))), toUInt64(-1))) AS latency
FROM ${database}.steps_raw AS s
WHERE s.amends
GROUP BY time, project, environment, agent, agent_version, kind;

CREATE MATERIALIZED VIEW IF NOT EXISTS ${database}.amended_to_rollup_1h${on_cluster} TO ${database}.rollup_1h AS
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
    toUInt64(-count()) AS steps,
    toUInt64(-countIf(s.status = 'error')) AS error_steps,
    toUInt64(-countIf(s.status = 'cancelled')) AS cancelled_steps,
    toUInt64(-countIf(s.cost_source = 'unpriced')) AS unpriced_steps,
    toUInt64(-sum(s.input_tokens)) AS input_tokens,
    toUInt64(-sum(s.output_tokens)) AS output_tokens,
    toUInt64(-sum(s.cached_input_tokens)) AS cached_input_tokens,
    toUInt64(-sum(s.cache_write_tokens)) AS cache_write_tokens,
    toUInt64(-sum(s.reasoning_tokens)) AS reasoning_tokens,
    -sum(ifNull(s.cost_usd, 0)) AS cost_usd,
    toUInt64(-sum(s.duration_us)) AS duration_us,
    toUInt64(0) AS max_duration_us,
    sumMap(map(toUInt16(round(16 * log2(greatest(s.duration_us, 1)))), toUInt64(-1))) AS latency
FROM ${database}.steps_raw AS s
WHERE s.amends
GROUP BY time, project, environment, agent, agent_version, kind, tool, model, provider, error_type;
