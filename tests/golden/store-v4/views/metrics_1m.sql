-- Steps, cost, tokens and durations per minute, agent and kind.
SELECT
    time,
    project,
    environment,
    agent,
    agent_version,
    kind,
    sum(r.steps) AS steps,
    sum(r.error_steps) AS error_steps,
    sum(r.cancelled_steps) AS cancelled_steps,
    sum(r.unpriced_steps) AS unpriced_steps,
    sum(r.input_tokens) AS input_tokens,
    sum(r.output_tokens) AS output_tokens,
    sum(r.cached_input_tokens) AS cached_input_tokens,
    sum(r.cache_write_tokens) AS cache_write_tokens,
    sum(r.reasoning_tokens) AS reasoning_tokens,
    sum(r.cost_usd) AS cost_usd,
    sum(r.duration_us) AS duration_us,
    toUInt64(sum(r.duration_us) / sum(r.steps)) AS avg_duration_us,
    max(r.max_duration_us) AS max_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.50)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p50_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.90)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p90_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.99)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p99_duration_us,
    sumMap(r.latency) AS latency
FROM ${database}.rollup_1m AS r
GROUP BY time, project, environment, agent, agent_version, kind
