-- Verdicts of the gate about two published results: one row each.
SELECT ${eval_verdicts_raw_columns}
FROM ${database}.eval_verdicts_raw FINAL
