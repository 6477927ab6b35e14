"""What all packages share of Kafka: clients, sending and waiting, reading a topic to its end.

Imports only schemas and confluent-kafka.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from stepstream.common.functions import load_function
from stepstream.schemas.batches import RECEIVE_BYTES
from stepstream.schemas.partitioner import PARTITIONER
from stepstream.schemas.settings import Settings

RETRIABLE: Final = frozenset(
    {KafkaError._PARTITION_EOF, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}
)
"""Errors of a consumer while brokers do not answer or at the end of a partition; it recovers by
itself.
"""

WAITED_OUT: Final = RETRIABLE | {
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNKNOWN_TOPIC_OR_PART,  # a broker that has just started does not know its topics yet
}
"""The same for a member of a group."""

PASSING: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REPLICA_NOT_AVAILABLE,
        # From the client itself: its cached metadata is older than the topic.
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""Answers about a partition that is being created or whose leader is being elected; the client
marks only some retriable."""


UNREADABLE: Final = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG})
TRIES: Final = 3
"""Attempts to read a batch before it counts as damaged; it may have been damaged on the way."""

ASK_S: Final = 120.0
MAX_NOTED: Final = 1_000


def words(error: object) -> str:
    """The message of a client's error, without its code."""
    inner = error.args[0] if isinstance(error, KafkaException) and error.args else error
    return str(inner.str()) if isinstance(inner, KafkaError) else str(error)


class KafkaUnreachable(Exception):
    """No broker answered in time; the message names the address."""


def unreachable(brokers: str, timeout_s: float, error: Exception) -> KafkaUnreachable:
    """The error for ``brokers`` that did not answer, with what to check."""
    where = f" at {brokers}" if brokers else ""
    text = f"no Kafka broker answered{where} within {timeout_s:.0f} s ({words(error)})"
    # librdkafka reports a broker that requires a login like one that is not there.
    if _accepts_connections(brokers):
        return KafkaUnreachable(
            f"{text}: a server accepts connections there, so it may require authentication or TLS: "
            "set kafka_sasl_mechanism, kafka_sasl_username and kafka_sasl_password, or kafka_tls"
        )
    return KafkaUnreachable(f"{text}: is it running, and is kafka_brokers right?")


def _accepts_connections(brokers: str) -> bool:
    """Whether a TCP connection to the first broker succeeds within a second."""
    host, _, port = brokers.partition(",")[0].strip().rpartition(":")
    if not host or not port.isdigit():
        return False
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False


def client_config(settings: Settings, **more: Any) -> dict[str, Any]:
    """The librdkafka configuration of a client: connection settings, token hook, and ``more``."""
    config = dict(settings.kafka)
    if settings.kafka_token_hook:
        hook = load_function(settings.kafka_token_hook, "kafka_token_hook")
        config["oauth_cb"] = lambda _config: hook()
    config.update(more)
    return config


def idempotent_producer(config: Mapping[str, Any], **more: Any) -> Producer:
    """A producer that writes each record once and in order, whatever it has to resend.

    ``config`` is the connection; with settings at hand use ``producer``.
    """
    return Producer({**config, "enable.idempotence": True, "partitioner": PARTITIONER, **more})


def producer(settings: Settings, **more: Any) -> Producer:
    """An idempotent producer for the brokers of the settings."""
    defaults: dict[str, Any] = {"compression.type": settings.compression, "linger.ms": 5}
    return idempotent_producer(client_config(settings), **{**defaults, **more})


class Outgoing(NamedTuple):
    """A record to produce.

    ``topic`` is the full name; partition -1 leaves the choice to the key.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = -1


def send_and_wait(client: Producer, records: Iterable[Outgoing], timeout_s: float) -> int:
    """Produce records in order and return how many there were, once all are acknowledged.

    Raises ``KafkaUnreachable`` when a record is refused or not acknowledged within ``timeout_s`` of
    the last one. For a producer that nothing else uses meanwhile.
    """
    errors: list[str] = []
    sent = 0

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            errors.append(error.str())

    for record in records:
        _produce(client, record, delivered)
        sent += 1
    unacknowledged = client.flush(timeout_s)
    if errors or unacknowledged:
        reasons = sorted(set(errors)) or [f"no answer within {timeout_s:.0f} s"]
        raise KafkaUnreachable(
            f"{len(errors) + unacknowledged} of {sent} records were not acknowledged by Kafka:"
            f" {', '.join(reasons)}"
        )
    return sent


def _produce(client: Producer, record: Outgoing, delivered: Any) -> None:
    place: dict[str, Any] = {} if record.partition < 0 else {"partition": record.partition}
    while True:
        try:
            client.produce(
                record.topic,
                record.value,
                record.key,
                headers=list(record.headers),
                on_delivery=delivered,
                **place,
            )
        except BufferError:  # the client's queue is full
            client.poll(0.5)
        else:
            client.poll(0)
            return


class _Consumer(Consumer):
    """A consumer that keeps the addresses of its brokers, for error messages."""

    brokers = ""


def consumer(settings: Settings, group: str, **more: Any) -> Consumer:
    """A consumer without automatic commits.

    ``group`` may be any name where no offsets are committed.
    """
    defaults: dict[str, Any] = {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "enable.partition.eof": False,
        # Also the limit of what a batch may unpack to.
        "receive.message.max.bytes": RECEIVE_BYTES,
    }
    made = _Consumer({**client_config(settings), **defaults, **more})
    made.brokers = settings.kafka_brokers
    return made


def partition_count(client: Any, topic: str, *, timeout: float = 10) -> int:
    """The number of partitions of a topic, 0 where it does not exist; ``client`` is any client."""
    try:
        metadata = client.list_topics(topic, timeout=timeout).topics.get(topic)
    except KafkaException as error:
        raise unreachable(getattr(client, "brokers", ""), timeout, error) from None
    return 0 if metadata is None or metadata.error is not None else len(metadata.partitions)


def committed_metadata(client: Consumer, found: TopicPartition, *, tries: int = 10) -> str:
    """The text committed next to an offset, possibly followed by characters that are not part of
    it.

    librdkafka copies metadata without the terminating zero, and the client reads on until it finds
    one (see ``commit_metadata`` for forms that mark their own end). The extra bytes may not be text
    at all: then the broker is asked again. Raises ``KafkaUnreachable`` when that does not help.
    """
    for _ in range(tries):
        try:
            return found.metadata or ""
        except UnicodeDecodeError:
            (found,) = client.committed([TopicPartition(found.topic, found.partition)], timeout=30)
    raise KafkaUnreachable(
        f"the metadata committed for {found.topic} partition {found.partition} cannot be read"
    )


# Batches that cannot be read. The error's offset is the first one of the batch; the client does not
# report where it ends. It asks for the same batch again and again, and an attempt from any offset
# inside returns the same error.


class BadBatch(NamedTuple):
    """A batch that cannot be read: full topic name, partition, its offsets, when it was met, and
    why.
    """

    topic: str
    partition: int
    first: int
    last: int
    met_ms: int
    why: str


class BadBatches:
    """Counts the attempts of one client to read a batch."""

    def __init__(self) -> None:
        self._tries: dict[tuple[str, int, int], int] = {}

    def is_hopeless(self, message: Message) -> bool:
        """Whether this is the third error message about a batch."""
        error = message.error()
        if error is None or error.code() not in UNREADABLE:
            return False
        partition, offset = position_of(message)
        place = (message.topic() or "", partition, offset)
        if offset < 0:
            return False
        if len(self._tries) >= MAX_NOTED and place not in self._tries:
            self._tries.clear()
        tries = self._tries[place] = self._tries.get(place, 0) + 1
        return tries == TRIES

    def passed(self, batch: BadBatch) -> None:
        """The batch was skipped: count its attempts from zero if it is met again."""
        self._tries.pop((batch.topic, batch.partition, batch.first), None)


def measured(settings: Settings, message: Message) -> BadBatch:
    """The batch of an error message, with its end. Raises ``KafkaUnreachable``."""
    partition, first = position_of(message)
    topic, error = message.topic() or "", message.error()
    client = consumer(
        settings, "stepstream-reader", **{"enable.partition.eof": True, "fetch.wait.max.ms": 50}
    )
    try:
        end = client.get_watermark_offsets(TopicPartition(topic, partition), timeout=ASK_S)[1]
        inside, step = first, 1
        while inside + step < end and _is_inside(client, topic, partition, first, inside + step):
            inside, step = inside + step, 2 * step
        outside = min(inside + step, end)
        while outside - inside > 1:
            middle = (inside + outside) // 2
            if _is_inside(client, topic, partition, first, middle):
                inside = middle
            else:
                outside = middle
    finally:
        client.close()
    return BadBatch(
        topic,
        partition,
        first,
        inside,
        time.time_ns() // 1_000_000,
        error.str() if error is not None else "",
    )


def pass_over(
    settings: Settings,
    client: Consumer,
    message: Message,
    bad: BadBatches,
    note: Callable[[BadBatch], None] = lambda _batch: None,
) -> BadBatch:
    """Skip the batch of an error message, after ``note`` has recorded it.

    Raises ``KafkaUnreachable``, ``KafkaException``, and what ``note`` raises.
    """
    batch = measured(settings, message)
    note(batch)
    client.seek(TopicPartition(batch.topic, batch.partition, batch.last + 1))
    bad.passed(batch)
    return batch


def _is_inside(client: Consumer, topic: str, partition: int, first: int, offset: int) -> bool:
    """Whether the batch at ``offset`` is the one that begins at ``first``."""
    client.assign([TopicPartition(topic, partition, offset)])
    deadline = time.monotonic() + ASK_S
    while time.monotonic() < deadline:
        message = client.poll(1.0)
        if message is None or message.topic() != topic:
            continue
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return False
        if error.code() in UNREADABLE:
            return position_of(message)[1] == first
    raise KafkaUnreachable(
        f"{topic} partition {partition} could not be read from offset {offset} on"
    )


def read_to_end(
    settings: Settings,
    topic: str,
    partitions: list[int] | None = None,
    *,
    offset: int | None = None,
    timeout: float = 60,
    passed: Callable[[BadBatch], None] = lambda _batch: None,
) -> Iterator[Message]:
    """Every record of the topic (or of some partitions) up to its present ends, outside any group.

    From ``offset`` where given, else from the beginning. Raises ``KafkaUnreachable`` when nothing
    comes for ``timeout`` seconds. It does not wait for records at the end that compaction or a
    transaction removed. A batch that cannot be read is skipped, after a call of ``passed``.
    """
    client = consumer(settings, "stepstream-reader", **{"enable.partition.eof": True})
    try:
        if partitions is None:
            partitions = list(range(partition_count(client, topic)))
        pending = _assign(client, topic, partitions, offset, timeout)
        reading = _Reading(settings, client, pending, passed)
        deadline = time.monotonic() + timeout
        while pending:
            # consume() waits for the whole time unless it gets that many.
            for message in client.consume(10_000, timeout=0.05):
                if message.error() is not None:
                    reading.report(message)
                    continue
                deadline = time.monotonic() + timeout
                if reading.is_wanted(message):
                    yield message
            if time.monotonic() > deadline:
                raise KafkaUnreachable(f"reading {topic} stopped: nothing came for {timeout:.0f} s")
    finally:
        client.close()


class _Reading:
    """The partitions that ``read_to_end`` has not read to their ends yet."""

    def __init__(
        self,
        settings: Settings,
        client: Consumer,
        pending: dict[int, int],
        passed: Callable[[BadBatch], None],
    ) -> None:
        """``pending`` has the end of each partition; partitions that are read are removed from
        it.
        """
        self._settings = settings
        self._client = client
        self._pending = pending
        self._passed = passed
        self._bad = BadBatches()

    def is_wanted(self, message: Message) -> bool:
        """Whether the record lies before the end; the last one completes its partition."""
        partition, offset = position_of(message)
        end = self._pending.get(partition, -1)
        if offset + 1 >= end:
            self._pending.pop(partition, None)
        return offset < end

    def report(self, message: Message) -> None:
        """Handle an error message. Raises ``KafkaException`` for what does not pass by itself."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._PARTITION_EOF:
            self._pending.pop(position_of(message)[0], None)
        elif error.code() in UNREADABLE:
            if self._bad.is_hopeless(message):
                batch = pass_over(self._settings, self._client, message, self._bad, self._passed)
                if batch.last + 1 >= self._pending.get(batch.partition, 0):
                    self._pending.pop(batch.partition, None)
        elif error.code() not in RETRIABLE:
            raise KafkaException(error)


class Follower:
    """Reads a topic to its end, then follows it, outside any group. Calls block for short times."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        passed: Callable[[BadBatch], None] = lambda _batch: None,
    ) -> None:
        """``passed`` is called with each batch that cannot be read, before it is skipped."""
        self._settings = settings
        self._topic = topic
        self._passed = passed
        self._next: dict[int, int] = {}
        self._consumer: Consumer | None = None
        # librdkafka crashes when a consumer is closed while another thread polls it.
        self._in_use = threading.Lock()
        self._closed = False
        self._bad = BadBatches()

    @property
    def exists(self) -> bool:
        """Whether the topic existed at the last poll."""
        return self._consumer is not None

    def read_all(self) -> list[Message]:
        """Every record up to the end. Raises ``KafkaUnreachable``."""
        messages = list(read_to_end(self._settings, self._topic, passed=self._passed))
        for message in messages:
            partition, offset = position_of(message)
            self._next[partition] = offset + 1
        return messages

    def poll(self, timeout_s: float) -> list[Message]:
        """New records, after at most ``timeout_s``. None come while the topic does not exist."""
        with self._in_use:
            if self._closed:
                return []
            if self._consumer is None:
                self._consumer = self._follow()
            return [] if self._consumer is None else self._consume(self._consumer, timeout_s)

    def close(self) -> None:
        """Stop following; waits for a poll in another thread."""
        with self._in_use:
            self._closed = True
            if self._consumer is not None:
                self._consumer.close()

    def _consume(self, client: Consumer, timeout_s: float) -> list[Message]:
        found = []
        for message in client.consume(100, timeout=timeout_s):
            if message.error() is None:
                found.append(message)
            elif self._bad.is_hopeless(message):
                pass_over(self._settings, client, message, self._bad, self._passed)
        return found

    def _follow(self) -> Consumer | None:
        client = consumer(self._settings, "stepstream-follower")
        count = partition_count(client, self._topic)
        if not count:
            client.close()
            return None
        client.assign(
            [TopicPartition(self._topic, part, self._next.get(part, 0)) for part in range(count)]
        )
        return client


def position_of(message: Message) -> tuple[int, int]:
    """Partition and offset of a consumed message; -1 where it has none."""
    partition, offset = message.partition(), message.offset()
    return (-1 if partition is None else partition), (-1 if offset is None else offset)


def ends_of(client: Consumer, place: TopicPartition, *, timeout: float = 10) -> tuple[int, int]:
    """The first offset of a partition and the one after its last.

    Waits while the partition is being created or its leader elected, for at most ``timeout``.
    Raises ``KafkaException``.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            low, high = client.get_watermark_offsets(place, timeout=timeout)
            return low, high
        except KafkaException as error:
            reason = error.args[0]
            if time.monotonic() > deadline or not (reason.retriable() or reason.code() in PASSING):
                raise
            time.sleep(0.1)


def _assign(
    client: Consumer, topic: str, partitions: list[int], offset: int | None, timeout: float
) -> dict[int, int]:
    """Assign partitions and return the end offset of each that has something to read."""
    ends: dict[int, int] = {}
    starts: list[TopicPartition] = []
    for partition in partitions:
        try:
            low, high = ends_of(client, TopicPartition(topic, partition), timeout=timeout)
        except KafkaException as error:
            raise KafkaUnreachable(
                f"the ends of {topic} could not be read: {words(error)}"
            ) from None
        start = low if offset is None else max(low, offset)
        if high > start:
            ends[partition] = high
            starts.append(TopicPartition(topic, partition, start))
    client.assign(starts)
    return ends
