"""Lists of runs, the number of runs by each property, and the steps of one run."""

from __future__ import annotations

from typing import Final

from stepstream.queries.answer import Answer
from stepstream.queries.common import OWNED, RUNS_WITHIN
from stepstream.queries.parameters import OWNER, RUN, WINDOW, Parameter, limit
from stepstream.queries.question import Question
from stepstream.schemas.formatting import format_dollars, format_number_of

FACETS: Final = (
    "project", "environment", "agent", "agent_version", "task", "status", "user_id", "session_id",
    "error_type",
)  # fmt: skip
"""The columns of runs by which they are counted; models and tools are counted as well."""

FILTERS: Final = (
    Parameter("version", "pattern", "Only this version of the agent.", "*"),
    Parameter("task", "pattern", "Only this task.", "*"),
    Parameter("status", "pattern", "Only this status, such as error.", "*"),
    Parameter("user", "pattern", "Only this user.", "*"),
    Parameter("session", "pattern", "Only this session.", "*"),
    Parameter("error", "pattern", "Only this error type.", "*"),
    Parameter("model", "pattern", "Only runs that used this model.", "*"),
    Parameter("tool", "pattern", "Only runs that called this tool.", "*"),
    Parameter("text", "pattern", "Only runs with this in name, error or ids.", "*"),
    Parameter("min_cost", "number", "Only runs that cost at least this many dollars.", 0),
    Parameter("min_seconds", "number", "Only runs that took at least so long.", 0),
)
# The value becomes an identifier of the query, so only names of this list are accepted.
SORT: Final = Parameter(
    "sort",
    "choice",
    "Sort by this, the highest first.",
    "start",
    choices={
        "start": "start_time",
        "cost": "cost_usd",
        "duration": "duration_us",
        "steps": "steps",
        "errors": "error_steps",
        "tokens": "input_tokens",
    },
)
OFFSET: Final = Parameter("offset", "count", "Number of rows to leave out at the beginning.", 0)

_MATCHING: Final = f"""{RUNS_WITHIN} AND {OWNED}
    AND agent_version LIKE {{version:String}} AND task LIKE {{task:String}}
    AND status LIKE {{status:String}} AND user_id LIKE {{user:String}}
    AND session_id LIKE {{session:String}} AND error_type LIKE {{error:String}}
    AND ({{model:String}} = '%' OR arrayExists(one -> one LIKE {{model:String}}, models))
    AND ({{tool:String}} = '%' OR arrayExists(one -> one LIKE {{tool:String}}, tools))
    AND ({{text:String}} = '%' OR concatWithSeparator('\\n', name, error_type, error_message,
        trace_id, session_id, user_id) ILIKE concat('%', {{text:String}}, '%'))
    AND cost_usd >= {{min_cost:Float64}} AND duration_us >= {{min_seconds:Float64}} * 1000000"""

RUN_COLUMNS: Final = {
    "trace_id": "the run",
    "start_time": "its start, UTC",
    "end_time": "its end; of a running one the latest time seen",
    "duration_us": "microseconds between them",
    "status": "running, ok, error, cancelled, stopped or incomplete",
    "project": "the project",
    "environment": "the environment",
    "agent": "the agent",
    "agent_version": "the agent's version",
    "task": "the task",
    "session_id": "the conversation",
    "user_id": "the user",
    "name": "the root's name",
    "steps": "distinct steps",
    "open_steps": "steps that have not ended",
    "error_steps": "steps that failed",
    "llm_calls": "model calls",
    "tool_calls": "tool calls",
    "cost_usd": "cost of the priced steps",
    "unpriced_steps": "steps whose cost is unknown",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
    "tools": "tools called",
    "models": "models used",
    "failed_tool": "tool of the step that failed first",
    "error_type": "its error type",
    "error_message": "its message",
    "findings": "findings about the run",
}

# The id makes the order total: pages read with OFFSET then repeat and skip no run.
_RUNS: Final = f"""
SELECT {", ".join(RUN_COLUMNS)}
FROM runs
WHERE {_MATCHING}
ORDER BY {{sort:Identifier}} DESC, start_time DESC, trace_id
LIMIT {{limit:UInt64}} OFFSET {{offset:UInt64}}"""

_LISTED: Final = ", ".join(f"('{name}', toString({name}))" for name in FACETS)

# One pass for all properties: a query for each would read the same rows eleven times.
_FACETS: Final = f"""
SELECT pair.1 AS facet, pair.2 AS value, count() AS runs
FROM
(
    SELECT arrayJoin(arrayConcat([{_LISTED}],
        arrayMap(one -> ('model', toString(one)), arrayDistinct(models)),
        arrayMap(one -> ('tool', toString(one)), arrayDistinct(tools)))) AS pair
    FROM runs
    WHERE {_MATCHING}
)
GROUP BY facet, value
ORDER BY facet, runs DESC, value
LIMIT {{limit:UInt64}} BY facet"""

STEP_COLUMNS: Final = {
    "step_id": "the step",
    "parent_step_id": "the step it belongs to; empty for a root",
    "kind": "its kind",
    "name": "its name",
    "agent": "the agent it belongs to",
    "tool": "the tool",
    "model": "the model",
    "start_us": "its start, microseconds since 1970",
    "duration_us": "microseconds it took; NULL while it is open",
    "first_token_us": "microseconds to the first token; NULL where unknown",
    "status": "running, ok, error or cancelled",
    "error_type": "its error type",
    "error_message": "the beginning of its error message, 500 characters",
    "attempt": "1, and more for a retry",
    "retry_of": "the step that it repeats",
    "fallback_of": "the step that it replaces",
    "input_tokens": "tokens read",
    "output_tokens": "tokens written",
    "cached_input_tokens": "tokens read from the provider's cache",
    "cost_usd": "its cost; NULL where unknown or none",
    "cost_source": "given, priced or unpriced",
    "input_bytes": "size of its input, before it was cut",
    "output_bytes": "size of its output, before it was cut",
    "documents": "number of documents",
}

# Without contents: those of 50,000 steps may be gigabytes; the page reads them step by step.
_STEPS: Final = """
SELECT step_id, parent_step_id, kind, name, agent, tool, model,
    toUnixTimestamp64Micro(start_time) AS start_us, duration_us,
    dateDiff('microsecond', start_time, first_token_time) AS first_token_us,
    status, error_type, substring(error_message, 1, 500) AS error_message, attempt, retry_of,
    fallback_of, input_tokens, output_tokens, cached_input_tokens, cost_usd, cost_source,
    ifNull(t.input_bytes, length(t.input)) AS input_bytes,
    ifNull(t.output_bytes, length(t.output)) AS output_bytes,
    length(t.documents) AS documents
FROM trace(id = {run:String}) AS t
ORDER BY t.start_time, t.kafka_offset
LIMIT {limit:UInt64}"""


def _runs_sentence(answer: Answer) -> str:
    if not len(answer):
        return "No run matches."
    rows = answer.records()
    failed = sum(row["status"] == "error" for row in rows)
    cost = format_dollars(sum(row["cost_usd"] for row in rows))
    return f"{format_number_of(len(rows), 'run')}, {failed:,} of them failed; together {cost}."


def _facets_sentence(answer: Answer) -> str:
    return f"Runs by {len(set(answer.data['facet']))} properties."


def _steps_sentence(answer: Answer) -> str:
    return f"{format_number_of(len(answer), 'step')}."


QUESTIONS: Final = (
    Question(
        "runs",
        "Which runs were there, with these properties?",
        _RUNS,
        (*WINDOW, *OWNER, *FILTERS, SORT, limit(50), OFFSET),
        RUN_COLUMNS,
        _runs_sentence,
    ),
    Question(
        "facets",
        "How many runs have each agent, task, status, model, tool ...?",
        _FACETS,
        (*WINDOW, *OWNER, *FILTERS, limit(20)),
        {
            "facet": "the property",
            "value": "its value",
            "runs": "number of runs that have it",
        },
        _facets_sentence,
    ),
    Question(
        "steps",
        "What are the steps of a run, without their contents?",
        _STEPS,
        (RUN, limit(50_000)),
        STEP_COLUMNS,
        _steps_sentence,
    ),
)
