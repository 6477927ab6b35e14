-- Every change of every executor, one row each.
SELECT ${executor_events_raw_columns}
FROM ${database}.executor_events_raw FINAL
