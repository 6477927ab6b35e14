"""The subscriptions in force: read from the config topic, then followed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Final

from confluent_kafka import KafkaException, Message, TopicPartition

from stepstream.common import kafka
from stepstream.schemas.documents import Subscription, WrongDocument, decode_document
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

POLL_S: Final = 0.5
_PREFIX: Final = b"subscription/"
_log = logging.getLogger("stepstream.admin.notify")


class Subscriptions:
    """Subscriptions by name, kept up to date by a thread. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "config")
        self._subscriptions: dict[str, Subscription] = {}
        self._next_offsets: dict[int, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.version = 0
        """Increases with every change."""

    @property
    def current(self) -> Mapping[str, Subscription]:
        """The subscriptions in force now, disabled ones included."""
        with self._lock:
            return dict(self._subscriptions)

    def start(self) -> None:
        """Read all subscriptions and start to follow changes. Raises ``KafkaUnreachable``."""
        for message in kafka.read_to_end(self._settings, self._name):
            self._apply(message)
        self._thread = threading.Thread(target=self._follow, name="stepstream-config", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _follow(self) -> None:
        client = kafka.consumer(self._settings, "stepstream-config")
        try:
            while not self._stop.is_set():
                try:
                    count = kafka.partition_count(client, self._name)
                except kafka.KafkaUnreachable:
                    continue
                client.assign(
                    [
                        TopicPartition(self._name, number, self._next_offsets.get(number, 0))
                        for number in range(count)
                    ]
                )
                break
            while not self._stop.is_set():
                message = client.poll(POLL_S)
                if message is not None and message.error() is None:
                    self._apply(message)
        except KafkaException:
            _log.exception(
                "changes of subscriptions are not followed any more: restart the notifier"
            )
        finally:
            client.close()

    def _apply(self, message: Message) -> None:
        partition, offset = kafka.position_of(message)
        self._next_offsets[partition] = offset + 1
        key, value = message.key() or b"", message.value()
        if not key.startswith(_PREFIX):
            return
        name = key.removeprefix(_PREFIX).decode("utf-8", "replace")
        try:
            document = decode_document(value) if value else None
        except WrongDocument as error:
            _log.error(
                "subscription %s on the config topic is invalid and ignored; "
                "an earlier version stays in force: %s",
                name,
                error,
            )
            return
        with self._lock:
            if isinstance(document, Subscription):
                self._subscriptions[name] = document
            else:
                self._subscriptions.pop(name, None)
            self.version += 1
