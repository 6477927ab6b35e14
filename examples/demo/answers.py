"""The questions that the demo answers at its end, each with its SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Question:
    """A question and its query."""

    text: str
    sql: str


QUESTIONS: Final = (
    Question(
        "Where did the cost spike?",
        """\
SELECT agent, task, count() AS runs, round(median(toFloat64(cost_usd)), 4) AS typical_usd,
       max(cost_usd) AS highest_usd, round(highest_usd / typical_usd, 1) AS times,
       substring(argMax(trace_id, cost_usd), 1, 8) AS most_expensive_run
FROM runs WHERE cost_usd > 0 GROUP BY agent, task ORDER BY times DESC""",
    ),
    Question(
        "What was the money spent on in the most expensive run?",
        """\
SELECT name, model, count() AS calls, sum(input_tokens) AS input_tokens,
       sum(output_tokens) AS output_tokens, sum(cost_usd) AS usd
FROM steps WHERE trace_id = (SELECT argMax(trace_id, cost_usd) FROM runs) AND cost_usd > 0
GROUP BY name, model""",
    ),
    Question(
        "Which tool failed and was ignored?",
        """\
SELECT s.tool AS tool, s.error_message AS error, r.agent AS agent, r.status AS run_ended,
       substring(r.trace_id, 1, 8) AS run
FROM (SELECT trace_id, arrayJoin(step_ids) AS step_id FROM alerts
      WHERE rule = 'tool_error_ignored') AS a
JOIN steps AS s ON s.trace_id = a.trace_id AND s.step_id = a.step_id
JOIN runs AS r ON r.trace_id = a.trace_id ORDER BY run""",
    ),
    Question(
        "Which step made the slowest run slow?",
        """\
WITH slowest AS (SELECT trace_id, duration_us FROM runs WHERE closed AND late_steps = 0
                 ORDER BY duration_us DESC LIMIT 1)
SELECT kind, name, round(duration_us / 1e6, 2) AS seconds,
       round(100 * duration_us / (SELECT duration_us FROM slowest), 1) AS percent_of_run,
       substring(trace_id, 1, 8) AS run
FROM steps WHERE trace_id = (SELECT trace_id FROM slowest) AND parent_step_id != ''
ORDER BY duration_us DESC LIMIT 3""",
    ),
    Question(
        "What is still running, and since when?",
        """\
SELECT kind, name, agent, round(age_us / 1e6, 1) AS seconds_ago, substring(trace_id, 1, 8) AS run
FROM open_steps ORDER BY start_time""",
    ),
    Question(
        "Which answers rest on documents that are not about the question?",
        """\
SELECT input AS question, round(arrayMax(s -> ifNull(s, 0), documents.score), 2) AS best_score,
       status AS step_status, substring(trace_id, 1, 8) AS run
FROM steps WHERE kind = 'retrieval' AND best_score < 2 AND input NOT LIKE '%what to do'
ORDER BY best_score, run""",
    ),
    Question(
        "What has no price?",
        """\
SELECT provider, model, count() AS steps, sum(input_tokens + output_tokens) AS tokens,
       any(cost_usd) AS usd
FROM steps WHERE cost_source = 'unpriced' GROUP BY provider, model""",
    ),
    Question(
        "Which alerts were raised, and was the run still going?",
        """\
SELECT alert, severity, count() AS raised, countIf(running) AS while_running,
       any(message) AS for_example
FROM alert_events WHERE seq = 1 GROUP BY alert, severity ORDER BY raised DESC, alert""",
    ),
)

# The run that is shown: with the most severe alert, then with the most alerts.
WORST_RUN: Final = """\
SELECT trace_id FROM alerts GROUP BY trace_id
ORDER BY max(multiIf(severity = 'critical', 3, severity = 'error', 2, 1)) DESC, count() DESC,
         max(opened_at) DESC LIMIT 1"""
# A run that failed although its status is ok.
SILENT_FAILURE: Final = """\
SELECT trace_id FROM alerts WHERE rule = 'tool_error_ignored' ORDER BY opened_at LIMIT 1"""
# What is stored now, for the live view. A run's revision is twice the number of events that were
# merged into it, plus one once it is closed.
FIGURES: Final = """\
SELECT (SELECT count() FROM steps) AS steps, (SELECT count() FROM open_steps) AS open_steps,
       count() AS runs, countIf(NOT closed) AS open_runs, sum(intDiv(revision, 2)) AS events,
       sum(duplicates) AS duplicates, sum(cost_usd) AS usd
FROM runs"""
