-- The delivery state of each alert and subscription, one row a pair: pending, failed, delivered, parked, grouped or silenced.
SELECT ${deliveries_raw_columns}
FROM ${database}.deliveries_raw FINAL
ORDER BY append_time DESC, kafka_offset DESC
LIMIT 1 BY subscription, alert_id
