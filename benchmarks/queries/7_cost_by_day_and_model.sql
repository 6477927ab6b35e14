SELECT toDate(time) AS day, model, sum(cost_usd) AS usd, sum(input_tokens) AS tokens_in, sum(output_tokens) AS tokens_out
FROM metrics_1h
WHERE time >= now() - INTERVAL 7 DAY AND kind = 'llm_call'
GROUP BY day, model
ORDER BY day, usd DESC
