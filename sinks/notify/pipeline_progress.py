"""Reads the progress of workers and sinks: committed offsets, group members, and outputs."""

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
"""What a worker writes. Its committed offset does not show progress: an open run holds it back."""


class PipelineProgress:
    """Reads with one consumer for each group, which does not join it. Used by one thread."""

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
        """The progress of every component that has ever committed. Raises ``KafkaException``."""
        return [reading for part in self._groups for reading in self._part(part)]

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _part(self, part: str) -> Iterator[ProgressReading]:
        client, prefix = self._clients[part], self._settings.topic_prefix
        names = [topic(prefix, name) for name in (_WORKED if part == "worker" else _STORED)]
        existing = client.list_topics(timeout=TIMEOUT_S).topics
        places = [
            TopicPartition(name, number)
            for name in names
            if name in existing
            for number in existing[name].partitions
        ]
        committed = [at for at in client.committed(places, timeout=TIMEOUT_S) if at.offset >= 0]
        if committed:
            self._known.add(part)
        if part not in self._known:
            return  # this component has never run here
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
        """Members of the group; 1 if Kafka does not answer just now."""
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
"""Not the usage topic: its offset moves when windows are sealed, minutes later by design."""
_STORED: Final = ("steps", "trajectories", "alerts", "usage", "findings", "deliveries", "fleet")
