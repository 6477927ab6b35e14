"""What a worker reads before it handles the first record of a partition: its floor, run states, alerts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from stepstream.kafka import RETRIABLE, KafkaUnreachable, committed_metadata, consumer, position_of, read_to_end
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetWindowStruct, LearntDayStruct
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.fuse import Fuse
from stepstream.stream.poison import KEY_PREFIX, SKIP_WINDOW_US, PoisonLedger
from stepstream.stream.state import RunState, decode_state, parse_floor_metadata
from stepstream.stream.state_index import StateIndex
from stepstream.stream.windows.checkpoint import KEY_PREFIX as CHECKPOINT_PREFIX
from stepstream.stream.windows.checkpoint import Checkpoint, decode_checkpoint

log = logging.getLogger("stepstream.worker")
_decode_alert = msgspec.json.Decoder(AlertStruct).decode
_decode_window = msgspec.json.Decoder(FleetWindowStruct).decode
_decode_day = msgspec.json.Decoder(LearntDayStruct).decode
_decode_baseline = msgspec.json.Decoder(FleetBaselineStruct).decode
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


@dataclass(frozen=True, slots=True)
class AssembleState:
    """What is left of a partition of steps: the newest state of each run, the floor, where the states lie."""

    states: list[RunState]
    floor: int
    index: StateIndex
    ledger: PoisonLedger
    fuse: Fuse


@dataclass(frozen=True, slots=True)
class FleetState:
    """What is left of a partition of findings: every alert record, and the floor."""

    alerts: list[AlertStruct]
    floor: int
    ledger: PoisonLedger


def load_assemble(settings: Settings, group: str, partition: int, horizon_us: int) -> AssembleState:
    """Read what the assemble stage needs to go on with a partition."""
    floor, state_from = committed_floor(settings, group, "steps", partition)
    index = StateIndex(horizon_us, state_from)
    ledger = PoisonLedger("steps", partition, "state")
    fuse = Fuse("steps", partition, "state", settings.dead_letter_limit)
    newest: dict[str, RunState] = {}
    for message in read_to_end(settings, topic(settings.topic_prefix, "state"), [partition], offset=state_from):
        key, value = message.key() or b"", message.value()
        if not value:
            continue
        if key.startswith(KEY_PREFIX):
            index.pin(position_of(message)[1], ledger.restore(value) + SKIP_WINDOW_US)
            continue
        if key == fuse.key:
            _keep_fuse(index, fuse, position_of(message)[1], fuse.restore(value))
            continue
        state = decode_state(value)
        known = newest.get(state.trace_id)
        if known is None or state.order >= known.order:  # a zombie's record may come last and know less
            newest[state.trace_id] = state
            offset = position_of(message)[1]
            index.written(state.trace_id, offset, closed=state.closed, closed_at_us=state.closed_at_us)
    latest_us = max((state.last_append_us for state in newest.values()), default=0)
    kept = [s for s in newest.values() if not s.closed or s.closed_at_us >= latest_us - horizon_us]
    return AssembleState(kept, floor, index, ledger, fuse)


def _keep_fuse(index: StateIndex, fuse: Fuse, offset: int, blown_at_us: int) -> None:
    if blown_at_us:
        index.keep(fuse.name, offset)
    else:
        index.drop(fuse.name)


def load_fleet(settings: Settings, group: str, partition: int) -> FleetState:
    """Read what the fleet stage needs to go on with a partition."""
    floor, _ = committed_floor(settings, group, "findings", partition)
    ledger = PoisonLedger("findings", partition, "fleet")
    for message in read_to_end(settings, topic(settings.topic_prefix, "fleet"), [partition]):
        if ledger.owns(message.key() or b""):
            ledger.restore(message.value() or b"")
    name = topic(settings.topic_prefix, "alerts")
    alerts = [_decode_alert(value) for message in read_to_end(settings, name, [partition]) if (value := message.value())]
    return FleetState(alerts, floor, ledger)


@dataclass(frozen=True, slots=True)
class UsageState:
    """What is left of a partition of usage: sealed windows, the newest checkpoint, what was learnt, and the floor."""

    windows: list[FleetWindowStruct]
    checkpoint: Checkpoint | None
    days: list[LearntDayStruct]
    baselines: list[FleetBaselineStruct]
    floor: int
    ledger: PoisonLedger


def load_usage(settings: Settings, group: str, partition: int) -> UsageState:
    """Read what the usage stage needs to go on with a partition."""
    floor, _ = committed_floor(settings, group, "usage", partition)
    ledger = PoisonLedger("usage", partition, "fleet")
    newest: dict[bytes, bytes] = {}
    for message in read_to_end(settings, topic(settings.topic_prefix, "fleet"), [partition]):
        key, value = message.key() or b"", message.value()
        if ledger.owns(key):
            ledger.restore(value or b"")
        elif value:
            newest[key] = value
        else:
            newest.pop(key, None)
    found: dict[bytes, list[bytes]] = {}
    checkpoints = []
    for key, value in newest.items():
        if key.startswith(CHECKPOINT_PREFIX):
            checkpoints.append(decode_checkpoint(value))
        elif not key.startswith(b"!"):
            found.setdefault(key.split(b"|")[1], []).append(value)
    return UsageState(
        windows=[_decode_window(value) for value in found.get(b"window", ())],
        checkpoint=max(checkpoints, key=lambda checkpoint: checkpoint.through, default=None),
        days=[_decode_day(value) for value in found.get(b"learnt", ())],
        baselines=[_decode_baseline(value) for value in found.get(b"baseline", ())],
        floor=floor,
        ledger=ledger,
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
            if error is None:
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
