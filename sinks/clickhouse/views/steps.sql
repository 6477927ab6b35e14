-- Steps that ended, one row each.
SELECT ${steps_raw_columns}
FROM ${database}.steps_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
