-- Runs, one row each, in their present state: the highest revision of the trajectory.
SELECT ${runs_raw_columns}
FROM ${database}.runs_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
