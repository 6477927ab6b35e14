"""Buckets of durations: eight to an octave, so that a bucket is at most 12.5 % wide. Histograms of
all hours can be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SUB_BITS: Final = 3
_SUBS: Final = 1 << SUB_BITS


def latency_bucket(duration_us: int) -> int:
    """The bucket of a duration. Whole microseconds below 16 have one each."""
    if duration_us < 2 * _SUBS:
        return max(0, duration_us)
    # Log-linear, as in HdrHistogram: 8 buckets for each power of two, found with integers alone.
    octave = duration_us.bit_length() - 1 - SUB_BITS
    return (octave << SUB_BITS) + (duration_us >> octave)


def bucket_start_us(bucket: int) -> int:
    """The shortest duration in a bucket."""
    if bucket < 2 * _SUBS:
        return bucket
    octave = (bucket >> SUB_BITS) - 1
    return (_SUBS + (bucket & (_SUBS - 1))) << octave


def slower_than(histogram: Mapping[int, int], limit_us: int) -> int:
    """How many durations exceed a limit; those of the limit's own bucket (within 12.5 % of it) do
    not count.
    """
    edge = latency_bucket(limit_us)
    return sum(count for bucket, count in histogram.items() if bucket > edge)


def quantile_us(histogram: Mapping[int, int], share: float) -> int:
    """The duration that a share of those counted does not exceed, to the end of its bucket; 0 where
    nothing is counted.
    """
    wanted, seen = share * sum(histogram.values()), 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= wanted:
            return bucket_start_us(bucket + 1)
    return 0
