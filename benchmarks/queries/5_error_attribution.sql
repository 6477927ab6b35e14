SELECT agent, tool, error_type, sum(error_steps) AS errors, sum(steps) AS calls, errors / calls AS share
FROM metrics_1h
WHERE time >= now() - INTERVAL 7 DAY AND kind = 'tool_call'
GROUP BY agent, tool, error_type
HAVING errors > 0
ORDER BY errors DESC
LIMIT 20
