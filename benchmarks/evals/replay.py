"""Strict replays of recorded runs: how many are equal, and how many changes are named.

The runs are those of the example agent, with other draws in each. A change is planted at one of its
calls; the divergence must name this call. Connections of the process are counted by an audit hook.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

import stepstream
from benchmarks.harness import Goal, Report
from stepstream.testing import ReplayDiverged, recording, replaying

ORDERS = (4711, 4712, 4713, 9)
draw = stepstream.recorded(random.random)


@stepstream.tool
def find_order(order: int) -> dict[str, float]:
    return {"order": order, "amount": round(draw() * 100, 2)}


@stepstream.tool
def refund(order: int, amount: float) -> str:
    return f"refunded {amount} for {order}"


@stepstream.llm
def answer(text: str) -> str:
    return f"Done: {text} {draw()}"


@stepstream.agent
def agent(orders: list[int]) -> str:
    return _answer(orders, changed_at=-1)


@stepstream.agent
def changed(orders: list[int]) -> str:
    """The agent with another amount at its second order."""
    return _answer(orders, changed_at=1)


def _answer(orders: list[int], changed_at: int) -> str:
    done = []
    for place, order in enumerate(orders):
        amount = find_order(order)["amount"]
        done.append(refund(order, amount + 1 if place == changed_at else amount))
    return answer("; ".join(done))


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Add the shares, and the time of a replay."""
    number = 50 if report.quick else 1_000
    connections = 0

    def hook(event: str, _arguments: object) -> None:
        nonlocal connections
        connections += event == "socket.connect"

    sys.addaudithook(hook)
    chosen = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        with recording(recordings=folder):
            for _ in range(number):
                agent([chosen.choice(ORDERS) for _ in range(chosen.randint(2, 6))])
        files = sorted(Path(folder).iterdir())
        began = time.process_time()
        equal = sum(_is_equal(file) for file in files)
        took_ms = (time.process_time() - began) / number * 1000
        named = sum(_is_named(file) for file in files)
    rows = [("equal", number, equal), ("planted change named at its call", number, named)]
    report.table("strict replays", ("", "recorded runs", "of them"), rows)
    report.notes.append(f"connections: {connections}; CPU time of a replay: {took_ms:.1f} ms")
    report.goals += [
        Goal("equal replays", equal / number, 1.0, "", at_most=False),
        Goal("planted changes named", named / number, 1.0, "", at_most=False),
        Goal("connections", float(connections), 0.0, ""),
    ]


def _is_equal(file: Path) -> bool:
    with replaying(file) as replay:
        agent(**replay.input)
    return not replay.divergence


def _is_named(file: Path) -> bool:
    with replaying(file) as replay:
        try:
            changed(**replay.input)
        except ReplayDiverged:
            # The program has made three calls before: two for the first order, one for the second.
            return replay.divergence.startswith("call 4, refund")
    return False
