"""What benchmarks over Kafka share: a broker of their own in a folder that is removed at the end,
topics, a plain topic for limits."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from stepstream.admin import topics
from stepstream.common.kafka import consumer
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="stepstream-bench-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


@contextmanager
def broker(folder: Path) -> Iterator[EmbeddedKafka]:
    """An embedded Kafka as ``stepstream up`` would start it."""
    with EmbeddedKafka(folder / "kafka", heap_mb=Settings().kafka_heap_mb) as kafka:
        yield kafka


def prepared(brokers: str, prefix: str, **settings: Any) -> Settings:
    """Settings under a topic prefix of their own, with its topics made."""
    made = Settings(kafka_brokers=brokers, topic_prefix=prefix, metrics_port=-1, **settings)
    topics.create_topics(made)
    return made


def steps_topic(settings: Settings) -> str:
    """The topic that steps are sent to."""
    return topic(settings.topic_prefix, "steps")


def plain_topic(settings: Settings, name: str) -> str:
    """A topic like that of the steps, which nothing of ours reads."""
    client = topics.admin(settings)
    client.create_topics([NewTopic(name, settings.partitions, 1)])[name].result()
    return name


def records_in(settings: Settings, name: str) -> int:
    """How many records a topic holds, by its offsets."""
    client = consumer(settings, "benchmarks")
    try:
        partitions = client.list_topics(name, timeout=10).topics[name].partitions
        ends = [
            client.get_watermark_offsets(TopicPartition(name, number), timeout=10)
            for number in partitions
        ]
    finally:
        client.close()
    return sum(high - low for low, high in ends)
