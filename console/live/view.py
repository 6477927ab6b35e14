"""One viewer's place in the stream: what to send next, from a position in each source."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stepstream.console.live.buffer import Item
from stepstream.console.live.tail import Place, Tail

MAX_PENDING: Final = 1_000
"""Events that a viewer may be behind; beyond it the page reads the snapshot again."""
_POSITION: Final = re.compile(r"(steps|alerts)-([0-9]{1,5}):([0-9]{1,18})")
Allowed = Callable[[str], bool]


def positions_of(event_id: str) -> dict[Place, int]:
    """The positions of an event id; those that cannot be read are left out."""
    found: dict[Place, int] = {}
    # A browser sends back the id that it was given; another client may send megabytes.
    for part in event_id[:4_096].split(","):
        matched = _POSITION.fullmatch(part.strip())
        if matched:
            found[matched[1], int(matched[2])] = int(matched[3])
    return found


def event_id(positions: Mapping[Place, int]) -> str:
    """The positions as an event id."""
    return ",".join(f"{name}-{partition}:{at}" for (name, partition), at in positions.items())


@dataclass
class Source:
    """One key of one partition, as a viewer reads it."""

    place: Place
    key: bytes
    position: int = 0
    """The next offset to be sent."""
    earlier: list[Item] = field(default_factory=list)
    """Records that were read again because the buffer had no room for them."""
    is_current: bool = False
    """Whether the viewer has been sent everything once; before that any number may be pending."""


class View:
    """A run's steps, or all alerts, for one viewer. ``open`` and ``reopen`` may block."""

    def __init__(self, tail: Tail, name: str, key: str, allowed: Allowed) -> None:
        self._tail = tail
        self._allowed = allowed
        self.name = name
        self.key = key
        self.sources: list[Source] = []
        self.generation = -1
        self.behind = 0
        """Records that the store lacked when the view was opened."""

    def open(self, resume: Mapping[Place, int]) -> bool:
        """Begin at the sink's committed offsets, or at positions that were reached before.

        Returns whether it continues exactly there. Raises ``KafkaUnreachable``.
        """
        key = self.key.encode()
        places = [self._tail.place_of_run(self.key)] if key else self._tail.places(self.name)
        for place in places:
            self._tail.watch(place, key)
        self.sources = [Source(place, key) for place in places]
        return self.begin(resume)

    def begin(self, resume: Mapping[Place, int]) -> bool:
        """Set the positions. Returns and raises as ``open`` does."""
        self.generation = self._tail.generation
        self.behind = 0
        resumed = True
        for source in self.sources:
            committed, first, following = self._tail.bounds(source.place, source.key)
            wanted = resume.get(source.place, -1)
            source.earlier, source.is_current = [], False
            self.behind += max(0, following - committed)
            # A position that the buffer no longer has, or that Kafka never had, would leave a gap.
            if first <= wanted <= following:
                source.position = wanted
                continue
            resumed = False
            source.position = max(first, committed)
            if committed < first:
                source.earlier = self._tail.read_back(source.place, source.key, committed, first)
        return resumed

    def close(self) -> None:
        for source in self.sources:
            self._tail.unwatch(source.place, source.key)

    @property
    def positions(self) -> dict[Place, int]:
        return {source.place: source.position for source in self.sources}

    @property
    def is_overtaken(self) -> bool:
        """Whether records that it needs are gone, or too many are pending."""
        if self.generation != self._tail.generation:
            return True
        return any(self._is_lost(source) for source in self.sources)

    def _is_lost(self, source: Source) -> bool:
        _, first, _ = self._tail.bounds(source.place, source.key)
        if source.position < first:
            return True
        # A viewer that has just opened a long run is behind by all of it, and is not lost.
        if not source.is_current:
            return False
        return len(self._tail.since(source.place, source.key, source.position)[1]) > MAX_PENDING

    def take(self) -> list[dict[str, Any]]:
        """The next events, at most ``MAX_PENDING``; moves the positions."""
        found: list[dict[str, Any]] = []
        for source in self.sources:
            room = MAX_PENDING - len(found)
            if room <= 0:
                break
            if source.earlier:
                found += self._seen(source.earlier[:room])
                del source.earlier[:room]
                continue
            following, items = self._tail.since(source.place, source.key, source.position)
            if len(items) > room:
                items = items[:room]
                # Go on behind the last one that was taken: the rest is taken by the next call.
                following = items[-1].offset + 1
            else:
                source.is_current = True
            source.position = following
            found += self._seen(items)
        return found

    def _seen(self, items: list[Item]) -> list[dict[str, Any]]:
        return [
            one.data
            for one in items
            if one.data is not None and self._allowed(str(one.data.get("project", "")))
        ]
