"""Sends outputs and reports each acknowledgement; a failed send is fatal, because an output may never be skipped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from stepstream.common.kafka import producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import TOPIC_NAMES, topic
from stepstream.stream.core.outputs import Output

MAX_IN_FLIGHT: Final = 20_000
"""Outputs sent and not acknowledged; above it the stages wait."""

DELIVERY_TIMEOUT_MS: Final = 120_000
"""Brokers away for longer end the process: it starts again from the floor, and nothing is lost."""

PATIENT: Final = frozenset({"trajectories", "usage", "state"})
"""Outputs that nobody has to act upon at once."""
AT_ONCE: Final = 16
"""So many of these go at once between two polls, the rest together: with many of them a request for each costs most."""

Acknowledge = Callable[[Output, int], None]
"""Called with the output and the offset that Kafka gave it."""


class SendFailed(Exception):
    """Kafka refused an output for good, or no broker answered for ``DELIVERY_TIMEOUT_MS``."""


class Sender:
    """An idempotent producer. Acknowledgements are handed on by ``poll`` and ``flush``, on the caller's thread.

    What the client calls back only notes them: an exception must not pass through its C code.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = {name: topic(settings.topic_prefix, name) for name in TOPIC_NAMES}
        self._producer: Producer = producer(
            settings,
            **{
                "linger.ms": 2,
                "message.timeout.ms": DELIVERY_TIMEOUT_MS,
                "message.max.bytes": 8 * 1_048_576,
                "queue.buffering.max.messages": 2 * MAX_IN_FLIGHT,
                "queue.buffering.max.kbytes": 524_288,
            },
        )
        self._held: deque[tuple[Output, Acknowledge]] = deque()
        self._delivered: deque[tuple[Acknowledge, Output, int]] = deque()
        self._gone = 0
        self.in_flight = 0
        self.failure: SendFailed | None = None
        self._acknowledged = 0
        self._seen = 0
        self._since: float | None = None
        """When a poll found nothing acknowledged, or something for the last time, and something was under way then."""
        self._polled = 0.0

    def stalled_s(self) -> float:
        """For how long polls have found nothing acknowledged although something is under way.

        The time since the last poll does not count: who does not poll hears of no acknowledgement.
        """
        return 0.0 if self._since is None else self._polled - self._since

    @property
    def is_full(self) -> bool:
        """Too much is under way: wait before processing more."""
        return self.in_flight >= MAX_IN_FLIGHT

    def send(self, output: Output, acknowledge: Acknowledge) -> None:
        """Queue an output. ``acknowledge`` is called, from ``poll``, when Kafka has it.

        What is patient may wait for the next ``poll``; patient outputs to one topic keep their order.
        """
        self.in_flight += 1
        if output.topic in PATIENT and not output.urgent:
            self._gone += 1
            if self._gone > AT_ONCE:
                self._held.append((output, acknowledge))
                return
        self._produce(output, acknowledge)

    def _produce(self, output: Output, acknowledge: Acknowledge) -> None:
        def delivered(error: KafkaError | None, message: Any) -> None:
            self.in_flight -= 1
            self._acknowledged += 1
            if error is None:
                self._delivered.append((acknowledge, output, message.offset()))
            elif self.failure is None:
                self.failure = SendFailed(
                    f"sending to {self._names[output.topic]} failed: {error.str()}"
                )

        name = self._names[output.topic]
        while True:
            try:
                if output.headers:
                    headers: Any = list(output.headers)
                    self._producer.produce(
                        name,
                        output.value,
                        output.key,
                        output.partition,
                        on_delivery=delivered,
                        headers=headers,
                    )
                else:
                    self._producer.produce(
                        name, output.value, output.key, output.partition, on_delivery=delivered
                    )
            except BufferError:
                self._producer.poll(0.05)
                continue
            return

    def poll(self) -> None:
        """Hand on what has been acknowledged. Raises ``SendFailed``, and what an ``acknowledge`` raises."""
        self._release()
        self._producer.poll(0)
        self._note_progress(time.monotonic())
        self._hand_on()
        if self.failure is not None:
            raise self.failure

    def _note_progress(self, now_s: float) -> None:
        if not self.in_flight:
            self._since = None
        elif self._since is None or self._acknowledged != self._seen:
            self._since = now_s
        self._seen, self._polled = self._acknowledged, now_s

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; False when time ran out. Raises ``SendFailed``."""
        self._release()
        left = self._producer.flush(timeout_s)
        self._hand_on()
        if self.failure is not None:
            raise self.failure
        return left == 0

    def _hand_on(self) -> None:
        delivered = self._delivered
        while delivered:
            acknowledge, output, offset = delivered.popleft()
            acknowledge(output, offset)

    def _release(self) -> None:
        while self._held:  # sending may call back, and what that sends waits behind what is here
            self._produce(*self._held.popleft())
        self._gone = 0
