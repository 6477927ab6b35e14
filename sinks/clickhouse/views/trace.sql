-- Everything known about one run: SELECT * FROM trace(id = '...'). Open steps have status 'running' and no end_time.
SELECT ${steps_raw_columns},
    dateDiff('microsecond', min(start_time) OVER (), start_time) AS offset_us,
    usage_is_repeated
FROM
(
    WITH s.usage_may_repeat AND s.step_id IN (SELECT step_id FROM ${database}.repeated_steps WHERE trace_id = {id:String}) AS repeats
    SELECT ${steps_counted_columns}
    FROM ${database}.steps_raw AS s FINAL
    PREWHERE trace_id = {id:String}
    UNION ALL
    SELECT ${steps_open_as_steps}, false AS usage_is_repeated
    FROM ${database}.steps_open FINAL
    PREWHERE trace_id = {id:String}
    WHERE step_id NOT IN (SELECT step_id FROM ${database}.steps_raw WHERE trace_id = {id:String})
)
ORDER BY start_time, kafka_offset
SETTINGS use_skip_indexes_if_final = 1, use_skip_indexes_if_final_exact_mode = 0
