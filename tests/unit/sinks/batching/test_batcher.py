"""When batches are cut, what is dropped, and how a refused batch is taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.sinks.batching.batcher import (
    BatchPolicy,
    BatchState,
    PartitionBatcher,
    record_bytes,
)
from stepstream.sinks.batching.records import Record

POLICY = BatchPolicy(rows=10, bytes=5_000, interval_s=0.25)


def record(offset: int, size: int = 1) -> Record:
    """A record of this many bytes."""
    return Record(offset, 1_000, b"key", b"x" * size, None)


def batcher(
    position: int = 0, replay_end: int | None = None, policy: BatchPolicy = POLICY
) -> PartitionBatcher:
    """A batcher that knows where to resume."""
    made = PartitionBatcher("steps", 0, policy)
    made.open(position, replay_end, 0.0)
    return made


def test_a_batch_waits_for_rows_bytes_or_time() -> None:
    """Whatever comes first; nothing is cut from nothing."""
    made = batcher()
    assert not made.is_due(100.0)
    made.add([record(0)], 1.0)
    assert not made.is_due(1.2)
    assert made.is_due(1.25)
    assert made.is_due(1.0, flush=True)
    for offset in range(1, 10):
        made.add([record(offset)], 1.0)
    assert made.is_due(1.0)
    large = batcher()
    large.add([record(0, 4_990)], 1.0)
    assert large.is_due(1.0)


def test_a_batch_in_flight_is_the_only_one() -> None:
    """Records that come meanwhile wait, and the next batch begins where the last one ended."""
    made = batcher()
    made.add([record(0)], 0.0)
    first = made.cut(1.0)
    made.started()
    made.add([record(1)], 1.0)
    assert not made.is_due(9.0, flush=True)
    made.stored(0.01)
    second = made.cut(9.0)
    assert ((first.first, first.last), (second.first, second.last)) == ((0, 0), (1, 1))


def test_a_batch_begins_at_the_committed_offset_even_where_records_are_missing() -> None:
    """Compaction leaves gaps: ranges have none, or a repeated batch would get another token."""
    made = batcher(5)
    # Offsets 5 to 8 are gone: the topic is compacted.
    made.add([record(9)], 0.0)
    batch = made.cut(1.0)
    assert (batch.first, batch.last) == (5, 9)


def test_records_before_the_position_and_repeats_are_dropped() -> None:
    """A reader that starts too early changes nothing."""
    made = batcher(5)
    for offset in (3, 4, 5, 6, 5, 6, 7):
        made.add([record(offset)], 0.0)
    assert [item.offset for item in made.cut(1.0).records] == [5, 6, 7]


def test_a_batch_to_be_repeated_waits_for_its_last_record_and_for_nothing_more() -> None:
    """It is cut where it was cut the first time, whatever the limits are now."""
    made = batcher(0, replay_end=14)
    for offset in range(14):
        made.add([record(offset, 1_000)], 0.0)
    assert not made.is_due(99.0, flush=True)
    assert not made.is_full
    for offset in range(14, 20):
        made.add([record(offset)], 0.0)
    assert made.is_due(0.0)
    batch = made.cut(0.0)
    assert (batch.first, batch.last, len(batch.records), batch.replay) == (0, 14, 15, True)
    made.started()
    made.stored(0.0)
    assert made.position == 15
    assert [item.offset for item in made.cut(9.0).records] == [15, 16, 17, 18, 19]


def test_a_batch_to_be_repeated_whose_last_record_is_gone_ends_at_the_end_of_the_log() -> None:
    """What Kafka has removed meanwhile is not waited for."""
    made = batcher(0, replay_end=14)
    made.add([record(3)], 0.0)
    assert not made.is_due(0.0)
    made.reached_end(20)
    assert made.is_due(0.0)
    assert [item.offset for item in made.cut(0.0).records] == [3]


def test_what_is_read_ahead_is_bounded_by_rows_and_bytes() -> None:
    """Half of the next batch is read while the store works on one; beyond that records are Kafka's
    to keep.
    """
    policy = BatchPolicy(rows=10, bytes=100_000)
    by_rows, by_bytes = batcher(policy=policy), batcher(policy=policy)
    by_rows.add([record(offset) for offset in range(14)], 0.0)
    assert by_rows.is_full
    assert not by_rows.has_read_ahead
    by_rows.add([record(14)], 0.0)
    assert by_rows.has_read_ahead
    by_bytes.add([record(0, 100_000)], 0.0)
    assert by_bytes.has_read_ahead


def test_runs_and_alerts_give_way_to_steps_while_inserts_are_slow() -> None:
    """They come in small numbers always, and each insert costs the store the same; where it is
    quick, nothing waits.
    """
    policy = BatchPolicy(interval_s=0.25, small_rows=100)
    # Five records wait in both; 9 s is an insert of a store that is overloaded.
    steps, runs = policy.for_topic("steps"), policy.for_topic("trajectories")
    assert [steps.longest_wait_s(took, waiting=5) for took in (0.01, 9.0)] == pytest.approx(
        [0.25, 0.5]
    )
    assert [runs.longest_wait_s(took, waiting=5) for took in (0.01, 9.0)] == pytest.approx(
        [0.25, 3.0]
    )


def test_batches_wait_longer_when_inserts_are_slow() -> None:
    """Up to four times the interval, and twice where there is little: a busy store is given fewer
    and larger inserts.
    """
    policy, took = BatchPolicy(interval_s=0.25, small_rows=500), (0.0, 0.01, 0.0625, 0.125, 10.0)
    assert [policy.longest_wait_s(seconds, waiting=500) for seconds in took] == [
        0.25,
        0.25,
        0.75,
        1.0,
        1.0,
    ]
    assert [policy.longest_wait_s(seconds, waiting=499) for seconds in took] == [
        0.25,
        0.25,
        0.5,
        0.5,
        0.5,
    ]


def test_a_refused_batch_comes_again_in_halves_down_to_single_records() -> None:
    """And grows again once rows go in."""
    made = batcher()
    for offset in range(8):
        made.add([record(offset)], 0.0)
    sizes = []
    for _ in range(4):
        batch = made.cut(0.0)
        sizes.append((batch.first, batch.last))
        made.started()
        made.split()
        assert made.is_due(0.0)
    assert sizes == [(0, 7), (0, 3), (0, 1), (0, 0)]
    made.cut(0.0)
    made.stored(0.0)
    assert (made.cut(0.0).first, made.state) == (1, BatchState.PLANNED)


@given(
    sizes=st.lists(st.integers(0, 3_000), max_size=60),
    rows=st.integers(1, 20),
    limit=st.integers(1, 6_000),
)
def test_nothing_is_lost_between_batches_and_bytes_are_counted(
    sizes: list[int], rows: int, limit: int
) -> None:
    """Batches are consecutive, within the limits but for a single record, and the count of bytes
    returns to nothing.
    """
    made = batcher(policy=BatchPolicy(rows=rows, bytes=limit))
    for offset, size in enumerate(sizes):
        made.add([record(offset, size)], 0.0)
    seen = []
    while made.is_due(0.0, flush=True):
        batch = made.cut(0.0)
        assert len(batch.records) <= rows
        assert batch.size_bytes == sum(map(record_bytes, batch.records))
        assert batch.size_bytes <= limit or len(batch.records) == 1
        seen += [item.offset for item in batch.records]
        made.started()
        made.stored(0.0)
    assert seen == list(range(len(sizes)))
    assert (made.buffered, made.buffered_bytes) == (0, 0)


def test_records_that_come_together_are_taken_as_if_they_came_one_by_one() -> None:
    """What was read twice, or lies before the position, is dropped within a handful too."""
    made = batcher(position=5)
    made.add([record(4), record(5), record(6), record(6), record(5), record(8)], 0.0)
    assert made.buffered == 3
    assert [item.offset for item in made.cut(9.0).records] == [5, 6, 8]
    assert made.buffered_bytes == 0


def test_a_partition_that_is_far_behind_waits_for_full_batches() -> None:
    """Small inserts cost the store most when it has most to do; what is nearly up to date is stored
    at once.
    """
    made = batcher(policy=BatchPolicy(rows=10, bytes=1_000_000, interval_s=0.25))
    made.add([record(0)], 0.0)
    made.lag = 11
    # Eleven records wait and a batch has ten: more come at once, so it is worth waiting up to 5 s.
    assert not made.is_due(4.9)
    assert made.time_left_s(4.0) == pytest.approx(1.0)
    made.add([record(number) for number in range(1, 10)], 0.1)
    assert made.is_due(0.2)
    late = batcher(policy=BatchPolicy(rows=10, bytes=1_000_000, interval_s=0.25))
    late.lag = 10
    late.add([record(0)], 0.0)
    assert late.is_due(0.25)
