"""The subscriptions in force: read whole from the config topic, then followed, so that none needs a restart."""

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
    """Subscriptions by name; ``version`` grows with every change."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "config")
        self._held: dict[str, Subscription] = {}
        self._next: dict[int, int] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.version = 0

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """Those in force now."""
        with self._guard:
            return dict(self._held)

    def start(self) -> None:
        """Read all there are, then follow. Raises ``KafkaUnreachable``."""
        for message in kafka.read_to_end(self._settings, self._name):
            self._take(message)
        self._thread = threading.Thread(target=self._follow, name="stepstream-config", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Follow no more."""
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
                    [TopicPartition(self._name, p, self._next.get(p, 0)) for p in range(count)]
                )
                break
            while not self._stop.is_set():
                message = client.poll(POLL_S)
                if message is not None and message.error() is None:
                    self._take(message)
        except KafkaException:
            _log.exception("subscriptions are not followed any more: restart the notifier")
        finally:
            client.close()

    def _take(self, message: Message) -> None:
        partition, offset = kafka.position_of(message)
        self._next[partition] = offset + 1
        key, value = message.key() or b"", message.value()
        if not key.startswith(_PREFIX):
            return
        name = key.removeprefix(_PREFIX).decode("utf-8", "replace")
        try:
            document = decode_document(value) if value else None
        except WrongDocument as error:
            _log.error(
                "subscription %s on the config topic is ignored, the one before stays in force: %s",
                name,
                error,
            )
            return
        with self._guard:
            if isinstance(document, Subscription):
                self._held[name] = document
            else:
                self._held.pop(name, None)
            self.version += 1
