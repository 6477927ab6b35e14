"""Rows of the deliveries topic: each record is a line of the delivery log."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec

from stepstream.schemas.delivery import Delivery, DeliveryStruct
from stepstream.schemas.misfits import MOMENTS, delivery_misfit
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import (
    ARRIVAL_TYPES,
    Block,
    Blocks,
    Columns,
    Table,
    arrival_columns,
    read_values,
)

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(6, 'UTC')"
_PLAIN: Final = {
    "subscription": _LOW,
    "alert_id": "String",
    "seq": "UInt64",
    "state": _LOW,
    "time": _TIME,
    "channel": _LOW,
    "notification_id": "String",
    "group": "String",
    "attempts": "UInt32",
    "reason": "String",
    "latency_us": "UInt64",
    "told_seq": "UInt64",
    "told_state": _LOW,
    "told_severity": _LOW,
    "alert": _LOW,
    "project": _LOW,
    "environment": _LOW,
    "agent": _LOW,
    "severity": _LOW,
    "alert_state": _LOW,
}

DELIVERIES: Final = Table(
    "deliveries_raw", {**_PLAIN, **dict.fromkeys(MOMENTS, f"Nullable({_TIME})"), **ARRIVAL_TYPES}
)

_GETTERS: Final = {name: attrgetter(name) for name in _PLAIN}
_decode = msgspec.json.Decoder(DeliveryStruct).decode


def build_deliveries(records: Sequence[Record], source: Source) -> Blocks:
    """The block of a batch. Tombstones are left out; a record that is no delivery goes to the dead letter."""
    built = Blocks()
    said = read_values(records, _read, built)
    if said:
        deliveries, held = zip(*said, strict=True)
        built.blocks.append(Block(DELIVERIES, _columns(deliveries, held, source), len(said)))
    return built


def _read(value: bytes) -> Delivery:
    """A record's delivery. Raises ``ValueError`` for what no row can hold."""
    delivery = _decode(value)
    if why := delivery_misfit(delivery):
        raise ValueError(why)
    return delivery


def _columns(deliveries: Sequence[Delivery], records: Sequence[Record], source: Source) -> Columns:
    columns: Columns = {name: list(map(get, deliveries)) for name, get in _GETTERS.items()}
    for name in MOMENTS:
        columns[name] = [getattr(delivery, name) or None for delivery in deliveries]
    return columns | arrival_columns(records, source)
