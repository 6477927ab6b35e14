"""A sink whose store, partitions, offsets or whole processes go away: everything is stored once in
the end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.support.processes import wait_until
from tests.support.sink import (
    TOPICS,
    SinkProcess,
    SinkThread,
    Steps,
    assert_stored,
    create_topics,
    lag,
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
        kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database, sink_batch_rows=500
    )


@pytest.fixture
def own_store(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    """A ClickHouse of the test's own, to be killed."""
    store = EmbeddedClickHouse(tmp_path / "clickhouse")
    store.start()
    yield store
    store.stop()


def at(settings: Settings, store: EmbeddedClickHouse) -> Settings:
    """The same with another store."""
    writer = store.access.writer
    login = {"clickhouse_user": writer.user, "clickhouse_password": SecretStr(writer.password)}
    return settings.model_copy(update={"clickhouse_url": store.url, **login})


def kill(store: EmbeddedClickHouse) -> None:
    """SIGKILL, and what is needed to start it again on the same folder and port."""
    assert store.pid is not None
    os.kill(store.pid, signal.SIGKILL)
    store.stop()


def test_a_store_killed_under_load_is_waited_for_in_bounded_memory(
    settings: Settings, own_store: EmbeddedClickHouse
) -> None:
    """While it does not run only as much is read as fits and lag is visible; then everything is
    stored once.
    """
    settings = at(settings, own_store)
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(100) for record in steps.run(10)])
    with SinkThread(settings) as stats:
        wait_until(lambda: stats.batches["steps"] >= 2, 180, "the first batches stored")
        kill(own_store)
        send(settings, [record for _ in range(500) for record in steps.run(10)])
        wait_until(lambda: stats.lag.get(("steps", 0), 0) > 5_000, 180, "the lag seen")
        time.sleep(2.5)  # long enough to fill memory without a bound
        assert stats.read["steps"] < 2_000 + 3 * settings.sink_batch_rows + 2_000
        own_store.start()
        wait_stored(settings, steps.sent)
        wait_until(lambda: lag(settings) == 0, 180, "everything committed")
        wait_until(lambda: stats.lag.get(("steps", 0)) == 0, 180, "no lag any more")
    assert stats.retries > 0
    assert_stored(settings, steps.sent)


def test_a_sink_waits_for_a_store_that_is_not_there_yet(
    settings: Settings, own_store: EmbeddedClickHouse
) -> None:
    """Started before its store, a sink makes the schema and stores everything once the store is
    there.
    """
    settings = at(settings, own_store)
    own_store.stop()
    create_topics(settings)
    steps = Steps()
    send(settings, steps.run(20))
    with SinkThread(settings):
        time.sleep(0.5)
        own_store.start()
        wait_stored(settings, steps.sent)


# Points of the protocol, and whether its successor still runs when the frozen sink resumes.
FREEZES = {
    "planned steps": False,
    "committed steps": True,
    "insert steps_raw": False,
    "inserted steps_raw": True,
}


@pytest.mark.long
def test_a_frozen_sink_changes_nothing_when_it_wakes(settings: Settings) -> None:
    """Stopped for longer than its session, wherever it was: another sink goes on, and what the
    first still does is nothing.

    Also when the other one has left again: then Kafka takes the commits of who comes from the past.
    """
    places = {}
    for point in FREEZES:
        own = set_apart(settings, point)
        create_topics(own)
        steps = Steps()
        send(own, [record for _ in range(100) for record in steps.run(10)])
        places[point] = (own, steps)
    frozen = {point: SinkProcess(own, freeze=point) for point, (own, _) in places.items()}
    successors: dict[str, SinkProcess] = {}
    try:
        for point, process in frozen.items():
            wait_until(process.is_frozen, 60, f"frozen at {point}")
        successors = {point: SinkProcess(own) for point, (own, _) in places.items()}
        for point, (own, steps) in places.items():
            wait_stored(own, steps.sent)
            # Kafka takes the commits of a former member while the group is empty.
            if not FREEZES[point]:
                assert successors[point].stop() == 0
        for process in frozen.values():
            process.process.send_signal(signal.SIGCONT)
        for own, steps in places.values():
            send(own, steps.run(10))
            wait_stored(own, steps.sent)
        for process in frozen.values():
            # The line is logged by a sink that has noticed its pause.
            assert "stood still" in process.output()
        for process in (*frozen.values(), *successors.values()):
            assert process.stop() == 0
        for own, steps in places.values():
            assert_stored(own, steps.sent)
            assert lag(own) == 0
    finally:
        for process in (*frozen.values(), *successors.values()):
            process.end()


@pytest.mark.long
def test_sinks_that_join_leave_and_die_under_load_store_everything_once(settings: Settings) -> None:
    """Partitions move between sinks while steps come: joined, stopped, killed, started again."""
    create_topics(settings, partitions=4)
    steps = Steps()
    done = threading.Event()

    def produce() -> None:
        while not done.wait(0.05):
            send(settings, [record for _ in range(20) for record in steps.run(5)])

    producer = threading.Thread(target=produce)
    producer.start()
    sinks = [SinkProcess(settings)]
    try:
        time.sleep(2)
        sinks += [SinkProcess(settings), SinkProcess(settings)]
        time.sleep(4)
        assert sinks[0].stop() == 0
        sinks[1].process.kill()
        sinks.append(SinkProcess(settings))
        time.sleep(4)
        done.set()
        producer.join()
        wait_stored(settings, steps.sent)
        for process in sinks[2:]:
            assert process.stop() == 0
        assert_stored(settings, steps.sent)
        assert lag(settings, partitions=4) == 0
    finally:
        done.set()
        producer.join()
        for process in sinks:
            process.end()


def group_of(settings: Settings) -> str:
    """The sinks' group."""
    return f"{settings.topic_prefix}.{settings.sink_group}"


def test_without_committed_offsets_a_sink_goes_on_from_the_store(settings: Settings) -> None:
    """Offsets that Kafka lost are found in the store: nothing is read that was stored, nothing is
    missed.
    """
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(50) for record in steps.run(10)])
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    admin = AdminClient(settings.kafka)
    # Kafka forgets the offsets of a group that did not run for a week.
    admin.delete_consumer_groups([group_of(settings)])[group_of(settings)].result()
    send(settings, steps.run(10))
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
    # Ten steps with start and end: nothing from before was read again.
    assert stats.read["steps"] == 20
    assert_stored(settings, steps.sent)


def test_offsets_set_back_by_hand_double_nothing(settings: Settings) -> None:
    """What is read again is known to be stored, in the rollups too."""
    create_topics(settings)
    steps = Steps()
    send(settings, [record for _ in range(50) for record in steps.run(10)])
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    admin = AdminClient(settings.kafka)
    back = ConsumerGroupTopicPartitions(
        group_of(settings), [TopicPartition(topic(settings.topic_prefix, "steps"), 0, 300)]
    )
    admin.alter_consumer_group_offsets([back])[group_of(settings)].result()
    send(settings, steps.run(10))
    with SinkThread(settings) as stats:
        wait_stored(settings, steps.sent)
        wait_until(lambda: lag(settings) == 0, 180, "everything committed")
    assert stats.read["steps"] == 720
    assert_stored(settings, steps.sent)


def test_a_topic_created_again_is_stored_in_addition_to_the_old_one(settings: Settings) -> None:
    """New records at old offsets are new: no token and no offset of the old topic hides them."""
    create_topics(settings)
    steps = Steps()
    send(settings, steps.run(10))
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    admin = AdminClient(settings.kafka)
    names = [topic(settings.topic_prefix, name) for name in TOPICS]
    for future in admin.delete_topics(names).values():
        future.result(30)
    wait_until(
        # Kafka deletes in the background; a topic of the same name is refused until then.
        lambda: not set(names) & set(admin.list_topics(timeout=10).topics),
        180,
        "the topics gone",
    )
    create_topics(settings)
    send(settings, steps.run(10))
    with SinkThread(settings):
        wait_stored(settings, steps.sent)
    assert_stored(settings, steps.sent)


@pytest.mark.long
def test_a_broker_killed_under_load_is_waited_for(settings: Settings, tmp_path: Path) -> None:
    """While Kafka does not answer the sink waits, and then everything is stored once."""
    with EmbeddedKafka(tmp_path / "kafka", heap_mb=256) as broker:
        settings = settings.model_copy(update={"kafka_brokers": broker.bootstrap})
        create_topics(settings)
        steps = Steps()
        send(settings, [record for _ in range(300) for record in steps.run(10)])
        with SinkThread(settings) as stats:
            wait_until(lambda: stats.batches["steps"] >= 2, 180, "the first batches stored")
            broker.kill(0)
            time.sleep(1)
            broker.restart(0)
            send(settings, [record for _ in range(10) for record in steps.run(10)])
            wait_stored(settings, steps.sent)
            wait_until(lambda: lag(settings) == 0, 180, "everything committed")
        assert_stored(settings, steps.sent)
