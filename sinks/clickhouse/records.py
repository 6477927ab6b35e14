"""What the sink reads and what it writes, as plain values: records, batches of them, blocks of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from confluent_kafka import Message

from stepstream.schemas.accept import DEFAULT_LIMITS, Headers, Limits
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.retention import Retention
from stepstream.schemas.step import RECORD_HEADERS

USUAL_HEADERS: Final = list(RECORD_HEADERS)
EXPIRED: Final = "expired"
"""Why a record is refused that lay in Kafka for longer than the store keeps its like."""

STORE_REFUSED: Final = "store_refused"
"""Why a record is refused that passed our checks and that the store does not take."""

KEPT_LONG: Final = Retention(36_500)
Columns = dict[str, Sequence[Any]]
Read = TypeVar("Read")


_tuple: Any = tuple.__new__


class Record(NamedTuple):
    """One Kafka record of a known partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def record_of(message: Message) -> Record:
    """The record of a consumed message."""
    headers: Any = message.headers()
    if headers == USUAL_HEADERS:
        headers = USUAL_HEADERS  # one list for all of them: they are a third of what a record takes in memory
    fields = message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers
    record: Record = _tuple(
        Record, fields
    )  # half the time of Record(...), and there is one for every message
    return record


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from, and by what they are judged, kept and priced."""

    topic_id: str
    partition: int
    partitions: int = 1
    limits: Limits = DEFAULT_LIMITS
    prices: PriceBook = field(default_factory=PriceBook)
    retention: Retention = KEPT_LONG
    now_ms: int = 0
    """When the batch was begun; by this it is judged whether a record has expired."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the sink fills it: the columns it inserts and their types."""

    name: str
    types: dict[str, str]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows for one table, as columns."""

    table: Table
    columns: Columns
    rows: int


class Refused(NamedTuple):
    """A record for the dead letter, and why."""

    record: Record
    reason: str
    detail: str


@dataclass(slots=True)
class Built:
    """What a batch becomes: blocks, inserted in this order, and what was left out."""

    blocks: list[Block] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    refused: list[Refused] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    """Keys of the steps that ended in it."""


def read_values(
    records: Sequence[Record], read: Callable[[bytes], Read], built: Built
) -> list[tuple[Read, Record]]:
    """What each record says. Tombstones are skipped; a record for which ``read`` raises is refused."""
    said: list[tuple[Read, Record]] = []
    for record in records:
        if not record.value:
            built.skipped["tombstone"] += 1
            continue
        try:
            said.append((read(record.value), record))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            ValueError,
            RecursionError,
            ArithmeticError,
        ) as error:
            built.refused.append(Refused(record, "invalid_field", str(error)[:500]))
    return said


def arrival_columns(records: Sequence[Record], source: Source) -> Columns:
    """The columns that say where each row came from."""
    return arrivals(
        [record.offset for record in records], [record.timestamp_ms for record in records], source
    )


def arrivals(offsets: Sequence[int], times_ms: Sequence[int], source: Source) -> Columns:
    """The same, of rows whose offsets and Kafka timestamps are given."""
    rows = len(offsets)
    return {
        "append_time": times_ms,
        "kafka_topic_id": [source.topic_id] * rows,
        "kafka_partition": [source.partition] * rows,
        "kafka_offset": offsets,
    }


ARRIVAL_TYPES = {
    "append_time": "DateTime64(3, 'UTC')",
    "kafka_topic_id": "LowCardinality(String)",
    "kafka_partition": "Int32",
    "kafka_offset": "Int64",
}
