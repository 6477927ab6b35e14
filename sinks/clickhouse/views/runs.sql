-- Runs, one row each, as they stand: the highest revision of their trajectory.
SELECT
    run_day, trace_id, revision, status, closed, project, environment, agent, agent_version, task, session_id,
    user_id, root_step_id, name, start_time, end_time, duration_us, first_append_time, last_append_time, steps,
    ended_steps, open_steps, error_steps, cancelled_steps, llm_calls, tool_calls, retrievals, unpriced_steps,
    orphan_steps, extra_roots, duplicates, late_steps, steps_over_limit, skewed_steps, input_tokens, output_tokens,
    cached_input_tokens, cache_write_tokens, reasoning_tokens, cost_usd, tools, models, failed_step_id, failed_kind,
    failed_tool, error_type, error_message, findings, path, path_json, path_truncated, append_time, kafka_topic_id,
    kafka_partition, kafka_offset
FROM ${database}.runs_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
