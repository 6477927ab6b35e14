"""The newest records of one partition, from the sink's committed offset on. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

OVERHEAD_BYTES: Final = 200
"""What a record takes in memory besides its key and value."""
MAX_WATCHED: Final = 50_000
"""Records of one key that are ready for its viewers."""


class Kept(NamedTuple):
    """A record in the buffer."""

    offset: int
    timestamp_ms: int
    key: bytes
    value: bytes


class Item(NamedTuple):
    """A record of a watched key as viewers get it; ``data`` is None for what they do not see."""

    offset: int
    data: dict[str, Any] | None


Read = Callable[[Kept], dict[str, Any] | None]


class PartitionBuffer:
    """Holds every record of the partition with an offset in ``first`` to ``next``, without end.

    Records of keys that are watched are read once, for all viewers, and stay when others are
    dropped for want of room: reading them again would take longer than new ones need to arrive.
    Not thread-safe.
    """

    def __init__(self, first: int, read: Read) -> None:
        self.first = first
        self.next = first
        self.bytes = 0
        self._records: deque[Kept] = deque()
        self._read = read
        self._watched: dict[bytes, deque[Item]] = {}
        self._viewers: dict[bytes, int] = {}
        self._from: dict[bytes, int] = {}
        """Of a watched key: the offset from which on all its records are there."""

    def add(self, record: Kept) -> None:
        """Add the newest record. Those with an offset that is known already are ignored."""
        if record.offset < self.next:
            return
        self._records.append(record)
        self.bytes += _size(record)
        self.next = record.offset + 1
        for key in {record.key, b""}:
            items = self._watched.get(key)
            if items is not None:
                items.append(Item(record.offset, self._read(record)))
                if len(items) > MAX_WATCHED:
                    self._from[key] = items.popleft().offset + 1

    def drop_below(self, offset: int) -> None:
        """Forget records with a lower offset: the store has them."""
        self._drop(offset)
        for key, items in self._watched.items():
            while items and items[0].offset < offset:
                items.popleft()
            self._from[key] = max(self._from[key], min(offset, self.next))

    def _drop(self, offset: int) -> None:
        while self._records and self._records[0].offset < offset:
            self.bytes -= _size(self._records.popleft())
        self.first = max(self.first, min(offset, self.next))

    def drop_oldest(self) -> None:
        """Forget the oldest record because there is no room, although the store lacks it."""
        if self._records:
            self._drop(self._records[0].offset + 1)

    def restart(self, first: int) -> None:
        """Forget everything and begin at ``first``, as where the topic was made anew."""
        self._records.clear()
        self.bytes = 0
        self.first = self.next = first
        for key, items in self._watched.items():
            items.clear()
            self._from[key] = first

    def watch(self, key: bytes) -> None:
        """A viewer is interested in a key; the empty one stands for every record."""
        self._viewers[key] = self._viewers.get(key, 0) + 1
        if key not in self._watched:
            matching: Iterable[Kept] = (
                record for record in self._records if not key or record.key == key
            )
            self._from[key] = self.first
            self._watched[key] = deque(Item(one.offset, self._read(one)) for one in matching)

    def unwatch(self, key: bytes) -> None:
        """Stop keeping a key's records once no viewer of it is left."""
        left = self._viewers.get(key, 0) - 1
        if left > 0:
            self._viewers[key] = left
        else:
            self._viewers.pop(key, None)
            self._watched.pop(key, None)
            self._from.pop(key, None)

    def first_of(self, key: bytes) -> int:
        """The offset from which on all records of a watched key are there."""
        return self._from[key]

    def since(self, key: bytes, offset: int) -> list[Item]:
        """Records of a watched key from ``offset`` on, oldest first."""
        found: list[Item] = []
        # From the end: a viewer that follows needs the last few of thousands.
        for item in reversed(self._watched.get(key, ())):
            if item.offset < offset:
                break
            found.append(item)
        found.reverse()
        return found


def _size(record: Kept) -> int:
    return len(record.key) + len(record.value) + OVERHEAD_BYTES
