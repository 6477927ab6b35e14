-- Steps that have started in the last two days and have not ended.
SELECT ${steps_open_columns},
    toUInt64(greatest(dateDiff('microsecond', start_time, now64(6)), 0)) AS age_us
FROM ${database}.steps_open FINAL
WHERE cityHash64(trace_id, step_id) NOT IN
(
    SELECT cityHash64(trace_id, step_id)
    FROM ${database}.steps_raw
    WHERE append_time >= now() - INTERVAL 3 DAY AND trace_id IN (SELECT trace_id FROM ${database}.steps_open)
)
