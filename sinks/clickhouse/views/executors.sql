-- Executors of tasks, one row each, in their present state.
SELECT ${executor_events_raw_columns}
FROM ${database}.executor_events_raw FINAL
ORDER BY epoch DESC, revision DESC
LIMIT 1 BY project, executor_id
