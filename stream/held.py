"""How much memory runs take, near enough to bound it. ``benchmarks/memory.py`` shows how near."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import nsmallest
from typing import Final

from stepstream.stream.run import Run
from stepstream.stream.tracked import Tracked

RUN_BYTES: Final = 3_500
STEP_BYTES: Final = 1_150
WEIGH_EVERY_US: Final = 1_000_000
"""To weigh very many runs costs half a microsecond each: not after every batch,"""
WEIGH_SELDOM_US: Final = 10_000_000
"""and less often while far less is held than may be."""


def run_bytes(run: Run) -> int:
    """Of an open run: by its steps, and where it has many by their texts."""
    return RUN_BYTES + STEP_BYTES * len(run.steps) + max(0, run.text_size)


def weigh_again_us(weight_bytes: int, most_bytes: int) -> int:
    """How long after a weighing the next one comes."""
    free = max(0.0, 1 - weight_bytes / most_bytes)
    return WEIGH_EVERY_US + int(free * (WEIGH_SELDOM_US - WEIGH_EVERY_US))


def held_bytes(held: Iterable[Tracked]) -> int:
    """Of all these runs."""
    return sum(run_bytes(tracked.run) for tracked in held)


def idlest(held: Collection[Tracked], wanted_bytes: int) -> list[Tracked]:
    """The open runs that were silent for longest and together take so much."""
    found: list[Tracked] = []
    for tracked in sorted(_still_open(held), key=_last_append) if wanted_bytes > 0 else ():
        if wanted_bytes <= 0:
            break
        found.append(tracked)
        wanted_bytes -= run_bytes(tracked.run)
    return found


def too_many(held: Collection[Tracked], most: int) -> list[Tracked]:
    """The idlest open runs where there are more than ``most``: a few more than that, so that not every batch looks for them."""
    if len(held) <= most:
        return []
    still_open = _still_open(held)
    return nsmallest(len(still_open) - (most - most // 100), still_open, key=_last_append) if len(still_open) > most else []


def _still_open(held: Iterable[Tracked]) -> list[Tracked]:
    return [tracked for tracked in held if not tracked.run.closed]


def _last_append(tracked: Tracked) -> int:
    return tracked.run.last_append_us
