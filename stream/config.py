"""The documents in force: read whole from the config topic before the first step, then followed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from confluent_kafka import Consumer, Message
from pydantic import ValidationError

from stepstream.kafka import consumer, partition_count, position_of, read_to_end
from stepstream.schemas.documents import DOCUMENT, Prices, Subscription
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.detectors import make_detector
from stepstream.stream.rules import RuleBook

log = logging.getLogger("stepstream.worker")


class Documents:
    """Documents by key, as the config topic has them."""

    def __init__(self) -> None:
        self._by_key: dict[str, Policy | Subscription | Prices] = {}

    def apply(self, messages: Iterable[Message]) -> bool:
        """Take over records of the config topic; True when a policy or prices changed.

        What cannot be read is ignored: the document before it stays in force.
        """
        changed = False
        for message in messages:
            key = (message.key() or b"").decode("utf-8", "replace")
            before = self._by_key.get(key)
            value = message.value()
            try:
                after = DOCUMENT.validate_json(value) if value else None
            except ValidationError as error:
                log.error("document %s on the config topic is ignored: %s", key, error)
                continue
            if after is None:
                self._by_key.pop(key, None)
            else:
                self._by_key[key] = after
            changed |= before != after and isinstance(after or before, Policy | Prices)
        return changed

    def rule_book(self) -> RuleBook:
        """The policies in force."""
        return RuleBook((d for d in self._by_key.values() if isinstance(d, Policy)), make_detector)

    def price_book(self) -> PriceBook:
        """The prices in force."""
        return PriceBook(tuple(d for d in self._by_key.values() if isinstance(d, Prices)))


class ConfigTopic:
    """Reads the config topic to its end, then follows it without a group. All calls block shortly: use a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "config")
        self._next: dict[int, int] = {}
        self._consumer: Consumer | None = None
        self._in_use = threading.Lock()  # librdkafka crashes when a consumer is closed while another thread polls it
        self._closed = False

    def read_all(self) -> list[Message]:
        """Every record up to the end."""
        messages = list(read_to_end(self._settings, self._name))
        for message in messages:
            partition, offset = position_of(message)
            self._next[partition] = offset + 1
        return messages

    def poll(self, timeout_s: float) -> list[Message]:
        """Records that came since; waits for ``timeout_s`` at most."""
        with self._in_use:
            if self._closed:
                return []
            if self._consumer is None:
                self._consumer = self._follow()
            return [m for m in self._consumer.consume(100, timeout=timeout_s) if m.error() is None]

    def close(self) -> None:
        """Stop following, once a poll that is under way has come back."""
        with self._in_use:
            self._closed = True
            if self._consumer is not None:
                self._consumer.close()

    def _follow(self) -> Consumer:
        from confluent_kafka import TopicPartition

        client = consumer(self._settings, "stepstream-config")
        count = partition_count(client, self._name)
        client.assign([TopicPartition(self._name, p, self._next.get(p, 0)) for p in range(count)])
        return client
