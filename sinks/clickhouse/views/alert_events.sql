-- Every change of every alert, one row each.
SELECT ${alert_events_raw_columns}
FROM ${database}.alert_events_raw FINAL
