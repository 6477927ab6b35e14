"""When a broker is ready: all nodes there, a record acknowledged, a group coordinator that answers.

An open port is none of these: right after the start clients still see "coordinator load in
progress".
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stepstream.common.kafka import idempotent_producer

TOPIC = "__stepstream_ready"
GROUP = "stepstream-ready"


def wait_ready(
    connection: dict[str, str],
    nodes: int,
    cluster_id: str,
    deadline: float,
    alive: Callable[[], None],
) -> None:
    """Return when the cluster with this id is ready. Raises ``TimeoutError`` at the deadline.

    ``connection`` has the brokers, and the user if they require one. The id distinguishes the
    cluster from another one that took the port a moment earlier. ``alive`` is called regularly and
    raises when the cluster cannot become ready any more. ``deadline`` is on the clock of
    ``time.monotonic``.
    """
    patience: dict[str, Any] = {**connection, "log_level": 0, "reconnect.backoff.max.ms": 200}
    # Quiet and quick to reconnect: refused connections are expected while the broker starts.
    admin = AdminClient(patience)
    steps: list[Callable[[], bool]] = [
        lambda: _all_nodes(admin, nodes, cluster_id),
        lambda: _topic_exists(admin, nodes),
        lambda: _coordinator_answers(patience),
    ]
    for step in steps:
        while not step():
            alive()
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.05)
    _acknowledged(connection, deadline, alive)


def _all_nodes(admin: AdminClient, nodes: int, cluster_id: str) -> bool:
    try:
        found = admin.list_topics(timeout=1)
    except KafkaException:
        return False
    return found.cluster_id == cluster_id and len(found.brokers) == nodes


def _topic_exists(admin: AdminClient, nodes: int) -> bool:

    settings = {"retention.ms": "3600000", "segment.bytes": "1048576"}
    topic = NewTopic(TOPIC, 1, min(3, nodes), config=settings)
    try:
        admin.create_topics([topic], request_timeout=5)[TOPIC].result(6)
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS)
    except TimeoutError:
        return False
    return True


def _coordinator_answers(patience: dict[str, Any]) -> bool:
    # Not AdminClient.list_consumer_group_offsets: librdkafka crashes the process there when the
    # coordinator moves (confluentinc/librdkafka#5040), and during a start it does.
    asking = Consumer({**patience, "group.id": GROUP})
    try:
        asking.committed([TopicPartition(TOPIC, 0)], timeout=3)
    except KafkaException:
        return False
    finally:
        asking.close()
    return True


def _acknowledged(connection: dict[str, str], deadline: float, alive: Callable[[], None]) -> None:
    producer = idempotent_producer(connection, **{"log_level": 0, "linger.ms": 0})
    answers: list[object] = []
    producer.produce(TOPIC, b"ready", callback=lambda error, _message: answers.append(error))
    while not answers:
        producer.poll(0.05)
        alive()
        if time.monotonic() > deadline:
            producer.purge()
            raise TimeoutError
    if answers[0] is not None:
        raise TimeoutError(str(answers[0]))
