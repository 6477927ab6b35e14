"""Reads how far workers and sinks are: what their groups have committed, who is in them, and what they write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.pipeline_monitor import ProgressReading

TIMEOUT_S: Final = 5.0
WORKER_OUTPUTS: Final = ("trajectories", "state", "deadletter")
"""What a worker writes. Its committed place in the steps says little: an open run holds it back."""


class Progress:
    """Consumers that join nothing, one for each group. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._admin = AdminClient({**kafka.client_config(settings), "log_level": 0})
        groups = {"worker": settings.worker_group, "sink": settings.sink_group}
        self._groups = {part: f"{settings.topic_prefix}.{name}" for part, name in groups.items()}
        self._clients = {
            part: kafka.consumer(settings, group, **{"log_level": 0})
            for part, group in self._groups.items()
        }
        self._known: set[str] = set()

    def read(self) -> list[ProgressReading]:
        """How far every part is that was ever seen. Raises ``KafkaException``."""
        return [reading for part in self._groups for reading in self._part(part)]

    def close(self) -> None:
        """Let go of the connections."""
        for client in self._clients.values():
            client.close()

    def _part(self, part: str) -> Iterator[ProgressReading]:
        client, prefix = self._clients[part], self._settings.topic_prefix
        names = [topic(prefix, name) for name in (_WORKED if part == "worker" else _STORED)]
        held = client.list_topics(timeout=TIMEOUT_S).topics
        places = [
            TopicPartition(name, number)
            for name in names
            if name in held
            for number in held[name].partitions
        ]
        committed = [at for at in client.committed(places, timeout=TIMEOUT_S) if at.offset >= 0]
        if committed:
            self._known.add(part)
        if part not in self._known:
            return  # nobody has ever run it here
        members = self._members(part)
        for name in names:
            mine = [at for at in committed if at.topic == name]
            if mine:
                yield self._reading(client, part, name.removeprefix(f"{prefix}."), mine, members)

    def _reading(
        self, client: Consumer, part: str, name: str, committed: list[TopicPartition], members: int
    ) -> ProgressReading:
        inputs = lag = done = 0
        share = 0.0
        for at in committed:
            low, high = client.get_watermark_offsets(at, timeout=TIMEOUT_S)
            inputs, done, lag = inputs + high, done + at.offset, lag + max(0, high - at.offset)
            if low > 0 and high > low:
                share = max(share, min(1.0, (high - at.offset) / (high - low)))
        if part == "worker" and name == "steps":
            return ProgressReading(
                part, name, inputs, done + self._written(client), -1, share, members
            )
        return ProgressReading(part, name, inputs, done, lag, share, members)

    def _written(self, client: Consumer) -> int:
        total = 0
        for output in WORKER_OUTPUTS:
            name = topic(self._settings.topic_prefix, output)
            for number in range(kafka.partition_count(client, name)):
                total += client.get_watermark_offsets(
                    TopicPartition(name, number), timeout=TIMEOUT_S
                )[1]
        return total

    def _members(self, part: str) -> int:
        """How many run it; 1 where Kafka does not tell just now."""
        group = self._groups[part]
        try:
            return len(
                self._admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group]
                .result()
                .members
            )
        except KafkaException:
            return 1


_WORKED: Final = ("steps", "findings")
"""Not the usage: its place moves when windows are sealed, which is minutes later by design."""
_STORED: Final = ("steps", "trajectories", "alerts", "usage", "findings", "deliveries", "fleet")
