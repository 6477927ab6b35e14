"""What caused a wrong or failed answer: the steps that ``evals.blame`` suspects."""

from __future__ import annotations

from typing import Final

from stepstream.evals.blame.step import (
    MAX_ALL_TEXT,
    MAX_STEPS,
    MAX_TEXT,
    MODELS,
    TOOLS,
    BlameStep,
)
from stepstream.evals.blame.suspects import Reports, suspects
from stepstream.queries.answer import Answer, Record
from stepstream.queries.parameters import RUN, Unanswerable, limit
from stepstream.queries.question import Question, Rows, Values

# A line or two on a page; the step itself has the whole text.
EXCERPT: Final = 500

_WORKING: Final = ", ".join(f"'{kind}'" for kind in sorted(TOOLS | MODELS))
# The steps that ``evals.blame.candidates`` takes, so that the texts of no other step are read: a
# run of 50,000 steps has hundreds of megabytes of them.
_CANDIDATES: Final = f"""
SELECT step_id, parent_step_id, kind, name, agent, tool, model,
    toUnixTimestamp64Micro(start_time) AS start_us, status, retry_of,
    concat(error_type, if(error_type != '' AND error_message != '', ': ', ''),
        substringUTF8(error_message, 1, {EXCERPT})) AS error
FROM trace(id = {{run:String}})
WHERE status != 'running' AND parent_step_id != '' AND (kind IN ({_WORKING}) OR step_id NOT IN
    (SELECT parent_step_id FROM trace(id = {{run:String}}) WHERE status != 'running'))
ORDER BY start_time DESC, step_id DESC
LIMIT {MAX_STEPS}"""
# The input of the root is what the run was asked to do.
_TEXTS: Final = f"""
SELECT step_id, toUnixTimestamp64Micro(start_time) AS start_us,
    substringUTF8(output, 1, {{most:UInt64}}) AS text,
    if(parent_step_id = '', substringUTF8(input, 1, {MAX_TEXT}), '') AS question
FROM trace(id = {{run:String}})
WHERE status != 'running' AND (parent_step_id = '' OR step_id IN """
# Notes as well: a failed check of a Criteria document is one. Later steps may have made the run a
# success again.
_REPORTS: Final = """
SELECT rule, message, step_ids
FROM findings
WHERE trace_id = {run:String} AND state != 'resolved' AND NOT withdrawn AND notEmpty(step_ids)
    AND (rule != 'criteria_failed'
        OR (SELECT any(success) FROM runs WHERE trace_id = {run:String}) = 'false')
ORDER BY time, finding_id
LIMIT 200"""
# Parameters are part of the address of a request, whose length servers limit.
MAX_IDS: Final = 200


def texts_sql(steps: int) -> str:
    """The query of the texts of this many steps, and of what the run was asked."""
    ids = "{steps:Array(String)}" if steps <= MAX_IDS else f"(SELECT step_id FROM ({_CANDIDATES}))"
    return f"{_TEXTS}{ids})"


def _suspects(steps: list[Record], values: Values, rows: Rows) -> list[Record]:
    ids = [step["step_id"] for step in steps]
    most = min(MAX_TEXT, MAX_ALL_TEXT // max(1, len(ids)))
    texts = rows(texts_sql(len(ids)), {**values, "steps": ids, "most": most})
    if not texts:
        raise Unanswerable(f"run {values['run'][:8]} has no ended step yet")
    known = {step["step_id"]: step for step in steps}
    for row in texts:
        if row["step_id"] in known:
            known[row["step_id"]]["text"] = row["text"]
    asked = min((row for row in texts if row["question"]), key=_start, default={"question": ""})
    given = [_blame_step(step) for step in steps if "text" in step]
    found = suspects(asked["question"], given, values["limit"], _reports(rows(_REPORTS, values)))
    return [
        {
            "rank": rank,
            "step_id": one.step.step_id,
            "name": one.step.name,
            "kind": one.step.kind,
            "agent": known[one.step.step_id]["agent"],
            "start_us": one.step.start_us,
            "status": one.step.status,
            "probability": one.probability,
            "evidence": list(one.evidence),
            "path": [(step_id, known[step_id]["name"]) for step_id in one.path],
            "excerpt": one.step.text[:EXCERPT],
        }
        for rank, one in enumerate(found, 1)
    ]


def _reports(rows: list[Record]) -> Reports:
    failed: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for row in rows:
        is_check = row["rule"] == "criteria_failed"
        text = row["message"] if is_check else f"{row['rule']}: {row['message']}"
        for step_id in row["step_ids"]:
            (failed if is_check else others).setdefault(step_id, []).append(text)
    return Reports(failed, others)


def _start(row: Record) -> int:
    return int(row["start_us"])


def _blame_step(step: Record) -> BlameStep:
    return BlameStep(
        step_id=step["step_id"],
        name=step["name"],
        kind=step["kind"],
        start_us=step["start_us"],
        output=step["text"],
        parent_step_id=step["parent_step_id"],
        status=step["status"],
        error=step["error"],
        retry_of=step["retry_of"],
    )


def _sentence(answer: Answer) -> str:
    if not len(answer):
        return "This run has no step that could be the cause."
    first = answer.records()[0]
    return (
        f"Most likely {first['name']} ({first['step_id'][:8]}): {first['evidence'][0]}. "
        # The recall of three suspects on Who&When is 0.75 and 0.45 (benchmarks/attribution.py).
        "Of failed runs that people annotated, three suspects contain the cause in two of three."
    )


QUESTIONS: Final = (
    Question(
        "suspects",
        "What caused the wrong or failed answer of a run?",
        _CANDIDATES,
        (RUN, limit(3)),
        {
            "rank": "1 for the most likely",
            "step_id": "the suspect step",
            "name": "its name",
            "kind": "its kind",
            "agent": "its agent",
            "start_us": "its start, microseconds since 1970",
            "status": "how it ended",
            "probability": "compared with the other steps of this run; they add up to 1",
            "evidence": "why it is suspected",
            "path": "steps through which its values reached the output: id and name",
            "excerpt": "the beginning of its output or error",
        },
        _sentence,
        _suspects,
    ),
)
