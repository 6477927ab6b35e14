"""When stored steps become visible to SQL: a probe that asks the store again and again how far it
is."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

# Moment of sending, partition and offset of a record that ends a step.
Sample = Sequence[float]


@dataclass(slots=True)
class Seen:
    """What the probe saw in one partition: moments, and the highest offset visible at each."""

    moments: list[float] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)


def latencies(samples: Iterable[Sample], seen: Mapping[int, Seen]) -> tuple[list[float], int]:
    """Seconds from sending to the first answer that included the record, and how many records were
    in none."""
    took, missing = [], 0
    for sent_s, partition, offset in samples:
        here = seen[int(partition)]
        index = bisect_left(here.offsets, int(offset))
        if index == len(here.offsets):
            missing += 1
        else:
            took.append(here.moments[index] - sent_s)
    return took, missing


class Probe:
    """Asks every ``interval_s`` for the highest stored offset of each partition, whose rows become
    visible in order."""

    def __init__(self, client: Client, partitions: int, interval_s: float) -> None:
        self._client = client
        self._interval_s = interval_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None
        self.seen = {number: Seen() for number in range(partitions)}
        self.asked = 0

    def __enter__(self) -> Probe:
        self._query()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._interval_s):
                self._query()
        except Exception as error:
            self._error = error

    def _query(self) -> None:
        """Only what lies above the lowest known offset is read: that is little, and little is to be
        disturbed."""
        above = min(seen.offsets[-1] if seen.offsets else -1 for seen in self.seen.values())
        rows = self._client.query(
            "SELECT kafka_partition, max(kafka_offset) FROM steps_raw WHERE kafka_offset > "
            "{above:Int64} GROUP BY 1",
            parameters={"above": above},
        ).result_rows
        now = time.monotonic()
        self.asked += 1
        for partition, offset in rows:
            seen = self.seen[partition]
            if not seen.offsets or offset > seen.offsets[-1]:
                seen.moments.append(now)
                seen.offsets.append(offset)
