"""The buffer of a partition has every record from its first offset on, for all viewers."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepstream.console.live.buffer import Kept, PartitionBuffer


def read(record: Kept) -> dict[str, Any]:
    return {"offset": record.offset}


def kept(offset: int, key: bytes = b"a", size: int = 1) -> Kept:
    return Kept(offset, 0, key, b"x" * size)


def offsets(buffer: PartitionBuffer, key: bytes, since: int) -> list[int]:
    return [item.offset for item in buffer.since(key, since)]


def test_a_key_has_its_records_from_before_it_was_watched() -> None:
    buffer = PartitionBuffer(10, read)
    for offset in range(10, 16):
        buffer.add(kept(offset, b"a" if offset % 2 else b"b"))

    buffer.watch(b"a")
    buffer.add(kept(17))

    assert offsets(buffer, b"a", 10) == [11, 13, 15, 17]
    assert offsets(buffer, b"a", 14) == [15, 17]
    assert buffer.next == 18


def test_the_empty_key_stands_for_every_record() -> None:
    buffer = PartitionBuffer(0, read)
    buffer.watch(b"")
    buffer.add(kept(0, b"a"))
    buffer.add(kept(1, b""))

    assert offsets(buffer, b"", 0) == [0, 1]


def test_a_repeated_record_is_kept_once() -> None:
    buffer = PartitionBuffer(0, read)
    buffer.watch(b"a")
    buffer.add(kept(0))
    buffer.add(kept(0))

    assert offsets(buffer, b"a", 0) == [0]


def test_a_key_is_forgotten_with_its_last_viewer() -> None:
    buffer = PartitionBuffer(0, read)
    buffer.watch(b"a")
    buffer.watch(b"a")
    buffer.add(kept(0))

    buffer.unwatch(b"a")
    assert offsets(buffer, b"a", 0) == [0]
    buffer.unwatch(b"a")
    assert offsets(buffer, b"a", 0) == []


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from([b"a", b"b"]), st.integers(1, 3)),
            st.tuples(st.just("drop"), st.integers(0, 60), st.none()),
            st.tuples(st.just("oldest"), st.none(), st.none()),
            st.tuples(st.just("watch"), st.none(), st.none()),
        ),
        max_size=80,
    )
)
def test_it_has_exactly_the_records_between_first_and_next(
    operations: list[tuple[str, Any, Any]],
) -> None:
    buffer, added, offset = PartitionBuffer(0, read), [], 0
    for name, one, two in operations:
        if name == "add":
            added.append((offset, one))
            buffer.add(kept(offset, one))
            offset += two  # compacted topics have gaps
        elif name == "drop":
            buffer.drop_below(one)
        elif name == "oldest":
            buffer.drop_oldest()
        else:
            buffer.watch(b"a")
    buffer.watch(b"a")

    first = buffer.first_of(b"a")
    assert offsets(buffer, b"a", first) == [at for at, key in added if key == b"a" and at >= first]
    assert first <= buffer.first
    assert buffer.first <= buffer.next
    inside = sum(1 for at, _ in added if at >= buffer.first)
    assert buffer.bytes == inside * 202


def test_records_of_a_watched_key_stay_where_others_are_dropped() -> None:
    buffer = PartitionBuffer(0, read)
    buffer.watch(b"a")
    for offset in range(5):
        buffer.add(kept(offset))
        buffer.drop_oldest()

    assert (buffer.first, buffer.bytes) == (5, 0)
    assert offsets(buffer, b"a", 0) == [0, 1, 2, 3, 4]

    buffer.drop_below(3)
    assert buffer.first_of(b"a") == 3
    assert offsets(buffer, b"a", 0) == [3, 4]
