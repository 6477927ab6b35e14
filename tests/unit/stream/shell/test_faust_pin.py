"""faust-streaming's and aiokafka's private parts that the worker overrides are those reviewed.

An upgrade that changes one of them fails here, with what to check again before the hash is renewed
(``python -m tests.unit.stream.shell.test_faust_pin`` prints the table's hashes as installed).
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NamedTuple

import faust
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import Fetcher, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState, TopicPartitionState
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport import conductor
from faust.transport import consumer as transport
from faust.transport.drivers import aiokafka as driver
from mode.services import Service

from stepstream.stream.shell.transport import BatchConsumer, BatchConsumerThread
from stepstream.stream.shell.unpack import REPLACED

# The versions that constraints.txt installs.
FAUST, AIOKAFKA = "0.15.3", "0.14.0"


class Pinned(NamedTuple):
    """Something private, the hash of its source, and what depends on it."""

    what: Callable[..., Any]
    hash: str
    recheck: str


# Methods that classes of ours replace, with what ours does instead.
OVERRIDDEN = (
    Pinned(
        driver.AIOKafkaConsumerThread._create_worker_consumer,
        "c179c0bdb9755c3a",
        "BatchConsumerThread._create_worker_consumer only shortens fetch_max_wait_ms after it",
    ),
    Pinned(
        driver.AIOKafkaConsumerThread._commit,
        "78c931ecfa8dde44",
        "BatchConsumerThread._commit replaces it: commits safe offsets with metadata, "
        "crashes on no Kafka error",
    ),
    Pinned(
        driver.AIOKafkaConsumerThread._fetch_records,
        "9e7369fc572de4d0",
        "fetches nothing while the flow is stopped; BatchConsumerThread only changes the records",
    ),
    Pinned(
        driver.Consumer._to_message,
        "a2a5aefda42d9cd1",
        "stamps the generation that a stage compares; so does ours",
    ),
    Pinned(
        driver.Consumer._new_consumer_thread,
        "8fd0d41b15145615",
        "BatchConsumer makes a BatchConsumerThread instead",
    ),
    Pinned(
        driver.Consumer.verify_event_path,
        "883ce70ac0a6007f",
        "BatchConsumer switches it off: it knows single messages only",
    ),
    Pinned(
        transport.Consumer.ack,
        "5548cf0f75843f73",
        "BatchConsumer.ack only marks the message: acknowledged offsets are not committed",
    ),
    Pinned(
        transport.Consumer._filter_tps_with_pending_acks,
        "cccdca32d241b14c",
        "BatchConsumer gives the partitions that have a safe offset",
    ),
    Pinned(
        transport.Consumer._new_offset, "2b29afe4dd9a65a3", "BatchConsumer gives the safe offset"
    ),
    Pinned(
        transport.Consumer._commit_offsets,
        "86b3e9b0aec773ac",
        "BatchConsumer notes as committed only what was",
    ),
    Pinned(
        transport.Consumer.on_task_error,
        "abf73e0e009a0afd",
        "BatchConsumer commits nothing because of an error",
    ),
    Pinned(
        transport.ThreadDelegateConsumer._getmany,
        "8dbffeccb0e3267f",
        "BatchConsumer asks it for fewer partitions, but never for none, "
        "which aiokafka takes for all",
    ),
    Pinned(
        transport.Consumer._drain_messages,
        "8f35dd7a11144daa",
        "BatchConsumer._drain_messages replaces it with chunks; "
        "check what else a new version of the original does",
    ),
)

# Methods that ours call or are called by, with what ours depend on.
RELIED_ON = (
    Pinned(
        transport.Consumer._wait_next_records,
        "ba40cd3671328d3b",
        "waits while the flow is stopped, then fetches",
    ),
    Pinned(
        transport.Consumer.perform_seek,
        "2b4ceebd23deb7ee",
        "rewinds positions and read offsets to what is committed",
    ),
    Pinned(
        transport.Consumer._should_commit, "91d8eb1ef6bf4994", "lets only growing offsets through"
    ),
    Pinned(
        transport.Consumer._commit_tps,
        "b83d551c32787010",
        "calls _new_offset, then _commit_offsets",
    ),
    Pinned(
        transport.Consumer.on_stop,
        "7accc1bf4f9759a1",
        "commits once more at the end: safe offsets are cleared before it after a failure",
    ),
    Pinned(
        transport.Consumer.on_partitions_revoked,
        "652177e770ee66d6",
        "forgets the read offsets of what was revoked",
    ),
    Pinned(
        driver.ConsumerRebalanceListener.on_partitions_assigned,
        "f8231db51dd545c6",
        "sets app.consumer_generation_id before anything",
    ),
    Pinned(
        conductor.ConductorCompiler.build,
        "70ded0e719100a3f",
        "a message waits for the flow, so it may outlive its assignment",
    ),
    Pinned(
        App._on_partitions_revoked,
        "c1abd58dcb37f0a2",
        "stops the flow and empties the streams before it notifies the worker",
    ),
    Pinned(
        App._on_partitions_assigned,
        "c9c5485eb273837f",
        "notifies the worker before the flow is resumed: otherwise batches come to no stage",
    ),
    Pinned(
        Recovery._resume_streams,
        "fbe0f747b84c0b27",
        "rewinds every partition after every rebalance, then resumes the flow",
    ),
    Pinned(
        Fetcher._proc_fetch_request,
        "ace04969424fc674",
        "sets highwater before timestamp: the worker's clock reads them the other way",
    ),
    Pinned(
        Fetcher.fetched_records,
        "e20ce0c8117f12d2",
        "may span a rebalance and bring the new assignment's records: they are fetched again",
    ),
    Pinned(
        Fetcher._get_actions_per_node,
        "fd175a69d8d4f9b9",
        "makes requests that wait for _fetch_max_wait_ms, and none to a broker that has one: "
        "shorten_waits sets it before",
    ),
    Pinned(
        Fetcher._fetch_requests_routine,
        "12dc901a1e4a19f4",
        "asks self for the actions each time round: shorten_waits is asked",
    ),
    Pinned(
        REPLACED[0],
        "047f7fc3f005c220",
        "stream/shell/unpack.py does the same, and makes one record of a batch that raises",
    ),
    Pinned(
        PartitionRecords._consumer_record, "56c3ee13f914a9d2", "only wraps what the decoder made"
    ),
    Pinned(
        REPLACED[1],
        "b638929de3431c67",
        "stream/shell/unpack.py does the same, and stops at this many bytes",
    ),
    Pinned(
        GroupCoordinator._on_join_complete,
        "186788a437c08195",
        "a new assignment begins with new positions, before any listener is called",
    ),
    Pinned(
        AIOKafkaConsumer.seek_to_committed,
        "9c20926f17126a19",
        "leaves partitions without a committed offset where they are",
    ),
    Pinned(AIOKafkaConsumer.commit, "f85283bf7c7cce0d", "takes metadata with offsets"),
    Pinned(
        GroupCoordinator._do_commit_offsets,
        "c1259c2b206806f0",
        "refuses commits of an older generation with CommitFailedError",
    ),
)


def fingerprint(what: Callable[..., Any]) -> str:
    """A hash of its source, whatever its indentation."""
    # A method that moves into another class has another indentation and the same meaning.
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(what)))
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def test_the_versions_are_the_ones_that_were_read() -> None:
    """Private methods have no promise of compatibility: each new version is reviewed first."""
    assert version("faust-streaming") == FAUST, (
        f"read stream/shell/transport.py against the new faust-streaming, then allow {FAUST}"
    )
    assert version("aiokafka") == AIOKAFKA, (
        "read Fetcher and GroupCoordinator of the new aiokafka, then allow it here"
    )


@pytest.mark.parametrize(
    "pinned", [*OVERRIDDEN, *RELIED_ON], ids=lambda pinned: pinned.what.__qualname__
)
def test_private_methods_are_the_ones_that_were_read(pinned: Pinned) -> None:
    """What is overridden or relied on is what the worker was written against."""
    assert fingerprint(pinned.what) == pinned.hash, (
        f"{pinned.what.__module__}.{pinned.what.__qualname__} has changed. "
        f"Check: {pinned.recheck}. "
        f"Then set its hash to {fingerprint(pinned.what)}"
    )


@pytest.mark.parametrize("ours", [BatchConsumer, BatchConsumerThread])
def test_every_override_is_pinned(ours: type) -> None:
    """A method that is overridden stands in the table."""
    theirs = {pinned.what.__name__ for pinned in OVERRIDDEN}
    bases = ours.__mro__[1:]
    overridden = {
        name
        for name, value in vars(ours).items()
        if inspect.isfunction(value)
        and not name.startswith("__")
        and any(name in vars(base) for base in bases)
    }
    assert overridden
    # The table may have more: methods of other classes are in it too.
    assert overridden <= theirs


async def test_the_attributes_that_are_read_exist() -> None:
    """The fetcher's position and the broker's last answer are read from private fields."""
    subscription = SubscriptionState()
    partition = TopicPartition("steps", 0)
    subscription.subscribe({"steps"})
    subscription.assign_from_subscribed([partition])
    assert subscription.subscription is not None
    assert subscription.subscription.assignment is not None
    assert partition in subscription.subscription.assignment.tps
    state = subscription.subscription.assignment.state_value(partition)
    assert isinstance(state, TopicPartitionState)
    # What the worker reads before the first fetch: it must not count as caught up.
    assert (state.has_valid_position, state.highwater, state.timestamp) == (False, None, None)
    state.reset_to(5)
    assert (state.has_valid_position, state.position) == (True, 5)


async def test_the_fetch_wait_can_still_be_set_before_the_start() -> None:
    """aiokafka's default wait under faust, 1.5 s, would delay the clock of deadlines as much."""
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", fetch_max_wait_ms=1_500)
    assert consumer._fetch_max_wait_ms == 1_500
    assert consumer._subscription is not None
    assert "fetch_max_wait_ms=self._fetch_max_wait_ms" in inspect.getsource(AIOKafkaConsumer.start)
    # A consumer that is collected without close() warns, and warnings are errors.
    consumer._closed = True  # it was never started


def test_the_app_shows_that_faust_has_failed() -> None:
    """The worker notices by these that faust has given up."""
    assert isinstance(inspect.getattr_static(faust.App, "should_stop"), property)
    assert isinstance(inspect.getattr_static(Service, "crash_reason"), property)
    assert faust.App.consumer_generation_id == 0


if __name__ == "__main__":
    for item in (*OVERRIDDEN, *RELIED_ON):
        print(fingerprint(item.what), f"{item.what.__module__}.{item.what.__qualname__}")
