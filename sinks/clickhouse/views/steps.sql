-- Steps that ended, one row each. Usage that repeats that of calls below is 0: usage_is_repeated.
WITH s.usage_may_repeat AND (s.trace_id, s.step_id) IN (SELECT trace_id, step_id FROM ${database}.repeated_steps) AS repeats
SELECT ${steps_counted_columns}
FROM ${database}.steps_raw AS s FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
