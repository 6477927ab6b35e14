"""What is broken when: a seeded schedule of faults on workers and brokers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import methodcaller
from typing import Protocol


class Target(Protocol):
    """What faults are done to."""

    def kill(self, crew: str, slot: int) -> None:
        """SIGKILL; its supervisor starts it again."""

    def freeze(self, crew: str, slot: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""

    def roll(self, crew: str, slot: int) -> None:
        """SIGTERM; its supervisor starts it again."""

    def remove(self, crew: str, slot: int) -> None:
        """SIGTERM, without a restart until ``add``."""

    def add(self, crew: str, slot: int) -> None:
        """Start a removed process again."""

    def kill_broker(self, node: int, down_s: float) -> None:
        """SIGKILL, and start it again after a while."""

    def freeze_broker(self, node: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""

    def slow_broker(self, node: int, seconds: float) -> None:
        """It runs for a moment and stands for a moment, again and again."""

    def refuse(self, seconds: float) -> None:
        """Brokers answer, and refuse to take what workers publish."""

    def kill_all_brokers(self, down_s: float) -> None:
        """SIGKILL to all of them, and start them again after a while."""

    def kill_store(self, down_s: float) -> None:
        """SIGKILL to ClickHouse, and start it again after a while."""

    def freeze_store(self, seconds: float) -> None:
        """SIGSTOP to ClickHouse, and SIGCONT after a while."""


@dataclass(frozen=True)
class Fault:
    """One thing that is done at a time, in seconds from the start of the load."""

    at_s: float
    name: str
    do: Callable[[Target], None]


@dataclass(frozen=True)
class Mix:
    """How many faults of each kind are spread over the time of the load, on the processes of one
    crew."""

    kills: int = 0
    freezes: int = 0
    freeze_s: float = 9.0
    rolls: int = 0
    joins: int = 0


@dataclass(frozen=True)
class BrokerMix:
    """How many faults of each kind are done to the brokers, one after the other."""

    kills: int = 0
    down_s: float = 2.0
    freezes: int = 0
    freeze_s: float = 8.0
    slows: int = 0
    slow_s: float = 8.0
    refusals: int = 0
    refusal_s: float = 6.0
    blackouts: int = 0
    blackout_s: float = 6.0


@dataclass(frozen=True)
class StoreMix:
    """How many faults of each kind are done to ClickHouse, one after the other."""

    kills: int = 0
    down_s: float = 2.0
    freezes: int = 0
    freeze_s: float = 8.0


def process_faults(seed: str, crew: str, mix: Mix, seconds: float, count: int) -> Iterator[Fault]:
    """Faults on the ``count`` processes of a crew, at random moments."""
    # A seed for each crew: another crew in the scenario does not move these faults.
    rng = random.Random(seed + crew)

    def some_time() -> float:
        # Not in the first seconds: processes that have not joined yet would only start again.
        return rng.uniform(3, seconds)

    for _ in range(mix.kills):
        slot = rng.randrange(count)
        yield Fault(some_time(), f"kill {crew} {slot}", methodcaller("kill", crew, slot))
    for _ in range(mix.freezes):
        slot = rng.randrange(count)
        yield Fault(
            some_time(), f"freeze {crew} {slot}", methodcaller("freeze", crew, slot, mix.freeze_s)
        )
    for _ in range(mix.rolls):
        at_s = some_time()
        for slot in range(count):
            # One after the other, as a deployment replaces them.
            yield Fault(at_s + 1.5 * slot, f"roll {crew} {slot}", methodcaller("roll", crew, slot))
    for _ in range(mix.joins):
        slot = rng.randrange(count)
        at_s = some_time()
        yield Fault(at_s, f"remove {crew} {slot}", methodcaller("remove", crew, slot))
        yield Fault(at_s + rng.uniform(1, 6), f"add {crew} {slot}", methodcaller("add", crew, slot))


def broker_faults(seed: str, mix: BrokerMix, seconds: float, nodes: int) -> Iterator[Fault]:
    """Faults on the brokers, in order: each is over before the next begins."""
    rng = random.Random(seed + "brokers")
    kinds = (
        ["kill"] * mix.kills
        + ["freeze"] * mix.freezes
        + ["slow"] * mix.slows
        + ["blackout"] * mix.blackouts
    )
    for at_s, kind in _spread(rng, [*kinds, *["refuse"] * mix.refusals], seconds):
        node = rng.randrange(nodes)
        if kind == "kill":
            yield Fault(at_s, f"kill broker {node}", methodcaller("kill_broker", node, mix.down_s))
        elif kind == "freeze":
            yield Fault(
                at_s, f"freeze broker {node}", methodcaller("freeze_broker", node, mix.freeze_s)
            )
        elif kind == "slow":
            yield Fault(at_s, f"slow broker {node}", methodcaller("slow_broker", node, mix.slow_s))
        elif kind == "refuse":
            yield Fault(at_s, "brokers refuse", methodcaller("refuse", mix.refusal_s))
        else:
            yield Fault(at_s, "all brokers down", methodcaller("kill_all_brokers", mix.blackout_s))


def store_faults(seed: str, mix: StoreMix, seconds: float) -> Iterator[Fault]:
    """Faults on ClickHouse, in order: each is over before the next begins."""
    rng = random.Random(seed + "store")
    for at_s, kind in _spread(rng, ["kill"] * mix.kills + ["freeze"] * mix.freezes, seconds):
        if kind == "kill":
            yield Fault(at_s, "kill the store", methodcaller("kill_store", mix.down_s))
        else:
            yield Fault(at_s, "freeze the store", methodcaller("freeze_store", mix.freeze_s))


def _spread(rng: random.Random, kinds: list[str], seconds: float) -> Iterator[tuple[float, str]]:
    """Each kind at a time of its own, in any order."""
    rng.shuffle(kinds)
    # Equal parts of the time: a fault of an engine is over before the next one begins.
    room_s = (seconds - 5) / max(1, len(kinds))
    for index, kind in enumerate(kinds):
        yield 4 + index * room_s + rng.uniform(0, room_s * 0.2), kind
