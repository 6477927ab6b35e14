"""What a sink asks Kafka about a topic itself: its id, its partitions, the ends of its log."""

from __future__ import annotations

import threading
from typing import Any

from confluent_kafka import TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from stepstream.common.kafka import client_config
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

ASK_S = 10


class TopicLog:
    """Answers over a connection of its own: a consumer's is blocked by its fetches. For several
    threads.

    All methods take a topic's name without prefix and raise ``KafkaException``.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None

    def identify(self, name: str) -> tuple[str, int]:
        """The topic's id, which changes when it is deleted and created again, and its number of
        partitions.
        """
        full = topic(self._settings.topic_prefix, name)
        described = (
            self._client()
            .describe_topics(TopicCollection([full]), request_timeout=ASK_S)[full]
            .result()
        )
        return str(described.topic_id), len(described.partitions)

    def ends(self, name: str, partition: int) -> tuple[int, int]:
        """The first offset of a partition and the one after its last."""
        at = TopicPartition(topic(self._settings.topic_prefix, name), partition)
        specs: list[Any] = [
            OffsetSpec.earliest(),  # type: ignore[no-untyped-call]
            OffsetSpec.latest(),  # type: ignore[no-untyped-call]
        ]
        client = self._client()
        low, high = (
            client.list_offsets({at: spec}, request_timeout=ASK_S)[at].result().offset
            for spec in specs
        )
        return low, high

    def close(self) -> None:
        """Drop the connection."""
        self._admin = None

    def _client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient(client_config(self._settings))
            return self._admin
