"""The demo's comparison notices every difference."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from examples.demo.check import Sent, Stored, Verdict, compare
from examples.demo.ledger import Account


def account(
    trace_id: str, scenario: str, status: str, *, started: int, ended: int, usd: str
) -> Account:
    made = Account(trace_id, scenario, "agent", "task")
    made.started, made.ended, made.status, made.cost_usd = started, ended, status, Decimal(usd)
    made.events = started + ended
    return made


def row(steps: int, events: int, status: str, usd: str, **more: int) -> dict[str, Any]:
    counts = {"duplicates": 0, "late_steps": 0, "unpriced_steps": 0, **more}
    return {
        "steps": steps,
        "revision": 2 * events + 1,
        "status": status,
        "cost_usd": Decimal(usd),
        **counts,
    }


ACCOUNTS = (
    account("a" * 32, "looping", "ok", started=5, ended=5, usd="0.002"),
    account("b" * 32, "hanging", "running", started=3, ended=1, usd="0.001"),
    account("c" * 32, "foreign", "ok", started=2, ended=2, usd="0"),
)
SENT = Sent(
    ACCOUNTS,
    delivered=14,
    lost=0,
    repeats=2,
    malformed=1,
    late=1,
    received=frozenset({("x", 1), ("y", 1)}),
)
STORED = Stored(
    runs={
        "a" * 32: row(5, 10, "ok", "0.002"),
        "b" * 32: row(3, 4, "running", "0.001"),
        "c" * 32: row(2, 4, "ok", "0", duplicates=2, late_steps=1),
    },
    rows={"a" * 32: 5, "b" * 32: 1, "c" * 32: 2},
    row_costs={"a" * 32: Decimal("0.002"), "b" * 32: Decimal("0.001"), "c" * 32: Decimal(0)},
    open_rows={"b" * 32: 2},
    alerts={"a" * 32: frozenset({"loop"}), "b" * 32: frozenset({"hung-step"})},
    alert_events=frozenset({("x", 1), ("y", 1)}),
    letters={"malformed_json": 1},
)


def bad(verdicts: list[Verdict]) -> list[str]:
    return [problem for verdict in verdicts if not verdict.good for problem in verdict.problems]


def test_what_agrees_is_good() -> None:
    """No difference, no problem; each comparison has a text of what was compared."""
    verdicts = compare(SENT, STORED)
    assert bad(verdicts) == []
    assert all(verdict.good and verdict.text for verdict in verdicts)
    assert any("18 events" in verdict.text for verdict in verdicts)
    assert any("$0.003" in verdict.text for verdict in verdicts)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"rows": {**STORED.rows, "a" * 32: 4}}, "rows of steps: 4, not 5"),
        ({"open_rows": {}}, "open_steps: 0, not 2"),
        (
            {"row_costs": {**STORED.row_costs, "a" * 32: Decimal("0.002000001")}},
            "0.002000001 and 0.002",
        ),
        (
            {"runs": {k: v for k, v in STORED.runs.items() if k != "c" * 32}},
            "foreign cccccccc: runs",
        ),
        ({"runs": {**STORED.runs, "a" * 32: row(5, 9, "ok", "0.002")}}, "events merged: 9, not 10"),
        (
            {"runs": {**STORED.runs, "a" * 32: row(5, 10, "error", "0.002")}},
            "status: error, not ok",
        ),
        (
            {"runs": {**STORED.runs, "a" * 32: row(5, 10, "ok", "0.002", unpriced_steps=1)}},
            "unpriced steps: 1",
        ),
        (
            {"runs": {**STORED.runs, "c" * 32: row(2, 4, "ok", "0", duplicates=3, late_steps=1)}},
            "3 repeats",
        ),
        ({"alerts": {}}, "no alert loop"),
        ({"alerts": {**STORED.alerts, "c" * 32: frozenset({"loop"})}}, "unexpected alert loop"),
        (
            {"alerts": {**STORED.alerts, "b" * 32: frozenset({"hung-step", "run-cost-spike"})}},
            "unexpected alert run-cost-spike",
        ),
        ({"alert_events": frozenset({("x", 1)})}, "2 were made, 1 were found"),
        ({"letters": {}}, "the dead letter has nothing"),
    ],
)
def test_every_difference_is_reported(change: dict[str, Any], word: str) -> None:
    """One row too few, one nano-dollar too much, an alert too many: each is found and named."""
    problems = bad(compare(SENT, replace(STORED, **change)))
    assert any(word in problem for problem in problems), problems


def test_an_expensive_run_may_have_a_cost_alert() -> None:
    """It depends on how many runs had ended by then, so the alert is neither required nor wrong."""
    known = replace(
        STORED,
        row_costs={**STORED.row_costs, "a" * 32: Decimal("0.003")},
        runs={**STORED.runs, "a" * 32: row(5, 10, "ok", "0.003")},
        alerts={**STORED.alerts, "a" * 32: frozenset({"loop", "run-cost-spike"})},
    )
    sent = replace(
        SENT,
        accounts=(
            account("a" * 32, "looping", "ok", started=5, ended=5, usd="0.003"),
            *ACCOUNTS[1:],
        ),
    )
    assert bad(compare(sent, known)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"delivered": 13}, "13 were found"),
        ({"lost": 1}, "not acknowledged"),
        ({"crashes": ("x: ValueError",)}, "ValueError"),
    ],
)
def test_what_the_sdk_lost_is_reported(change: dict[str, Any], word: str) -> None:
    """Events that never reached Kafka, and agents that broke, are differences too."""
    assert any(word in problem for problem in bad(compare(replace(SENT, **change), STORED)))
