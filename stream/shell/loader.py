"""Reads what a worker needs before it processes the first record of a partition: its offset, run
states, alerts, windows.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from stepstream.common.commit_metadata import WORKER
from stepstream.common.kafka import (
    RETRIABLE,
    UNREADABLE,
    KafkaUnreachable,
    committed_metadata,
    consumer,
    position_of,
    read_to_end,
)
from stepstream.common.letters import Unreadable, letters_since, time_of, write_letters
from stepstream.common.retry import Backoff, OutageLog, retry_in_thread
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetWindowStruct, LearntDayStruct
from stepstream.schemas.ids import TRACE_ID
from stepstream.schemas.misfits import alert_misfit
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_common import ID_MEMORY_US
from stepstream.schemas.task_state import (
    STATE_VERSION,
    Change,
    StateRecord,
    TaskRefusalStruct,
    TaskStateStruct,
    is_newer,
)
from stepstream.schemas.topics import topic
from stepstream.stream.assemble.state import (
    RunState,
    UnknownStateVersion,
    checked_state,
    decode_state,
)
from stepstream.stream.core.dead_letter_rate import DeadLetterRate
from stepstream.stream.core.poison import KEY_PREFIX, SKIP_WINDOW_US, PoisonLedger
from stepstream.stream.shell.config import note_batch
from stepstream.stream.shell.state_index import StateIndex
from stepstream.stream.tasks.partition import closed_at_us, state_name
from stepstream.stream.usage.fleet_records import FleetRecords
from stepstream.stream.usage.windows.checkpoint import Checkpoint, UnknownCheckpoint
from stepstream.stream.usage.windows.records import MAX_AHEAD_US

log = logging.getLogger("stepstream.worker")
_decode_task_state = msgspec.json.Decoder(StateRecord).decode
_decode_alert = msgspec.json.Decoder(AlertStruct).decode
_Result = TypeVar("_Result")

LOAD_BACKOFF: Final = Backoff(first_s=0.5, longest_s=10.0)


def committed_position(
    settings: Settings, group: str, name: str, partition: int
) -> tuple[int, int]:
    """The committed offset of a partition and the offset of the state topic committed with it; 0
    where there is none.
    """
    client = consumer(settings, group)
    try:
        asked = TopicPartition(topic(settings.topic_prefix, name), partition)
        found = client.committed([asked], timeout=10)[0]
        return max(0, found.offset), WORKER.decode(committed_metadata(client, found)) or 0
    finally:
        client.close()


SINK_HAS_MS: Final = 600_000
"""A sink dead-letters unreadable alerts too; only those older than this are left to the worker, so
that one does it.
"""


class StateReader:
    """Reads a partition's state. Records that cannot be decoded are skipped, logged once and
    dead-lettered.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.unreadable: list[Unreadable] = []

    def decoded(self, name: str, message: Message, read: Callable[[], _Result]) -> _Result | None:
        """The result of ``read`` for a record of a topic (name without prefix); None where it
        raises.

        Raises ``UnknownStateVersion`` and ``UnknownCheckpoint`` for records of a newer worker:
        those must not be lost.
        """
        try:
            return read()
        except (UnknownStateVersion, UnknownCheckpoint):
            raise
        except Exception as error:
            self.unreadable.append(Unreadable(name, message, f"{type(error).__name__}: {error}"))
            return None

    def records(self, name: str, partition: int, offset: int | None = None) -> Iterator[Message]:
        """The records of a partition up to its present end; batches that cannot be read are skipped
        and dead-lettered.
        """
        full = topic(self._settings.topic_prefix, name)
        passed = functools.partial(note_batch, self._settings, name)
        yield from read_to_end(self._settings, full, [partition], offset=offset, passed=passed)

    def finish(self) -> int:
        """Dead-letter what could not be decoded. Returns how many records. Raises
        ``KafkaUnreachable``.
        """
        return refuse_unreadable(self._settings, self.unreadable)


def refuse_unreadable(settings: Settings, unreadable: Sequence[Unreadable]) -> int:
    """Dead-letter records, except those that are there already, and log it once. Returns how many
    records were given.
    """
    if unreadable:
        since_ms = time.time() * 1000 - SINK_HAS_MS
        left = [
            item
            for item in unreadable
            if item.topic != "alerts" or item.message.timestamp()[1] < since_ms
        ]
        write_letters(settings, left, "worker")
        first = unreadable[0]
        log.error(
            "%d unreadable records are skipped and dead-lettered; the first is %s/%d/%d: %s",
            len(unreadable), *first.source, first.detail[:300],
        )  # fmt: skip
    return len(unreadable)


def dead_lettered(settings: Settings, name: str, partition: int, position: int) -> frozenset[int]:
    """Offsets from ``position`` on whose records are in the dead letter already."""
    since_ms = time_of(settings, topic(settings.topic_prefix, name), partition, position)
    if not since_ms:
        return frozenset()
    found = letters_since(settings, since_ms)
    return frozenset(
        offset
        for where, part, offset in found
        if where == name and part == partition and offset >= position
    )


@dataclass(frozen=True, slots=True)
class AssembleState:
    """What Kafka holds of a partition of steps: the newest state of each run, the position, where
    the state records are.
    """

    states: list[RunState]
    position: int
    index: StateIndex
    ledger: PoisonLedger
    dead_letter_rate: DeadLetterRate
    unreadable: int
    dead_lettered: frozenset[int]


@dataclass(frozen=True, slots=True)
class AlertsState:
    """What Kafka holds of a partition of findings: every alert record, and the position."""

    alerts: list[AlertStruct]
    position: int
    ledger: PoisonLedger
    unreadable: int
    dead_lettered: frozenset[int]


def load_assemble(settings: Settings, group: str, partition: int, horizon_us: int) -> AssembleState:
    """Read what the assemble stage needs to continue with a partition."""
    position, state_from = committed_position(settings, group, "steps", partition)
    index = StateIndex(horizon_us, state_from)
    ledger = PoisonLedger("steps", partition, "state")
    rate = DeadLetterRate("steps", partition, "state", settings.dead_letter_limit)
    newest: dict[str, RunState] = {}
    reader = StateReader(settings)
    for message in reader.records("state", partition, state_from):
        value = message.value()
        if value:
            read = functools.partial(_take_state, newest, index, ledger, rate, message, value)
            reader.decoded("state", message, read)
    latest_us = max((state.last_append_us for state in newest.values()), default=0)
    kept = [s for s in newest.values() if not s.closed or s.closed_at_us >= latest_us - horizon_us]
    return AssembleState(
        kept,
        position,
        index,
        ledger,
        rate,
        reader.finish(),
        dead_lettered(settings, "steps", partition, position),
    )


def _take_state(
    newest: dict[str, RunState],
    index: StateIndex,
    ledger: PoisonLedger,
    rate: DeadLetterRate,
    message: Message,
    value: bytes,
) -> None:
    key, offset = message.key() or b"", position_of(message)[1]
    if key.startswith(KEY_PREFIX):
        index.pin(offset, ledger.restore(value, _latest_us(message)) + SKIP_WINDOW_US)
        return
    if key == rate.key:
        _keep_rate(index, rate, offset, rate.restore(value, _latest_us(message)))
        return
    if not TRACE_ID.fullmatch(key.decode("ascii", "replace")):
        raise ValueError(f"neither a run's state nor a note has this key: {key[:100]!r}")
    state = checked_state(decode_state(value), _latest_us(message))
    if state.trace_id.encode() != key:
        raise ValueError(f"the state of run {state.trace_id[:40]} under another key")
    known = newest.get(state.trace_id)
    # A worker that has lost the partition may write last and know less.
    if known is None or state.order >= known.order:
        newest[state.trace_id] = state
        index.written(state.trace_id, offset, closed=state.closed, closed_at_us=state.closed_at_us)


def _latest_us(message: Message) -> int:
    """The latest time that a worker can have written into a record."""
    return int(message.timestamp()[1]) * 1000 + MAX_AHEAD_US


def _keep_rate(index: StateIndex, rate: DeadLetterRate, offset: int, exceeded_at_us: int) -> None:
    if exceeded_at_us:
        index.keep(rate.name, offset)
    else:
        index.drop(rate.name)


def load_alerts(settings: Settings, group: str, partition: int) -> AlertsState:
    """Read what the alert stage needs to continue with a partition."""
    position, _ = committed_position(settings, group, "findings", partition)
    ledger = PoisonLedger("findings", partition, "fleet")
    reader = StateReader(settings)
    for message in reader.records("fleet", partition):
        if ledger.owns(message.key() or b""):
            reader.decoded(
                "fleet",
                message,
                functools.partial(ledger.restore, message.value() or b"", _latest_us(message)),
            )
    alerts = []
    for message in reader.records("alerts", partition):
        if value := message.value():
            alert = reader.decoded("alerts", message, functools.partial(read_alert, value))
            if alert is not None:
                alerts.append(alert)
    return AlertsState(
        alerts,
        position,
        ledger,
        reader.finish(),
        dead_lettered(settings, "findings", partition, position),
    )


def read_alert(value: bytes) -> AlertStruct:
    """The alert in a record. Raises an exception of some kind for anything else."""
    alert = _decode_alert(value)
    if why := alert_misfit(alert):
        raise ValueError(why)
    return alert


@dataclass(frozen=True, slots=True)
class TasksState:
    """What Kafka holds of a partition of tasks: the newest record of each task and executor, the
    position, where those records are.
    """

    records: list[Change]
    position: int
    index: StateIndex
    ledger: PoisonLedger
    unreadable: int
    dead_lettered: frozenset[int]


def load_tasks(settings: Settings, group: str, partition: int) -> TasksState:
    """Read what the tasks stage needs to continue with a partition."""
    position, state_from = committed_position(settings, group, "tasks", partition)
    index = StateIndex(ID_MEMORY_US, state_from)
    ledger = PoisonLedger("tasks", partition, "taskstate")
    newest: dict[str, Change] = {}
    reader = StateReader(settings)
    for message in reader.records("taskstate", partition, state_from):
        if value := message.value():
            read = functools.partial(_take_task_state, newest, index, ledger, message, value)
            reader.decoded("taskstate", message, read)
    latest_us = max((record.at_us for record in newest.values()), default=0)
    kept = [
        record
        for record in newest.values()
        if not closed_at_us(record) or closed_at_us(record) >= latest_us - ID_MEMORY_US
    ]
    return TasksState(
        kept,
        position,
        index,
        ledger,
        reader.finish(),
        dead_lettered(settings, "tasks", partition, position),
    )


def _take_task_state(
    newest: dict[str, Change],
    index: StateIndex,
    ledger: PoisonLedger,
    message: Message,
    value: bytes,
) -> None:
    key, offset = message.key() or b"", position_of(message)[1]
    if key.startswith(KEY_PREFIX):
        index.pin(offset, ledger.restore(value, _latest_us(message)) + SKIP_WINDOW_US)
        return
    record = read_task_state(value)
    if isinstance(record, TaskRefusalStruct):
        return
    own_key = record.task_id if isinstance(record, TaskStateStruct) else record.executor_id
    if own_key.encode() != key:
        raise ValueError(f"the state of {own_key[:40]!r} under another key")
    if not 0 <= record.at_us <= _latest_us(message):
        raise ValueError(f"the state of {own_key[:40]!r} is of a time after its record")
    name = state_name(record.project, own_key)
    if is_newer(record, newest.get(name)):
        newest[name] = record
        closed_us = closed_at_us(record)
        index.written(name, offset, closed=bool(closed_us), closed_at_us=closed_us)


@dataclass(frozen=True, slots=True)
class UsageState:
    """What Kafka holds of a partition of usage: sealed windows, the newest checkpoint, baselines,
    and the position.
    """

    windows: list[FleetWindowStruct]
    checkpoint: Checkpoint | None
    days: list[LearntDayStruct]
    baselines: list[FleetBaselineStruct]
    position: int
    ledger: PoisonLedger
    unreadable: int
    dead_lettered: frozenset[int]


def read_task_state(value: bytes) -> StateRecord:
    """The state in a record of ``taskstate``. Raises ``UnknownStateVersion`` for one of a newer
    worker, and an exception of some kind for anything that is no state.
    """
    record: StateRecord = _decode_task_state(value)
    version = getattr(record, "state_version", STATE_VERSION)
    if version > STATE_VERSION:
        raise UnknownStateVersion(f"version {version} of a task's state")
    return record


def load_usage(settings: Settings, group: str, partition: int) -> UsageState:
    """Read what the usage stage needs to continue with a partition."""
    position, _ = committed_position(settings, group, "usage", partition)
    ledger = PoisonLedger("usage", partition, "fleet")
    newest: dict[bytes, Message] = {}
    reader = StateReader(settings)
    for message in reader.records("fleet", partition):
        key, value = message.key() or b"", message.value()
        if ledger.owns(key):
            reader.decoded(
                "fleet",
                message,
                functools.partial(ledger.restore, value or b"", _latest_us(message)),
            )
        elif value:
            newest[key] = message
        else:
            newest.pop(key, None)
    found = FleetRecords()
    for key, message in newest.items():
        reader.decoded(
            "fleet",
            message,
            functools.partial(found.take, key, message.value() or b"", _latest_us(message)),
        )
    return UsageState(
        windows=found.windows,
        checkpoint=max(found.checkpoints, key=lambda checkpoint: checkpoint.through, default=None),
        days=found.days,
        baselines=found.baselines,
        position=position,
        ledger=ledger,
        unreadable=reader.finish(),
        dead_lettered=dead_lettered(settings, "usage", partition, position),
    )


def has_records(settings: Settings, full_name: str, partition: int, start: int, end: int) -> bool:
    """Whether the log has a record from offset ``start`` to before ``end``.

    Offsets may be without a record: retention has deleted it, or they belong to the marks of
    transactions.
    """
    client = consumer(settings, "stepstream-reader", **{"enable.partition.eof": True})
    try:
        place = TopicPartition(full_name, partition)
        low, _ = client.get_watermark_offsets(place, timeout=10)
        if low >= end:
            return False
        client.assign([TopicPartition(place.topic, partition, max(low, start))])
        while True:
            messages = client.consume(1, timeout=10)
            if not messages:
                raise KafkaUnreachable(f"{full_name} could not be read again from offset {start}")
            error = messages[0].error()
            # A batch that cannot be read is there all the same.
            if error is None or error.code() in UNREADABLE:
                return position_of(messages[0])[1] < end
            if error.code() == KafkaError._PARTITION_EOF:
                return False
            if error.code() not in RETRIABLE:
                raise KafkaException(error)
    finally:
        client.close()


async def load_with_retries(load: Callable[[], _Result], what: str) -> _Result:
    """The result of ``load``, called in a thread; while no broker answers it is called again, with
    growing pauses.
    """
    started = time.monotonic()
    outage = OutageLog(f"loading {what} failed", log)
    result = await retry_in_thread(
        load, (KafkaException, KafkaUnreachable), outage, backoff=LOAD_BACKOFF
    )
    log.info("loaded %s in %.2f s", what, time.monotonic() - started)
    return result
