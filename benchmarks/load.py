"""Realistic step events: about 900 bytes, ten to sixty steps a run, several thousand runs open at
once. Seeded.

Runs arrive and take their time as recorded agents do (``benchmarks.workload``,
``benchmarks.agent_run``); the whole timeline is then sped up or slowed down so that a given number
of events happens in a second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush, heapreplace
from itertools import islice
from statistics import fmean
from typing import Final

import msgspec

from benchmarks.agent_run import AgentRun, TextPool, Timed
from benchmarks.workload import Workload, workload
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import Step

SURVEYED_RUNS: Final = 100
# How much faster runs arrive until `open_runs` have.
RUSH: Final = 20


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What to make. ``events`` counts records, two a step; 0 lets every run end and makes ``runs``
    of them.

    With ``under_way`` the load begins with ``open_runs`` runs in the midst of their lives: all
    their roots start at once, and what they still do is a random part of what a run does, so that
    runs open and close evenly from then on.
    """

    runs: int = 1_000
    events: int = 0
    open_runs: int = 3_000
    events_per_s: float = 40_000.0
    fewest_steps: int = 10
    median_steps: int = 20
    most_steps: int = 60
    start_us: int = 0
    seed: int = 1
    # The log begins in the middle of running agents, instead of with their first runs.
    under_way: bool = False

    def at_rate(self, events_per_s: float) -> LoadSpec:
        """At another rate, with as many runs open as keep each as busy as it is now."""
        open_runs = max(10, round(self.open_runs * events_per_s / self.events_per_s))
        return replace(self, events_per_s=events_per_s, open_runs=open_runs)

    def sized(self, events: int) -> LoadSpec:
        """With as many whole runs as make about this many events."""
        return replace(self, runs=max(1, round(events / self.mean_events())))

    def mean_events(self) -> float:
        """Events of a run, on average."""
        # A generator of its own: asking for the mean must not change the load that is made next.
        rng = random.Random(0)
        return 2 * fmean(steps_of(rng, self) for _ in range(2_000))


@dataclass(slots=True)
class Truth:
    """What was made: the numbers that must come out again.

    ``runs`` began, ``open`` of them do not end.
    """

    events: int = 0
    steps: int = 0
    runs: int = 0
    open: int = 0
    cost_nanos: int = 0
    value_bytes: int = 0

    def __add__(self, other: Truth) -> Truth:
        return Truth(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class Load:
    """Records ready to be sent, in order: keys and values of the same length."""

    keys: list[bytes]
    values: list[bytes]
    truth: Truth
    source: str


def steps_of(rng: random.Random, spec: LoadSpec) -> int:
    """Steps of a run: lognormal, between the bounds."""
    drawn = spec.median_steps * math.exp(rng.gauss(0, 0.5))
    return int(min(spec.most_steps, max(spec.fewest_steps, drawn)))


def make_load(spec: LoadSpec) -> Load:
    """All of it in memory, encoded as the SDK encodes."""
    source = workload()
    encode = msgspec.json.Encoder().encode
    truth = Truth()
    keys: list[bytes] = []
    values: list[bytes] = []
    open_keys: dict[str, bytes] = {}
    for step in islice(timeline(spec, source), spec.events or None):
        key = open_keys.get(step.trace_id)
        if key is None:
            key = open_keys[step.trace_id] = step.trace_id.encode()
            truth.runs += 1
        if step.phase == "end":
            truth.steps += 1
            truth.cost_nanos += nanos_from_usd(step.cost_usd) if step.cost_usd is not None else 0
            if not step.parent_step_id:
                del open_keys[step.trace_id]
        value = encode(step)
        truth.value_bytes += len(value)
        keys.append(key)
        values.append(value)
    truth.events, truth.open = len(values), len(open_keys)
    return Load(keys, values, truth, source.source)


class _Timeline:
    """Runs side by side: the next event is always the earliest."""

    def __init__(self, spec: LoadSpec, source: Workload) -> None:
        self._spec = spec
        self._source = source
        self._rng = random.Random(spec.seed)
        self._texts = TextPool(random.Random(spec.seed + 1))
        self._prices = PriceBook()
        self._heap: list[tuple[float, int, float, Step, Iterator[Timed]]] = []
        self._begun = 0
        duration_s, events = self._survey()
        self._gap_s = duration_s / spec.open_runs
        # Seconds of the load's time that pass in a second of its runs' time.
        self.speed = spec.open_runs * events / duration_s / spec.events_per_s

    def _survey(self) -> tuple[float, float]:
        """How long a run takes and how many events it has, on average."""
        rng = random.Random(self._spec.seed + 2)
        runs = [list(self._run(rng).events()) for _ in range(SURVEYED_RUNS)]
        return fmean(run[-1][0] for run in runs), fmean(len(run) for run in runs)

    def _run(self, rng: random.Random, share: float = 1.0) -> AgentRun:
        steps = max(2, round(share * steps_of(rng, self._spec)))
        return AgentRun(rng, steps, self._source, self._texts, self._prices)

    def steps(self) -> Iterator[tuple[float, float, Step]]:
        """When the run began, when this happens (in the runs' time), and the event."""
        next_s, heap = self._begin_under_way(), self._heap
        while heap or self._wants_more():
            while self._wants_more() and (not heap or next_s <= heap[0][0]):
                self._begin(next_s, next_s, 1.0)
                rush = RUSH if self._begun < self._spec.open_runs else 1
                next_s += self._source.gap(self._rng) * self._gap_s / rush
            at_s, number, began_s, step, events = heap[0]
            yield began_s, at_s, step
            following = next(events, None)
            if following is None:
                heappop(heap)
            else:
                heapreplace(heap, (began_s + following[0], number, began_s, following[1], events))

    def _wants_more(self) -> bool:
        return bool(self._spec.events) or self._begun < self._spec.runs

    def _begin(self, first_s: float, began_s: float, share: float) -> None:
        events = self._run(self._rng, share).events()
        _, step = next(events)
        heappush(self._heap, (first_s, self._begun, began_s, step, events))
        self._begun += 1

    def _begin_under_way(self) -> float:
        if self._spec.under_way:
            for _ in range(self._spec.open_runs):
                self._begin(0.0, self._rng.random() * self._gap_s, 1.0 - self._rng.random())
        return 0.0


def timeline(spec: LoadSpec, source: Workload) -> Iterator[Step]:
    """Events in order, with their times: endless where ``spec.events`` is set, which is then the
    number to take."""
    line = _Timeline(spec, source)
    to_us = line.speed * 1e6
    for began_s, _, step in line.steps():
        began_us = spec.start_us + int(began_s * to_us)
        step.start_time = began_us + int(step.start_time * line.speed)
        if step.end_time is not None:
            step.end_time = began_us + int(step.end_time * line.speed)
        yield step
