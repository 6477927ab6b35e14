-- Alerts, one row each, in their present state: the highest seq.
SELECT ${alerts_raw_columns}
FROM ${database}.alerts_raw FINAL
