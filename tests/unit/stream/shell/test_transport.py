"""Chunks of records: interrupted ones are read again; only safe offsets are committed."""

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

from stepstream.stream.shell.batching import (
    BUSY_RECORDS_PER_S,
    CHUNK_RECORDS,
    MAX_BUFFERED_BYTES,
    MAX_BUFFERED_RECORDS,
    Backlog,
    Handover,
    Pace,
    SafeOffsets,
    ahead_of,
    commit_safe_offsets,
    first_offsets,
    smallest_first,
)
from stepstream.stream.shell.transport import (
    FETCH_MAX_WAIT_MS,
    PART_MAX_WAIT_MS,
    BatchConsumer,
    shorten_waits,
)

log = logging.getLogger("test")

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


class Flow:
    """A handover with everything around it: what is delivered arrives in ``got``."""

    def __init__(self) -> None:
        self.generation = 1
        self.is_flowing = True
        self.read_offsets: dict[TP, int | None] = defaultdict(lambda: None)
        self.got: list[tuple[int, list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.backlog = Backlog()
        self._handover = Handover(
            generation=lambda: self.generation,
            is_flowing=lambda: self.is_flowing,
            read_offsets=self.read_offsets,
            deliver=self._deliver,
            backlog=self.backlog,
        )

    async def _deliver(self, _tp: TP, chunk: list[Raw]) -> None:
        # the message is stamped when it is made, before it waits for the end of a rebalance
        generation = self.generation
        await self.gate.wait()
        self.got.append((generation, [record.offset for record in chunk]))

    async def hand_over(self, records: list[Raw]) -> None:
        await self._handover.hand_over(STEPS, records, self.generation)

    def rebalance(self, committed: int) -> None:
        """As faust does: another generation, and reading begins at the committed offset."""
        self.generation += 1
        self.backlog.clear()
        self.read_offsets[STEPS] = committed


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_batch_travels_in_chunks_in_order() -> None:
    """One message a chunk, whole and in order."""
    flow = Flow()
    await flow.hand_over(batch(10, CHUNK_RECORDS + 7))
    assert [len(offsets) for _, offsets in flow.got] == [CHUNK_RECORDS, 7]
    assert [offset for _, offsets in flow.got for offset in offsets] == list(
        range(10, 10 + CHUNK_RECORDS + 7)
    )
    assert flow.backlog.records == CHUNK_RECORDS + 7


async def test_chunks_that_were_read_are_skipped() -> None:
    """After a seek some fetched records are old; a chunk that reaches further is not lost."""
    flow = Flow()
    await flow.hand_over(batch(0, 100))
    # Fetched before the seek: all of it was read already.
    await flow.hand_over(batch(0, 50))
    await flow.hand_over(batch(50, 100))
    assert [(offsets[0], offsets[-1]) for _, offsets in flow.got] == [(0, 99), (50, 149)]


async def test_a_rebalance_while_a_message_waits_loses_nothing() -> None:
    """A message that waits out a rebalance and is dropped must not count as read."""
    flow = Flow()
    flow.gate.clear()
    waiting = asyncio.create_task(flow.hand_over(batch(5_000, 3 * CHUNK_RECORDS)))
    await turn()
    flow.rebalance(committed=100)
    flow.gate.set()
    await waiting
    await flow.hand_over(batch(100, 5_000))
    new = [offset for generation, offsets in flow.got if generation == 2 for offset in offsets]
    assert new == list(range(100, 5_100))
    assert [generation for generation, _ in flow.got].count(1) == 1


async def test_nothing_is_handed_over_while_the_flow_is_stopped() -> None:
    """From the revocation on, records belong to another worker."""
    flow = Flow()
    flow.is_flowing = False
    await flow.hand_over(batch(0, 10))
    assert (flow.got, flow.read_offsets[STEPS]) == ([], None)


def test_a_fetch_that_returns_during_a_rebalance_is_fetched_again_from_its_first_records() -> None:
    fetched = {TopicPartition("steps", 0): batch(7, 10), TopicPartition("steps", 1): []}
    assert first_offsets(fetched) == {TopicPartition("steps", 0): 7}


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
    assert ahead_of(subscription, {ahead: 0, behind: 5_000, fresh: 7, other: 3}) == [(ahead, 0)]


def test_a_full_topic_waits_for_itself_alone() -> None:
    """Findings reach the alerts however many steps are still to be read."""
    backlog = Backlog()
    backlog.put("steps", MAX_BUFFERED_RECORDS)
    assert backlog.is_full("steps")
    assert not backlog.is_full("findings")
    backlog.put("findings", 1, MAX_BUFFERED_BYTES)
    assert backlog.is_full("findings")
    backlog.taken("steps")
    assert not backlog.is_full("steps")
    backlog.clear()
    assert not backlog.is_full("findings")
    backlog.taken("steps")
    assert backlog.records == 0


async def test_no_partition_waits_for_the_silence_of_another() -> None:
    """A request without a partition that has unread records returns soon and is repeated."""
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


def test_small_batches_go_first() -> None:
    steps, findings = TopicPartition("steps", 0), TopicPartition("findings", 0)
    fetched = {steps: batch(0, 20), findings: batch(0, 2)}
    assert [partition for partition, _ in smallest_first(fetched)] == [findings, steps]


@dataclass
class Client:
    """An aiokafka consumer that commits, or does not."""

    error: Exception | None = None
    committed: list[dict[Any, Any]] = field(default_factory=list)

    async def commit(self, offsets: dict[Any, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.committed.append(offsets)


async def commit(client: Client, offsets: dict[TP, int], safe: SafeOffsets) -> bool:
    return await commit_safe_offsets(client.commit, offsets, safe, {STEPS}, log)


async def test_safe_offsets_are_committed_with_their_metadata() -> None:
    """Partitions of other workers are left out."""
    client = Client()
    safe = {STEPS: (42, "state=7"), TP("steps", 1): (9, "")}
    assert await commit(client, {STEPS: 41, TP("steps", 1): 9}, safe)
    assert client.committed == [{TopicPartition("steps", 0): OffsetAndMetadata(42, "state=7")}]


@pytest.mark.parametrize(
    "error",
    [
        CommitFailedError("rebalanced"),
        IllegalStateError("not assigned"),
        NodeNotReadyError(),
        KafkaError(),
    ],
)
async def test_a_commit_that_fails_is_reported_and_raises_nothing(error: Exception) -> None:
    """Refused, or brokers away: it is tried again."""
    assert not await commit(Client(error), {STEPS: 42}, {STEPS: (42, "")})


async def test_an_error_that_is_not_from_kafka_is_raised() -> None:
    """The consumer crashes with it: a bug would fail again and again."""
    with pytest.raises(RuntimeError, match="bug"):
        await commit(Client(RuntimeError("bug")), {STEPS: 42}, {STEPS: (42, "")})


class Committing(BatchConsumer):
    """The consumer without its service: only what it notes about commits."""

    def __init__(self, outcomes: list[bool]) -> None:
        vars(self).update(_committed_offset=defaultdict(lambda: None))
        self._outcomes = iter(outcomes)

    async def _commit(self, _offsets: Any) -> bool:
        return next(self._outcomes)


async def test_what_was_not_committed_is_tried_again() -> None:
    """faust notes an offset as committed although the commit failed; it must be retried."""
    consumer = Committing([False, True])
    assert not await consumer._commit_offsets({STEPS: 42})
    assert consumer._should_commit(STEPS, 42)
    assert await consumer._commit_offsets({STEPS: 42})
    assert not consumer._should_commit(STEPS, 42)
    # A later offset is committed, whatever became of the one before.
    assert consumer._should_commit(STEPS, 43)
