SELECT agent, agent_version, sum(steps) AS calls, sum(error_steps) / calls AS error_share,
       sum(cost_usd) / calls AS usd_a_step, sum(duration_us) / calls / 1e3 AS ms_a_step
FROM metrics_1h
WHERE time >= now() - INTERVAL 7 DAY
GROUP BY agent, agent_version
ORDER BY agent, agent_version
