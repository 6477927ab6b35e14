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
