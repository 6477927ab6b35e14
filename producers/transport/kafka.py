"""The way over Kafka: an idempotent producer that keeps trying while brokers are away."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from stepstream.common import kafka
from stepstream.producers.error_guard import sdk_log
from stepstream.producers.transport.base import Done, Record
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


LOOK_AFTER_S: Final = 1.5
LOOK_EVERY_S: Final = 10.0


class KafkaTransport:
    """Records to the steps topic over an idempotent producer that keeps trying while brokers are away.

    Nothing is given up for its age: what the brokers do not take stays held, within the sender's bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = topic(settings.topic_prefix, "steps")
        self._headers: Final[list[tuple[str, str | bytes | None]]] = list(RECORD_HEADERS)
        self._producer: Producer | None = _producer(settings)
        self._left_to_parent: list[Any] = []
        self._under_way = 0
        self._moved_at = time.monotonic()
        self._looked_at = float("-inf")

    def send(self, record: Record, done: Done) -> bool:
        if self._producer is None:
            self._producer = _producer(self._settings)

        def delivered(error: KafkaError | None, _message: object) -> None:
            self._under_way -= 1
            self._moved_at = time.monotonic()
            done("" if error is None else self._explained(error))

        try:
            self._producer.produce(
                self._topic, record.value, record.key, headers=self._headers, on_delivery=delivered
            )
        except BufferError:
            return False
        except KafkaException as error:
            reason = error.args[0]
            if reason.fatal():  # an idempotent producer that lost its place is of no more use
                self._retire()
                return False
            done(self._explained(reason))
            return True
        if not self._under_way:
            self._moved_at = time.monotonic()
        self._under_way += 1
        return True

    def poll(self, timeout_s: float) -> None:
        if self._producer is None:
            return
        self._producer.poll(timeout_s)
        now = time.monotonic()
        if (
            self._under_way
            and now - self._moved_at > LOOK_AFTER_S
            and now - self._looked_at > LOOK_EVERY_S
        ):
            self._looked_at = now
            self._look_for_topic(self._producer)

    def close(self) -> None:
        self._retire()

    def abandon(self) -> None:
        self._left_to_parent.append(
            self._producer
        )  # destroying it would wait for threads that this process lacks
        self._producer = None

    def _look_for_topic(self, producer: Producer) -> None:
        """Nothing moves: say so if it is for want of the topic, which a client would otherwise wait for in silence."""
        with contextlib.suppress(kafka.KafkaUnreachable):
            if kafka.partition_count(producer, self._topic, timeout=0.5) == 0:
                sdk_log.log(
                    "topic", f"stepstream: {self._no_topic()}; events are held until it is there"
                )

    def _no_topic(self) -> str:
        return f"there is no topic {self._topic} at {self._settings.kafka_brokers}: run `stepstream topics create`"

    def _retire(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)
            producer.flush(1.0)

    def _explained(self, error: Any) -> str:
        if error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
            return self._no_topic()
        return str(error.str())


def _producer(settings: Settings) -> Producer:
    options = {
        "message.timeout.ms": 0,
        "topic.metadata.propagation.max.ms": 300_000,
        "message.max.bytes": 2 * 1_048_576,
        "queue.buffering.max.messages": settings.queue_events,
        "queue.buffering.max.kbytes": max(settings.queue_bytes // 1024, 4_096),
        "reconnect.backoff.max.ms": 2_000,
        "log_level": 3,
        "logger": _kafka_logger(settings),
    }
    return kafka.producer(settings, **options)


_BRACKETS: Final = re.compile(r"\[(?:rdkafka|thrd)[^\]]*\]:?\s*")


class _Sayer(logging.Handler):
    """librdkafka's sdk_log, a kind at a time, in our words."""

    def __init__(self, brokers: str) -> None:
        super().__init__()
        self._brokers = brokers

    def emit(self, record: logging.LogRecord) -> None:
        kind, _, text = record.getMessage().partition(" ")
        text = _BRACKETS.sub("", text).strip()
        sdk_log.log(
            f"kafka:{self._brokers}:{kind}",
            f"stepstream: Kafka at {self._brokers}: {text}; events are held and sent when it answers",
        )


def _kafka_logger(settings: Settings) -> logging.Logger:
    logger = logging.Logger("stepstream.common.kafka", logging.WARNING)
    logger.propagate = False
    logger.addHandler(_Sayer(settings.kafka_brokers))
    return logger
