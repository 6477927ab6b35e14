-- Every change of every task, one row each: submitted, waiting, bound, started, attempt_ended, retrying, ended ...
SELECT ${task_events_raw_columns}
FROM
(
    SELECT *, max(epoch) OVER (PARTITION BY project, task_id, submitted_at ORDER BY revision ASC) AS newest_epoch
    FROM ${database}.task_events_raw FINAL
)
WHERE epoch = newest_epoch
