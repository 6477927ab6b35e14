-- Requested tasks, one row each, in their present state.
SELECT ${tasks_raw_columns}
FROM ${database}.tasks_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
