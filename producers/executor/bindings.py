"""The bindings of an executor, as they arrive from Kafka."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaException, TopicPartition

from stepstream.common import kafka
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.task_bindings import decode_binding
from stepstream.schemas.topics import topic

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_bindings import Binding

POLL_S: Final = 0.2
AT_ONCE: Final = 500
CLOSE_S: Final = 5.0
_log: Final = logging.getLogger("stepstream.executor")


class TopicsMissing(Exception):
    """The topics of tasks do not exist."""


class Bindings:
    """Reads the bindings of one executor, from now on, in a thread of its own."""

    def __init__(
        self, settings: Settings, executor_id: str, take: Callable[[Binding], None]
    ) -> None:
        """Raises ``KafkaUnreachable`` and ``TopicsMissing``."""
        self._id = executor_id
        self._take = take
        self._consumer = kafka.consumer(
            settings, "stepstream-executor", **{"reconnect.backoff.max.ms": 2_000}
        )
        try:
            self._consumer.assign([self._place(settings)])
        except BaseException:
            self._consumer.close()
            raise
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="executor-bindings", daemon=True)

    def _place(self, settings: Settings) -> TopicPartition:
        name = topic(settings.topic_prefix, "bindings")
        count = kafka.partition_count(self._consumer, name)
        if not count:
            raise TopicsMissing(f"there is no topic {name}: run `stepstream topics create`")
        place = TopicPartition(name, partition_for(self._id, count))
        try:
            # The end, as it is before the executor is known: nothing for it can be older.
            place.offset = kafka.ends_of(self._consumer, place)[1]
        except KafkaException as error:
            raise kafka.KafkaUnreachable(
                f"the end of {name} cannot be read: {kafka.words(error)}"
            ) from None
        return place

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._consumer.close()

    def _work(self) -> None:
        key = self._id.encode()
        while not self._stopping.is_set():
            try:
                # poll() returns with the first record, consume() would wait for more.
                first = self._consumer.poll(POLL_S)
                if first is None:
                    continue
                for message in (first, *self._consumer.consume(AT_ONCE, timeout=0)):
                    if message.error() is not None:
                        self._report(message.error())
                    elif message.key() == key and (found := decode_binding(message.value())):
                        self._take(found)
            except Exception as error:
                _log.error("bindings cannot be read, trying again", exc_info=error)
                self._stopping.wait(POLL_S)

    def _report(self, error: Any) -> None:
        # The client retries by itself; only what a person may have to mend is logged.
        if error.code() not in kafka.WAITED_OUT:
            _log.warning("bindings: %s", error.str())
