"""Made-up agents with the pass rates, costs and errors of a real one (tau_bench), or fitted to it.

A case has a pass rate: a draw from the posterior of a real case's rate, given its successes in four
trials. A trial takes tokens, cost, time and errors of a real trial of the same case with the same
outcome. The source has no times: they are computed from tokens, with noise that has a long tail.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from benchmarks.cases import MissingData, tau_bench
from stepstream.evals.gate.trials import Header, Results, Trial

# Of a beta distribution, fitted to the 50 cases of tau_bench (airline, gpt-4o, four trials).
PRIOR: Final = (0.64, 0.86)
TRIALS_EACH: Final = 4
MADE_CASES: Final = 50
INPUT_USD, OUTPUT_USD = 2.5e-6, 1e-5
MODEL_S, TOKENS_PER_S = 0.9, 60.0
CHARS_PER_TOKEN: Final = 4


@dataclass(frozen=True)
class RealTrial:
    """What one recorded trial took."""

    success: bool
    tokens: float
    cost_usd: float
    latency_s: float
    tool_errors: float


@dataclass(frozen=True)
class Case:
    """A case of a made-up suite: its pass rate, and real trials by outcome."""

    rate: float
    trials: Mapping[bool, list[RealTrial]]

    def moved(self, rate: float) -> Case:
        return Case(min(1.0, max(0.0, rate)), self.trials)


@lru_cache(maxsize=1)
def real_cases() -> tuple[tuple[tuple[RealTrial, ...], ...], bool]:
    """The trials of each real case, and whether they are recorded or made."""
    by_case: dict[Any, list[RealTrial]] = {}
    try:
        for run, _ in tau_bench.recorded():
            by_case.setdefault(run["task_id"], []).append(_real_trial(run))
    except MissingData:
        return _made_cases(), False
    return tuple(map(tuple, by_case.values())), True


def _real_trial(run: Mapping[str, Any]) -> RealTrial:
    context = tokens = cost = latency = errors = 0.0
    for message in run["traj"]:
        text = message.get("content") or ""
        calls = message.get("tool_calls")
        length = (len(text) + (len(json.dumps(calls)) if calls else 0)) / CHARS_PER_TOKEN
        if message["role"] == "assistant":
            tokens += context + length
            cost += context * INPUT_USD + length * OUTPUT_USD
            latency += MODEL_S + length / TOKENS_PER_S
        errors += message["role"] == "tool" and text.startswith("Error")
        context += length
    return RealTrial(run["reward"] >= 1, tokens, cost, latency, errors)


def _made_cases() -> tuple[tuple[RealTrial, ...], ...]:
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(MADE_CASES):
        rate, size = rng.beta(*PRIOR), rng.lognormal(10.5, 0.5)
        trials = []
        for _ in range(TRIALS_EACH):
            tokens = float(size * rng.lognormal(0, 0.4))
            cost, errors = tokens * 1.2 * INPUT_USD, float(rng.poisson(0.5))
            trials.append(RealTrial(rng.random() < rate, tokens, cost, tokens / 2_000, errors))
        cases.append(tuple(trials))
    return tuple(cases)


def suite(rng: np.random.Generator, cases: int, *, green: bool = False) -> list[Case]:
    """A suite of this many cases; ``green``: one that mostly passes, as suites in CI do."""
    real, _ = real_cases()
    drawn = []
    for place in rng.integers(len(real), size=cases):
        trials = real[place]
        found = sum(trial.success for trial in trials)
        rate = float(rng.beta(PRIOR[0] + found, PRIOR[1] + len(trials) - found))
        by_outcome = {
            outcome: [trial for trial in trials if trial.success == outcome] or list(trials)
            for outcome in (True, False)
        }
        drawn.append(Case(0.8 + 0.2 * rate if green else rate, by_outcome))
    return drawn


def lose(cases: list[Case], points: float) -> list[Case]:
    """The same suite with a pass rate that is lower by exactly this much on average."""
    mean = sum(case.rate for case in cases) / len(cases)
    return [case.moved(case.rate * (1 - points / mean)) for case in cases]


class Simulated:
    """Results that grow by trials: those of one side."""

    def __init__(
        self,
        rng: np.random.Generator,
        name: str,
        cases: list[Case],
        change: Callable[[RealTrial], RealTrial] | None = None,
    ) -> None:
        self._rng = rng
        self._cases = cases
        self._change = change
        self._trials: dict[str, list[Trial]] = {f"c{place}": [] for place in range(len(cases))}
        self.results = Results(name, Header(1), self._trials)

    def run(self, trials: int) -> None:
        """Add trials until each case has this many."""
        done = len(self._trials["c0"])
        if trials <= done:
            return
        shape = (len(self._cases), trials - done)
        draws, picks = self._rng.random(shape).tolist(), self._rng.random(shape).tolist()
        noise = (1 + 0.3 * self._rng.pareto(3.0, shape)).tolist()
        for place, (case, rows) in enumerate(zip(self._cases, self._trials.values(), strict=True)):
            for at, (draw, pick) in enumerate(zip(draws[place], picks[place], strict=True)):
                success = draw < case.rate
                real = case.trials[success]
                trial = real[int(pick * len(real))]
                if self._change is not None:
                    trial = self._change(trial)
                rows.append(
                    Trial(
                        case="",
                        trial=done + at,
                        success=success,
                        cost_usd=trial.cost_usd,
                        latency_s=trial.latency_s * noise[place][at],
                        tokens=trial.tokens,
                        tool_errors=trial.tool_errors,
                    )
                )
