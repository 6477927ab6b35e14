"""Where a key lives: Java's murmur2, as in the Java client and in librdkafka's ``murmur2_random``.

Every producer of steps uses it, or the steps of one run would spread over partitions and no worker would see the whole.
"""

from __future__ import annotations

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


PARTITION_VECTORS: tuple[tuple[str, int, int], ...] = ()
