"""The insert protocol in a model of Kafka, over two stores: sinks that die, freeze and resume
anywhere, rows refused.
"""

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
from stepstream.sinks.batching.batcher import (
    BatchPolicy,
    BatchState,
    PartitionBatcher,
    PendingBatch,
)
from stepstream.sinks.batching.position import resume_position
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.batching.writer import RowsRefused, TopicHandler
from tests.support.stores import REFUSED, MemoryWriter, SqliteWriter

RECORDS = 60
NAME = "findings"
SOURCE = Source("topic", 0)
Life = Generator[None, bool | None, None]


@dataclass
class World:
    """A partition of a log, its committed offset, a store and a dead letter."""

    log: list[Record]
    store: MemoryWriter
    committed: int | None = None
    metadata: str = ""
    owner: object = None
    letters: Counter[int] = field(default_factory=Counter)

    def commit(self, who: object, offset: int, metadata: str) -> bool:
        """Kafka refuses a member that lost the partition to another one; without an owner it
        accepts any commit.
        """
        if self.owner is not None and who is not self.owner:
            return False
        self.committed, self.metadata = offset, metadata
        return True

    def insert(self, handler: TopicHandler, batch: PendingBatch) -> bool:
        """False: the store refused the batch, all of it."""
        built = handler.build(batch, SOURCE)
        try:
            for block in built.blocks:
                self.store.insert(block, batch.token(SOURCE.topic_id, SOURCE.partition))
        except RowsRefused:
            return False
        handler.stored(built)
        return True


def life(world: World, chance: random.Random) -> Life:
    """A sink that works through the partition; each ``yield`` is a point at which it may be killed
    or frozen.

    It is sent True when it was frozen for long: then it commits nothing any more. It may still make
    one insert, if it checked the clock just before it froze.
    """
    me = object()
    world.owner = me
    stored = world.store.last_offset(NAME, SOURCE, world.committed or 0)
    position = resume_position(
        world.committed, SINK.decode(world.metadata), stored, low=0, high=len(world.log)
    )
    handler = world.store.handler(NAME)
    handler.open(SOURCE, position)
    policy = BatchPolicy(rows=chance.randrange(1, 12), bytes=chance.randrange(100, 2_000))
    batcher = PartitionBatcher(NAME, 0, policy)
    batcher.open(position.offset, position.replay_end, 0.0)
    read = position.offset
    while True:
        read = read_some(batcher, world, read, chance)
        if not batcher.is_due(0.0, flush=chance.random() < 0.3):
            if is_through(batcher, world):
                world.commit(me, batcher.position, "")
                return
            continue
        batch = batcher.cut(0.0)
        if (yield):
            return
        if not batch.replay and not world.commit(me, batch.first, SINK.encode(batch.last)):
            return
        batcher.started()
        late = yield
        if world.insert(handler, batch):
            late = (yield) or late
            batcher.stored(0.0)
        elif len(batch.records) > 1:
            batcher.split()
            if late:
                return
            continue
        else:
            world.letters[batch.records[0].offset] += 1
            late = (yield) or late
            batcher.stored(0.0)
        if late:
            return
        if chance.random() < 0.7:  # otherwise the range of the next batch commits the position too
            if not world.commit(me, batcher.position, ""):
                return
            batcher.position_is_committed = True


def read_some(batcher: PartitionBatcher, world: World, read: int, chance: random.Random) -> int:
    """Add up to seven records of the log from ``read`` on. Returns the next offset to read."""
    for _ in range(min(chance.randrange(8), len(world.log) - read)):
        batcher.add([world.log[read]], 0.0)
        read += 1
    if read == len(world.log):
        batcher.reached_end(read)
    return read


def is_through(batcher: PartitionBatcher, world: World) -> bool:
    """Whether everything is stored."""
    at_end = batcher.position == len(world.log)
    return batcher.state is BatchState.FILLING and batcher.buffered == 0 and at_end


def record(offset: int, *, refused: bool) -> Record:
    """A record of the log."""
    value = (REFUSED if refused else b"") + b"x" * (offset * 7 % 90)
    return Record(offset, 1_000 + offset, b"key", value, None)


@pytest.mark.parametrize("store", [MemoryWriter, SqliteWriter])
@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), with_refused=st.booleans())
def test_every_record_is_stored_once_wherever_a_sink_dies_or_freezes(
    store: type[MemoryWriter], seed: int, with_refused: bool
) -> None:
    """Killed, frozen or resumed between any two steps: each row is stored once, each refused record
    is dead-lettered.
    """
    # The seed is in the test's name: a failure can be played again.
    chance = random.Random(seed)
    refused = frozenset(chance.sample(range(RECORDS), 3)) if with_refused else frozenset()
    log = [record(offset, refused=offset in refused) for offset in range(RECORDS)]
    with closing(store()) as writer:
        world = World(log, writer)
        frozen: list[Life] = []
        for _ in range(30):
            sink = life(world, chance)
            with contextlib.suppress(StopIteration):
                next(sink)
                for _ in range(chance.randrange(12)):
                    next(sink)
                frozen.append(sink)
            if chance.random() < 0.5:
                world.owner = None  # its session ends before another sink joins
            for zombie in list(frozen):  # some resume for a while, some never do
                if chance.random() < 0.3:
                    frozen.remove(zombie)
                    with contextlib.suppress(StopIteration):
                        zombie.send(True)
                        for _ in range(chance.randrange(1, 6)):
                            next(zombie)
        # The last sink lives until everything is committed.
        for _ in life(world, chance):
            pass
        expected = Counter(offset for offset in range(RECORDS) if offset not in refused)
        assert writer.offsets(NAME) == expected
        assert set(world.letters) == refused
        assert world.committed == RECORDS


@contextlib.contextmanager
def closing(writer: MemoryWriter) -> Generator[MemoryWriter, None, None]:
    """Close a store that has to be closed."""
    try:
        yield writer
    finally:
        if isinstance(writer, SqliteWriter):
            writer.close()


def test_a_token_names_its_range_and_its_log() -> None:
    """Another range, partition, topic, or log at the same offsets is another token."""

    def token(topic_id: str, partition: int, first: int, last: int, newest_ms: int) -> str:
        newest = Record(last, newest_ms, None, None, None)
        return PendingBatch(first, last, [newest]).token(topic_id, partition)

    one = token("id", 0, 5, 9, 1_000)
    others = [
        ("jd", 0, 5, 9, 1_000),
        ("id", 1, 5, 9, 1_000),
        ("id", 0, 4, 9, 1_000),
        ("id", 0, 5, 8, 1_000),
        ("id", 0, 5, 9, 2),
    ]
    assert one == "id:0:5-9:1000"  # a token of an earlier release may be in the store
    assert one not in {token(*other) for other in others}


@pytest.mark.parametrize(
    ("committed", "batch_end", "stored", "offset", "replay_end"),
    [
        (None, None, None, 3, None),  # new: from the log's beginning
        (10, None, None, 10, None),
        (10, None, 50, 10, None),  # set back: stored steps are recognised
        (10, 15, None, 10, 15),
        (10, 15, 12, 10, 15),  # partly inserted
        (10, 15, 15, 10, 15),
        (10, 15, 16, 16, None),  # later batches are stored: nothing is pending
        (None, None, 20, 21, None),  # offsets lost
        (None, None, 99, 100, None),
        (None, None, 100, 3, None),  # the log is shorter than what was stored of it
    ],
)
def test_where_a_partition_is_resumed(
    committed: int | None,
    batch_end: int | None,
    stored: int | None,
    offset: int,
    replay_end: int | None,
) -> None:
    """Committed offsets decide, a pending batch is repeated, the store stands in for offsets that
    were lost.
    """
    position = resume_position(committed, batch_end, stored, low=3, high=100)
    assert (position.offset, position.replay_end) == (offset, replay_end)
