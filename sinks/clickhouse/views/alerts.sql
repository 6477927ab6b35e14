-- Alerts, one row each, as they stand: the highest seq.
SELECT
    alert_id, seq, state, severity, alert, rule, policy, project, environment, agent, agent_version, task, trace_id,
    subject, step_ids, value, threshold, unit, baseline, baseline_runs, message, detail, running, findings,
    opened_at, updated_at, resolved_at, acknowledged_by, silenced_until, action, finding_ids, source_partition,
    source_offset, change, by, reopened, runs, trace_ids, incident_id, opened_by, user_id, quoted, withdrawn,
    append_time, kafka_topic_id, kafka_partition, kafka_offset
FROM ${database}.alerts_raw FINAL
