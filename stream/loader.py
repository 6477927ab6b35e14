"""What a worker reads before it handles the first record of a partition: its floor, run states, alerts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TypeVar

import msgspec
from confluent_kafka import KafkaException, TopicPartition

from stepstream.kafka import KafkaUnreachable, consumer, position_of, read_to_end
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.state import RunState, decode_state, parse_floor_metadata
from stepstream.stream.state_index import StateIndex

log = logging.getLogger("stepstream.worker")
_decode_alert = msgspec.json.Decoder(AlertStruct).decode
_Result = TypeVar("_Result")


def committed_floor(settings: Settings, group: str, name: str, partition: int) -> tuple[int, int]:
    """The committed floor of a partition (0 where none is) and the state offset committed beside it."""
    client = consumer(settings, group)
    try:
        asked = TopicPartition(topic(settings.topic_prefix, name), partition)
        found = client.committed([asked], timeout=10)[0]
        return max(0, found.offset), parse_floor_metadata(found.metadata)
    finally:
        client.close()


def load_states(settings: Settings, group: str, partition: int, horizon_us: int) -> tuple[list[RunState], int, StateIndex]:
    """The newest state of each run of a partition, its floor, and where the states lie."""
    floor, state_from = committed_floor(settings, group, "steps", partition)
    index = StateIndex(horizon_us, state_from)
    newest: dict[str, RunState] = {}
    for message in read_to_end(settings, topic(settings.topic_prefix, "state"), [partition], offset=state_from):
        value = message.value()
        if not value:
            continue
        state = decode_state(value)
        known = newest.get(state.trace_id)
        if known is None or state.order >= known.order:  # a zombie's record may come last and know less
            newest[state.trace_id] = state
            offset = position_of(message)[1]
            index.written(state.trace_id, offset, closed=state.closed, closed_at_us=state.closed_at_us)
    latest_us = max((state.last_append_us for state in newest.values()), default=0)
    kept = [s for s in newest.values() if not s.closed or s.closed_at_us >= latest_us - horizon_us]
    return kept, floor, index


def load_alerts(settings: Settings, group: str, partition: int) -> tuple[list[AlertStruct], int]:
    """Every alert record on the partition, and the floor of its findings."""
    floor, _ = committed_floor(settings, group, "findings", partition)
    name = topic(settings.topic_prefix, "alerts")
    return [_decode_alert(m.value() or b"") for m in read_to_end(settings, name, [partition]) if m.value()], floor


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
