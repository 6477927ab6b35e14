"""A usage topic in memory, read by workers that crash: what survives is what was acknowledged, and
the committed offset."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stepstream.schemas.fleet import FleetWindowStruct
from stepstream.schemas.policy import Policy
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.stream.core.outputs import Output
from stepstream.stream.usage.partition import WindowPartition
from stepstream.stream.usage.windows.checkpoint import KEY_PREFIX, decode_checkpoint
from stepstream.stream.usage.windows.limits import UsageLimits
from stepstream.stream.usage.windows.rules import WindowRules

# A whole hour, and the beginning of a day in UTC + 0.
T0 = 1_700_006_400_000_000
T0 -= T0 % HOUR_US

Item = dict[str, Any]
_decode_window = msgspec.json.Decoder(FleetWindowStruct).decode


@dataclass
class Rec:
    """A record of the usage topic."""

    offset: int
    timestamp: int
    value: bytes | None
    key: bytes | None = b"shop"
    headers: Sequence[tuple[str, bytes]] = ()


def used(
    trace: str, minute: int, revision: int, cost: int = 0, steps: int = 1, **more: Any
) -> Item:
    """A run's minute; ``minute`` counts from ``T0``, ``cost`` in nano-dollars."""
    item = {
        "project": "shop",
        "trace_id": trace,
        "revision": revision,
        "minute": T0 + minute * MINUTE_US,
        "agent": "a",
    }
    return item | {"steps": steps, "cost_usd": f"{cost / 1e9:.9f}"} | more


def closed(trace: str, minute: int, revision: int, status: str = "ok", **more: Any) -> Item:
    """A closed run's summary."""
    item = {
        "kind": "run",
        "project": "shop",
        "trace_id": trace,
        "revision": revision,
        "status": status,
        "agent": "a",
    }
    return item | {"time": T0 + minute * MINUTE_US + 1, "duration_us": 1_000_000} | more


def progress(minute: float, partition: int = 0) -> Item:
    """A partition of steps is so far."""
    return {"kind": "progress", "partition": partition, "time": int(T0 + minute * MINUTE_US)}


def records(items: Sequence[Item]) -> list[Rec]:
    """The items as a log. A record is appended at the last progress reported before it."""
    log, now_us = [], T0
    for offset, item in enumerate(items):
        if item.get("kind") == "progress":
            now_us = max(now_us, item["time"])
        log.append(Rec(offset, now_us // 1000, msgspec.json.encode(item)))
    return log


@dataclass
class Kafka:
    """What is acknowledged: the fleet topic, findings in order, and the committed offset."""

    fleet: list[Output] = field(default_factory=list)
    findings: list[Item] = field(default_factory=list)
    committed: int = 0

    def deliver(self, output: Output) -> None:
        """Append to the output's topic."""
        if output.topic == "fleet":
            self.fleet.append(output)
        elif output.topic == "findings":
            defaults = {"state": "firing", "severity": "warning"}
            self.findings.append(defaults | msgspec.json.decode(output.value or b""))

    def newest(self) -> dict[bytes, bytes]:
        """The newest record of each key, as compaction leaves it."""
        found: dict[bytes, bytes] = {}
        for output in self.fleet:
            key = output.key or b""
            if output.value is None:
                found.pop(key, None)
            else:
                found[key] = output.value
        return found

    def windows(self) -> list[FleetWindowStruct]:
        """All windows that stand on the topic."""
        return [_decode_window(value) for key, value in self.newest().items() if b"|window|" in key]

    def sealed(self) -> dict[tuple[str, ...], int]:
        """Nano-dollars by owner and minute, as a reader sums them: an hour replaces its parts."""
        windows = self.windows()
        hours = {(owner(w), w.start) for w in windows if w.end - w.start == HOUR_US}
        sums: dict[tuple[str, ...], int] = {}
        for window in windows:
            hour = window.start - window.start % HOUR_US
            if window.end - window.start < HOUR_US and (owner(window), hour) in hours:
                continue
            for item in window.minutes:
                key = (*owner(window), str(hour + item.minute * MINUTE_US))
                # A reader that adds windows up would count it twice.
                assert key not in sums, "a minute stands in two windows"
                sums[key] = item.cost_nanos
        return sums

    def distinct_findings(self) -> dict[str, Item]:
        """By id; records with the same id must be equal."""
        found: dict[str, Item] = {}
        for item in self.findings:
            # The same id with other contents would be two truths about one finding.
            assert found.setdefault(item["finding_id"], item) == item
        return found


def owner(window: FleetWindowStruct) -> tuple[str, ...]:
    return (
        window.project,
        window.environment,
        window.agent,
        window.agent_version,
        window.task,
        window.user_id,
    )


def rules(*documents: Item) -> WindowRules:
    """The rules of policies, each given by its rules."""
    return WindowRules(
        Policy.model_validate({"name": f"p{number}"} | item)
        for number, item in enumerate(documents)
    )


class Process:
    """A worker's life between two crashes."""

    def __init__(
        self,
        kafka: Kafka,
        rng: random.Random,
        window_rules: WindowRules | None = None,
        limits: UsageLimits | None = None,
        partitions: int = 1,
    ) -> None:
        self.kafka, self.rng = kafka, rng
        self.logic = WindowPartition(0, partitions, window_rules, limits)
        newest = kafka.newest()
        checkpoints = [
            decode_checkpoint(value) for key, value in newest.items() if key.startswith(KEY_PREFIX)
        ]
        # Of several owners in turn: the one that has read furthest.
        checkpoint = max(checkpoints, key=lambda found: found.through, default=None)
        self.logic.restore(kafka.windows(), checkpoint, kafka.committed)
        self.flight: list[Output] = []

    def process(self, log: Sequence[Rec]) -> None:
        """Process records; some of what is under way arrives meanwhile."""
        for record in log:
            self.logic.process(record)
        self.logic.flush()
        # Only a part is acknowledged when the next batch comes, as with a real broker.
        self.pump(self.rng.random())

    def pump(self, share: float = 1.0) -> None:
        """Deliver the first part of what is under way, then note the safe offset."""
        self.flight += self.logic.take_outputs()
        for output in self._first_of_each_topic(share):
            self.kafka.deliver(output)
            self.logic.acknowledged(output)
        safe = self.logic.offsets.safe
        assert safe >= self.kafka.committed, "the committed offset went back"
        self.kafka.committed = safe

    def settle(self) -> None:
        """Everything is delivered."""
        self.flight += self.logic.take_outputs()
        while self.flight:
            self.pump()
            self.flight += self.logic.take_outputs()

    def crash(self) -> None:
        """A part of what was in flight still arrives, without an acknowledgement."""
        self.flight += self.logic.take_outputs()
        for output in self._first_of_each_topic(self.rng.random()):
            self.kafka.deliver(output)

    def _first_of_each_topic(self, share: float) -> list[Output]:
        """Order holds within a topic only: each is somewhere else."""
        ready = []
        for name in sorted({output.topic for output in self.flight}):
            mine = [output for output in self.flight if output.topic == name]
            ready += mine[
                : round(
                    len(mine) * min(1.0, share * self.rng.choice((0, 1, 2)) if share < 1 else 1.0)
                )
            ]
        self.flight = [output for output in self.flight if output not in ready]
        return ready


def play(
    log: Sequence[Rec],
    seed: int,
    *,
    crash_rate: float = 0.0,
    window_rules: WindowRules | None = None,
    limits: UsageLimits | None = None,
    partitions: int = 1,
    zombies: bool = False,
) -> tuple[Kafka, int]:
    """Read the whole log with crashes at random.

    Zombies go on for a while after they were replaced.
    """
    rng = random.Random(seed)
    kafka = Kafka()
    process = Process(kafka, rng, window_rules, limits, partitions)
    position = crashes = 0
    while position < len(log):
        size = rng.randrange(1, 25)
        process.process(log[position : position + size])
        position += size
        if rng.random() < crash_rate:
            crashes += 1
            old = process
            if not zombies:
                old.crash()
            process = Process(kafka, rng, window_rules, limits, partitions)
            if zombies:
                # A paused worker that was replaced reads on from what it had fetched.
                for record in log[position : position + 40]:
                    old.logic.process(record)
                old.crash()
            position = kafka.committed
    process.settle()
    return kafka, crashes
