"""Recognises repeated steps: the keys of the steps of a partition's last million offsets.

The store removes repeated rows by itself, but rollups have added them up by then: a step that a
producer sends again, at a new offset, would count twice there.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from typing import Final

SPAN: Final = 1_000_000
PRIME: Final = 14_695_981_039_346_656_039
"""A 64-bit prime: a key is the step's 192 id bits modulo it."""

SPREAD: Final = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio (Fibonacci hashing): spreads keys that differ in a few bits."""

KEY_SQL: Final = (
    "toUInt64(reinterpretAsUInt256(reverse(unhex(concat(trace_id, step_id)))) "
    f"% toUInt256('{PRIME}'))"
)
"""The same key, computed by ClickHouse."""


def step_keys(ids: Iterable[str]) -> list[int]:
    """The keys of several steps, each given as trace id and step id, joined.

    Two steps share a key with a probability of 2^-64.
    """
    return [int(joined, 16) % PRIME for joined in ids]


class KeySet:
    """A set of 64-bit keys in one array (open addressing, at most half full).

    A million keys take 28 MiB, in a ``set`` of integers 83 MiB, for 0.7 us more CPU per key
    (``python -m benchmarks.sink_memory``, "key_set"). A sink has two per partition.
    """

    __slots__ = ("_mask", "_slots", "count")

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * 1024))
        self._mask = 1023
        self.count = 0

    def __contains__(self, key: int) -> bool:
        slots, mask = self._slots, self._mask
        key = key or PRIME  # an empty slot is 0
        place = (key * SPREAD >> 40) & mask
        while found := slots[place]:
            if found == key:
                return True
            place = (place + 1) & mask
        return False

    def intersection(self, keys: Collection[int]) -> set[int]:
        """Those of ``keys`` that are in the set."""
        slots, mask = self._slots, self._mask
        # Most keys are new, and an empty slot settles that without a call.
        return {
            key for key in keys if slots[((key or PRIME) * SPREAD >> 40) & mask] and key in self
        }

    def update(self, keys: Collection[int]) -> None:
        """Add keys."""
        self._make_room(len(keys))
        slots, mask, added = self._slots, self._mask, 0
        for key in keys:
            wanted = key or PRIME
            place = (wanted * SPREAD >> 40) & mask
            while found := slots[place]:
                if found == wanted:
                    break
                place = (place + 1) & mask
            else:
                slots[place] = wanted
                added += 1
        self.count += added

    def _make_room(self, more: int) -> None:
        size = len(self._slots)
        while (self.count + more) * 2 > size:
            size *= 2
        if size > len(self._slots):
            keys = [key for key in self._slots if key]
            self._slots = array("Q", bytes(8 * size))
            self._mask = size - 1
            self.count = 0
            self.update(keys)


class SeenWindow:
    """Keys of at least the last ``span`` offsets and at most twice as many.

    Offsets are divided into generations of ``span``. A batch belongs to the generation of its first
    offset, and the window has that generation and the one before. So its content depends on offsets
    alone and is the same after a restart.
    """

    __slots__ = ("_generation", "_newest", "_older", "_span")

    def __init__(self, start: int, span: int = SPAN) -> None:
        self._span = span
        self._generation = start // span
        self._newest = KeySet()
        self._older = KeySet()

    @property
    def ranges(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Offsets [from, to) of the older and of the newest generation."""
        middle = self._generation * self._span
        return (max(0, middle - self._span), middle), (middle, middle + self._span)

    def load(self, older: Collection[int], newest: Collection[int]) -> None:
        """Add the keys that the store has of the two generations."""
        self._older.update(older)
        self._newest.update(newest)

    def move_to(self, offset: int) -> bool:
        """Drop what is too old for a batch that begins at ``offset``; True when that begins a
        generation.
        """
        steps = offset // self._span - self._generation
        if steps <= 0:
            return False
        self._older = self._newest if steps == 1 else KeySet()
        self._newest = KeySet()
        self._generation += steps
        return True

    def __contains__(self, key: int) -> bool:
        return key in self._newest or key in self._older

    def intersection(self, keys: Collection[int]) -> set[int]:
        """Those of ``keys`` that are known."""
        found = self._newest.intersection(keys)
        return found | self._older.intersection(keys) if self._older.count else found

    def update(self, keys: Collection[int]) -> None:
        """Remember the steps of a stored batch."""
        self._newest.update(keys)

    def __len__(self) -> int:
        return self._newest.count + self._older.count
