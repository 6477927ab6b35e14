"""Sends outputs and reports each acknowledgement; a failed send is fatal, because an output may
never be skipped.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, Producer

from stepstream.common.kafka import producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import LETTER_BYTES, TOPIC_NAMES, topic
from stepstream.stream.core.outputs import Output

MAX_IN_FLIGHT: Final = 20_000
"""With this many outputs sent and not acknowledged the stages wait."""

DELIVERY_TIMEOUT_MS: Final = 120_000
"""Brokers that do not answer for longer end the process: it starts again from the committed offset,
and nothing is lost.
"""

# Outputs to these topics may wait for the next poll, so that many of them share a request: with
# many runs open the requests are what costs most. The first few between two polls go at once, so
# that a worker with little to do adds no delay.
BATCHED: Final = frozenset({"trajectories", "usage", "state"})
AT_ONCE: Final = 16

Acknowledge = Callable[[Output, int], None]
"""Called with the output and its offset."""


class SendFailed(Exception):
    """Kafka refused an output for good, or no broker answered for ``DELIVERY_TIMEOUT_MS``."""


class Sender:
    """An idempotent producer. ``poll`` and ``flush`` call the acknowledgements, on the caller's
    thread.

    The client's own callback only queues them: an exception must not pass through its C code.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = {name: topic(settings.topic_prefix, name) for name in TOPIC_NAMES}
        self._producer: Producer = producer(
            settings,
            **{
                "linger.ms": 2,
                "message.timeout.ms": DELIVERY_TIMEOUT_MS,
                "message.max.bytes": LETTER_BYTES,
                "queue.buffering.max.messages": 2 * MAX_IN_FLIGHT,
                "queue.buffering.max.kbytes": 524_288,
            },
        )
        self._batched: deque[tuple[Output, Acknowledge]] = deque()
        self._delivered: deque[tuple[Acknowledge, Output, int]] = deque()
        self._sent_at_once = 0
        self.in_flight = 0
        self.failure: SendFailed | None = None
        # For ``stalled_s``: the count at the last poll, when that poll was, and since when polls
        # have found nothing new.
        self._acknowledged = self._acknowledged_before = 0
        self._polled_at = 0.0
        self._stalled_since: float | None = None

    def stalled_s(self) -> float:
        """For how many seconds polls have found no acknowledgement although outputs are in flight.

        The time since the last poll does not count: without a poll no acknowledgement arrives.
        """
        return 0.0 if self._stalled_since is None else self._polled_at - self._stalled_since

    @property
    def is_full(self) -> bool:
        """Whether so much is in flight that processing has to wait."""
        return self.in_flight >= MAX_IN_FLIGHT

    def send(self, output: Output, acknowledge: Acknowledge) -> None:
        """Queue an output. ``poll`` or ``flush`` calls ``acknowledge`` once Kafka has stored it.

        Outputs to ``BATCHED`` topics may wait for the next ``poll`` unless they are urgent; outputs
        to one topic that are not urgent keep their order.
        """
        self.in_flight += 1
        if output.topic in BATCHED and not output.urgent:
            self._sent_at_once += 1
            if self._sent_at_once > AT_ONCE:
                self._batched.append((output, acknowledge))
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
        """Call the acknowledgements that have arrived. Raises ``SendFailed``, and what an
        ``acknowledge`` raises.
        """
        self._release()
        self._producer.poll(0)
        self._note_progress(time.monotonic())
        self._call_acknowledgements()
        if self.failure is not None:
            raise self.failure

    def _note_progress(self, now_s: float) -> None:
        if not self.in_flight:
            self._stalled_since = None
        elif self._stalled_since is None or self._acknowledged != self._acknowledged_before:
            self._stalled_since = now_s
        self._acknowledged_before, self._polled_at = self._acknowledged, now_s

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; False when time ran out. Raises ``SendFailed``."""
        self._release()
        left = self._producer.flush(timeout_s)
        self._call_acknowledgements()
        if self.failure is not None:
            raise self.failure
        return left == 0

    def _call_acknowledgements(self) -> None:
        delivered = self._delivered
        while delivered:
            acknowledge, output, offset = delivered.popleft()
            acknowledge(output, offset)

    def _release(self) -> None:
        # Producing may call acknowledgements; what those send goes to the end of the queue.
        while self._batched:
            self._produce(*self._batched.popleft())
        self._sent_at_once = 0
