-- Steps that ended, one row each.
SELECT
    schema_version, trace_id, step_id, parent_step_id, phase, kind, name, tool, model, provider, project,
    environment, agent, agent_version, task, session_id, user_id, start_time, end_time, first_token_time, status,
    error_type, error_message, attempt, retry_of, fallback_of, input_tokens, output_tokens, cached_input_tokens,
    cache_write_tokens, reasoning_tokens, usage_details, cost_usd, cost_source, price_version, input, output, input_bytes,
    output_bytes, tool_schema, documents, attributes, duration_us, append_time, kafka_topic_id, kafka_partition,
    kafka_offset
FROM ${database}.steps_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
