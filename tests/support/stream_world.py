"""A small world for the worker's logic: logs of runs, a Kafka in memory that loses what was in
flight, crashes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook

START_US = 1_790_000_000_000_000
PRICES = PriceBook()


@dataclass
class Rec:
    """A consumed record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = RECORD_HEADERS


@dataclass
class Truth:
    """What a run's trajectory must be in the end."""

    steps: int = 0
    cost_nanos: int = 0
    parents: dict[str, str] = field(default_factory=dict)


def event(
    trace_id: str,
    step_id: str,
    parent: str,
    phase: str,
    start_us: int,
    end_us: int = 0,
    **more: Any,
) -> dict[str, Any]:
    """A step event with valid defaults."""
    base: dict[str, Any] = {
        "trace_id": trace_id,
        "step_id": step_id,
        "parent_step_id": parent,
        "phase": phase,
        "kind": "tool_call" if parent else "agent",
        "name": "work" if parent else "run",
        "agent": "tester",
        "start_time": start_us,
    }
    if phase == "end":
        base["end_time"] = end_us or start_us
    return base | more


def make_log(seed: int, runs: int = 60, concurrent: int = 12) -> tuple[list[Rec], dict[str, Truth]]:
    """Interleaved runs with duplicates, out-of-order and late records; log time moves 20 ms a
    record."""
    rng = random.Random(seed)
    truth: dict[str, Truth] = {}
    live: list[list[dict[str, Any]]] = []
    events: list[dict[str, Any]] = []
    waiting: list[tuple[int, dict[str, Any]]] = []
    made = 0
    # Interleaved as many agents would: no run's records follow each other.
    while live or made < runs:
        while len(live) < concurrent and made < runs:
            live.append(_run_events(rng, truth, len(events)))
            made += 1
        chosen = rng.choice(live)
        # 15 % of the records are out of order, and 5 % come a second time.
        position = 0 if rng.random() < 0.85 else rng.randrange(len(chosen))
        picked = chosen.pop(position)
        events.append(picked)
        if rng.random() < 0.05:
            waiting.append((len(events) + rng.randrange(1, 400), picked))
        while waiting and waiting[0][0] <= len(events):
            events.append(waiting.pop(0)[1])
        waiting.sort(key=lambda item: item[0])
        if not chosen:
            live.remove(chosen)
    events += [late for _, late in waiting]
    return [record_of(index, item) for index, item in enumerate(events)], truth


def _run_events(rng: random.Random, truth: dict[str, Truth], at: int) -> list[dict[str, Any]]:
    trace_id = f"{rng.getrandbits(128) | 1:032x}"
    # Each record has to be accepted where it is read.
    while partition_for(trace_id, 1) != 0:
        trace_id = f"{rng.getrandbits(128) | 1:032x}"
    # Five steps in the median, with a long tail, as recorded runs have.
    steps = min(60, max(1, int(rng.lognormvariate(1.6, 1.0))))
    ids = [f"{rng.getrandbits(64) | 1:016x}" for _ in range(steps)]
    start = START_US + at * 20_000
    mine = truth[trace_id] = Truth(steps=steps)
    events = [event(trace_id, ids[0], "", "start", start)]
    for index, step_id in enumerate(ids[1:], 1):
        parent = ids[rng.randrange(index)]
        mine.parents[step_id] = parent
        cost = rng.randrange(0, 5_000_000)
        mine.cost_nanos += cost
        # Not every producer sends starts.
        if rng.random() < 0.6:
            events.append(event(trace_id, step_id, parent, "start", start + index))
        status = "error" if rng.random() < 0.1 else "ok"
        usd = f"{cost / 1e9:.9f}"
        events.append(
            event(
                trace_id,
                step_id,
                parent,
                "end",
                start + index,
                start + index + 5,
                cost_usd=usd,
                status=status,
            )
        )
    mine.parents[ids[0]] = ""
    events.append(event(trace_id, ids[0], "", "end", start, start + 1_000))
    return events


def record_of(offset: int, item: dict[str, Any]) -> Rec:
    return Rec(
        offset,
        (START_US + offset * 20_000) // 1000,
        item["trace_id"].encode(),
        msgspec.json.encode(item),
    )


class Kafka:
    """What survives a crash: topics as acknowledged, and the committed offset."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Output]] = {}
        self.committed = 0

    def deliver(self, output: Output) -> None:
        """Append to the output's topic."""
        self.topics.setdefault(output.topic, []).append(output)

    def values(self, topic: str) -> list[dict[str, Any]]:
        """The JSON values of a topic."""
        return [msgspec.json.decode(output.value or b"") for output in self.topics.get(topic, [])]

    def final(self) -> dict[str, dict[str, Any]]:
        """The highest revision of each trajectory."""
        best: dict[str, dict[str, Any]] = {}
        for value in self.values("trajectories"):
            if value["revision"] > best.get(value["trace_id"], {"revision": -1})["revision"]:
                best[value["trace_id"]] = value
        return best


class Process:
    """A worker's life between two crashes: outputs are in flight for a while, acknowledged in order
    per topic."""

    def __init__(
        self,
        kafka: Kafka,
        rng: random.Random,
        limits: AssembleLimits,
        rules: RuleBook | None = None,
    ) -> None:
        self.kafka, self.rng = kafka, rng
        self.logic = AssemblePartition(
            0, 1, rules=rules or RuleBook((), make_detector), prices=PRICES, limits=limits
        )
        newest: dict[str, Any] = {}
        for output in kafka.topics.get("state", []):
            state = decode_state(output.value or b"")
            # A replaced worker may have written later: `order` decides, not the offset.
            if state.trace_id not in newest or state.order >= newest[state.trace_id].order:
                newest[state.trace_id] = state
        self.logic.restore(newest.values(), kafka.committed)
        self.flight: list[tuple[int, Output]] = []
        self.now = 0

    def batch(self, records: list[Rec]) -> None:
        """Process a batch, send, let some acknowledgements arrive, commit."""
        for record in records:
            self.logic.process(record)
        self.logic.flush()
        self.pump()

    def pump(self) -> None:
        """One turn of sending and acknowledging."""
        self.now += 1
        self._send()
        ready = [item for item in self.flight if item[0] <= self.now]
        self.flight = [item for item in self.flight if item[0] > self.now]
        for _, output in ready:
            self.kafka.deliver(output)
            self.logic.acknowledged(output)
        self._send()
        assert self.logic.offsets.safe >= self.kafka.committed, "the committed offset went back"
        self.kafka.committed = self.logic.offsets.safe

    def _send(self) -> None:
        for output in self.logic.take_outputs():
            last = max(
                (due for due, other in self.flight if other.topic == output.topic), default=0
            )
            # Acknowledged in order per topic, as an idempotent producer does, and across topics in
            # any.
            self.flight.append((max(last, self.now + self.rng.randrange(0, 6)), output))

    def crash(self) -> None:
        """A random part of what was in flight on each topic still arrives."""
        # Of each topic a first part: Kafka has it, and the worker does not know.
        for topic in {output.topic for _, output in self.flight}:
            mine = [output for _, output in self.flight if output.topic == topic]
            for output in mine[: self.rng.randrange(len(mine) + 1)]:
                self.kafka.deliver(output)

    def settle(self, end_us: int) -> None:
        """Time passes with nothing more to read, until everything is closed and acknowledged."""
        # 200 s of log time: longer than any timer of these tests.
        for step in range(1, 400):
            self.logic.tick(end_us + step * 500_000)
            self.logic.flush()
            self.pump()
            if not self.flight and not self.logic.runs:
                return


def play(
    log: list[Rec], seed: int, *, crash_rate: float = 0.0, limits: AssembleLimits | None = None
) -> tuple[Kafka, int]:
    """Read the whole log with crashes at random; returns what Kafka holds, and how many crashes
    there were."""
    rng = random.Random(seed)
    kafka = Kafka()
    limits = limits or AssembleLimits(replay_records=200)
    process = Process(kafka, rng, limits)
    position = kafka.committed
    crashes = 0
    while position < len(log):
        size = rng.randrange(1, 60)
        process.batch(log[position : position + size])
        position += size
        if rng.random() < crash_rate:
            process.crash()
            crashes += 1
            process = Process(kafka, rng, limits)
            position = kafka.committed
    process.settle(log[-1].timestamp * 1000)
    return kafka, crashes
