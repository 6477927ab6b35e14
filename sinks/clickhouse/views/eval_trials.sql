-- Trials of suites whose results were published: one row each.
SELECT ${eval_trials_raw_columns}
FROM ${database}.eval_trials_raw FINAL
