"""faust's consumer with chunks and floors: what a rebalance interrupts is read again, and only floors are committed."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher, FetchError
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, NodeNotReadyError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.types import TP

from stepstream.stream.shell.transport import (
    BUSY_RECORDS_PER_S,
    CHUNK_RECORDS,
    FETCH_MAX_WAIT_MS,
    MAX_BUFFERED_RECORDS,
    PART_MAX_WAIT_MS,
    Backlog,
    BatchConsumer,
    BatchConsumerThread,
    Pace,
    shorten_waits,
)

STEPS = TP("steps", 0)


@dataclass
class Raw:
    """What aiokafka hands out."""

    offset: int
    topic: str = "steps"
    partition: int = 0
    timestamp: int = 1_000
    timestamp_type: int = 1
    headers: tuple[Any, ...] = ()
    key: bytes = b""
    value: bytes = b""
    checksum: int = 0
    serialized_key_size: int = 0
    serialized_value_size: int = 0


def batch(first: int, count: int) -> list[Raw]:
    return [Raw(first + index) for index in range(count)]


class Consumer(BatchConsumer):
    """The consumer without its service; messages arrive in ``got``."""

    def __init__(self) -> None:
        vars(self).update(
            app=SimpleNamespace(consumer_generation_id=1), _read_offset=defaultdict(lambda: None)
        )
        self.flow_active = True
        self.got: list[tuple[int, list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.backlog = Backlog()
        vars(self).update(callback=self._take)

    async def _take(self, message: Any) -> None:
        await self.gate.wait()
        self.got.append((message.generation_id, [record.offset for record in message.value]))

    async def hand_over(self, records: list[Raw]) -> None:
        await self._hand_over(STEPS, records, self.app.consumer_generation_id, self.backlog)

    def rebalance(self, floor: int) -> None:
        """As faust does: another generation, and reading begins at the floor."""
        self.app.consumer_generation_id += 1
        self.backlog.clear()
        self._read_offset[STEPS] = floor


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_batch_travels_in_chunks_in_order() -> None:
    """One message a chunk, whole and in order."""
    consumer = Consumer()
    await consumer.hand_over(batch(10, CHUNK_RECORDS + 7))
    assert [len(offsets) for _, offsets in consumer.got] == [CHUNK_RECORDS, 7]
    assert [offset for _, offsets in consumer.got for offset in offsets] == list(
        range(10, 10 + CHUNK_RECORDS + 7)
    )
    assert consumer.backlog.records == CHUNK_RECORDS + 7


async def test_chunks_that_were_read_are_skipped() -> None:
    """After a seek some of what is fetched was handed over before; a chunk that reaches further is not lost."""
    consumer = Consumer()
    await consumer.hand_over(batch(0, 100))
    await consumer.hand_over(batch(0, 50))
    await consumer.hand_over(batch(50, 100))
    assert [(offsets[0], offsets[-1]) for _, offsets in consumer.got] == [(0, 99), (50, 149)]


async def test_a_rebalance_while_a_message_waits_loses_nothing() -> None:
    """A message that waits out a rebalance must not mark as read what its stage will drop: it is read again."""
    consumer = Consumer()
    consumer.gate.clear()
    waiting = asyncio.create_task(consumer.hand_over(batch(5_000, 3 * CHUNK_RECORDS)))
    await turn()
    consumer.rebalance(floor=100)
    consumer.gate.set()
    await waiting
    await consumer.hand_over(batch(100, 5_000))
    new = [offset for generation, offsets in consumer.got if generation == 2 for offset in offsets]
    assert new == list(range(100, 5_100))
    assert [generation for generation, _ in consumer.got].count(1) == 1


async def test_nothing_is_handed_over_while_the_flow_is_stopped() -> None:
    """From the revocation on, records belong to somebody else."""
    consumer = Consumer()
    consumer.flow_active = False
    await consumer.hand_over(batch(0, 10))
    assert (consumer.got, consumer._read_offset[STEPS]) == ([], None)


async def test_what_a_fetch_brings_during_a_rebalance_is_given_back() -> None:
    """It may be the new assignment's beginning: dropped, it would be missing for ever."""
    consumer = Consumer()
    consumer.flow_active = False
    given: list[Any] = []
    fetched = iter([{TopicPartition("steps", 0): batch(0, 10), TopicPartition("steps", 1): []}, {}])

    async def fetch(_timeout: float) -> tuple[Any, None]:
        records = next(fetched)
        if not records:
            consumer._stopped.set()
        return records, None

    async def call_thread(method: Any, *arguments: Any) -> None:
        given.append((method, *arguments))

    thread = SimpleNamespace(call_thread=call_thread, fetch_again="fetch again")
    vars(consumer).update(_wait_next_records=fetch, _thread=thread, _stopped=asyncio.Event())
    vars(consumer).update(transport=SimpleNamespace(backlog=consumer.backlog))
    await consumer._drain_messages(SimpleNamespace(_stopped=asyncio.Event()))
    assert given == [("fetch again", {TopicPartition("steps", 0): 0})]
    assert consumer.got == []


async def test_giving_back_only_ever_goes_back() -> None:
    """What belongs to an assignment that is gone must not carry the new one forward."""
    subscription = SubscriptionState()
    ahead, behind, fresh, other = (TopicPartition("steps", number) for number in range(4))
    subscription.subscribe({"steps"})
    subscription.assign_from_subscribed([ahead, behind, fresh])
    assert subscription.subscription is not None
    assert subscription.subscription.assignment is not None
    subscription.subscription.assignment.state_value(ahead).reset_to(185)
    subscription.subscription.assignment.state_value(behind).reset_to(100)
    thread = Thread(Client(), {})
    seeks: list[Any] = []
    client = SimpleNamespace(_subscription=subscription, seek=lambda *where: seeks.append(where))
    vars(thread).update(_consumer=client)
    await thread.fetch_again({ahead: 0, behind: 5_000, fresh: 7, other: 3})
    assert seeks == [(ahead, 0)]


async def test_a_full_topic_waits_for_itself_alone() -> None:
    """Findings reach the alerts however many steps are still to be read; a stage that has taken some gets more."""
    consumer = Consumer()
    steps, findings = TP("steps", 0), TP("findings", 0)
    asked: list[set[TP]] = []

    async def getmany(partitions: set[TP], _timeout: float) -> Any:
        asked.append(partitions)
        return {}

    vars(consumer).update(
        transport=SimpleNamespace(backlog=consumer.backlog),
        _thread=SimpleNamespace(getmany=getmany),
    )
    active = {steps, findings}
    await consumer._getmany(active, 1.0)
    consumer.backlog.put("steps", MAX_BUFFERED_RECORDS)
    await consumer._getmany(active, 1.0)
    consumer.backlog.put("findings", MAX_BUFFERED_RECORDS)
    assert await consumer._getmany(active, 1.0) == {}  # nothing has room: Kafka is not asked
    consumer.backlog.taken("steps")
    await consumer._getmany(active, 1.0)
    consumer.backlog.clear()
    await consumer._getmany(active, 1.0)
    assert asked == [active, {findings}, {steps}, active]
    consumer.backlog.taken("steps")
    assert consumer.backlog.records == 0


async def test_no_partition_waits_for_the_silence_of_another() -> None:
    """A request that leaves out a partition with unread records comes back soon: until then nothing else is asked for."""
    steps, findings = TopicPartition("steps", 0), TopicPartition("findings", 0)
    subscriptions = SubscriptionState()
    subscriptions.subscribe({"steps", "findings"})
    subscriptions.assign_from_subscribed([steps, findings])
    assignment = subscriptions.subscription.assignment
    for partition in (steps, findings):
        assignment.state_value(partition).reset_to(0)
    cluster = SimpleNamespace(leader_for_partition=lambda _partition: 0)
    client = SimpleNamespace(
        cluster=cluster, _loop=asyncio.get_running_loop(), _metadata_max_age_ms=1_000
    )
    fetcher = Fetcher(client, subscriptions)

    def asked() -> list[tuple[int, set[str]]]:
        shorten_waits(fetcher)  # again and again, as the worker does
        requests = fetcher._get_actions_per_node(assignment)[0]
        return [
            (request._max_wait_ms, {name for name, _ in request.topics}) for _, request in requests
        ]

    assert asked() == [(FETCH_MAX_WAIT_MS, {"steps", "findings"})]
    fetcher._records[steps] = FetchError(error=KafkaError(), backoff=0)
    assert asked() == [(PART_MAX_WAIT_MS, {"findings"})]
    del fetcher._records[steps]
    assert asked() == [(FETCH_MAX_WAIT_MS, {"steps", "findings"})]
    fetcher._fetch_min_bytes = 2  # it waits for more than there may be
    assert asked() == [(PART_MAX_WAIT_MS, {"steps", "findings"})]
    await fetcher.close()


def test_a_fetch_waits_for_more_while_much_is_coming() -> None:
    """What comes alone is fetched alone, also right after a load has ended."""
    pace = Pace()
    for tenth in range(20):
        pace.note(BUSY_RECORDS_PER_S // 20, tenth / 10)
        assert pace.min_bytes == 1
    for tenth in range(20, 24):
        pace.note(BUSY_RECORDS_PER_S // 5, tenth / 10)
    assert pace.min_bytes > 1
    for tenth in range(24, 30):
        pace.note(1, tenth / 10)
    assert pace.min_bytes == 1


async def test_a_little_goes_before_much() -> None:
    """Of what one fetch brought the partitions with few records come first."""
    consumer = Consumer()

    async def fetch(_timeout: float) -> tuple[Any, None]:
        consumer._stopped.set()
        return {
            TopicPartition("steps", 0): batch(0, 20),
            TopicPartition("findings", 0): batch(0, 2),
        }, None

    vars(consumer).update(_wait_next_records=fetch, _stopped=asyncio.Event())
    vars(consumer).update(transport=SimpleNamespace(backlog=consumer.backlog))
    await consumer._drain_messages(SimpleNamespace(_stopped=asyncio.Event()))
    assert [len(offsets) for _, offsets in consumer.got] == [2, 20]


@dataclass
class Client:
    """An aiokafka consumer that commits, or does not."""

    error: Exception | None = None
    committed: list[dict[Any, Any]] = field(default_factory=list)

    async def commit(self, offsets: dict[Any, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.committed.append(offsets)


class Thread(BatchConsumerThread):
    """The consumer thread without its service."""

    def __init__(self, client: Client, floors: dict[TP, tuple[int, str]]) -> None:
        consumer = SimpleNamespace(transport=SimpleNamespace(safe_offsets=floors))
        vars(self).update(_consumer=client, consumer=consumer, log=logging.getLogger("test"))
        self.crashes: list[BaseException] = []

    def assignment(self) -> set[TP]:
        return {STEPS}

    async def crash(self, exc: BaseException) -> None:
        self.crashes.append(exc)


async def test_floors_are_committed_with_what_belongs_to_them() -> None:
    """The metadata says where a restart reads states from; partitions of others are left alone."""
    client = Client()
    thread = Thread(client, {STEPS: (42, "1;state=7"), TP("steps", 1): (9, "")})
    assert await thread._commit({STEPS: 41, TP("steps", 1): 9})
    assert client.committed == [{TopicPartition("steps", 0): OffsetAndMetadata(42, "1;state=7")}]


@pytest.mark.parametrize(
    "error",
    [
        CommitFailedError("rebalanced"),
        IllegalStateError("not assigned"),
        NodeNotReadyError(),
        KafkaError(),
    ],
)
async def test_a_commit_that_fails_changes_nothing(error: Exception) -> None:
    """Refused, or brokers away: it is tried again, and nobody stops because of it."""
    thread = Thread(Client(error), {STEPS: (42, "")})
    assert not await thread._commit({STEPS: 42})
    assert thread.crashes == []


async def test_an_error_that_is_not_kafkas_stops_the_consumer() -> None:
    """What nobody thought of is not to be tried for ever."""
    error = RuntimeError("bug")
    thread = Thread(Client(error), {STEPS: (42, "")})
    assert not await thread._commit({STEPS: 42})
    assert thread.crashes == [error]


async def test_what_was_not_committed_is_not_taken_for_it() -> None:
    """faust notes an offset as committed although the commit failed; then it would never be committed."""
    consumer = Consumer()
    vars(consumer).update(_committed_offset=defaultdict(lambda: None))
    outcomes = iter([False, True])

    async def commit(_offsets: Any) -> bool:
        return next(outcomes)

    vars(consumer).update(_commit=commit)
    assert not await consumer._commit_offsets({STEPS: 42})
    assert consumer._should_commit(STEPS, 42)
    assert await consumer._commit_offsets({STEPS: 42})
    assert not consumer._should_commit(STEPS, 42)
    assert consumer._should_commit(STEPS, 43)
