"""What a worker reads before it handles the first record of a partition: its floor, run states, alerts."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

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
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetWindowStruct, LearntDayStruct
from stepstream.schemas.ids import TRACE_ID
from stepstream.schemas.misfits import alert_misfit
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.assemble.state import (
    RunState,
    UnknownStateVersion,
    checked_state,
    decode_state,
    parse_floor_metadata,
)
from stepstream.stream.core.fuse import Fuse
from stepstream.stream.core.poison import KEY_PREFIX, SKIP_WINDOW_US, PoisonLedger
from stepstream.stream.shell.config import note_batch
from stepstream.stream.shell.state_index import StateIndex
from stepstream.stream.usage.fleet_records import FleetRecords
from stepstream.stream.usage.windows.checkpoint import Checkpoint, UnknownCheckpoint
from stepstream.stream.usage.windows.records import MAX_AHEAD_US

log = logging.getLogger("stepstream.worker")
_decode_alert = msgspec.json.Decoder(AlertStruct).decode
_Result = TypeVar("_Result")


def committed_floor(settings: Settings, group: str, name: str, partition: int) -> tuple[int, int]:
    """The committed floor of a partition (0 where none is) and the state offset committed beside it."""
    client = consumer(settings, group)
    try:
        asked = TopicPartition(topic(settings.topic_prefix, name), partition)
        found = client.committed([asked], timeout=10)[0]
        return max(0, found.offset), parse_floor_metadata(committed_metadata(client, found))
    finally:
        client.close()


SINK_HAS_MS: Final = 600_000
"""So long a sink has for alerts that cannot be read: it dead-letters them too, and of both one is enough."""


class Reading:
    """Collects what cannot be understood while a partition's state is read: it is skipped, told once and dead-lettered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.unreadable: list[Unreadable] = []

    def understood(
        self, name: str, message: Message, read: Callable[[], _Result]
    ) -> _Result | None:
        """What ``read`` makes of a record of a topic (its name without prefix); None where it raises.

        What only a newer worker understands is no such record: that ends this one.
        """
        try:
            return read()
        except (UnknownStateVersion, UnknownCheckpoint):
            raise
        except Exception as error:
            self.unreadable.append(Unreadable(name, message, f"{type(error).__name__}: {error}"))
            return None

    def records(self, name: str, partition: int, offset: int | None = None) -> Iterator[Message]:
        """The records of a partition of a topic, as they are now; batches that cannot be read are passed over and noted."""
        full = topic(self._settings.topic_prefix, name)
        passed = functools.partial(note_batch, self._settings, name)
        yield from read_to_end(self._settings, full, [partition], offset=offset, passed=passed)

    def finish(self) -> int:
        """Dead-letter what could not be understood; how many those were. Raises ``KafkaUnreachable``."""
        return refuse_unreadable(self._settings, self.unreadable)


def refuse_unreadable(settings: Settings, unreadable: Sequence[Unreadable]) -> int:
    """Dead-letter records, unless they lie there already, and say so once; how many there were."""
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
            "%d records that cannot be read are skipped and dead-lettered; the first is %s/%d/%d: %s",
            len(unreadable), *first.source, first.detail[:300],
        )  # fmt: skip
    return len(unreadable)


def lettered(settings: Settings, name: str, partition: int, floor: int) -> frozenset[int]:
    """Which records of a partition from its floor on lie in the dead letter already."""
    since_ms = time_of(settings, topic(settings.topic_prefix, name), partition, floor)
    if not since_ms:
        return frozenset()
    found = letters_since(settings, since_ms)
    return frozenset(
        offset
        for where, part, offset in found
        if where == name and part == partition and offset >= floor
    )


@dataclass(frozen=True, slots=True)
class AssembleState:
    """What is left of a partition of steps: the newest state of each run, the floor, where the states lie."""

    states: list[RunState]
    floor: int
    index: StateIndex
    ledger: PoisonLedger
    fuse: Fuse
    unreadable: int
    lettered: frozenset[int]


@dataclass(frozen=True, slots=True)
class FleetState:
    """What is left of a partition of findings: every alert record, and the floor."""

    alerts: list[AlertStruct]
    floor: int
    ledger: PoisonLedger
    unreadable: int
    lettered: frozenset[int]


def load_assemble(settings: Settings, group: str, partition: int, horizon_us: int) -> AssembleState:
    """Read what the assemble stage needs to go on with a partition."""
    floor, state_from = committed_floor(settings, group, "steps", partition)
    index = StateIndex(horizon_us, state_from)
    ledger = PoisonLedger("steps", partition, "state")
    fuse = Fuse("steps", partition, "state", settings.dead_letter_limit)
    newest: dict[str, RunState] = {}
    reading = Reading(settings)
    for message in reading.records("state", partition, state_from):
        value = message.value()
        if value:
            read = functools.partial(_take_state, newest, index, ledger, fuse, message, value)
            reading.understood("state", message, read)
    latest_us = max((state.last_append_us for state in newest.values()), default=0)
    kept = [s for s in newest.values() if not s.closed or s.closed_at_us >= latest_us - horizon_us]
    return AssembleState(
        kept,
        floor,
        index,
        ledger,
        fuse,
        reading.finish(),
        lettered(settings, "steps", partition, floor),
    )


def _take_state(
    newest: dict[str, RunState],
    index: StateIndex,
    ledger: PoisonLedger,
    fuse: Fuse,
    message: Message,
    value: bytes,
) -> None:
    key, offset = message.key() or b"", position_of(message)[1]
    if key.startswith(KEY_PREFIX):
        index.pin(offset, ledger.restore(value, _latest_us(message)) + SKIP_WINDOW_US)
        return
    if key == fuse.key:
        _keep_fuse(index, fuse, offset, fuse.restore(value, _latest_us(message)))
        return
    if not TRACE_ID.fullmatch(key.decode("ascii", "replace")):
        raise ValueError(f"no run and no note of ours has this key: {key[:100]!r}")
    state = checked_state(decode_state(value), _latest_us(message))
    if state.trace_id.encode() != key:
        raise ValueError(f"the state of run {state.trace_id[:40]} under another key")
    known = newest.get(state.trace_id)
    if known is None or state.order >= known.order:  # a zombie's record may come last and know less
        newest[state.trace_id] = state
        index.written(state.trace_id, offset, closed=state.closed, closed_at_us=state.closed_at_us)


def _latest_us(message: Message) -> int:
    """The latest time that what a worker wrote down in a record can name."""
    return int(message.timestamp()[1]) * 1000 + MAX_AHEAD_US


def _keep_fuse(index: StateIndex, fuse: Fuse, offset: int, blown_at_us: int) -> None:
    if blown_at_us:
        index.keep(fuse.name, offset)
    else:
        index.drop(fuse.name)


def load_fleet(settings: Settings, group: str, partition: int) -> FleetState:
    """Read what the fleet stage needs to go on with a partition."""
    floor, _ = committed_floor(settings, group, "findings", partition)
    ledger = PoisonLedger("findings", partition, "fleet")
    reading = Reading(settings)
    for message in reading.records("fleet", partition):
        if ledger.owns(message.key() or b""):
            reading.understood(
                "fleet",
                message,
                functools.partial(ledger.restore, message.value() or b"", _latest_us(message)),
            )
    alerts = []
    for message in reading.records("alerts", partition):
        if value := message.value():
            alert = reading.understood("alerts", message, functools.partial(read_alert, value))
            if alert is not None:
                alerts.append(alert)
    return FleetState(
        alerts, floor, ledger, reading.finish(), lettered(settings, "findings", partition, floor)
    )


def read_alert(value: bytes) -> AlertStruct:
    """The alert in a record. Raises where it is none, or cannot be one."""
    alert = _decode_alert(value)
    if why := alert_misfit(alert):
        raise ValueError(why)
    return alert


@dataclass(frozen=True, slots=True)
class UsageState:
    """What is left of a partition of usage: sealed windows, the newest checkpoint, what was learnt, and the floor."""

    windows: list[FleetWindowStruct]
    checkpoint: Checkpoint | None
    days: list[LearntDayStruct]
    baselines: list[FleetBaselineStruct]
    floor: int
    ledger: PoisonLedger
    unreadable: int
    lettered: frozenset[int]


def load_usage(settings: Settings, group: str, partition: int) -> UsageState:
    """Read what the usage stage needs to go on with a partition."""
    floor, _ = committed_floor(settings, group, "usage", partition)
    ledger = PoisonLedger("usage", partition, "fleet")
    newest: dict[bytes, Message] = {}
    reading = Reading(settings)
    for message in reading.records("fleet", partition):
        key, value = message.key() or b"", message.value()
        if ledger.owns(key):
            reading.understood(
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
        reading.understood(
            "fleet",
            message,
            functools.partial(found.take, key, message.value() or b"", _latest_us(message)),
        )
    return UsageState(
        windows=found.windows,
        checkpoint=max(found.checkpoints, key=lambda checkpoint: checkpoint.through, default=None),
        days=found.days,
        baselines=found.baselines,
        floor=floor,
        ledger=ledger,
        unreadable=reading.finish(),
        lettered=lettered(settings, "usage", partition, floor),
    )


def is_missed(settings: Settings, full_name: str, partition: int, start: int, end: int) -> bool:
    """Whether the log holds a record from ``start`` to before ``end``.

    Offsets may be empty: retention has passed them, or transactions have put their marks there.
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
            if (
                error is None or error.code() in UNREADABLE
            ):  # a batch that cannot be read is there all the same
                return position_of(messages[0])[1] < end
            if error.code() == KafkaError._PARTITION_EOF:
                return False
            if error.code() not in RETRIABLE:
                raise KafkaException(error)
    finally:
        client.close()


async def patiently(load: Callable[[], _Result], what: str) -> _Result:
    """Load in a thread; while brokers are away, try again for ever with back-off."""
    wait_s = 0.5
    while True:
        started = time.monotonic()
        try:
            result = await asyncio.to_thread(load)
        except (KafkaException, KafkaUnreachable) as error:
            log.warning("loading %s failed, trying again in %.1f s: %s", what, wait_s, error)
            await asyncio.sleep(wait_s)
            wait_s = min(10.0, 2 * wait_s)
            continue
        log.info("loaded %s in %.2f s", what, time.monotonic() - started)
        return result
