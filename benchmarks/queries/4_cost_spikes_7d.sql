SELECT agent, time, usd, usual
FROM
(
    SELECT agent, time, sum(cost_usd) AS usd,
           avg(usd) OVER (PARTITION BY agent ORDER BY time ROWS BETWEEN 24 PRECEDING AND 1 PRECEDING) AS usual
    FROM metrics_1h
    WHERE time >= now() - INTERVAL 7 DAY
    GROUP BY agent, time
)
WHERE usd > 3 * usual AND usual > 0
ORDER BY usd / usual DESC
LIMIT 20
