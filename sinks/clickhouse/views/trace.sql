-- Everything known about one run: SELECT * FROM trace(id = '...'). Open steps have status 'running' and no end_time.
SELECT ${steps_raw_columns},
    dateDiff('microsecond', min(start_time) OVER (), start_time) AS offset_us
FROM
(
    SELECT ${steps_raw_columns}
    FROM ${database}.steps_raw FINAL
    PREWHERE trace_id = {id:String}
    UNION ALL
    SELECT ${steps_open_as_steps}
    FROM ${database}.steps_open FINAL
    PREWHERE trace_id = {id:String}
    WHERE step_id NOT IN (SELECT step_id FROM ${database}.steps_raw WHERE trace_id = {id:String})
)
ORDER BY start_time, kafka_offset
SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
