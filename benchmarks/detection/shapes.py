"""Made runs: failures that were recovered from or ignored, and repetition as opposed to bulk work,
housekeeping and polling.

Each list was measured once when it was new, before its failures were examined; ``AT_FIRST`` has
what was found then. Lists 3 and 4 are the halves of a list of coding agents, divided by a hash: the
detector was improved with list 3, and list 4 was not examined. Lists 5 and 6 are such halves for
failed tools.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, Final

from benchmarks.detection.replayed import replay
from benchmarks.detection.score import Confusion
from benchmarks.harness import Goal, Report
from stepstream.schemas.step import StepEvent
from stepstream.testing import ended, root

ALERTS: Final = {
    "tool_error_ignored": ("tool-error-ignored",),
    "repetition": ("loop", "repetition"),
}
LEAST_PRECISION: Final = {"tool_error_ignored": 0.8}
# What was found in each list when it was new; the second list after the problems of the first were
# fixed, the fourth after those of the third.
AT_FIRST: Final = {
    (1, "tool_error_ignored"): Confusion(10, 0, 2, 10),
    (1, "repetition"): Confusion(8, 0, 6, 8),
    (2, "tool_error_ignored"): Confusion(4, 1, 1, 5),
    (2, "repetition"): Confusion(5, 0, 2, 6),
    (3, "repetition"): Confusion(6, 0, 3, 11),
    (4, "repetition"): Confusion(9, 0, 0, 11),
    (5, "tool_error_ignored"): Confusion(5, 0, 2, 8),
    (6, "tool_error_ignored"): Confusion(6, 1, 0, 10),
}
# Scored apart: agents of another kind than those of the other lists.
CODING: Final = frozenset({3, 4})
_CASES: Final = Path(__file__).with_name("cases") / "runs.jsonl"


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Each list and rule as it is found now, and as it was found when it was new."""
    rows = []
    for (number, rule), first in AT_FIRST.items():
        counted, wrong = evaluated(number, rule)
        rows.append((f"list {number}", rule, *counted.row()[:2], *first.row()[:2]))
        if wrong:
            report.notes.append(f"list {number}, {rule}: wrong are {'; '.join(wrong)}")
    report.table(
        "made runs",
        ("list", "rule", "recall", "precision", "recall at first", "precision at first"),
        rows,
    )
    for rule, least in LEAST_PRECISION.items():
        new = Confusion()
        for (number, of), first in AT_FIRST.items():
            if of == rule and number not in CODING:
                new = new.joined(first)
        report.goals.append(
            Goal(f"made runs when new, {rule}: precision", new.precision, least, "", at_most=False)
        )
    coding = AT_FIRST[4, "repetition"]
    for name, value, least in (
        ("recall", coding.recall, 0.5),
        ("precision", coding.precision, 0.7),
    ):
        report.goals.append(
            Goal(f"coding agents when new, repetition: {name}", value, least, "", at_most=False)
        )


def evaluated(number: int, rule: str) -> tuple[Confusion, list[str]]:
    """What is found in a list, and the names of the runs with a wrong result."""
    counted, wrong = Confusion(), []
    for line in _CASES.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        if (case["list"], case["rule"]) != (number, rule):
            continue
        found = bool(replay([_run(case["steps"])])[0].of(*ALERTS[rule]))
        counted = counted.plus(truth=case["expected"], found=found)
        if found is not case["expected"]:
            wrong.append(case["name"])
    return counted, wrong


def _run(steps: list[dict[str, Any]]) -> list[StepEvent]:
    """The root and a step every two seconds."""
    made = [_step(number, 2 * number - 3, step) for number, step in enumerate(steps, 2)]
    answer = next((step["answer"] for step in reversed(steps) if "answer" in step), "")
    return [root(2 * len(steps) + 6, output=answer), *made]


def _step(number: int, at_s: int, step: dict[str, Any]) -> StepEvent:
    if "tool" not in step:
        calls = [
            {
                "function": {"name": step.get("calls"), "arguments": "{}"},
                "id": f"c{number}",
                "type": "function",
            }
        ]
        output = step["answer"] if "answer" in step else json.dumps(calls)
        return ended(
            number, at_s, kind="llm_call", name="m", model="gpt-4o", input="...", output=output
        )
    output = step.get("output", "")
    output = output if isinstance(output, str) else json.dumps(output)
    failed = {"status": "error", "error_message": step["error"]} if "error" in step else {}
    given = json.dumps(step["given"])
    return ended(
        number, at_s, tool=step["tool"], name=step["tool"], input=given, output=output, **failed
    )
