-- What detectors saw in runs, notes that open no alert included, and what people said about alerts: one row each.
SELECT
    finding_id, state, time, severity, alert, rule, policy, project, environment, agent, agent_version, task, user_id,
    trace_id, subject, step_ids, value, threshold, unit, baseline, baseline_runs, message, quoted, detail, running, withdrawn,
    action, by, alert_id, append_time, kafka_topic_id, kafka_partition, kafka_offset
FROM ${database}.findings_raw FINAL
