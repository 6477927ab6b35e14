"""How often the printed intervals contain the true value: after one round, and after stopping."""

from __future__ import annotations

import argparse
from typing import Final

import numpy as np

from benchmarks.evals.agents import Simulated, lose, suite
from benchmarks.evals.gate import FIVE, SUCCESS_ALONE, decide
from benchmarks.harness import Goal, Report
from stepstream.evals.gate.policy import GatePolicy
from stepstream.evals.gate.verdict import MetricResult, Side

ONE_ROUND: Final = SUCCESS_ALONE.model_copy(update={"rounds": (3,)})


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Each cell is a suite's size, a loss and a plan."""
    rng = np.random.default_rng(arguments.seed)
    many = 100 if report.quick else max(400, arguments.simulations // 5)
    population = suite(rng, 50_000)
    true_rate = sum(case.rate for case in population) / len(population)
    rows: list[tuple[str, int, float, float, float]] = []
    one: list[float] = []
    stopped: list[float] = []
    rates: list[float] = []
    for label, policy in (("one round", ONE_ROUND), ("five rounds", FIVE)):
        for cases in (20, 50):
            for loss in (0.0, 0.1):
                difference, rate = _contained(rng, many, cases, policy, loss, true_rate)
                rows.append((label, cases, loss, difference, rate))
                (one if policy is ONE_ROUND else stopped).append(difference)
                rates.append(rate)
                report.progress(" ".join(map(str, rows[-1])))
    columns = ("plan", "cases", "loss", "difference", "pass rate")
    report.table("share of 95 % intervals that contain the true value", columns, rows)
    report.figures |= {
        "coverage_one_round": min(one),
        "coverage_after_stopping": min(stopped),
        "coverage_pass_rate": min(rates),
    }
    report.goals += [
        Goal("lowest coverage, one round", min(one), 0.93, "", at_most=False),
        Goal("lowest coverage, after stopping", min(stopped), 0.95, "", at_most=False),
        Goal("lowest coverage, pass rate", min(rates), 0.93, "", at_most=False),
    ]


def _contained(
    rng: np.random.Generator,
    simulations: int,
    cases: int,
    policy: GatePolicy,
    loss: float,
    true_rate: float,
) -> tuple[float, float]:
    difference = rate = 0
    for _ in range(simulations):
        drawn = suite(rng, cases)
        worse = lose(drawn, loss)
        before, after = Simulated(rng, "baseline", drawn), Simulated(rng, "candidate", worse)
        verdict = decide(before, after, policy, cases)
        true = sum(b.rate - a.rate for a, b in zip(drawn, worse, strict=True)) / cases
        difference += _contains(verdict.metrics[0], true)
        rate += _rate_contains(verdict.baseline, true_rate)
    return difference / simulations, rate / simulations


def _contains(metric: MetricResult, true: float) -> bool:
    return metric.low is not None and metric.high is not None and metric.low <= true <= metric.high


def _rate_contains(side: Side, true: float) -> bool:
    return side.interval is not None and side.interval[0] <= true <= side.interval[1]
