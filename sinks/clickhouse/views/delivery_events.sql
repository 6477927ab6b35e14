-- The delivery log: every step of telling a subscription about an alert, one row each.
SELECT ${deliveries_raw_columns}
FROM ${database}.deliveries_raw FINAL
