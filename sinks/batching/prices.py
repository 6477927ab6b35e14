"""The Prices documents in force, followed on the config topic."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from confluent_kafka import Message

from stepstream.common.kafka import Follower
from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.documents import Prices
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

logger = logging.getLogger("stepstream.sink")


class PriceFollower:
    """Keeps a price book up to date with the config topic. For one thread."""

    def __init__(self, settings: Settings) -> None:
        self._topic = Follower(settings, topic(settings.topic_prefix, "config"))
        self._documents = DocumentSet()
        self.book = PriceBook()

    def read_all(self) -> None:
        """Read the topic to its end. Raises ``KafkaUnreachable``."""
        self._apply(self._topic.read_all())

    def poll(self) -> bool:
        """Apply what was published since, without waiting; True when prices changed. Raises
        ``KafkaUnreachable``.
        """
        if not self._apply(self._topic.poll(0)):
            return False
        logger.info("prices changed: steps are priced by the new ones from now on")
        return True

    def close(self) -> None:
        """Stop following."""
        self._topic.close()

    def _apply(self, messages: Iterable[Message]) -> bool:
        changed = False
        for message in messages:
            try:
                changed |= isinstance(self._documents.apply(message.key(), message.value()), Prices)
            except UnreadableDocument as error:
                logger.error("%s", error)
        if changed:
            self.book = self._documents.price_book()
        return changed
