"""What suites, gates and Criteria decided: experiments, verdicts, trials, success over time."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, RUNS_WITHIN
from stepstream.queries.parameters import AGENT, OWNER, PROJECT, UNTIL, WINDOW, Parameter, limit
from stepstream.queries.question import Question
from stepstream.schemas.formatting import format_number_of

# Suites run when someone changes an agent, not every day.
SINCE: Final = Parameter(
    "since", "time", "Only what was published at or after this age or time.", "30d"
)
SUITE: Final = Parameter("suite", "pattern", "Only this suite.", "*")
IDS: Final = Parameter("ids", "text", "Ids of results, separated by commas.", is_positional=True)
VERDICT_ID: Final = Parameter("id", "text", "Id of the verdict, or a beginning of it.")
RESULTS_ID: Final = Parameter("id", "text", "Id of the results, or a beginning of it.")

# Qualified, because aggregates have the same names.
_PUBLISHED: Final = (
    "e.published_at >= {since:DateTime64(6, 'UTC')} "
    "AND e.published_at < {until:DateTime64(6, 'UTC')} "
    "AND e.project LIKE {project:String} AND e.suite LIKE {suite:String}"
)
_SUMMED: Final = """
SELECT results_id, project, any(e.suite) AS suite, any(e.suite_version) AS suite_version,
    any(e.agent) AS agent, max(e.published_at) AS published_at, uniqExact(case_id) AS cases,
    count() AS trials, countIf(success = 'true') AS succeeded, countIf(success = 'false') AS failed,
    countIf(success = 'unknown') AS unknown, countIf(e.crashed) AS crashed,
    succeeded / greatest(succeeded + failed, 1) AS success_rate, sum(e.cost_usd) AS cost_usd
FROM eval_trials AS e"""
_EXPERIMENTS: Final = f"""{_SUMMED}
WHERE {_PUBLISHED} AND e.agent LIKE {{agent:String}}
GROUP BY project, results_id
ORDER BY published_at DESC, results_id
LIMIT {{limit:UInt64}}"""
_ONE_EXPERIMENT: Final = f"""{_SUMMED}
WHERE startsWith(results_id, {{id:String}})
GROUP BY project, results_id
ORDER BY published_at DESC LIMIT 3"""
_TRIALS: Final = """
WITH splitByChar(',', {ids:String}) AS wanted
SELECT results_id, case_id, trial, success, reason, crashed, cost_usd, latency_s, tokens,
    tool_errors, trace_id, grades,
    trace_id IN (SELECT trace_id FROM runs WHERE trace_id IN
        (SELECT trace_id FROM eval_trials WHERE results_id IN splitByChar(',', {ids:String})
            AND trace_id != '')) AS in_store
FROM eval_trials
WHERE has(wanted, results_id)
ORDER BY case_id, results_id, trial
LIMIT {limit:UInt64}"""
_LISTED: Final = """verdict_id, project, outcome, suite, suite_version, baseline, candidate,
    baseline_id, candidate_id, cases, trials, reasons, notes, published_at"""
_VERDICTS: Final = f"""
SELECT {_LISTED}
FROM eval_verdicts AS e
WHERE {_PUBLISHED} AND (baseline LIKE {{agent:String}} OR candidate LIKE {{agent:String}})
ORDER BY published_at DESC, verdict_id
LIMIT {{limit:UInt64}}"""
_ONE_VERDICT: Final = f"""
SELECT {_LISTED}, verdict
FROM eval_verdicts
WHERE startsWith(verdict_id, {{id:String}})
ORDER BY published_at DESC LIMIT 3"""

# Hours up to three days, then days: at most a few hundred rows for an agent.
_SUCCESS: Final = f"""
WITH if(dateDiff('hour', {{since:DateTime64(6, 'UTC')}}, {{until:DateTime64(6, 'UTC')}}) <= 72,
    3600, 86400) AS width
SELECT agent, toDateTime(intDiv(toUnixTimestamp(start_time), width) * width, 'UTC') AS time,
    countIf(success = 'true') AS succeeded, countIf(success = 'false') AS failed,
    countIf(success = 'unknown') AS unknown,
    succeeded / greatest(succeeded + failed, 1) AS success_rate
FROM runs
WHERE {RUNS_WITHIN} AND {OWNED} AND success != ''
GROUP BY agent, time
ORDER BY agent, time
LIMIT {{limit:UInt64}}"""
# Notes are findings too; a run that later steps made a success has the finding and is left out.
_FAILED_CRITERIA: Final = f"""
SELECT f.policy AS criteria, f.agent AS agent, uniqExact(f.trace_id) AS runs,
    argMax(f.message, f.time) AS message, argMax(f.trace_id, f.time) AS trace_id,
    max(f.time) AS time
FROM findings AS f
INNER JOIN (SELECT trace_id FROM runs WHERE {RUNS_WITHIN} AND {OWNED} AND success = 'false') AS r
    USING (trace_id)
WHERE f.rule = 'criteria_failed' AND f.state != 'resolved' AND NOT f.withdrawn
GROUP BY criteria, agent
ORDER BY runs DESC, criteria, agent
LIMIT {{limit:UInt64}}"""

_EXPERIMENT_COLUMNS: Final = {
    "results_id": "id of the published results",
    "project": "their project",
    "suite": "the suite",
    "suite_version": "digest of its cases and criteria",
    "agent": "the agent, as it was named",
    "published_at": "when they were published",
    "cases": "cases",
    "trials": "trials of all cases",
    "succeeded": "trials that succeeded",
    "failed": "trials that failed",
    "unknown": "trials whose outcome is unknown",
    "crashed": "failed trials that raised or reached their time limit",
    "success_rate": "share of the trials with a known outcome that succeeded",
    "cost_usd": "sum of the known costs",
}
_VERDICT_COLUMNS: Final = {
    "verdict_id": "id of the verdict",
    "project": "its project",
    "outcome": "pass, fail or inconclusive",
    "suite": "the suite",
    "suite_version": "digest of its cases and criteria",
    "baseline": "the agent in use",
    "candidate": "the agent that is compared with it",
    "baseline_id": "id of the results of the baseline",
    "candidate_id": "id of the results of the candidate",
    "cases": "cases that were compared",
    "trials": "trials of each case and side that were used",
    "reasons": "what decided it",
    "notes": "what was not compared, and what the trials can show",
    "published_at": "when it was published",
}


def _experiments(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'experiment')} published."


def _verdicts(answer: Answer) -> str:
    found = [row["outcome"] for row in answer.records()]
    parts = [f"{found.count(one)} {one}" for one in ("pass", "fail", "inconclusive")]
    return f"{format_number_of(len(found), 'verdict')}: {', '.join(parts)}."


def _success(answer: Answer) -> str:
    rows = answer.records()
    good, bad, unknown = (
        sum(row[name] for row in rows) for name in ("succeeded", "failed", "unknown")
    )
    if not good + bad + unknown:
        return "No closed run matches a Criteria document."
    share = f"{100 * good / (good + bad):.1f} %" if good + bad else "unknown"
    return f"{good:,} of {good + bad:,} runs succeeded ({share}); {unknown:,} are unknown."


def _failed_criteria(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'document')} failed by runs."


def _counted(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'row')}."


QUESTIONS: Final = (
    Question(
        "experiments",
        "Which results of suites were published, and how many trials succeeded?",
        _EXPERIMENTS,
        (SINCE, UNTIL, PROJECT, SUITE, AGENT, limit(100)),
        _EXPERIMENT_COLUMNS,
        _experiments,
    ),
    Question(
        "verdicts",
        "What did the gate decide?",
        _VERDICTS,
        (SINCE, UNTIL, PROJECT, SUITE, AGENT, limit(100)),
        _VERDICT_COLUMNS,
        _verdicts,
    ),
    Question(
        "success",
        "How many runs met their Criteria, by agent and hour or day?",
        _SUCCESS,
        (*WINDOW, *OWNER, limit(2_000)),
        {
            "agent": "the agent",
            "time": "start of the hour, or of the day where more than three days are asked for",
            "succeeded": "runs that met their Criteria",
            "failed": "runs that did not",
            "unknown": "runs that could not be evaluated",
            "success_rate": "share of the runs whose success is known",
        },
        _success,
    ),
    Question(
        "failed-criteria",
        "Which Criteria documents did runs fail?",
        _FAILED_CRITERIA,
        (*WINDOW, *OWNER, limit(100)),
        {
            "criteria": "the document",
            "agent": "the agent",
            "runs": "runs that fail it",
            "message": "what the last of them failed",
            "trace_id": "the last one",
            "time": "when it failed",
        },
        _failed_criteria,
    ),
    Question(
        "experiment",
        "What is known of published results?",
        _ONE_EXPERIMENT,
        (RESULTS_ID,),
        _EXPERIMENT_COLUMNS,
        _counted,
        is_listed=False,
    ),
    Question(
        "trials",
        "What did the trials of published results do?",
        _TRIALS,
        (IDS, limit(20_000)),
        {
            "results_id": "id of the results",
            "case_id": "the case",
            "trial": "number of the trial",
            "success": "true, false or unknown",
            "reason": "why it failed or is unknown",
            "crashed": "whether it raised or reached its time limit",
            "cost_usd": "its cost; NULL where unknown",
            "latency_s": "its time in seconds",
            "tokens": "tokens that it used",
            "tool_errors": "calls that failed",
            "trace_id": "its run",
            "grades": "what graders and functions returned, as JSON",
            "in_store": "whether its run is in the store",
        },
        _counted,
        is_listed=False,
    ),
    Question(
        "verdict",
        "What is a verdict of the gate?",
        _ONE_VERDICT,
        (VERDICT_ID,),
        {**_VERDICT_COLUMNS, "verdict": "all of it as JSON, with intervals"},
        _counted,
        is_listed=False,
    ),
)
