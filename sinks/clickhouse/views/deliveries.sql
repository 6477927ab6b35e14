-- How each alert stands with each subscription, one row a pair: pending, failed, delivered, parked, grouped or silenced.
SELECT
    subscription, alert_id, seq, state, time, channel, notification_id, `group`, attempts, next_try, since, reason,
    latency_us, told_seq, told_state, told_severity, told_at, alert, project, environment, agent, severity, alert_state,
    append_time, kafka_topic_id, kafka_partition, kafka_offset
FROM ${database}.deliveries_raw FINAL
ORDER BY append_time DESC, kafka_offset DESC
LIMIT 1 BY subscription, alert_id
