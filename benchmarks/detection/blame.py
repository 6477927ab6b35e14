"""Which message of a failed conversation was the decisive mistake (who_and_when): what detectors
point at, beside positions.

No detector is made for this. Reported is how often the first finding about contents points at the
message that people blame, or at the one after it (a tool shows what the message before it asked
for), beside always guessing the most frequent position of the other conversations (leave one out).
Also, of terminals that tell their exit code, whether failures are told apart.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence

from benchmarks.cases import who_and_when
from benchmarks.cases.who_and_when import Failed, step_id
from benchmarks.detection.replayed import Replayed, only, replay
from benchmarks.detection.score import ROW, Confusion, share_text
from benchmarks.harness import Report

RULES = (
    {"rule": "hidden_tool_error"},
    {"rule": "failure_not_retried"},
    {"rule": "repetition"},
    {"rule": "tool_arguments"},
)
_EXIT = re.compile(r"exitcode: (\d+)")


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Positions beside findings, then exit codes."""
    cases = list(who_and_when.cases())
    replayed = replay([case.steps for case in cases], only(*RULES))
    rows = []
    for source in sorted({case.source for case in cases}):
        chosen = [
            (case, run) for case, run in zip(cases, replayed, strict=True) if case.source == source
        ]
        of = len(chosen)
        exact = sum(_points_at(case, run, within=0) for case, run in chosen)
        near = sum(_points_at(case, run, within=1) for case, run in chosen)
        prior = sum(
            _prior([case for case, _ in chosen], index) == case.mistake
            for index, (case, _) in enumerate(chosen)
        )
        found = sum(bool(run.findings) for _, run in chosen)
        rows.append(
            (
                source,
                of,
                share_text(found, of),
                share_text(exact, of),
                share_text(near, of),
                share_text(prior, of),
            )
        )
        report.figures[f"blame_{source}_within_one"] = near / of
        report.figures[f"blame_{source}_position_prior"] = prior / of
    columns = (
        "conversations",
        "number",
        "something found",
        "first finding is it",
        "it, or the one after",
        "position prior",
    )
    report.table("the message that people blame", columns, rows)
    counted = _exit_codes(replayed)
    report.table(
        "terminals that tell an exit code: failures",
        ("how", *ROW),
        [("hidden tool error", *counted.row())],
    )


def _points_at(case: Failed, run: Replayed, within: int) -> bool:
    if not run.findings:
        return False
    first = min(run.findings, key=lambda finding: finding["time"])
    return first["step_ids"][0] in {step_id(case.mistake + after) for after in range(within + 1)}


def _prior(cases: Sequence[Failed], held: int) -> int:
    return (
        Counter(case.mistake for index, case in enumerate(cases) if index != held).most_common(1)[
            0
        ][0]
        if len(cases) > 1
        else 0
    )


def _exit_codes(replayed: Sequence[Replayed]) -> Confusion:
    counted = Confusion()
    for run in replayed:
        found = run.steps_found("hidden-tool-error")
        for step in run.steps:
            told = _EXIT.match(step.output)
            if step.kind == "tool_call" and told is not None:
                counted = counted.plus(truth=told[1] != "0", said=step.step_id in found)
    return counted
