"""Small batches that unpack to more than any client allows: skipped and reported by each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Producer

from stepstream.admin.topics import create_topics
from stepstream.common import kafka
from stepstream.schemas.batches import RECEIVE_BYTES
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import migrate
from tests.support.processes import wait_until
from tests.support.sink import (
    SinkThread,
    Steps,
    assert_stored,
    lag,
    send,
    small_batches,
)
from tests.support.worker_world import World, step, trace

MEGABYTE = 1_048_576
TOO_MANY = RECEIVE_BYTES // MEGABYTE + 10
READABLE = 130


def send_batch(
    settings: Settings, name: str, count: int, codec: str = "zstd", value: bytes = b"x" * MEGABYTE
) -> None:
    """Send ``count`` records of a megabyte in one batch.

    The offsets that readers skip prove that it is one.
    """
    client = Producer(
        {
            **settings.kafka,
            "compression.type": codec,
            # Sent when the count is reached, never by time: a slow machine would split the batch.
            "linger.ms": 200_000,
            "batch.size": 2_000_000_000,
            "batch.num.messages": count,
            "message.max.bytes": 1_000_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
        }
    )
    destination = topic(settings.topic_prefix, name)
    # With the partitions known before, every record waits in the partition's queue. Else they wait
    # outside and are moved during the flush, which sends the first one in a batch of its own.
    assert client.list_topics(destination, timeout=60).topics[destination].partitions
    for _ in range(count):
        client.produce(destination, value, b"key", partition=0)
    assert client.flush(60) == 0


@pytest.fixture
def world(kafka_bootstrap: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka_bootstrap, tmp_path, partitions=1, fleet_partitions=2)
    yield made
    made.collected.close()
    if made.starts:
        made.process.kill()


def letters(settings: Settings) -> list[dict[str, str]]:
    found = kafka.read_to_end(settings, topic(settings.topic_prefix, "deadletter"))
    pairs: list[Any] = [message.headers() or () for message in found]
    return [{name: (value or b"").decode() for name, value in headers} for headers in pairs]


def test_a_worker_goes_on_behind_a_batch_that_unpacks_to_too_much(world: World) -> None:
    world.start()
    before, behind = trace(), trace()
    world.send(step(before, 1, "start"))
    send_batch(world.settings, "steps", TOO_MANY)
    world.send(step(behind, 1, "start"), step(behind, 1), step(before, 1))
    assert world.final(before)["steps"] == world.final(behind)["steps"] == 1
    alert = world.wait_for("alerts", lambda value: value["alert"] == "unreadable-batch")
    assert alert["subject"] == "steps/0"
    assert f"offsets 1 to {TOO_MANY}" in alert["message"]
    (letter,) = letters(world.settings)
    assert (letter["stepstream-reason"], letter["stepstream-offset"]) == (
        "unreadable_batch",
        str(TOO_MANY),
    )
    assert world.process.running
    world.process.kill()
    world.start()
    last = trace()
    world.send(step(last, 1))
    world.final(last)
    assert len(letters(world.settings)) == 1


@pytest.mark.parametrize("name", ["findings", "usage"])
def test_the_other_stages_pass_over_it_too(world: World, name: str) -> None:
    send_batch(world.settings, name, TOO_MANY)
    send_batch(world.settings, "alerts" if name == "findings" else "fleet", TOO_MANY)
    world.start()
    root = trace()
    world.send(step(root, 1))
    world.final(root)
    found = {
        (letter["stepstream-topic"], letter["stepstream-offset"])
        for letter in letters(world.settings)
    }
    other = "alerts" if name == "findings" else "fleet"
    assert found == {(name, str(TOO_MANY - 1)), (other, str(TOO_MANY - 1))}


def test_readers_pass_over_exactly_the_batch(world: World) -> None:
    settings = world.settings
    world._send("alerts", b"first", b"k")
    send_batch(settings, "alerts", TOO_MANY)
    world._send("alerts", b"between", b"k")
    send_batch(settings, "alerts", TOO_MANY)
    send_batch(settings, "alerts", TOO_MANY + 1)
    world._send("alerts", b"last", b"k")
    passed: list[kafka.BadBatch] = []
    found = [
        message.value()
        for message in kafka.read_to_end(
            settings, topic(settings.topic_prefix, "alerts"), passed=passed.append
        )
    ]
    assert found == [b"first", b"between", b"last"]
    second, third = 2 + TOO_MANY, 2 + 2 * TOO_MANY
    ends = [(1, TOO_MANY), (second, second + TOO_MANY - 1), (third, third + TOO_MANY)]
    assert [(batch.first, batch.last) for batch in passed] == ends


def test_a_sink_goes_on_behind_it_and_stores_what_a_client_can_read(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> None:
    more = {"partitions": 1, "fleet_partitions": 1}
    own = small_batches(kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database, **more)
    migrate(own)
    create_topics(own)
    steps = Steps()
    with SinkThread(own) as stats:
        send(own, steps.run(3))
        send_batch(own, "steps", TOO_MANY)
        send(own, steps.run(3))
        send_batch(own, "steps", READABLE)
        send(own, steps.run(3))
        wait_until(lambda: lag(own) == 0, 120, "everything committed")
    assert_stored(own, steps.sent)
    assert stats.dead_lettered["steps"] == 1
    assert stats.skipped["steps", "malformed_json"] == READABLE
    (letter,) = letters(own)
    assert letter["stepstream-by"] == "sink"
    (finding,) = [
        msgspec.json.decode(m.value() or b"")
        for m in kafka.read_to_end(own, topic(own.topic_prefix, "findings"))
    ]
    assert finding["alert"] == "unreadable-batch"
