SELECT tool, count() AS calls, quantile(0.99)(duration_us) / 1e3 AS p99_ms
FROM steps
WHERE start_time >= now() - INTERVAL 24 HOUR AND kind = 'tool_call'
GROUP BY tool
ORDER BY p99_ms DESC
