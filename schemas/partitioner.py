"""Where a key lives: Java's murmur2, as in the Java client and in librdkafka's ``murmur2_random``.

Every producer of steps uses it, or the steps of one run would spread over partitions and no worker
would see the whole.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PARTITIONER = "murmur2_random"
"""The value for librdkafka's setting ``partitioner``."""

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """The unsigned 32-bit murmur2 hash with the Kafka Java client's seed (0x9747b28c)."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    tail = length & ~3
    for i in range(0, tail, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    rest = data[tail:]
    if rest:
        h ^= int.from_bytes(rest, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


def partition_for(key: str | bytes, partitions: int) -> int:
    """The partition of ``key`` in a topic of ``partitions`` partitions."""
    data = key.encode() if isinstance(key, str) else key
    return (murmur2(data) & 0x7FFFFFFF) % partitions


class PartitionVector(NamedTuple):
    """What a correct producer finds for a key: its hash, and its partition of 4 and of 12."""

    key: str
    murmur2: int
    of_4: int
    of_12: int


# The six after the empty key are those of Kafka's own tests (UtilsTest.testMurmur2); librdkafka
# agrees on all of them.
PARTITION_VECTORS: Final = (
    PartitionVector("", 0x106E08D9, 1, 9),
    PartitionVector("21", 0xC5F2F8EC, 0, 0),
    PartitionVector("abc", 0x1C94221B, 3, 3),
    PartitionVector("foobar", 0xD0E47BBE, 2, 6),
    PartitionVector("a-little-bit-long-string", 0xC53B1DA0, 0, 8),
    PartitionVector("a-little-bit-longer-string", 0xA768C9C3, 3, 11),
    PartitionVector("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 0xFC7D49CD, 1, 5),
    PartitionVector("a", 0xA2D0B27C, 0, 4),
    PartitionVector("käse", 0xC034DF6D, 1, 1),
    PartitionVector("shop", 0xA2949694, 0, 0),
    PartitionVector("policy/support-refunds", 0x6B23EF1A, 2, 2),
    PartitionVector("00000000000000000000000000000001", 0x17546866, 2, 10),
    PartitionVector("4bf92f3577b34da6a3ce929d0e0e4736", 0x184A389A, 2, 2),
    PartitionVector("0af7651916cd43dd8448eb211c80319c", 0xD63CB2AF, 3, 7),
    PartitionVector("80f198ee56343ba864fe8b2a57d3eff7", 0xEACF0579, 1, 1),
    PartitionVector("463ac35c9f6413ad48485a3953bb6124", 0x5C86738C, 0, 4),
    PartitionVector("deadbeefdeadbeefdeadbeefdeadbeef", 0x62841824, 0, 8),
    PartitionVector("ffffffffffffffffffffffffffffffff", 0xF74D877F, 3, 11),
)
"""Test vectors for producers in other languages."""
