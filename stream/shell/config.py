"""The documents in force: read completely from the config topic before the first step, then
followed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaException, Message

from stepstream.common.kafka import BadBatch, Follower, KafkaUnreachable
from stepstream.common.letters import Unreadable, refuse_batch
from stepstream.schemas.batches import describe
from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.documents import Prices
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.schedule import Schedule
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_queue import Queue
from stepstream.schemas.topics import topic
from stepstream.stream.detectors.book import rule_book
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.usage.windows.rules import WindowRules

log = logging.getLogger("stepstream.worker")


class Documents:
    """The newest document of each key of the config topic."""

    def __init__(self) -> None:
        self._documents = DocumentSet()
        # Replaced as a whole, because another thread reads it.
        self.schedules: tuple[Schedule, ...] = ()
        self._unreadable: list[Unreadable] = []

    def apply(self, messages: Iterable[Message]) -> bool:
        """Apply records of the config topic. Returns whether a policy, criteria, prices or a queue
        changed.

        A document that cannot be read is ignored: the one before it stays in force.
        """
        changed = False
        for message in messages:
            try:
                document = self._documents.apply(message.key(), message.value())
            except UnreadableDocument as error:
                log.error("%s", error)
                self._unreadable.append(Unreadable("config", message, str(error)))
                continue
            changed |= isinstance(document, Policy | Prices | Criteria | Queue)
            if isinstance(document, Schedule):
                self.schedules = tuple(self._documents.of(Schedule))
        return changed

    def take_unreadable(self) -> list[Unreadable]:
        """The records that were ignored since the last time."""
        taken, self._unreadable = self._unreadable, []
        return taken

    def policies(self) -> list[Policy]:
        """The policies in force."""
        return list(self._documents.of(Policy))

    def rule_book(self) -> RuleBook:
        """The policies and criteria in force."""
        return rule_book(self._documents.of(Policy), self._documents.of(Criteria))

    def window_rules(self) -> WindowRules:
        """The window rules of the policies in force."""
        return WindowRules(self._documents.of(Policy))

    def queues(self) -> tuple[Queue, ...]:
        """The queues in force."""
        return tuple(self._documents.of(Queue))

    def price_book(self) -> PriceBook:
        """The prices in force."""
        return self._documents.price_book()


def note_batch(settings: Settings, name: str, batch: BadBatch) -> None:
    """Log and dead-letter a batch of a topic (name without prefix) that cannot be read and is about
    to be skipped.
    """
    log.error(
        "%s partition %d: %s", name, batch.partition, describe(batch.first, batch.last, batch.why)
    )
    refuse_batch(settings, batch, name, "worker")


class ConfigTopic(Follower):
    """Reads the config topic to its end, then follows it without a consumer group. Calls block: use
    a thread.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            settings,
            topic(settings.topic_prefix, "config"),
            functools.partial(note_batch, settings, "config"),
        )


async def follow(source: Follower, take: Callable[[list[Message]], object]) -> None:
    """Call ``take`` with the messages that come to a topic, until cancelled; while brokers are
    away, try again.
    """
    while True:
        try:
            messages = await asyncio.to_thread(source.poll, 0.5)
        except (KafkaException, KafkaUnreachable) as error:
            log.warning("following documents and baselines: %s", error)
            await asyncio.sleep(1)
            continue
        if messages:
            take(messages)
