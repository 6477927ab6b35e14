"""The consumer behind ``subscribe``: reads alerts, drops repeats, saves the caller's position."""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final, Literal

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from stepstream.common import kafka
from stepstream.schemas.alert import Alert
from stepstream.schemas.documents import AlertMatch
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

Since = Literal["latest", "earliest"] | datetime
"""Where a new subscription begins."""
_MAX_SEEN: Final = 100_000
"""Alerts whose newest change is remembered, to drop repeats."""
_PATTERNS: Final = ("alert", "rule", "project", "environment", "agent", "agent_version", "task")
_log = logging.getLogger("stepstream.subscribe")


class NoAlertsTopic(LookupError):
    """The alerts topic does not exist in the configured Kafka; the message has the command."""


def matches(match: AlertMatch, alert: Alert) -> bool:
    """Whether the alert passes the filter."""
    if match.severity and alert.severity not in match.severity:
        return False
    texts = (alert.message, alert.quoted, alert.detail, alert.subject)
    if match.text and not any(match.text.lower() in text.lower() for text in texts):
        return False
    if match.user != "*" and not fnmatchcase(alert.user_id, match.user):
        return False
    return all(
        fnmatchcase(getattr(alert, field), pattern)
        for field in _PATTERNS
        if (pattern := getattr(match, field)) != "*"
    )


class Tail:
    """Alerts from the topic, one at a time, each once. For one thread at a time."""

    def __init__(
        self, settings: Settings, name: str | None, since: Since, match: AlertMatch
    ) -> None:
        # A time without a zone is local time, as everywhere in Python.
        if isinstance(since, datetime) and since.tzinfo is None:
            since = since.astimezone()
        self._topic = topic(settings.topic_prefix, "alerts")
        self._match = match
        self._named = name is not None
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._returned: tuple[int, int] | None = None
        self._finished: dict[int, int] = {}
        self._unsaved = False
        self._closed = False
        # librdkafka requires a group even where none is joined.
        group = (
            f"{settings.topic_prefix}.alerts.{name}" if name is not None else "stepstream-reader"
        )
        self._consumer = Consumer(
            {
                **kafka.client_config(settings),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 2,  # errors are logged here, once, with Python's logging
                "error_cb": self._client_error,
            }
        )
        self._no_broker = False
        try:
            self._starts = self._find_starts(settings, since)
            if self._named:
                self._consumer.subscribe(
                    [self._topic], on_assign=self._assigned, on_revoke=self._revoked
                )
            else:
                self._consumer.assign(
                    [TopicPartition(self._topic, p, offset) for p, offset in self._starts.items()]
                )
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, timeout: float) -> Alert | None:
        """The next alert that passes the filter, or None after ``timeout`` seconds."""
        message = self._consumer.poll(timeout)
        if message is None:
            self._save()
            return None
        error = message.error()
        self._no_broker = False
        if error is not None:
            if error.fatal() or error.code() not in kafka.WAITED_OUT:
                raise KafkaException(error)
            return None
        position = kafka.position_of(message)
        alert = self._read(message)
        if alert is None or not self._is_news(alert) or not matches(self._match, alert):
            self._finish(position)
            return None
        self._returned = position
        return alert

    def done(self) -> None:
        """The caller has finished with the last alert that was returned."""
        if self._returned is not None:
            self._finish(self._returned)
            self._returned = None
            self._save()

    def _client_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._no_broker:
            self._no_broker = True
            _log.warning("no Kafka broker answers; waiting until one does (%s)", error.str())

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._save_and_wait()
        self._consumer.close()

    def _find_starts(self, settings: Settings, since: Since) -> dict[int, int]:
        # Determined now and not at the first poll, so that no alert in between is missed.
        count = kafka.partition_count(self._consumer, self._topic)
        if not count:
            raise NoAlertsTopic(
                f"there is no topic {self._topic} at {settings.kafka_brokers}: "
                f"start `stepstream up`, or create the topics with `stepstream topics create`"
            )
        try:
            ends = {
                p: kafka.ends_of(self._consumer, TopicPartition(self._topic, p))
                for p in range(count)
            }
            if isinstance(since, datetime):
                wanted = [
                    TopicPartition(self._topic, p, round(since.timestamp() * 1_000))
                    for p in range(count)
                ]
                found = {
                    at.partition: at.offset
                    for at in self._consumer.offsets_for_times(wanted, timeout=10)
                }
                # -1: no record of the partition is as late as that.
                return {p: found[p] if found[p] >= 0 else high for p, (_, high) in ends.items()}
        except KafkaException as error:
            raise kafka.KafkaUnreachable(
                f"the ends of {self._topic} could not be read: {kafka.words(error)}"
            ) from None
        return {p: low if since == "earliest" else high for p, (low, high) in ends.items()}

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Continue from the saved offsets. A partition without one begins at its start."""
        saved = {at.partition: at.offset for at in consumer.committed(partitions, timeout=30)}
        for at in partitions:
            at.offset = saved[at.partition]
            if at.offset < 0:
                # Committed below: otherwise a program that ends before its first alert would begin
                # at another place the next time.
                at.offset = self._finished[at.partition] = self._starts.get(at.partition, 0)
        consumer.assign(partitions)
        self._save_and_wait()

    def _revoked(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._save_and_wait()
        self._finished.clear()

    def _read(self, message: Message) -> Alert | None:
        value = message.value()
        if not value:
            return None
        try:
            return Alert.model_validate_json(value)
        except ValidationError as error:
            partition, offset = kafka.position_of(message)
            _log.warning(
                "%s[%d], offset %d, is not a valid alert and was skipped: %s",
                self._topic,
                partition,
                offset,
                error,
            )
            return None

    def _is_news(self, alert: Alert) -> bool:
        # Workers write an alert again after a crash, with the same number.
        if alert.seq <= self._seen.get(alert.alert_id, 0):
            return False
        self._seen[alert.alert_id] = alert.seq
        self._seen.move_to_end(alert.alert_id)
        if len(self._seen) > _MAX_SEEN:
            self._seen.popitem(last=False)
        return True

    def _finish(self, position: tuple[int, int]) -> None:
        if self._named:
            self._finished[position[0]] = position[1] + 1
            self._unsaved = True

    def _save(self) -> None:
        """Commit without waiting for the answer: a later commit replaces one that fails."""
        if self._unsaved:
            self._unsaved = False
            self._consumer.commit(offsets=self._offsets(), asynchronous=True)

    def _save_and_wait(self) -> None:
        if not self._finished:
            return
        try:
            self._consumer.commit(offsets=self._offsets(), asynchronous=False)
            self._unsaved = False
        except KafkaException as error:
            _log.warning(
                "the position in %s could not be saved, some alerts may be repeated: %s",
                self._topic,
                error,
            )

    def _offsets(self) -> list[TopicPartition]:
        return [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in self._finished.items()
        ]
