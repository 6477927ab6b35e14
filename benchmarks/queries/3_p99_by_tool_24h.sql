SELECT tool, sum(steps) AS calls,
       exp2(quantileExactWeightedArray(0.99)(mapKeys(latency), mapValues(latency)) / 16) / 1e3 AS p99_ms
FROM metrics_1h
WHERE time >= now() - INTERVAL 24 HOUR AND kind = 'tool_call'
GROUP BY tool
ORDER BY p99_ms DESC
