-- Everything known about one run: SELECT * FROM trace(id = '...'). Open steps have status 'running' and no end_time.
SELECT
    schema_version, trace_id, step_id, parent_step_id, phase, kind, name, tool, model, provider, project,
    environment, agent, agent_version, task, session_id, user_id, start_time, end_time, first_token_time, status,
    error_type, error_message, attempt, retry_of, fallback_of, input_tokens, output_tokens, cached_input_tokens,
    cache_write_tokens, reasoning_tokens, usage_details, cost_usd, cost_source, price_version, input, output, input_bytes,
    output_bytes, tool_schema, documents, attributes, duration_us, append_time, kafka_topic_id, kafka_partition,
    kafka_offset,
    dateDiff('microsecond', min(start_time) OVER (), start_time) AS offset_us
FROM
(
    SELECT
        schema_version, trace_id, step_id, parent_step_id, phase, kind, name, tool, model, provider, project,
        environment, agent, agent_version, task, session_id, user_id, start_time, end_time, first_token_time, status,
        error_type, error_message, attempt, retry_of, fallback_of, input_tokens, output_tokens, cached_input_tokens,
        cache_write_tokens, reasoning_tokens, usage_details, cost_usd, cost_source, price_version, input, output, input_bytes,
        output_bytes, tool_schema, documents, attributes, duration_us, append_time, kafka_topic_id, kafka_partition,
        kafka_offset
    FROM ${database}.steps_raw FINAL
    PREWHERE trace_id = {id:String}
    UNION ALL
    SELECT
        1 AS schema_version, trace_id, step_id, parent_step_id, 'start' AS phase, kind, name, tool, model, provider,
        project, environment, agent, agent_version, task, session_id, user_id, start_time, NULL AS end_time,
        NULL AS first_token_time, 'running' AS status, '' AS error_type, '' AS error_message, attempt, retry_of,
        fallback_of, 0 AS input_tokens, 0 AS output_tokens, 0 AS cached_input_tokens, 0 AS cache_write_tokens,
        0 AS reasoning_tokens,
        CAST(map(), 'Map(LowCardinality(String), UInt64)') AS usage_details, NULL AS cost_usd, '' AS cost_source, '' AS price_version, input, '' AS output,
        input_bytes, NULL AS output_bytes, tool_schema, [] AS documents, attributes, NULL AS duration_us,
        append_time, kafka_topic_id, kafka_partition, kafka_offset
    FROM ${database}.steps_open FINAL
    PREWHERE trace_id = {id:String}
    WHERE step_id NOT IN (SELECT step_id FROM ${database}.steps_raw WHERE trace_id = {id:String})
)
ORDER BY start_time, kafka_offset
SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
