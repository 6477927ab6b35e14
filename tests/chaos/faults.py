"""What is broken when: a seeded schedule of faults on workers and brokers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import methodcaller
from typing import Protocol


class Target(Protocol):
    """What faults are done to."""

    def kill_worker(self, slot: int) -> None:
        """SIGKILL; its supervisor starts it again."""

    def freeze_worker(self, slot: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""

    def roll_worker(self, slot: int) -> None:
        """SIGTERM; its supervisor starts it again."""

    def remove_worker(self, slot: int) -> None:
        """SIGTERM, and nobody starts it again until ``add_worker``."""

    def add_worker(self, slot: int) -> None:
        """One worker more."""

    def kill_broker(self, node: int, down_s: float) -> None:
        """SIGKILL, and start it again after a while."""

    def freeze_broker(self, node: int, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""

    def slow_broker(self, node: int, seconds: float) -> None:
        """It runs for a moment and stands for a moment, again and again."""

    def kill_all_brokers(self, down_s: float) -> None:
        """SIGKILL to all of them, and start them again after a while."""


@dataclass(frozen=True)
class Fault:
    """One thing that is done at a time, in seconds from the start of the load."""

    at_s: float
    name: str
    do: Callable[[Target], None]


@dataclass(frozen=True)
class Mix:
    """How many faults of each kind are spread over the time of the load."""

    kills: int = 0
    freezes: int = 0
    freeze_s: float = 9.0
    rolls: int = 0
    joins: int = 0
    broker_kills: int = 0
    broker_down_s: float = 2.0
    broker_freezes: int = 0
    broker_freeze_s: float = 8.0
    broker_slows: int = 0
    broker_slow_s: float = 8.0
    blackouts: int = 0
    blackout_s: float = 6.0


def schedule(seed: int, mix: Mix, seconds: float, workers: int, nodes: int) -> list[Fault]:
    """The faults in order. Broker faults are kept apart from each other: each starts when the one before is over."""
    rng = random.Random(seed)
    faults = list(_worker_faults(rng, mix, seconds, workers))
    faults += _broker_faults(rng, mix, seconds, nodes)
    return sorted(faults, key=lambda fault: fault.at_s)


def _worker_faults(rng: random.Random, mix: Mix, seconds: float, workers: int) -> Iterator[Fault]:
    def some_time() -> float:
        return rng.uniform(3, seconds)

    for _ in range(mix.kills):
        slot = rng.randrange(workers)
        yield Fault(some_time(), f"kill worker {slot}", methodcaller("kill_worker", slot))
    for _ in range(mix.freezes):
        slot = rng.randrange(workers)
        yield Fault(some_time(), f"freeze worker {slot}", methodcaller("freeze_worker", slot, mix.freeze_s))
    for _ in range(mix.rolls):
        at_s = some_time()
        for slot in range(workers):
            yield Fault(at_s + 1.5 * slot, f"roll worker {slot}", methodcaller("roll_worker", slot))
    for _ in range(mix.joins):
        slot = rng.randrange(workers)
        at_s = some_time()
        yield Fault(at_s, f"remove worker {slot}", methodcaller("remove_worker", slot))
        yield Fault(at_s + rng.uniform(1, 6), f"add worker {slot}", methodcaller("add_worker", slot))


def _broker_faults(rng: random.Random, mix: Mix, seconds: float, nodes: int) -> Iterator[Fault]:
    kinds = ["kill"] * mix.broker_kills + ["freeze"] * mix.broker_freezes
    kinds += ["slow"] * mix.broker_slows + ["blackout"] * mix.blackouts
    rng.shuffle(kinds)
    room_s = (seconds - 5) / max(1, len(kinds))
    for index, kind in enumerate(kinds):
        at_s = 4 + index * room_s + rng.uniform(0, room_s * 0.2)
        node = rng.randrange(nodes)
        if kind == "kill":
            yield Fault(at_s, f"kill broker {node}", methodcaller("kill_broker", node, mix.broker_down_s))
        elif kind == "freeze":
            yield Fault(at_s, f"freeze broker {node}", methodcaller("freeze_broker", node, mix.broker_freeze_s))
        elif kind == "slow":
            yield Fault(at_s, f"slow broker {node}", methodcaller("slow_broker", node, mix.broker_slow_s))
        else:
            yield Fault(at_s, "all brokers down", methodcaller("kill_all_brokers", mix.blackout_s))
