"""What a sink reads, and what a store's writer makes of it, as plain values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from confluent_kafka import Message

from stepstream.schemas.accept import DEFAULT_LIMITS, Headers, Limits
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.retention import Retention
from stepstream.schemas.step import RECORD_HEADERS

USUAL_HEADERS: Final = list(RECORD_HEADERS)

EXPIRED: Final = "expired"
"""The reason of a record that stayed in Kafka for longer than the store keeps its like."""
STORE_REFUSED: Final = "store_refused"
"""The reason of a record that passed our checks and that the store does not accept."""

KEPT_LONG: Final = Retention(36_500)


class Record(NamedTuple):
    """One Kafka record of a known partition."""

    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


_new_tuple: Any = tuple.__new__


def record_of(message: Message) -> Record:
    """The record of a consumed message."""
    headers: Any = message.headers()
    if headers == USUAL_HEADERS:
        # One shared list for nearly all records: headers are a third of what a record takes in
        # memory.
        headers = USUAL_HEADERS
    fields = message.offset() or 0, message.timestamp()[1], message.key(), message.value(), headers
    # tuple.__new__ takes half the time of Record(...), and this runs once per message.
    record: Record = _new_tuple(Record, fields)
    return record


@dataclass(frozen=True, slots=True)
class Source:
    """Where the records of a batch come from, and by what they are checked, kept and priced."""

    topic_id: str
    partition: int
    partitions: int = 1
    limits: Limits = DEFAULT_LIMITS
    prices: PriceBook = field(default_factory=PriceBook)
    retention: Retention = KEPT_LONG
    now_ms: int = 0
    """When work on the batch began; decides whether a record has expired."""


class Refused(NamedTuple):
    """A record for the dead letter, and why."""

    record: Record
    reason: str
    detail: str


class StoreBlock(Protocol):
    """Rows for one table, in whatever form the writer inserts them."""

    @property
    def name(self) -> str:
        """The name of the table."""

    @property
    def rows(self) -> int:
        """How many rows there are."""


B = TypeVar("B", bound=StoreBlock)


@dataclass(slots=True)
class RowBlocks(Generic[B]):
    """What a batch becomes: blocks, inserted in this order, and what was left out."""

    blocks: list[B] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """Records left out, by reason."""
    refused: list[Refused] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    """What the topic's handler has to remember once the batch is stored."""
