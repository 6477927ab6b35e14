"""A store that refuses, has no room, hangs, or breaks off anywhere in an insert: every row once,
nothing dropped.
"""

from __future__ import annotations

import random
import threading
import time

import pytest

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import insert
from tests.support.processes import wait_until
from tests.support.sink import (
    SinkProcess,
    SinkThread,
    Steps,
    assert_stored,
    create_topics,
    lag,
    send,
    small_batches,
)
from tests.support.sink import wait_stored as wait_until_stored
from tests.support.store_proxy import ACTIONS, ERRORS, StoreProxy


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    """Small batches, so that there are many of them, and the shortest session that the broker
    grants.
    """
    return small_batches(
        kafka_bootstrap,
        clickhouse_url,
        topic_prefix,
        clickhouse_database,
        sink_batch_rows=100,
        metrics_port=-1,
    )


def sink_at(settings: Settings, url: str) -> SinkThread:
    """A sink that writes through a proxy."""
    return SinkThread(settings.model_copy(update={"clickhouse_url": url}))


def test_whatever_happens_to_inserts_every_row_is_stored_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of failure several times: views and rollups count each step once, and nothing goes
    to the dead letter.
    """
    # The action `hang` waits for this time-out; a minute each would be the test's length. With less
    # than 5 s inserts that pass would be repeated on a busy machine, where one takes seconds.
    monkeypatch.setattr(insert, "TIMEOUT_S", 5)
    create_topics(settings, partitions=2)
    steps = Steps()
    send(settings, [record for _ in range(20) for record in steps.run(20)])
    chance = random.Random(4)
    # Twice each, in an order of chance with a fixed seed; the last one, a hang, once.
    actions = [*ACTIONS, *ACTIONS[:-1]]
    chance.shuffle(actions)

    def choose(number: int) -> str:
        # Every second insert passes, so that each failure meets a repetition and a new batch.
        return actions.pop() if actions and number > 3 and number % 2 == 0 else ""

    with (
        StoreProxy(settings.clickhouse_url, choose) as proxy,
        sink_at(settings, proxy.url) as stats,
    ):
        deadline = time.monotonic() + 60
        while actions and time.monotonic() < deadline:
            send(settings, [record for _ in range(3) for record in steps.run(20)])
            time.sleep(0.2)
        wait_until_stored(settings, steps.sent, 90)
        wait_until(lambda: lag(settings, partitions=2) == 0, 180, "everything committed")
    assert set(proxy.counts) == {*ACTIONS, "passed"}
    assert stats.retries >= len(ACTIONS)
    assert sum(stats.dead_lettered.values()) == 0
    assert_stored(settings, steps.sent)


def test_a_sink_killed_in_the_middle_of_an_insert_leaves_all_of_it_or_nothing(
    settings: Settings,
) -> None:
    """Half of the rows had gone over the wire: who comes next repeats the batch, and it counts
    once.
    """
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(30) for record in steps.run(20)])
    sent_half = threading.Event()
    with StoreProxy(settings.clickhouse_url, lambda number: "half" if number == 3 else "") as proxy:
        dying = SinkProcess(settings.model_copy(update={"clickhouse_url": proxy.url}))

        def kill() -> None:
            # While the proxy keeps the rest: the server has the beginning of the rows.
            dying.process.kill()
            dying.process.wait(60)
            sent_half.set()

        proxy.at_half = kill
        assert sent_half.wait(240), dying.output()
        dying.end()
    successor = SinkProcess(settings)
    try:
        wait_until_stored(settings, steps.sent)
        assert successor.stop() == 0
        assert_stored(settings, steps.sent)
        assert lag(settings) == 0
    finally:
        successor.end()


def test_a_full_disk_stops_inserts_and_is_logged(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """While there is no room nothing is committed past it and nothing dropped; with room again the
    sink goes on by itself.
    """
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(20) for record in steps.run(20)])
    room = threading.Event()
    full = StoreProxy(settings.clickhouse_url, lambda _number: "" if room.is_set() else "disk full")
    with full as proxy, sink_at(settings, proxy.url) as stats:
        wait_until(lambda: proxy.counts["disk full"] >= 4, 180, "several tries")
        # A full disk is an outage: no record may be blamed for it.
        assert (stats.batches["steps"], sum(stats.dead_lettered.values())) == (0, 0)
        wait_until(lambda: stats.lag.get(("steps", 0), 0) > 0, 180, "the lag seen")
        room.set()
        wait_until_stored(settings, steps.sent)
    assert_stored(settings, steps.sent)
    assert ERRORS["disk full"].partition("DB::Exception: ")[2][:40] in caplog.text
