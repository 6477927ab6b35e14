"""Every step once, in the views and in the rollups, cost exact, wherever a sink dies."""

from __future__ import annotations

import pytest

from stepstream.schemas.settings import Settings
from tests.support.sink import (
    SinkProcess,
    Steps,
    assert_stored,
    create_topics,
    lag,
    running,
    send,
    set_apart,
    small_batches,
    wait_stored,
)


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    """Small batches, so that there are many of them, and the shortest session that the broker
    grants.
    """
    return small_batches(
        kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database, sink_batch_rows=200
    )


# Before the range is committed, after it, before the insert, after it, and before the offset is
# committed.
POINTS = (
    "planned steps",
    "committed steps",
    "insert steps_raw",
    "inserted steps_raw",
    "stored steps",
)


def test_a_kill_at_any_point_of_the_protocol_loses_and_doubles_nothing(settings: Settings) -> None:
    """A sink killed before or after the commit of the range, the insert or the commit of the end:
    the next one resumes exactly there.
    """
    places = {}
    for point in POINTS:
        own = set_apart(settings, point)
        create_topics(own)
        steps = Steps()
        send(own, [record for _ in range(50) for record in steps.run(20)])
        places[point] = (own, steps)
    # The third batch: the first two have committed, so there is a state to lose. All points at
    # once, because each process needs some seconds to start.
    dying = {point: SinkProcess(own, crash=point, passes=2) for point, (own, _) in places.items()}
    for point, process in dying.items():
        assert process.wait() == -9, f"{point}: {process.output()}"
        process.end()
    successors = [SinkProcess(own) for own, _ in places.values()]
    try:
        for own, steps in places.values():
            wait_stored(own, steps.sent)
        for process in successors:
            assert process.stop() == 0
        for own, steps in places.values():
            assert_stored(own, steps.sent)
            assert lag(own) == 0
    finally:
        for process in successors:
            process.end()


def test_what_a_stopped_sink_has_read_is_stored_and_committed(settings: Settings) -> None:
    """SIGTERM: what was read is stored, offsets are committed, the exit code is 0, and the next
    sink repeats nothing.
    """
    create_topics(settings, partitions=2)
    steps = Steps()
    send(settings, [record for _ in range(40) for record in steps.run(10)])
    with running(settings) as process:
        wait_stored(settings, steps.sent)
        assert process.stop() == 0
    assert lag(settings, partitions=2) == 0
    send(settings, steps.run(10))
    with running(settings) as process:
        wait_stored(settings, steps.sent)
        # The sink logs when it repeats a pending batch.
        assert "repeating" not in process.output()
