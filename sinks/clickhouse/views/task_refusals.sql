-- Submits, cancels and retries of tasks that were refused and changed nothing, one row each.
SELECT ${task_refusals_raw_columns}
FROM ${database}.task_refusals_raw FINAL
