"""The insert protocol in a model of Kafka and of the store: sinks that die, freeze and wake anywhere, rows refused."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.common.commit_metadata import SINK
from stepstream.sinks.batching import intent
from stepstream.sinks.batching.lane import Batch, BatchPolicy, Lane, Stage
from stepstream.sinks.clickhouse.position import go_on
from stepstream.sinks.clickhouse.records import Record

RECORDS = 60
Life = Generator[None, bool | None, None]


@dataclass
class World:
    """A partition of a log, its committed offset, and a store that drops repeated tokens and refuses poison."""

    log: list[Record]
    poison: frozenset[int] = frozenset()
    committed: int | None = None
    metadata: str = ""
    owner: object = None
    tokens: set[str] = field(default_factory=set)
    rows: Counter[int] = field(default_factory=Counter)
    letters: Counter[int] = field(default_factory=Counter)

    def commit(self, who: object, offset: int, metadata: str) -> bool:
        """Refused to who has lost the partition to another; while nobody holds it Kafka takes anyone's word."""
        if self.owner is not None and who is not self.owner:
            return False
        self.committed, self.metadata = offset, metadata
        return True

    def insert(self, batch: Batch, seen: set[int]) -> bool:
        """All but what was ``seen`` in the store before. False: refused, all of it."""
        rows = [record.offset for record in batch.records if record.offset not in seen]
        if self.poison & set(rows):
            return False
        if rows and (token := batch.token("topic", 0)) not in self.tokens:
            self.tokens.add(token)
            self.rows.update(rows)
        seen.update(rows)
        return True

    @property
    def stored(self) -> int | None:
        """The highest offset in the store."""
        return max(self.rows, default=None)


def life(world: World, chance: random.Random) -> Life:
    """A sink as it works through the partition; each ``yield`` is a point at which it may be killed or frozen.

    It is sent True when it was frozen for long: then it commits nothing any more. An insert it may still make, where the
    time was looked at just before.
    """
    me = object()
    world.owner = me
    stored = (
        world.stored if world.committed is None or (world.stored or -1) >= world.committed else None
    )
    position = go_on(
        world.committed, SINK.decode(world.metadata), stored, low=0, high=len(world.log)
    )
    lane = Lane(
        "steps", 0, BatchPolicy(rows=chance.randrange(1, 12), bytes=chance.randrange(100, 2_000))
    )
    lane.open(position.offset, position.replay_end, 0.0)
    replayed = range(
        position.offset, 1 + (-1 if position.replay_end is None else position.replay_end)
    )
    seen = {offset for offset in world.rows if offset not in replayed}
    read = position.offset
    while True:
        for _ in range(min(chance.randrange(8), len(world.log) - read)):
            lane.add([world.log[read]], 0.0)
            read += 1
        if read == len(world.log):
            lane.at_end(read)
        if not lane.due(0.0, flush=chance.random() < 0.3):
            if position_done(lane, world):
                world.commit(me, lane.position, "")
                return
            continue
        batch = lane.cut(0.0)
        if (yield):
            return
        if not batch.replay and not world.commit(me, batch.first, SINK.encode(batch.last)):
            return
        lane.started()
        late = yield
        if world.insert(batch, seen):
            late = (yield) or late
            lane.stored(0.0)
        elif len(batch.records) > 1:
            lane.take_apart()
            if late:
                return
            continue
        else:
            world.letters[batch.records[0].offset] += 1
            late = (yield) or late
            lane.stored(0.0)
        if late:
            return
        if chance.random() < 0.7:  # else the next intent commits the position as well
            if not world.commit(me, lane.position, ""):
                return
            lane.acknowledged = True


def position_done(lane: Lane, world: World) -> bool:
    """Whether the lane is through."""
    return lane.stage is Stage.FILLING and lane.buffered == 0 and lane.position == len(world.log)


def record(offset: int) -> Record:
    """A record of the log."""
    return Record(offset, 1_000 + offset, b"key", b"x" * (offset * 7 % 90), None)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), poisoned=st.booleans())
def test_every_record_is_stored_once_whoever_dies_or_wakes(seed: int, poisoned: bool) -> None:
    """Whatever is killed, frozen or woken between any two steps, each row is counted once and each poison is told."""
    chance = random.Random(seed)
    poison = frozenset(chance.sample(range(RECORDS), 3)) if poisoned else frozenset()
    world = World([record(offset) for offset in range(RECORDS)], poison)
    frozen: list[Life] = []
    for _ in range(30):
        sink = life(world, chance)
        with contextlib.suppress(StopIteration):
            next(sink)
            for _ in range(chance.randrange(12)):
                next(sink)
            frozen.append(sink)
        if chance.random() < 0.5:
            world.owner = None  # its session ends before another one comes
        for zombie in list(frozen):  # some wake and go on for a while, some never do
            if chance.random() < 0.3:
                frozen.remove(zombie)
                with contextlib.suppress(StopIteration):
                    zombie.send(True)
                    for _ in range(chance.randrange(1, 6)):
                        next(zombie)
    for _ in life(world, chance):
        pass
    assert world.rows == Counter(offset for offset in range(RECORDS) if offset not in poison)
    assert set(world.letters) == poison
    assert world.committed == RECORDS


def test_a_token_names_its_range_and_its_log() -> None:
    """Another range, partition, topic or log at the same offsets is another token."""
    one = intent.token("id", 0, 5, 9, 1_000)
    others = [
        ("jd", 0, 5, 9, 1_000),
        ("id", 1, 5, 9, 1_000),
        ("id", 0, 4, 9, 1_000),
        ("id", 0, 5, 8, 1_000),
        ("id", 0, 5, 9, 2),
    ]
    assert one not in {intent.token(*other) for other in others}


@pytest.mark.parametrize(
    ("committed", "intent_end", "stored", "offset", "replay_end"),
    [
        (None, None, None, 3, None),  # new: from the log's beginning
        (10, None, None, 10, None),
        (10, None, 50, 10, None),  # set back: what is stored will be known
        (10, 15, None, 10, 15),
        (10, 15, 12, 10, 15),  # partly inserted
        (10, 15, 15, 10, 15),
        (10, 15, 16, 16, None),  # somebody went on: nothing is in flight
        (None, None, 20, 21, None),  # offsets lost
        (None, None, 99, 100, None),
        (None, None, 100, 3, None),  # the log is shorter than what was stored of it
    ],
)
def test_where_a_partition_goes_on(
    committed: int | None,
    intent_end: int | None,
    stored: int | None,
    offset: int,
    replay_end: int | None,
) -> None:
    """Committed offsets rule, an intent is repeated, the store stands in for offsets that were lost."""
    position = go_on(committed, intent_end, stored, low=3, high=100)
    assert (position.offset, position.replay_end) == (offset, replay_end)
