"""Rows of ClickHouse tables, as columns, and what all row builders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from stepstream.sinks.batching.records import Record, Refused, RowBlocks, Source

Columns = dict[str, Sequence[Any]]
Read = TypeVar("Read")


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

    @property
    def name(self) -> str:
        """The name of the table."""
        return self.table.name


Blocks = RowBlocks[Block]


def read_values(
    records: Sequence[Record], read: Callable[[bytes], Read], blocks: Blocks
) -> list[tuple[Read, Record]]:
    """The decoded value of each record. Tombstones are skipped; a record for which ``read`` raises is refused."""
    values: list[tuple[Read, Record]] = []
    for record in records:
        if not record.value:
            blocks.skipped["tombstone"] += 1
            continue
        try:
            values.append((read(record.value), record))
        except (
            msgspec.MsgspecError,
            UnicodeDecodeError,
            ValueError,
            RecursionError,
            ArithmeticError,
        ) as error:
            blocks.refused.append(Refused(record, "invalid_field", str(error)[:500]))
    return values


def arrival_columns(records: Sequence[Record], source: Source) -> Columns:
    """The columns of where each row came from."""
    return arrivals(
        [record.offset for record in records], [record.timestamp_ms for record in records], source
    )


def arrivals(offsets: Sequence[int], times_ms: Sequence[int], source: Source) -> Columns:
    """The same for rows whose offsets and Kafka timestamps are given."""
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
