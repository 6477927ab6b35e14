"""Records lie where the partitioner puts them, as in librdkafka: the steps of a run meet."""

from __future__ import annotations

import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stepstream.common.kafka import producer
from stepstream.schemas.ids import new_trace_id
from stepstream.schemas.partitioner import PARTITION_VECTORS, partition_for
from stepstream.schemas.settings import Settings


def _placed(kafka_bootstrap: str, topic: str, partitions: int, keys: list[str]) -> dict[str, int]:
    """The partition that librdkafka chose for each key."""
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    for future in admin.create_topics([NewTopic(topic, partitions, 1)]).values():
        future.result(30)
    placed: dict[str, int] = {}

    def note(error: object, message: Message) -> None:
        assert error is None
        key, partition = message.key(), message.partition()
        assert key is not None
        assert partition is not None
        placed[key.decode() if isinstance(key, bytes) else key] = partition

    client = producer(Settings(kafka_brokers=kafka_bootstrap))
    for key in keys:
        client.produce(topic, b"x", key=key.encode(), on_delivery=note)
    assert client.flush(30) == 0
    return placed


@pytest.mark.parametrize("partitions", [4, 12])
def test_librdkafka_places_keys_where_the_partitioner_does(
    kafka_bootstrap: str, topic_prefix: str, partitions: int
) -> None:
    """Test vectors and random trace ids lie on ``partition_for``'s partition, of 4 and of 12."""
    vectors = {v.key: v.of_4 if partitions == 4 else v.of_12 for v in PARTITION_VECTORS}
    ids = [new_trace_id() for _ in range(500)]
    expected = vectors | {key: partition_for(key, partitions) for key in ids}

    placed = _placed(kafka_bootstrap, f"{topic_prefix}.placed", partitions, list(expected))

    assert placed == expected
