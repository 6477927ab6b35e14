-- Runs, one row each, as they stand: the highest revision of their trajectory.
SELECT ${runs_raw_columns}
FROM ${database}.runs_raw FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
