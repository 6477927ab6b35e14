-- The delivery log: every attempt and decision of delivering an alert to a subscription, one row each.
SELECT ${deliveries_raw_columns}
FROM ${database}.deliveries_raw FINAL
