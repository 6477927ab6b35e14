"""The partitioner is Java's murmur2; an integration test compares it with librdkafka."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.schemas.partitioner import (
    PARTITION_VECTORS,
    PartitionVector,
    murmur2,
    partition_for,
)

# From the Kafka Java client's own test (UtilsTest.testMurmur2), where hashes are signed.
JAVA_VECTORS = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}


@pytest.mark.parametrize(("key", "signed"), JAVA_VECTORS.items())
def test_hashes_are_those_of_the_java_client(key: str, signed: int) -> None:
    """Kafka's own test vectors hold."""
    assert murmur2(key.encode()) == signed % 2**32


@pytest.mark.parametrize("vector", PARTITION_VECTORS, ids=lambda v: v.key or "empty")
def test_published_vectors_hold(vector: PartitionVector) -> None:
    """The vectors published for other languages are those that we compute."""
    assert murmur2(vector.key.encode()) == vector.murmur2
    assert partition_for(vector.key, 4) == vector.of_4
    assert partition_for(vector.key.encode(), 12) == vector.of_12


def test_published_vectors_contain_the_cases() -> None:
    """Empty, short, long and non-ASCII keys, every remainder of four bytes, trace ids, both
    signs of the hash.
    """
    keys = [vector.key.encode() for vector in PARTITION_VECTORS]
    assert {len(key) % 4 for key in keys} == {0, 1, 2, 3}
    assert b"" in keys
    assert max(map(len, keys)) > 32
    assert sum(len(key) == 32 for key in keys) >= 5
    assert {vector.murmur2 >> 31 for vector in PARTITION_VECTORS} == {0, 1}
    assert {vector.of_4 for vector in PARTITION_VECTORS} == set(range(4))


@given(st.binary(max_size=64), st.integers(1, 1_000))
def test_any_key_has_a_partition(key: bytes, partitions: int) -> None:
    """Every key lies on exactly one partition that exists."""
    assert 0 <= partition_for(key, partitions) < partitions


def test_trace_ids_spread_evenly() -> None:
    """No partition of twelve gets more than a quarter above its share of trace ids."""
    counts = [0] * 12
    for number in range(6_000):
        counts[partition_for(f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}", 12)] += 1
    assert max(counts) < 625
    assert min(counts) > 375
