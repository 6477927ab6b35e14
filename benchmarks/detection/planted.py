"""Made-up agents' months: hours of cost and latency with cycles of day and week, drifts, shifts and
planted spikes.

Sizes of calls and the burstiness of arrivals are drawn from recorded requests (azure_llm,
mooncake); the agents come from the seed.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate
from statistics import fmean
from typing import Final

from benchmarks.cases import data_folder

DAYS: Final = 30
BUSY: Final = (20.0, 500.0)
# Runs an hour. With a handful of runs, chance alone makes some hours five times as expensive as
# others, so sparse agents are reported separately.
SPARSE: Final = (2.0, 20.0)
FACTORS: Final = (2.0, 5.0, 10.0)
SPIKES_EACH: Final = 2
# Hours between planted spikes, so that one does not hide in what was learnt from the one before.
APART_H: Final = 30

SHIFT: Final = 4.0
SHIFT_DAY: Final = 15
DRAWS: Final = 1_000


# -- what is drawn from recorded requests --


@dataclass(frozen=True, slots=True)
class Source:
    """Recorded requests: tokens in and out, and how many came in each minute as a share of the
    mean."""

    name: str
    sizes: list[tuple[int, int]]
    bursts: list[float]


def sources() -> list[Source]:
    """The recorded traces. Raises ``MissingData``."""
    azure = data_folder("azure_llm")
    found = [_azure(path.name, path) for path in sorted(azure.glob("*.csv.gz"))]
    with gzip.open(data_folder("mooncake") / "conversation_trace.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    sizes = [(row["input_length"], row["output_length"]) for row in rows]
    return [*found, Source("mooncake", sizes, _bursts([row["timestamp"] / 60_000 for row in rows]))]


def _azure(name: str, path: object) -> Source:
    with gzip.open(str(path), "rt", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = [
        datetime.fromisoformat(row["TIMESTAMP"][:26] + "+00:00").timestamp() / 60 for row in rows
    ]
    return Source(
        name,
        [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows],
        _bursts(minutes),
    )


def _bursts(minutes: list[float]) -> list[float]:
    """Arrivals in each whole minute but the last, as shares of their mean."""
    first = min(minutes)
    counts = [0] * (int(max(minutes) - first) + 1)
    for minute in minutes:
        counts[int(minute - first)] += 1
    inner = counts[:-1]
    return [count / fmean(inner) for count in inner]


# -- agents --


@dataclass(frozen=True, slots=True)
class Spike:
    """Hours in which something costs or takes ``factor`` times as much: each run, or by as many
    more runs."""

    first: int
    hours: int
    factor: float
    what: str

    def includes(self, hour: int) -> bool:
        return self.first <= hour < self.first + self.hours


@dataclass(slots=True)
class AgentSpec:
    """An agent and what is planted into its month."""

    source: Source
    runs_per_hour: float
    day_swing: float
    weekend: float
    calls: int
    trend: str
    spikes: list[Spike] = field(default_factory=list)

    def trend_at(self, hour: int) -> float:
        """Cost and duration as a multiple of those at the beginning of the month."""
        if self.trend == "drift":
            return math.exp(math.log(2) * hour / (DAYS * 24))  # twice the cost at the end
        return SHIFT if self.trend == "shift" and hour >= SHIFT_DAY * 24 else 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """One hour: what its runs amounted to, and how many there were."""

    hour: int
    value: float
    count: int


def make_agent(
    number: int, seed: str, all_sources: Sequence[Source], rates: tuple[float, float] = BUSY
) -> AgentSpec:
    """An agent of its own kind: how busy, how it swings, whether it drifts or shifts, when it
    spikes."""
    rng = random.Random(f"{seed}/{number}")
    agent = AgentSpec(
        source=all_sources[number % len(all_sources)],
        runs_per_hour=math.exp(rng.uniform(math.log(rates[0]), math.log(rates[1]))),
        day_swing=rng.uniform(0.0, 0.9),
        weekend=rng.choice((0.2, 0.5, 1.0)),
        calls=rng.choice((1, 3, 8)),
        trend=("none", "none", "drift", "none", "shift", "none")[number % 6],
    )
    hours = iter(_planting_hours(rng, agent))
    for factor in FACTORS * SPIKES_EACH:
        first = next(hours, None)
        if first is not None:
            agent.spikes.append(
                Spike(first, rng.choice((1, 2, 3)), factor, rng.choice(("costlier", "busier")))
            )
    return agent


def _planting_hours(rng: random.Random, agent: AgentSpec) -> list[int]:
    """Hours after the first week, apart from each other and from a shift, in random order."""
    hours = list(range(8 * 24, DAYS * 24 - 4, APART_H))
    if agent.trend == "shift":
        hours = [hour for hour in hours if not -APART_H < hour - SHIFT_DAY * 24 < 4 * 24]
    rng.shuffle(hours)
    return [hour + rng.randrange(6) for hour in hours]


def windows_of(
    agent: AgentSpec, seed: str, amount: Callable[[int, int], float], *, latency: bool
) -> Iterator[Window]:
    """The agent's month, hour by hour.

    A higher number of runs does not change latency, so latency spikes only make runs slower.
    """
    rng = random.Random(seed)
    sizes = [amount(*size) for size in agent.source.sizes]
    for hour in range(DAYS * 24):
        spike = next((spike for spike in agent.spikes if spike.includes(hour)), None)
        factor = spike.factor if spike is not None else 1.0
        busier = factor if spike is not None and spike.what == "busier" and not latency else 1.0
        costlier = factor if busier == 1.0 else 1.0
        count = _arrivals(rng, agent, hour, busier)
        start = rng.randrange(len(sizes))
        # Neighbours go together.
        value = sum(sizes[(start + call) % len(sizes)] for call in range(count * agent.calls))
        yield Window(hour, value * costlier * agent.trend_at(hour), count)


def _arrivals(rng: random.Random, agent: AgentSpec, hour: int, busier: float) -> int:
    bursts = [rng.choice(agent.source.bursts) for _ in range(60)]
    return _poisson(rng, _mean_runs(agent, hour) * busier * fmean(bursts))


def _mean_runs(agent: AgentSpec, hour: int) -> float:
    day, of_day = divmod(hour, 24)
    cycle = 1 + agent.day_swing * math.sin(2 * math.pi * (of_day - 9) / 24)
    return agent.runs_per_hour * cycle * (agent.weekend if day % 7 < 2 else 1.0)


def _poisson(rng: random.Random, mean: float) -> int:
    """A number of arrivals; for large means the normal one that it goes over to."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


def best_possible(
    agent: AgentSpec, windows: Sequence[Window], amount: Callable[[int, int], float]
) -> list[bool]:
    """The planted hours that a detector with full knowledge of the agent finds: those above all but
    one of a thousand ordinary hours of the kind.

    No detector can find more with one false alarm per 1,000 windows.
    """
    rng = random.Random(f"{agent}")
    once = [amount(*size) for size in agent.source.sizes]
    sums = list(accumulate(once * 2, initial=0.0))
    bursts = [fmean(rng.choices(agent.source.bursts, k=60)) for _ in range(DRAWS)]
    found = [False] * len(windows)
    for hour in (
        hour for spike in agent.spikes for hour in range(spike.first, spike.first + spike.hours)
    ):
        mean, amounts = _mean_runs(agent, hour), []
        for burst in bursts:
            times, rest = divmod(_poisson(rng, mean * burst) * agent.calls, len(once))
            start = rng.randrange(len(once))
            amounts.append(
                (times * sums[len(once)] + sums[start + rest] - sums[start]) * agent.trend_at(hour)
            )
        found[hour] = windows[hour].value > sorted(amounts)[-2]
    return found
