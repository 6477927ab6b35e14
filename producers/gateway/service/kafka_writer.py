"""Records to Kafka, each request answered when Kafka has acknowledged all of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import STEP_RECORD_BYTES, topic

WAIT_S: Final = 3.0
"""Longest wait for an acknowledgement, from when a request's body has arrived.

Exporters give up after 5 to 10 s, and clients are promised an answer within 4 s: an answer must
come before. What is acknowledged later is then a duplicate.
"""
LEAST_WAIT_S: Final = 0.5
"""A request that was mapped late waits at least this long."""
DELIVER_MS: Final = 10_000
QUEUE_RECORDS: Final = 200_000
QUEUE_KB: Final = 131_072
CLOSE_S: Final = 5.0

RETRY_AFTER_S: Final = (2, 15)
"""Bounds of Retry-After while Kafka does not answer."""

Record = tuple[bytes, bytes]
"""Key and value of a step."""


@dataclass(frozen=True)
class Letter:
    """What was refused, for the dead letter."""

    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


class NoRoom(Exception):
    """The producer's queue is full: the client should come again soon."""


class NotAcknowledged(Exception):
    """Kafka did not acknowledge in time, or refused; the message has Kafka's error."""


def retry_after_s(away_s: float) -> int:
    """Seconds until a client should send again, when Kafka has not answered for so long.

    OpenTelemetry's exporters make six attempts and wait for Retry-After between them instead of
    their own, growing delay: with two seconds each they would give up after 14 s. Growing with the
    outage, six attempts last for a minute, and a short outage still costs only two seconds more.
    """
    least, most = RETRY_AFTER_S
    return max(least, min(most, math.ceil(away_s * 0.75)))


class _Request:
    """The records of one request that are not acknowledged yet."""

    __slots__ = ("began_s", "error", "future", "left", "loop")

    def __init__(self, count: int, began_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.left = count
        self.error = ""
        self.began_s = began_s

    def delivered(self, error: KafkaError | None, _message: Any) -> None:
        """Called by the polling thread for each record."""
        self.left -= 1
        if error is not None and not self.error:
            self.error = error.str()
        if self.left == 0:
            # A future may only be completed in the thread of its loop. Records of a request that
            # was answered with 503 may outlive the server: then its loop is closed.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class KafkaWriter:
    """One idempotent producer, polled by a thread of its own."""

    def __init__(self, settings: Settings, *, wait_s: float = WAIT_S) -> None:
        self._steps = topic(settings.topic_prefix, "steps")
        self._letters = topic(settings.topic_prefix, "deadletter")
        self._wait_s = wait_s
        self._producer: Producer = kafka.producer(
            settings,
            **{
                # Long enough to batch the records of a request, short compared with the time of its
                # answer.
                "linger.ms": 1,
                "queue.buffering.max.messages": QUEUE_RECORDS,
                "queue.buffering.max.kbytes": QUEUE_KB,
                "message.timeout.ms": DELIVER_MS,
                "message.max.bytes": STEP_RECORD_BYTES,
            },
        )
        self._waiting: set[_Request] = set()
        self._acknowledged_s = time.monotonic()
        self._away_since_s = 0.0
        self.connected = False
        """Whether Kafka has answered once and the topic of steps exists."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="gateway-kafka", daemon=True)
        self._thread.start()

    @property
    def stuck_s(self) -> float:
        """For how long the oldest request has waited while nothing at all was acknowledged; 0
        without one.
        """
        oldest = min((one.began_s for one in list(self._waiting)), default=0.0)
        if not oldest:
            return 0.0
        return max(0.0, time.monotonic() - max(oldest, self._acknowledged_s))

    @property
    def away_s(self) -> float:
        """For how long Kafka has acknowledged nothing of what was sent to it; 0 while it does.

        Known when the first request has waited in vain.
        """
        return time.monotonic() - self._away_since_s if self._away_since_s else 0.0

    @property
    def is_probing(self) -> bool:
        """Whether Kafka does not answer and a request is waiting that shows when it is back."""
        return bool(self._away_since_s and self._waiting)

    @property
    def retry_after_s(self) -> int:
        """Seconds until a request that was refused because of Kafka should be sent again."""
        return retry_after_s(self.away_s)

    @property
    def queued(self) -> int:
        """Records and events that the producer holds."""
        return len(self._producer)

    async def write(
        self, records: Sequence[Record], letters: Sequence[Letter] = (), *, waited_s: float = 0.0
    ) -> None:
        """Return when Kafka has everything. ``waited_s``: how long the request has waited already.

        Raises ``NoRoom`` and ``NotAcknowledged``: the client sends again then.
        """
        count = len(records) + len(letters)
        if not count:
            return
        # Checked before the first record is queued: a part of a request should not be sent.
        if len(self._producer) + count > QUEUE_RECORDS:
            raise NoRoom("the queue to Kafka is full")
        request = _Request(count, time.monotonic())
        queued = self._queue(records, letters, request)
        if queued < count:
            raise NoRoom("the queue to Kafka is full")
        self._waiting.add(request)
        try:
            async with asyncio.timeout(max(LEAST_WAIT_S, self._wait_s - waited_s)):
                await request.future
        except TimeoutError:
            if self._acknowledged_s < request.began_s and not self._away_since_s:
                self._away_since_s = request.began_s
            raise NotAcknowledged(
                f"Kafka has not acknowledged within {self._wait_s:.0f} s"
            ) from None
        finally:
            self._waiting.discard(request)
        if request.error:
            raise NotAcknowledged(request.error)
        self._acknowledged_s = time.monotonic()
        self._away_since_s = 0.0

    def _queue(
        self, records: Sequence[Record], letters: Iterable[Letter], request: _Request
    ) -> int:
        """Hand records to the producer; how many it took. A repeat of those is a duplicate and
        counts once.
        """
        messages = [{"key": key, "value": value} for key, value in records]
        try:
            queued = (
                self._producer.produce_batch(self._steps, messages, on_delivery=request.delivered)
                if messages
                else 0
            )
            for letter in letters:
                self._producer.produce(
                    self._letters,
                    letter.value,
                    letter.key,
                    headers=letter.headers,
                    on_delivery=request.delivered,
                )
                queued += 1
        except BufferError:
            return 0
        except KafkaException as error:
            raise NotAcknowledged(kafka.words(error)) from None
        return int(queued)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            self._producer.poll(0.1)
            if not self.connected:
                self._look_for_topic()

    def _look_for_topic(self) -> None:
        with contextlib.suppress(KafkaException):
            found = self._producer.list_topics(self._steps, timeout=1).topics.get(self._steps)
            self.connected = found is not None and found.error is None

    def close(self) -> None:
        """Wait a while for what is on its way, and end."""
        self._producer.flush(CLOSE_S)
        self._stopping.set()
        self._thread.join(2)


def is_away(writer: KafkaWriter) -> bool:
    """Whether a request would wait in vain: Kafka does not answer, or another one is testing it."""
    return writer.stuck_s >= WAIT_S or writer.is_probing
