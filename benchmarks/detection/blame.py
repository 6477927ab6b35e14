"""Which message of a failed conversation was the decisive mistake (who_and_when): first findings of
detectors, compared with positions.

No detector is made for this. Reported is how often the first finding about contents points at the
message that people blame, or at the one after it (the output of a tool follows the message that
called it). The baseline is the most frequent position in the other conversations (leave one out).
For terminals that print their exit code, it also reports whether failures are recognised.
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
    """Findings compared with positions, then exit codes."""
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
        "terminals that print an exit code: failures",
        ("how", *ROW),
        [("hidden tool error", *counted.row())],
    )


def _points_at(case: Failed, run: Replayed, within: int) -> bool:
    if not run.findings:
        return False
    first = min(run.findings, key=lambda finding: finding["time"])
    return first["step_ids"][0] in {step_id(case.mistake + after) for after in range(within + 1)}


def _prior(cases: Sequence[Failed], left_out: int) -> int:
    counts = Counter(case.mistake for index, case in enumerate(cases) if index != left_out)
    return counts.most_common(1)[0][0] if counts else 0


def _exit_codes(replayed: Sequence[Replayed]) -> Confusion:
    counted = Confusion()
    for run in replayed:
        found = run.steps_found("hidden-tool-error")
        for step in run.steps:
            exit_code = _EXIT.match(step.output)
            if step.kind == "tool_call" and exit_code is not None:
                counted = counted.plus(truth=exit_code[1] != "0", found=step.step_id in found)
    return counted
