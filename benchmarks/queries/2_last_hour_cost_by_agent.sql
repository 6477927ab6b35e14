SELECT agent, sum(cost_usd) AS usd, sum(steps) AS steps
FROM metrics_1m
WHERE time >= now() - INTERVAL 1 HOUR
GROUP BY agent
ORDER BY usd DESC
