"""Criteria made from expected actions, compared with the rewards of the benchmark that has them.

tau_bench compares the state of its database at the end of a run with that after the expected
actions. The Criteria see the calls alone: every expected call that changes something was made with
these arguments, no other tool that changes something was called, none more often than expected, and
the expected texts are in the answer.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any, Final

from benchmarks.cases import MissingData, tau_bench
from benchmarks.harness import Report
from stepstream.backtest.history import Event
from stepstream.backtest.score import score
from stepstream.evals.agreement import Agreement, agreement
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.step import StepEvent

CHANGING: Final = (
    "book_reservation",
    "cancel_reservation",
    "send_certificate",
    "update_reservation_baggages",
    "update_reservation_flights",
    "update_reservation_passengers",
)
OUTCOMES: Final = {"true": True, "false": False}


def criteria_of(task: dict[str, Any]) -> Criteria:
    """What success is by the expected actions of a task."""
    expected = [one for one in task["actions"] if one["name"] in CHANGING]
    counts = Counter(one["name"] for one in expected)
    others = [name for name in CHANGING if name not in counts]
    checks: list[dict[str, Any]] = [
        *(
            {"check": "arguments", "tool": one["name"], "contains": one["kwargs"]}
            for one in expected
        ),
        *({"check": "at_most", "tool": name, "times": n} for name, n in counts.items()),
    ]
    if others:
        checks.append({"check": "never", "tools": others})
    if task.get("outputs"):
        checks.append({"check": "answer", "contains": task["outputs"]})
    return Criteria.model_validate({"name": "expected-actions", "checks": checks})


def scored(events: list[StepEvent], document: Criteria) -> bool | None:
    """Whether the run succeeded; None: unknown."""
    ordered = sorted(events, key=lambda event: event.end_time or event.start_time)
    made = [
        Event(event.end_time or 0, event.trace_id, json.dumps(_ended(event)).encode())
        for event in ordered
    ]
    run = score(made, [document])[events[0].trace_id]
    return OUTCOMES.get(run.success)


def _ended(event: StepEvent) -> dict[str, Any]:
    return event.model_dump(mode="json", exclude_none=True) | {"phase": "end"}


def found() -> Agreement:
    """The agreement over every recorded run. Raises ``MissingData``."""
    pairs = []
    for (run, _), events in zip(tau_bench.recorded(), tau_bench.runs(), strict=True):
        outcome = scored(events, criteria_of(run["info"]["task"]))
        pairs.append((run["reward"] >= 1, outcome))
    return agreement(pairs)


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Add the confusion table."""
    try:
        counts = found()
    except MissingData as error:
        report.notes.append(f"agreement: {error}")
        return
    report.table(
        "tau_bench rewards and Criteria made from the expected actions (runs)",
        ("", "Criteria met", "not met"),
        [
            ("reward 1", counts.both_true, counts.only_label),
            ("reward 0", counts.only_outcome, counts.both_false),
        ],
    )
    report.figures |= {
        "agreement": counts.share or 0.0,
        "kappa": counts.kappa or 0.0,
        "unknown": counts.unknown,
    }
