"""Reads the control topic for the runs of this process, in a thread of its own.

One consumer without a group reads every partition, from the setting ``control_lookback`` ago, and
the whole topic of guardrails. It starts with the first run. A failure is logged, at most once a
minute, and retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from stepstream.producers.forks import call_after_fork, fork_lock
from stepstream.producers.sdk_log import sdk_log, suppressed
from stepstream.schemas.alert import Command, CommandStruct
from stepstream.schemas.control import dated_by
from stepstream.schemas.topics import topic

if TYPE_CHECKING:
    from confluent_kafka import Consumer

    from stepstream.producers.control.commands import Commands
    from stepstream.schemas.settings import Settings

POLL_S: Final = 0.5
FIRST_RETRY_S: Final = 0.5
LONGEST_RETRY_S: Final = 30.0
JOIN_S: Final = 1.0
CHECK_AGAIN_S: Final = 60.0
PARTITION_EOF: Final = -191
"""librdkafka's code for the end of a partition, ``KafkaError._PARTITION_EOF``."""
OFFSET_BEGINNING: Final = -2
_decode = msgspec.json.Decoder(CommandStruct).decode


class GuardrailReader(Protocol):
    """What takes the records of the topic of guardrails."""

    def begin(self, partitions: Iterable[int]) -> None:
        """All records are read again, of these partitions."""

    def record(self, key: str, value: bytes | None) -> None:
        """A record; None: the policy has no guardrails any more."""

    def ended(self, partition: int) -> None:
        """The end of a partition was reached. Also called later, at each end."""

    def missing(self) -> None:
        """There is no such topic."""


class CommandListener:
    """Follows the control topic and delivers each command. ``now_s`` is the wall clock."""

    def __init__(
        self,
        settings: Settings,
        commands: Commands,
        guardrails: GuardrailReader | None = None,
        *,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._commands = commands
        self._guardrails = guardrails
        self._guardrail_topic = topic(settings.topic_prefix, "guardrails")
        # When a topic of guardrails that does not exist is checked for again, by the steady clock.
        self._check_again_s: float | None = None
        self._now_s = now_s
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        # Consumers of parent processes, referenced so that nothing destroys them in this process.
        self._left_to_parent: list[Any] = []
        self._consumer: Consumer | None = None
        self.ready = threading.Event()
        """Set once the topic's offsets are known: every later command will be read."""
        call_after_fork(self)

    def ensure(self) -> None:
        """Start listening, unless it has started. Returns at once, never raises."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None:
                return
            self._stopping = threading.Event()
            thread = threading.Thread(
                target=self._work, args=(self._stopping,), name="stepstream-control", daemon=True
            )
            self._thread = thread
        fork_lock.connecting(self)
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down
            fork_lock.connected(self)

    def close(self, wait_s: float = JOIN_S) -> None:
        """Stop listening; a later ``ensure`` starts again. ``wait_s`` 0 does not wait for the
        thread, as at the end of the program."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        self._interrupt()
        is_other = thread is not None and thread is not threading.current_thread()
        if thread is not None and is_other and thread.is_alive() and wait_s:
            thread.join(wait_s)

    def _interrupt(self) -> None:
        """End a wait of the thread; a poll of the consumer ends by itself."""

    def _work(self, stopping: threading.Event) -> None:
        suppressed.set(True)
        wait_s = FIRST_RETRY_S
        while not stopping.is_set():
            try:
                self._follow(stopping)
                return
            except Exception as error:
                if stopping.is_set():
                    return
                self._commands.failures += 1
                sdk_log.log("control", f"stepstream: commands cannot be read, retrying: {error}")
            stopping.wait(wait_s)
            wait_s = min(LONGEST_RETRY_S, 2 * wait_s)

    def _follow(self, stopping: threading.Event) -> None:
        try:
            consumer = self._consumer = self._open()
        finally:
            fork_lock.connected(self)
        try:
            self.ready.set()
            while not stopping.is_set():
                message = consumer.poll(POLL_S)
                if message is None:
                    if self._check_again_s is not None and time.monotonic() > self._check_again_s:
                        self._follow_guardrails(consumer)
                    continue
                self._take(message)
        finally:
            self.ready.clear()
            self._consumer = None
            consumer.close()

    def _take(self, message: Any) -> None:
        """Take a message of the consumer. Raises ``RuntimeError`` for a fatal error."""
        error = message.error()
        if error is None and message.topic() == self._guardrail_topic:
            self._take_guardrails(message)
        elif error is None:
            self._deliver(message.value(), message.timestamp()[1])
        elif error.code() == PARTITION_EOF:
            if message.topic() == self._guardrail_topic and self._guardrails is not None:
                self._guardrails.ended(message.partition())
        # Other errors, such as a broker that does not answer, are retried by the client.
        elif error.fatal():
            raise RuntimeError(error.str())

    def _take_guardrails(self, message: Any) -> None:
        if self._guardrails is None:
            return
        key = message.key() or b""
        self._guardrails.record(key.decode("utf-8", "replace"), message.value())

    def _follow_guardrails(self, consumer: Consumer) -> None:
        """Read the topic of guardrails too, from its beginning."""
        if self._guardrails is None:
            return
        with fork_lock.importing():
            from confluent_kafka import TopicPartition

            from stepstream.common import kafka

        count = kafka.partition_count(consumer, self._guardrail_topic)
        if not count:
            # An installation of an older release, until its topics are created.
            self._check_again_s = time.monotonic() + CHECK_AGAIN_S
            self._guardrails.missing()
            return
        self._check_again_s = None
        self._guardrails.begin(range(count))
        consumer.incremental_assign(
            [TopicPartition(self._guardrail_topic, p, OFFSET_BEGINNING) for p in range(count)]
        )

    def _open(self) -> Consumer:
        with fork_lock.importing():
            from confluent_kafka import TopicPartition

            from stepstream.common import kafka

        name = topic(self._settings.topic_prefix, "control")
        options = {
            "queued.max.messages.kbytes": 1_024,
            "fetch.error.backoff.ms": 100,
            "reconnect.backoff.max.ms": 2_000,
            "enable.partition.eof": True,
        }
        consumer = kafka.consumer(self._settings, "stepstream-control", **options)
        try:
            count = kafka.partition_count(consumer, name)
            if not count:
                raise RuntimeError(f"there is no topic {name}: run `stepstream topics create`")
            since_ms = round(self._now_s() * 1_000) - self._settings.control_lookback // 1_000
            # The ends first: where no record is as new as ``since_ms``, reading starts at the end
            # as it was before, so that a record written meanwhile is not skipped.
            ends = [
                consumer.get_watermark_offsets(TopicPartition(name, p), timeout=10)[1]
                for p in range(count)
            ]
            found = consumer.offsets_for_times(
                [TopicPartition(name, p, max(0, since_ms)) for p in range(count)], timeout=10
            )
            starts = {at.partition: at.offset for at in found if at.offset >= 0}
            consumer.assign(
                [TopicPartition(name, p, starts.get(p, end)) for p, end in enumerate(ends)]
            )
            self._follow_guardrails(consumer)
        except BaseException:
            consumer.close()
            raise
        return consumer

    def _deliver(self, value: bytes | None, timestamp_ms: int = 0) -> None:
        """Deliver the command in a record.

        ``timestamp_ms`` is the record's timestamp, 0 if it has none. The command's own time is
        limited to it: a command cannot be newer than its record.
        """
        if not value:
            return
        try:
            command: Command = _decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._commands.malformed += 1
            sdk_log.log(
                "command",
                "stepstream: a record of the control topic is not a command and is ignored: "
                f"{error}",
            )
            return
        latest_us = round(self._now_s() * 1e6)
        if timestamp_ms > 0:
            latest_us = min(latest_us, timestamp_ms * 1_000 + 999)
        self._commands.deliver(dated_by(command, latest_us))

    def after_fork(self) -> None:
        """Start without a thread in the child; the parent's consumer stays untouched."""
        self._left_to_parent.append(self._consumer)
        self._consumer = self._thread = None
        self._lock = threading.Lock()
        self._stopping, self.ready = threading.Event(), threading.Event()
