"""Sends records to the topic ``tasks``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import Producer

from stepstream.common import kafka
from stepstream.schemas.task_messages import encode_message
from stepstream.schemas.topics import topic

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_messages import Message

POLL_S: Final = 0.2
CLOSE_S: Final = 5.0
_log: Final = logging.getLogger("stepstream.tasks")


class Delivery(NamedTuple):
    """What became of a record: its log time in milliseconds and its offset, or the error."""

    time_ms: int = 0
    offset: int = -1
    error: str = ""


NOT_SENT: Final = Delivery()
"""Of a record that another program has sent, or that was sent by a gateway."""

OnEnd = Callable[[Delivery], None]


class Sender:
    """Sends records to ``tasks``; acknowledgements arrive in a thread of its own."""

    def __init__(self, settings: Settings, deliver_s: float) -> None:
        self._topic = topic(settings.topic_prefix, "tasks")
        self._producer: Producer = kafka.producer(
            settings,
            **{
                "linger.ms": 0,
                "compression.type": "none",  # small records, one a request
                "message.timeout.ms": max(1_000, round(deliver_s * 1_000)),
            },
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="stepstream-tasks", daemon=True)
        self._thread.start()

    def send(self, message: Message, on_end: OnEnd | None = None) -> None:
        """Send a record. ``on_end`` is called, in another thread, with what became of it."""
        value = encode_message(message)
        callback: dict[str, Any] = {}
        if on_end is not None:

            def delivered(error: KafkaError | None, sent: Any) -> None:
                found = (
                    Delivery(error=error.str())
                    if error
                    else Delivery(sent.timestamp()[1], sent.offset())
                )
                on_end(found)

            callback["on_delivery"] = delivered
        while not self._stopping.is_set():
            try:
                self._producer.produce(self._topic, value, message.project.encode(), **callback)
                return
            except BufferError:  # the queue is full while Kafka does not answer
                self._stopping.wait(POLL_S)

    def send_and_wait(self, message: Message, timeout_s: float) -> Delivery:
        """Send a record; returns what became of it within ``timeout_s``."""
        found: list[Delivery] = []
        ended = threading.Event()

        def on_end(delivery: Delivery) -> None:
            found.append(delivery)
            ended.set()

        self.send(message, on_end)
        if not ended.wait(timeout_s):
            return Delivery(error=f"no acknowledgement within {timeout_s:.0f} s")
        return found[0]

    def close(self) -> None:
        """Wait a while for what is on its way, and end."""
        self._producer.flush(CLOSE_S)
        self._stopping.set()
        self._thread.join(CLOSE_S)

    def _poll(self) -> None:
        while not self._stopping.is_set():
            try:
                self._producer.poll(POLL_S)
            # A callback raised: an error of ours must not end the thread of all acknowledgements.
            except Exception as error:
                _log.error("internal error after an acknowledgement", exc_info=error)
