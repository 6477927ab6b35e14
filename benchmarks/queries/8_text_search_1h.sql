SELECT trace_id, step_id, start_time, name
FROM steps
WHERE start_time >= now() - INTERVAL 1 HOUR AND output LIKE '%spaaoaah tn%'
ORDER BY start_time DESC
LIMIT 20
