"""The Kafka transport: an idempotent producer that retries while brokers are unreachable."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from stepstream.common import kafka
from stepstream.producers.sdk_log import sdk_log
from stepstream.producers.transport.base import Done, Record, Undelivered
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import STEP_RECORD_BYTES, topic

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


# What is wrong with a record itself: to send it again would not help.
_REFUSED: Final = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_MSG,
    KafkaError._INVALID_ARG,
    KafkaError._BAD_MSG,
)
# After ``CHECK_TOPIC_AFTER_S`` seconds without an acknowledgement the transport checks whether the
# topic exists, at most every ``CHECK_TOPIC_EVERY_S`` seconds.
CHECK_TOPIC_AFTER_S: Final = 1.5
CHECK_TOPIC_EVERY_S: Final = 10.0


class KafkaTransport:
    """Sends records to the steps topic.

    No record fails because of its age: what the brokers do not take stays in the client's queue,
    within the limits of the settings. The sender copies what is late to the spool.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = topic(settings.topic_prefix, "steps")
        self._headers: Final[list[tuple[str, str | bytes | None]]] = list(RECORD_HEADERS)
        self._producer: Producer | None = _producer(settings)
        self._left_to_parent: list[Any] = []
        self._unacknowledged = 0
        self._progress_at = time.monotonic()
        self._checked_at = float("-inf")

    def send(self, record: Record, done: Done) -> bool:
        if self._producer is None:
            self._producer = _producer(self._settings)

        def delivered(error: KafkaError | None, _message: object) -> None:
            self._unacknowledged -= 1
            self._progress_at = time.monotonic()
            done("" if error is None else self._explained(error))

        try:
            self._producer.produce(
                self._topic, record.value, record.key, headers=self._headers, on_delivery=delivered
            )
        except BufferError:
            return False
        except KafkaException as error:
            reason = error.args[0]
            # A fatal error: this producer can send nothing more. Its records are reported as
            # ``Undelivered``, the sender sends them again, and ``send`` makes a new producer.
            if reason.fatal():
                self._retire()
                return False
            done(self._explained(reason))
            return True
        if not self._unacknowledged:
            self._progress_at = time.monotonic()
        self._unacknowledged += 1
        return True

    def poll(self, timeout_s: float) -> None:
        if self._producer is None:
            return
        self._producer.poll(timeout_s)
        now = time.monotonic()
        if (
            self._unacknowledged
            and now - self._progress_at > CHECK_TOPIC_AFTER_S
            and now - self._checked_at > CHECK_TOPIC_EVERY_S
        ):
            self._checked_at = now
            self._check_topic(self._producer)

    def close(self) -> None:
        self._retire()

    def abandon(self) -> None:
        # Destroying the producer would wait for its threads, which do not exist in this process.
        self._left_to_parent.append(self._producer)
        self._producer = None

    def _check_topic(self, producer: Producer) -> None:
        """Log it if the topic does not exist: librdkafka waits for it without an error."""
        with contextlib.suppress(kafka.KafkaUnreachable):
            if kafka.partition_count(producer, self._topic, timeout=0.5) == 0:
                sdk_log.log(
                    "topic",
                    f"stepstream: {self._no_topic()}; events are kept and sent when it exists",
                )

    def _no_topic(self) -> str:
        brokers = self._settings.kafka_brokers
        return f"there is no topic {self._topic} at {brokers}: run `stepstream topics create`"

    def _retire(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # purge() drops what is queued, so flush() only waits for the callbacks, 1 s at most.
            producer.purge()
            producer.poll(0)
            producer.flush(1.0)

    def _explained(self, error: Any) -> str:
        """The reason for ``done``: an ``Undelivered`` where sending again may help."""
        if error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART):
            return Undelivered(self._no_topic())
        text = str(error.str())
        return text if error.code() in _REFUSED else Undelivered(text)


def _producer(settings: Settings) -> Producer:
    options = {
        # No limit by age: records wait for the brokers, within the limits of the queue.
        "message.timeout.ms": 0,
        # A topic that is created after the agent started must not fail its records.
        "topic.metadata.propagation.max.ms": 300_000,
        "message.max.bytes": STEP_RECORD_BYTES,
        "queue.buffering.max.messages": settings.queue_events,
        # At least one record of the largest size: a smaller queue would never take it.
        "queue.buffering.max.kbytes": max(settings.queue_bytes, STEP_RECORD_BYTES) // 1024,
        "reconnect.backoff.max.ms": 2_000,
        "log_level": 3,
        "logger": _kafka_logger(settings),
    }
    return kafka.producer(settings, **options)


_BRACKETS: Final = re.compile(r"\[(?:rdkafka|thrd)[^\]]*\]:?\s*")


class _LogHandler(logging.Handler):
    """Passes librdkafka's log messages on to the SDK's rate-limited log."""

    def __init__(self, brokers: str) -> None:
        super().__init__()
        self._brokers = brokers

    def emit(self, record: logging.LogRecord) -> None:
        kind, _, text = record.getMessage().partition(" ")
        text = _BRACKETS.sub("", text).strip()
        sdk_log.log(
            f"kafka:{self._brokers}:{kind}",
            f"stepstream: Kafka at {self._brokers}: {text}; events are kept and sent later",
        )


def _kafka_logger(settings: Settings) -> logging.Logger:
    logger = logging.Logger("stepstream.common.kafka", logging.WARNING)
    logger.propagate = False
    logger.addHandler(_LogHandler(settings.kafka_brokers))
    return logger
