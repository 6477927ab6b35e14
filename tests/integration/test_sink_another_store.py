"""A sink that fills SQLite instead of ClickHouse: the protocol needs nothing of a particular
store.
"""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batch_writer import Hook
from stepstream.sinks.batching.sink import Sink
from tests.support.processes import wait_until
from tests.support.sink import create_topics, lag, send, small_batches
from tests.support.stores import REFUSED, SqliteWriter

RECORDS = 2_000
REFUSED_OFFSETS = {77, 1_500}
NAME = "findings"


class Crash(Exception):
    """The end of a sink in the middle of its work."""


def crash_at(point: str, passes: int) -> Hook:
    """A hook that raises when the point is reached for the time after ``passes``."""
    left = [passes]

    def hook(reached: str) -> None:
        if reached == point:
            left[0] -= 1
            if left[0] < 0:
                raise Crash

    return hook


def test_another_store_gets_every_record_once(
    kafka_bootstrap: str,
    clickhouse_url: str,
    topic_prefix: str,
    clickhouse_database: str,
    tmp_path: Path,
) -> None:
    """Sinks that end before and after commit and insert, one after the other; refused records go to
    the dead letter.
    """
    settings = small_batches(
        kafka_bootstrap,
        clickhouse_url,
        topic_prefix,
        clickhouse_database,
        sink_batch_rows=100,
        metrics_port=-1,
    )
    create_topics(settings)
    values = [
        (REFUSED if number in REFUSED_OFFSETS else b"") + b"%d" % number
        for number in range(RECORDS)
    ]
    send(settings, [("k", value) for value in values], NAME)
    writer = SqliteWriter(tmp_path / "store.db")
    # Every point between reading a batch and committing its end.
    points = ("planned", "committed", "insert", "inserted", "stored")
    for point in points:
        crashing = Sink(settings, writer, hook=crash_at(f"{point} {NAME}", passes=1))
        with pytest.raises(Crash):
            crashing.run(threading.Event())
    last = Sink(settings, writer)
    run_until_stored(last, settings)
    expected = Counter(offset for offset in range(RECORDS) if offset not in REFUSED_OFFSETS)
    assert writer.offsets(NAME) == expected
    assert last.stats.dead_lettered[NAME] <= len(REFUSED_OFFSETS)
    writer.close()


def run_until_stored(sink: Sink, settings: Settings) -> None:
    """Run the sink until everything is committed."""
    stop = threading.Event()
    thread = threading.Thread(target=sink.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: lag(settings, NAME) == 0, 180, "everything committed")
    finally:
        stop.set()
        thread.join(60)
