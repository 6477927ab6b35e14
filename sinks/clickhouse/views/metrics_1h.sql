-- Steps, cost, tokens and durations per hour, agent, kind, tool, model and error.
SELECT
    time,
    project,
    environment,
    agent,
    agent_version,
    kind,
    tool,
    model,
    provider,
    error_type,
    sum(r.steps) AS steps,
    sum(r.error_steps) AS error_steps,
    sum(r.cancelled_steps) AS cancelled_steps,
    toUInt64(greatest(sum(r.unpriced_steps), 0)) AS unpriced_steps,
    toUInt64(greatest(sum(r.input_tokens), 0)) AS input_tokens,
    toUInt64(greatest(sum(r.output_tokens), 0)) AS output_tokens,
    toUInt64(greatest(sum(r.cached_input_tokens), 0)) AS cached_input_tokens,
    toUInt64(greatest(sum(r.cache_write_tokens), 0)) AS cache_write_tokens,
    toUInt64(greatest(sum(r.reasoning_tokens), 0)) AS reasoning_tokens,
    sum(r.cost_usd) AS cost_usd,
    sum(r.duration_us) AS duration_us,
    toUInt64(sum(r.duration_us) / greatest(sum(r.steps), 1)) AS avg_duration_us,
    max(r.max_duration_us) AS max_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.50)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p50_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.90)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p90_duration_us,
    toUInt64(exp2(quantileExactWeightedArray(0.99)(mapKeys(r.latency), mapValues(r.latency)) / 16)) AS p99_duration_us,
    sumMap(r.latency) AS latency
FROM
(
    SELECT
        time, project, environment, agent, agent_version, kind, tool, model, provider, error_type,
        steps, error_steps, cancelled_steps, toInt64(q.unpriced_steps) AS unpriced_steps,
        toInt64(q.input_tokens) AS input_tokens, toInt64(q.output_tokens) AS output_tokens,
        toInt64(q.cached_input_tokens) AS cached_input_tokens,
        toInt64(q.cache_write_tokens) AS cache_write_tokens,
        toInt64(q.reasoning_tokens) AS reasoning_tokens, cost_usd,
        duration_us, max_duration_us, latency
    FROM ${database}.rollup_1h AS q
    UNION ALL
    -- What nested instrumentations report twice.
    SELECT
        toStartOfHour(u.start_time), project, environment, agent, agent_version, kind, tool, model, provider, error_type,
        0, 0, 0, -toInt64(u.unpriced_steps),
        -toInt64(u.input_tokens), -toInt64(u.output_tokens), -toInt64(u.cached_input_tokens),
        -toInt64(u.cache_write_tokens), -toInt64(u.reasoning_tokens), -u.cost_usd,
        0, 0, CAST(map(), 'Map(UInt16, UInt64)')
    FROM ${database}.repeatable_usage AS u FINAL
    WHERE (u.trace_id, u.step_id) IN (SELECT trace_id, step_id FROM ${database}.repeated_steps)
) AS r
GROUP BY time, project, environment, agent, agent_version, kind, tool, model, provider, error_type
