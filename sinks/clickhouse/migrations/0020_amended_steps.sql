-- Steps whose contents came apart from them are stored once more with their contents. That row replaces the first one, by a
-- higher version, and rollups, which have counted the step, leave it out.
ALTER TABLE ${database}.steps_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS amends Bool CODEC(ZSTD(1)) AFTER phase;

ALTER TABLE ${database}.steps_raw${on_cluster}
    MODIFY COLUMN ver UInt64 MATERIALIZED toUInt64(if(amends, 4611686018427387904 + kafka_offset, 4611686018427387904 - kafka_offset)) CODEC(T64, ZSTD(1));

ALTER TABLE ${database}.steps_to_rollup_1m${on_cluster} MODIFY QUERY
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
WHERE NOT s.amends
GROUP BY time, project, environment, agent, agent_version, kind;

ALTER TABLE ${database}.steps_to_rollup_1h${on_cluster} MODIFY QUERY
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
WHERE NOT s.amends
GROUP BY time, project, environment, agent, agent_version, kind, tool, model, provider, error_type;
