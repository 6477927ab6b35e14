"""30 days of hourly cost and latency of made-up agents: spikes are planted, and must be found; the
rest must stay quiet.

The detector is the rule's default. It is compared with simple methods and, for agents with few runs
whose hours differ by chance, with the best result that is possible.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev
from typing import Final

import msgspec

from benchmarks.detection.planted import (
    BUSY,
    DAYS,
    SHIFT_DAY,
    SPARSE,
    AgentSpec,
    Source,
    Window,
    best_possible,
    make_agent,
    sources,
    windows_of,
)
from benchmarks.detection.score import per_hundred, share_text, wilson
from benchmarks.harness import Goal, Report
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.times import HOUR_US
from stepstream.schemas.usage import TokenUsageStruct
from stepstream.stream.usage.detectors.spike_model import LEARN_WINDOWS, SpikeModel

# Saturday, 2024-12-28, 00:00 UTC.
START_US: Final = 1_735_689_600_000_000 - 4 * 24 * HOUR_US

AGENTS: Final = 24
SPARSE_AGENTS: Final = 12
QUICK_SHARE: Final = 6
# For two days after a shift of level an alarm about it is true; from then on it must be the new
# normal.
SHIFT_KNOWN_H: Final = 48

PREFILL_US_PER_TOKEN: Final = 200
DECODE_US_PER_TOKEN: Final = 20_000


# -- methods --

# For each window, whether it is a spike by what came before it.
Method = Callable[[Sequence[Window]], list[bool]]


def ours(windows: Sequence[Window]) -> list[bool]:
    """The detector of ``spend_spike``, by its defaults."""
    model = SpikeModel()
    found = []
    for window in windows:
        at_us = START_US + window.hour * HOUR_US
        found.append(model.is_spike(at_us, window.value, window.count))
        model.learn(at_us, window.value, window.count)
    return found


def times_the_mean(windows: Sequence[Window]) -> list[bool]:
    """More than three times the mean of the last seven days."""
    return _by_past(windows, lambda past, value: value > 3 * fmean(past))


def three_deviations(windows: Sequence[Window]) -> list[bool]:
    """More than three standard deviations above the mean of the last seven days."""
    return _by_past(windows, lambda past, value: value > fmean(past) + 3 * pstdev(past))


def _by_past(
    windows: Sequence[Window], is_spike: Callable[[Sequence[float], float], bool]
) -> list[bool]:
    past: deque[float] = deque(maxlen=7 * 24)
    found = []
    for window in windows:
        found.append(len(past) >= LEARN_WINDOWS and is_spike(past, window.value))
        past.append(window.value)
    return found


BEST: Final = "best possible at 1 false alarm per 1,000"
OURS: Final = "spend spike, as it is by default"
METHODS: Final[dict[str, Method]] = {
    OURS: ours,
    "3 x the mean of 7 days": times_the_mean,
    "mean + 3 deviations of 7 days": three_deviations,
}


# -- scores --


@dataclass(slots=True)
class Tally:
    """Planted and found spikes by factor, and false alarms in windows without one."""

    planted: dict[str, int] = field(default_factory=dict)
    found: dict[str, int] = field(default_factory=dict)
    at_once: int = 0
    false: int = 0
    quiet_windows: int = 0
    false_of: dict[str, int] = field(default_factory=dict)
    quiet_of: dict[str, int] = field(default_factory=dict)

    def take(self, agent: AgentSpec, windows: Sequence[Window], found: Sequence[bool]) -> None:
        """Score one month. A spike in hours without runs does not count."""
        for spike in agent.spikes:
            if not any(
                windows[hour].count for hour in range(spike.first, spike.first + spike.hours)
            ):
                continue
            hours = [hour for hour in range(spike.first, spike.first + spike.hours) if found[hour]]
            self._count(
                f"{spike.factor:.0f}x", bool(hours), at_once=bool(hours) and hours[0] == spike.first
            )
        if agent.trend == "shift":
            first = SHIFT_DAY * 24
            self._count("shift", any(found[first : first + SHIFT_KNOWN_H]), at_once=found[first])
        for hour, is_found in enumerate(found):
            if hour >= LEARN_WINDOWS and not _has_spike(agent, hour):
                self.quiet_windows += 1
                self.false += is_found
                for sort in _sorts_of(agent, hour):
                    self.quiet_of[sort] = self.quiet_of.get(sort, 0) + 1
                    self.false_of[sort] = self.false_of.get(sort, 0) + is_found

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


def _has_spike(agent: AgentSpec, hour: int) -> bool:
    shifted = agent.trend == "shift" and 0 <= hour - SHIFT_DAY * 24 < SHIFT_KNOWN_H
    return shifted or any(spike.includes(hour) for spike in agent.spikes)


def _sorts_of(agent: AgentSpec, hour: int) -> Iterator[str]:
    """Names of patterns that may cause a false alarm in this hour."""
    day, of_day = divmod(hour, 24)
    if day < 7:
        yield "the first week"
    if agent.trend == "drift":
        yield "a drift to 2x"
    if agent.trend == "shift" and hour >= SHIFT_DAY * 24:
        yield "after the shift was known"
    if agent.day_swing >= STRONG_SWING and of_day in PEAK_HOURS:
        yield "the day's peak, strong cycle"
    if agent.weekend < 1 and day % 7 == FIRST_WEEKDAY and day > FIRST_WEEKDAY:
        yield "Mondays after a quiet weekend"


SORTS: Final = (
    "the first week",
    "a drift to 2x",
    "after the shift was known",
    "the day's peak, strong cycle",
    "Mondays after a quiet weekend",
)
STRONG_SWING: Final = 0.5
PEAK_HOURS: Final = range(12, 19)
# The month begins on a Saturday.
FIRST_WEEKDAY: Final = 2

KINDS: Final = ("2x", "5x", "10x", "shift")


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Plant spikes, run the methods, score them."""
    all_sources = sources()
    columns = (
        "",
        *(f"found {kind}" for kind in KINDS),
        "false alarms per 1,000 windows",
        "found in the first hour",
    )
    for name, agents, rates in (("busy", AGENTS, BUSY), ("sparse", SPARSE_AGENTS, SPARSE)):
        count = agents // QUICK_SHARE if report.quick else agents
        report.progress(f"{count} {name} agents, {DAYS} days of hours, cost and latency")
        tallies = _tallies(f"{arguments.seed}/{name}", count, rates, all_sources)
        title = (
            f"{count} agents with {rates[0]:.0f} to {rates[1]:.0f} runs an hour: spikes of 1 to 3 "
            "hours, a lasting shift to 4x"
        )
        report.table(title, columns, [_row(method, tally) for method, tally in tallies.items()])
        sorts = [
            (method, *(_false_text(tallies[method], sort) for sort in SORTS)) for method in METHODS
        ]
        report.table("false alarms per 1,000 windows, by what may mislead", ("", *SORTS), sorts)
        _figures(report, tallies[OURS], name, tallies.get(BEST))


def _tallies(
    seed: str, count: int, rates: tuple[float, float], all_sources: Sequence[Source]
) -> dict[str, Tally]:
    tallies = {name: Tally() for name in METHODS}
    for number in range(count):
        agent = make_agent(number, seed, all_sources, rates)
        for what, amount in (("cost", cost_of_call), ("latency", latency_of_call)):
            windows = list(
                windows_of(agent, f"{seed}/{number}/{what}", amount, latency=what == "latency")
            )
            for name, method in METHODS.items():
                tallies[name].take(agent, windows, method(windows))
            if rates == SPARSE:
                tallies.setdefault(BEST, Tally()).take(
                    agent, windows, best_possible(agent, windows, amount)
                )
    return tallies


def _per_thousand(false: int, windows: int) -> str:
    if not windows:
        return "-"
    low, high = wilson(false, windows)
    return f"{1000 * false / windows:.2f} ({false}/{windows:,}, {1000 * low:.2f}-{1000 * high:.2f})"


def _false_text(tally: Tally, sort: str) -> str:
    return _per_thousand(tally.false_of.get(sort, 0), tally.quiet_of.get(sort, 0))


def _row(name: str, tally: Tally) -> tuple[str, ...]:
    shown = _per_thousand(tally.false, tally.quiet_windows)
    found = sum(tally.found.values())
    recalls = [share_text(tally.found.get(kind, 0), tally.planted.get(kind, 0)) for kind in KINDS]
    if name == BEST:
        return (name, *recalls[:-1], "-", "-", "-")
    return (name, *recalls, shown, per_hundred(tally.at_once, found) if found else "-")


def _figures(report: Report, tally: Tally, name: str, best: Tally | None) -> None:
    """Where chance hides spikes, what is found is compared with the best possible result."""
    series = "series" if name == "busy" else f"series_{name}"
    for kind in KINDS:
        report.figures[f"{series}_recall_{kind}"] = tally.recall(kind) or 0.0
    report.figures[f"{series}_false_alarms_per_1000_windows"] = tally.false_per_1000 or 0.0
    report.figures[f"{series}_windows"] = tally.quiet_windows
    for kind, busy, sparse in (("10x", 0.99, 0.9), ("5x", 0.9, 0.8)):
        recall, at_best = tally.recall(kind), best.recall(kind) if best is not None else None
        if best is None:
            report.goals.append(
                Goal(f"series: spikes of {kind} found", recall, busy, "of them", at_most=False)
            )
        elif recall is not None and at_best:
            what = f"series, {name} agents: spikes of {kind} found, of the possible"
            report.goals.append(Goal(what, recall / at_best, sparse, "of them", at_most=False))
    what = "series" if best is None else f"series, {name} agents"
    report.goals.append(
        Goal(f"{what}: false alarms per 1,000 windows", tally.false_per_1000, 1.0, "")
    )


_PRICES: Final = PriceBook()
_PER_TOKEN: Final = tuple(
    (
        _PRICES.price(
            "openai", "gpt-4o", msgspec.convert({field: 1_000_000}, TokenUsageStruct), START_US
        ).nanos
        or 0
    )
    / 1_000_000
    for field in ("input_tokens", "output_tokens")
)


def cost_of_call(given: int, taken: int) -> float:
    """Nano-dollars of a call, by gpt-4o's list price."""
    return given * _PER_TOKEN[0] + taken * _PER_TOKEN[1]


def latency_of_call(given: int, taken: int) -> float:
    """Microseconds of a call: reading at 5,000 tokens a second, writing at 50."""
    return given * PREFILL_US_PER_TOKEN + taken * DECODE_US_PER_TOKEN
