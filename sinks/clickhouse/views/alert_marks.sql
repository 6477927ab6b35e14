-- What people marked alerts as (stepstream alerts mark): one row an alert, its newest mark.
SELECT
    alert_id,
    if(argMax(value, time) = 1, 'true', 'false') AS verdict,
    argMax(by, time) AS marked_by,
    max(findings_raw.time) AS marked_at,
    argMax(message, time) AS note,
    any(alert) AS alert,
    any(rule) AS rule,
    argMax(policy, time) AS policy,
    any(project) AS project,
    any(environment) AS environment,
    any(agent) AS agent,
    any(task) AS task,
    any(trace_id) AS trace_id
FROM ${database}.findings_raw
WHERE state = 'marked'
GROUP BY alert_id
