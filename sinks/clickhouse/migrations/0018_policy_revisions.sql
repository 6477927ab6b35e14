-- Which revision of a policy raised a finding and its alert.
ALTER TABLE ${database}.findings_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS policy_revision UInt32 CODEC(ZSTD(1));

ALTER TABLE ${database}.alerts_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS policy_revision UInt32 CODEC(ZSTD(1));

ALTER TABLE ${database}.alert_events_raw${on_cluster}
    ADD COLUMN IF NOT EXISTS policy_revision UInt32 CODEC(ZSTD(1));

ALTER TABLE ${database}.alert_events_to_alerts${on_cluster} MODIFY QUERY
SELECT
    alert_id, seq, state, severity, alert, rule, policy, project, environment, agent, agent_version, task, trace_id,
    subject, step_ids, value, threshold, unit, baseline, baseline_runs, message, detail, running, findings, opened_at,
    updated_at, resolved_at, acknowledged_by, silenced_until, action, finding_ids, source_partition, source_offset,
    append_time, kafka_topic_id, kafka_partition, kafka_offset, change, by, reopened, runs, trace_ids, incident_id,
    opened_by, user_id, quoted, withdrawn, run_steps, opened_offset,
    policy_revision
FROM ${database}.alert_events_raw;
