"""How often the gate fails an unchanged agent, what it finds, and how many trials it needs.

The gate itself decides: after each planned round, or once where results have no rounds, as those of
``stepstream eval run``. Both sides have the same cases; the candidate is unchanged, or loses a part
of its pass rate, or costs more.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from benchmarks.evals.agents import Case, RealTrial, Simulated, lose, real_cases, suite
from benchmarks.harness import Goal, Report
from stepstream.evals.gate.paired import Pairing
from stepstream.evals.gate.policy import GatePolicy, policy_of
from stepstream.evals.gate.verdict import Comparison, Verdict, after_round

SUCCESS_ALONE: Final = policy_of({"metrics": {"success": {"weight": 1, "margin": 0.1}}})
FIVE: Final = GatePolicy()
ONCE: Final = FIVE.model_copy(update={"rounds": (8,)})


@dataclass(frozen=True)
class Rates:
    """Shares of verdicts, and the mean number of trials of a case and side."""

    simulations: int
    failed: float
    passed: float
    trials: float

    @property
    def error(self) -> float:
        """The standard error of ``failed``."""
        return math.sqrt(self.failed * (1 - self.failed) / self.simulations)


def decide(before: Simulated, after: Simulated, policy: GatePolicy, cases: int) -> Verdict:
    """The verdict of the first round that is pass or fail, else that of the last."""
    names = tuple(f"c{place}" for place in range(cases))
    pairing = Pairing(names, policy.rounds[-1])
    comparison = Comparison(before.results, after.results, policy, pairing, policy.rounds)
    for place, trials in enumerate(policy.rounds):
        before.run(trials)
        after.run(trials)
        verdict = after_round(comparison, place)
        if verdict.decided != "inconclusive":
            break
    return verdict


def simulate(
    rng: np.random.Generator,
    simulations: int,
    cases: int,
    policy: GatePolicy,
    *,
    loss: Callable[[list[Case]], list[Case]] = list,
    change: Callable[[RealTrial], RealTrial] | None = None,
    green: bool = False,
) -> Rates:
    """Many comparisons, each of another suite."""
    failed = passed = trials = 0
    for _ in range(simulations):
        drawn = suite(rng, cases, green=green)
        before = Simulated(rng, "baseline", drawn)
        after = Simulated(rng, "candidate", loss(drawn), change)
        verdict = decide(before, after, policy, cases)
        failed += verdict.decided == "fail"
        passed += verdict.decided == "pass"
        trials += verdict.trials
    return Rates(simulations, failed / simulations, passed / simulations, trials / simulations)


def _costlier(trial: RealTrial) -> RealTrial:
    return replace(trial, cost_usd=trial.cost_usd * 1.25, tokens=trial.tokens * 1.25)


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """A/A comparisons, then planted losses."""
    rng = np.random.default_rng(arguments.seed)
    many = 200 if report.quick else arguments.simulations
    fewer = 100 if report.quick else max(200, many // 5)
    if not real_cases()[1]:
        report.notes.append("no tau_bench data: pass rates and costs are made, as fitted to it")
    rows = []

    def line(label: str, policy: GatePolicy, number: int, cases: int, **more: object) -> Rates:
        found = simulate(rng, number, cases, policy, **more)  # type: ignore[arg-type]
        metrics = len(policy.metrics)
        row = (label, metrics, cases, number, found.failed, found.passed, found.trials)
        rows.append(row)
        report.progress(" ".join(map(str, row)))
        return found

    unchanged = line("unchanged", FIVE, many, 50)
    alone = line("unchanged", SUCCESS_ALONE, many, 50)
    line("unchanged", FIVE, fewer, 20)
    line("unchanged", FIVE, fewer, 200)
    line("unchanged, mostly passing", FIVE, fewer, 50, green=True)
    ten = line("loses 10 points", SUCCESS_ALONE, fewer, 50, loss=lambda drawn: lose(drawn, 0.1))
    five = line("loses 10 points", FIVE, fewer, 50, loss=lambda drawn: lose(drawn, 0.1))
    line("loses 5 points", SUCCESS_ALONE, fewer, 50, loss=lambda drawn: lose(drawn, 0.05))
    line("loses 20 points", SUCCESS_ALONE, fewer, 20, loss=lambda drawn: lose(drawn, 0.2))
    line("costs 25 % more", FIVE, fewer, 50, change=_costlier)
    once = line("unchanged, no rounds", ONCE, many, 50)
    line("loses 10 points, no rounds", ONCE, fewer, 50, loss=lambda drawn: lose(drawn, 0.1))
    report.table(
        "verdicts by simulation (shares), and trials of a case and side",
        ("candidate", "metrics", "cases", "simulations", "fails", "passes", "trials"),
        rows,
    )
    report.figures |= {
        "false_fails_five": unchanged.failed,
        "false_fails_success": alone.failed,
        "false_fails_without_rounds": once.failed,
        "unchanged_passes": unchanged.passed,
        "power_10_points_success": ten.failed,
        "power_10_points_five": five.failed,
    }
    report.goals += [
        Goal("false fails, five metrics", unchanged.failed, 0.05 + 2 * unchanged.error, ""),
        Goal("false fails, success alone", alone.failed, 0.05 + 2 * alone.error, ""),
        Goal("false fails, no rounds", once.failed, 0.05 + 2 * once.error, ""),
        Goal("unchanged passes, 50 x 8", unchanged.passed, 0.8, "", at_most=False),
        Goal("10 points found, success alone", ten.failed, 0.9, "", at_most=False),
        Goal("its trials", ten.trials, 4.5, ""),
        Goal("10 points found, five metrics", five.failed, 0.85, "", at_most=False),
        Goal("its trials, five metrics", five.trials, 5.5, ""),
    ]
