"""The Prices documents in force: read from the config topic to its end, then followed, outside the consumer group."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from confluent_kafka import Consumer, Message, TopicPartition
from pydantic import ValidationError

from stepstream.kafka import consumer, partition_count, position_of, read_to_end
from stepstream.schemas.documents import DOCUMENT, Prices
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

logger = logging.getLogger("stepstream.sink")


class PriceList:
    """Prices documents by key. What is no valid document is ignored, as the worker does."""

    def __init__(self) -> None:
        self._documents: dict[str, Prices] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> bool:
        """Take over one record of the config topic; True when prices changed."""
        name = (key or b"").decode("utf-8", "replace")
        before = self._documents.pop(name, None)
        if value and name.startswith("prices/"):
            try:
                document = DOCUMENT.validate_json(value)
            except ValidationError as error:
                logger.error("document %s on the config topic is ignored: %s", name, error)
            else:
                if isinstance(document, Prices):
                    self._documents[name] = document
        return before != self._documents.get(name)

    def book(self) -> PriceBook:
        """The prices in force."""
        return PriceBook(tuple(self._documents.values()))


class PriceFollower:
    """Keeps a price book up to date with the config topic."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._name = topic(settings.topic_prefix, "config")
        self._next: dict[int, int] = {}
        self._list = PriceList()
        self._consumer: Consumer | None = None
        self._following = False
        self.book = PriceBook()

    def read_all(self) -> None:
        """Read the topic to its end. Raises ``KafkaUnreachable``."""
        self._apply(read_to_end(self._settings, self._name))
        self.book = self._list.book()

    def poll(self) -> bool:
        """Take over what came since, without waiting; True when prices changed. Raises ``KafkaUnreachable``."""
        if self._consumer is None:
            self._consumer = consumer(self._settings, "stepstream-prices")
        if not self._following and not self._follow(self._consumer):
            return False
        if not self._apply(m for m in self._consumer.consume(100, timeout=0) if m.error() is None):
            return False
        self.book = self._list.book()
        logger.info("prices changed: steps are priced by the new ones from here on")
        return True

    def close(self) -> None:
        """Stop following."""
        if self._consumer is not None:
            self._consumer.close()

    def _apply(self, messages: Iterable[Message]) -> bool:
        changed = False
        for message in messages:
            partition, offset = position_of(message)
            self._next[partition] = offset + 1
            changed |= self._list.apply(message.key(), message.value())
        return changed

    def _follow(self, client: Consumer) -> bool:
        """Whether the topic is there to be followed."""
        places = range(partition_count(client, self._name))
        client.assign([TopicPartition(self._name, place, self._next.get(place, 0)) for place in places])
        self._following = bool(places)
        return self._following
