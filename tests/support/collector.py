"""What the topics hold, read as it comes and kept for the checks."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stepstream.common.kafka import consumer, partition_count, position_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.assemble.state import RunState, decode_state

READ: tuple[str, ...] = (
    "trajectories",
    "usage",
    "findings",
    "alerts",
    "control",
    "deadletter",
    "state",
)


@dataclass(frozen=True)
class CollectedRecord:
    """A record of an output topic."""

    partition: int
    offset: int
    key: bytes
    value: Any
    headers: dict[str, bytes]


class Collector:
    """Reads the output topics of an installation from their beginnings."""

    def __init__(self, settings: Settings) -> None:
        self.records: dict[str, list[CollectedRecord]] = defaultdict(list)
        self.states: dict[str, RunState] = {}
        # Records that do not decode, by topic, which the test sent on purpose.
        self.unreadable: Counter[str] = Counter()
        self._prefix = settings.topic_prefix
        self._names = {topic(settings.topic_prefix, name): name for name in READ}
        self._consumer: Consumer = consumer(
            # Half a second by default, for each read of a topic without new records.
            settings,
            f"{settings.topic_prefix}.checker",
            **{"fetch.wait.max.ms": 100},
        )
        parts = []
        for full in self._names:
            count = partition_count(self._consumer, full)
            parts += [TopicPartition(full, partition, 0) for partition in range(count)]
        self._consumer.assign(parts)

    def read(self, quiet_s: float = 0.7) -> None:
        """Take over what has come, until nothing comes for a moment."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < quiet_s:
            for message in self._consumer.consume(2_000, timeout=0.2):
                if message.error() is None:
                    self._take(message)
                    quiet_since = time.monotonic()

    def close(self) -> None:
        """End reading."""
        self._consumer.close()

    def final(self) -> dict[str, dict[str, Any]]:
        """The trajectory of the highest revision of each run."""
        best: dict[str, dict[str, Any]] = {}
        for record in self.records["trajectories"]:
            known = best.get(record.value["trace_id"])
            if known is None or record.value["revision"] > known["revision"]:
                best[record.value["trace_id"]] = record.value
        return best

    def _take(self, message: Any) -> None:
        try:
            self._take_record(message)
        except (msgspec.MsgspecError, ValueError, AttributeError, RecursionError):
            self.unreadable[self._names[message.topic()]] += 1

    def _take_record(self, message: Any) -> None:
        name = self._names[message.topic()]
        value = message.value()
        partition, offset = position_of(message)
        if name == "state":
            self._take_state(message.key() or b"", value)
            return
        decoded = value if name == "deadletter" else msgspec.json.decode(value)
        if name != "deadletter" and not isinstance(decoded, dict):
            raise ValueError("no object")
        headers = dict(message.headers() or [])
        self.records[name].append(
            CollectedRecord(partition, offset, message.key() or b"", decoded, headers)
        )

    def _take_state(self, key: bytes, value: bytes | None) -> None:
        # Keys with ! are notes of the partition, such as its tries of poison records.
        if not value or key.startswith(b"!"):
            return
        state = decode_state(value)
        known = self.states.get(state.trace_id)
        if known is None or state.order >= known.order:
            self.states[state.trace_id] = state
