"""30 days of hourly cost and latency of made-up agents: spikes are planted, and must be found; the rest must stay quiet.

Sizes of calls and the burstiness of arrivals are drawn from recorded requests (azure_llm, mooncake); the agents, their cycles
of day and week, drifts and shifts come from the seed. Nothing is tuned to one of them: the detector is the rule's default.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean, pstdev
from typing import Final

from benchmarks.cases import data_folder
from benchmarks.detection.score import per_hundred, share_text, wilson
from benchmarks.harness import Goal, Report
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import TokenUsage
from stepstream.stream.detectors.windows.spike_model import LEARN_WINDOWS, SpikeModel

HOUR_US: Final = 3_600_000_000
START_US: Final = 1_735_689_600_000_000 - 4 * 24 * HOUR_US
"""Saturday, 2024-12-28, 00:00 UTC."""

DAYS: Final = 30
AGENTS: Final = 24
SPARSE_AGENTS: Final = 12
QUICK_SHARE: Final = 6
BUSY: Final = (20.0, 500.0)
SPARSE: Final = (2.0, 20.0)
"""Runs an hour. With a handful, chance alone makes some hours five times as dear as others: reported apart."""
FACTORS: Final = (2.0, 5.0, 10.0)
SPIKES_EACH: Final = 2
APART_H: Final = 30
"""Hours between planted spikes, so that one does not hide in what was learnt from the one before."""

SHIFT: Final = 4.0
SHIFT_DAY: Final = 15
SHIFT_KNOWN_H: Final = 48
"""For two days after a shift of level an alarm about it is true; from then on it must be the new normal."""

PREFILL_US_PER_TOKEN: Final = 200
DECODE_US_PER_TOKEN: Final = 20_000


# -- what is drawn from recorded requests ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """Recorded requests: tokens in and out, and how many came in each minute as a share of the mean."""

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
    minutes = [datetime.fromisoformat(row["TIMESTAMP"][:26] + "+00:00").timestamp() / 60 for row in rows]
    return Source(name, [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows], _bursts(minutes))


def _bursts(minutes: list[float]) -> list[float]:
    """Arrivals in each whole minute but the last, as shares of their mean."""
    first = min(minutes)
    counts = [0] * (int(max(minutes) - first) + 1)
    for minute in minutes:
        counts[int(minute - first)] += 1
    inner = counts[:-1]
    return [count / fmean(inner) for count in inner]


# -- agents ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spike:
    """Hours in which something costs or takes ``factor`` times as much: each run, or by as many more runs."""

    first: int
    hours: int
    factor: float
    what: str

    def covers(self, hour: int) -> bool:
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
        """What it costs and takes beside the beginning of the month."""
        if self.trend == "drift":
            return math.exp(math.log(2) * hour / (DAYS * 24))  # twice as dear by the end
        return SHIFT if self.trend == "shift" and hour >= SHIFT_DAY * 24 else 1.0


@dataclass(frozen=True, slots=True)
class Window:
    """One hour: what its runs amounted to, and how many there were."""

    hour: int
    value: float
    count: int


def make_agent(number: int, seed: str, all_sources: Sequence[Source], rates: tuple[float, float] = BUSY) -> AgentSpec:
    """An agent of its own kind: how busy, how it swings, whether it drifts or shifts, when it spikes."""
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
            agent.spikes.append(Spike(first, rng.choice((1, 2, 3)), factor, rng.choice(("dearer", "busier"))))
    return agent


def _planting_hours(rng: random.Random, agent: AgentSpec) -> list[int]:
    """Hours after the first week, apart from each other and from a shift, in random order."""
    hours = list(range(8 * 24, DAYS * 24 - 4, APART_H))
    if agent.trend == "shift":
        hours = [hour for hour in hours if not -APART_H < hour - SHIFT_DAY * 24 < 4 * 24]
    rng.shuffle(hours)
    return [hour + rng.randrange(6) for hour in hours]


def windows_of(agent: AgentSpec, seed: str, amount: Callable[[int, int], float], *, latency: bool) -> Iterator[Window]:
    """The agent's month, hour by hour. More runs make no hour slower: latency spikes are dearer runs only."""
    rng = random.Random(seed)
    sizes = [amount(*size) for size in agent.source.sizes]
    for hour in range(DAYS * 24):
        spike = next((spike for spike in agent.spikes if spike.covers(hour)), None)
        factor = spike.factor if spike is not None else 1.0
        busier = factor if spike is not None and spike.what == "busier" and not latency else 1.0
        dearer = factor if busier == 1.0 else 1.0
        count = _arrivals(rng, agent, hour, busier)
        start = rng.randrange(len(sizes))
        value = sum(sizes[(start + call) % len(sizes)] for call in range(count * agent.calls))  # neighbours go together
        yield Window(hour, value * dearer * agent.trend_at(hour), count)


def _arrivals(rng: random.Random, agent: AgentSpec, hour: int, busier: float) -> int:
    day, of_day = divmod(hour, 24)
    cycle = 1 + agent.day_swing * math.sin(2 * math.pi * (of_day - 9) / 24)
    mean = agent.runs_per_hour * cycle * (agent.weekend if day % 7 < 2 else 1.0) * busier
    bursts = [rng.choice(agent.source.bursts) for _ in range(60)]
    return _poisson(rng, mean * fmean(bursts))


def _poisson(rng: random.Random, mean: float) -> int:
    """A number of arrivals; for large means the normal one that it goes over to."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


# -- judges ----------------------------------------------------------------------------------------------------------

Judge = Callable[[Sequence[Window]], list[bool]]
"""For each window, whether it is a spike by what came before it."""


def ours(windows: Sequence[Window]) -> list[bool]:
    """The detector of ``spend_spike``, by its defaults."""
    model = SpikeModel()
    said = []
    for window in windows:
        at_us = START_US + window.hour * HOUR_US
        said.append(model.is_spike(at_us, window.value, window.count))
        model.learn(at_us, window.value, window.count)
    return said


def times_the_mean(windows: Sequence[Window]) -> list[bool]:
    """More than three times the mean of the last seven days."""
    return _by_past(windows, lambda past, value: value > 3 * fmean(past))


def three_deviations(windows: Sequence[Window]) -> list[bool]:
    """More than three standard deviations above the mean of the last seven days."""
    return _by_past(windows, lambda past, value: value > fmean(past) + 3 * pstdev(past))


def _by_past(windows: Sequence[Window], is_spike: Callable[[Sequence[float], float], bool]) -> list[bool]:
    past: deque[float] = deque(maxlen=7 * 24)
    said = []
    for window in windows:
        said.append(len(past) >= LEARN_WINDOWS and is_spike(past, window.value))
        past.append(window.value)
    return said


JUDGES: Final[dict[str, Judge]] = {
    "spend spike, as it is by default": ours,
    "3 x the mean of 7 days": times_the_mean,
    "mean + 3 deviations of 7 days": three_deviations,
}


# -- scores ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What was planted and found, by factor, and what was said of windows in which nothing was."""

    planted: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    at_once: int = 0
    false: int = 0
    quiet_windows: int = 0

    def take(self, agent: AgentSpec, windows: Sequence[Window], said: Sequence[bool]) -> None:
        """Score one month. A spike into hours in which nothing ran is none."""
        for spike in agent.spikes:
            if not any(windows[hour].count for hour in range(spike.first, spike.first + spike.hours)):
                continue
            hours = [hour for hour in range(spike.first, spike.first + spike.hours) if said[hour]]
            self._count(f"{spike.factor:.0f}x", bool(hours), at_once=bool(hours) and hours[0] == spike.first)
        if agent.trend == "shift":
            first = SHIFT_DAY * 24
            self._count("shift", any(said[first : first + SHIFT_KNOWN_H]), at_once=said[first])
        for hour, is_said in enumerate(said):
            if hour >= LEARN_WINDOWS and not _is_troubled(agent, hour):
                self.quiet_windows += 1
                self.false += is_said

    def _count(self, kind: str, found: bool, *, at_once: bool) -> None:
        self.planted[kind] = self.planted.get(kind, 0) + 1
        self.found[kind] = self.found.get(kind, 0) + found
        self.at_once += at_once

    def recall(self, kind: str) -> float | None:
        """The share of a kind that was found; None where none was planted."""
        return self.found[kind] / self.planted[kind] if self.planted.get(kind) else None

    @property
    def false_per_1000(self) -> float | None:
        return 1000 * self.false / self.quiet_windows if self.quiet_windows else None


def _is_troubled(agent: AgentSpec, hour: int) -> bool:
    shifted = agent.trend == "shift" and 0 <= hour - SHIFT_DAY * 24 < SHIFT_KNOWN_H
    return shifted or any(spike.covers(hour) for spike in agent.spikes)


KINDS: Final = ("2x", "5x", "10x", "shift")


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Plant, judge, score."""
    all_sources = sources()
    columns = ("", *(f"found {kind}" for kind in KINDS), "false alarms per 1,000 windows", "found in the first hour")
    for name, agents, rates in (("busy", AGENTS, BUSY), ("sparse", SPARSE_AGENTS, SPARSE)):
        count = agents // QUICK_SHARE if report.quick else agents
        report.say(f"{count} {name} agents, {DAYS} days of hours, cost and latency")
        tallies = _tallies(f"{arguments.seed}/{name}", count, rates, all_sources)
        title = (
            f"{count} agents with {rates[0]:.0f} to {rates[1]:.0f} runs an hour: spikes of 1 to 3 hours, a lasting shift to 4x"
        )
        report.table(title, columns, [_row(judge, tally) for judge, tally in tallies.items()])
        if name == "busy":
            _figures(report, tallies["spend spike, as it is by default"])


def _tallies(seed: str, count: int, rates: tuple[float, float], all_sources: Sequence[Source]) -> dict[str, Tally]:
    tallies = {name: Tally() for name in JUDGES}
    for number in range(count):
        agent = make_agent(number, seed, all_sources, rates)
        for what, amount in (("cost", cost_of_call), ("latency", latency_of_call)):
            windows = list(windows_of(agent, f"{seed}/{number}/{what}", amount, latency=what == "latency"))
            for name, judge in JUDGES.items():
                tallies[name].take(agent, windows, judge(windows))
    return tallies


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    low, high = wilson(tally.false, tally.quiet_windows)
    false = 1000 * tally.false / tally.quiet_windows
    shown = f"{false:.2f} ({tally.false}/{tally.quiet_windows:,}, {1000 * low:.2f}-{1000 * high:.2f})"
    found = sum(tally.found.values())
    recalls = (share_text(tally.found.get(kind, 0), tally.planted.get(kind, 0)) for kind in KINDS)
    return (name, *recalls, shown, per_hundred(tally.at_once, found) if found else "-")


def _figures(report: Report, tally: Tally) -> None:
    for kind in KINDS:
        report.figures[f"series_recall_{kind}"] = tally.recall(kind) or 0.0
    report.figures["series_false_alarms_per_1000_windows"] = tally.false_per_1000 or 0.0
    report.figures["series_windows"] = tally.quiet_windows
    report.goals += [
        Goal("series: spikes of 10x found", tally.recall("10x"), 0.99, "of them", at_most=False),
        Goal("series: spikes of 5x found", tally.recall("5x"), 0.9, "of them", at_most=False),
        Goal("series: false alarms per 1,000 windows", tally.false_per_1000, 1.0, ""),
    ]


_PRICES: Final = PriceBook()
_PER_TOKEN: Final = tuple(
    (_PRICES.price("openai", "gpt-4o", TokenUsage(**{field: 1_000_000}), START_US).nanos or 0) / 1_000_000
    for field in ("input_tokens", "output_tokens")
)


def cost_of_call(given: int, taken: int) -> float:
    """Nano-dollars of a call, by gpt-4o's list price."""
    return given * _PER_TOKEN[0] + taken * _PER_TOKEN[1]


def latency_of_call(given: int, taken: int) -> float:
    """Microseconds of a call: reading at 5,000 tokens a second, writing at 50."""
    return given * PREFILL_US_PER_TOKEN + taken * DECODE_US_PER_TOKEN
