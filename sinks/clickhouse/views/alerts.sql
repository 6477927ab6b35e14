-- Alerts, one row each, as they stand: the highest seq.
SELECT ${alerts_raw_columns}
FROM ${database}.alerts_raw FINAL
