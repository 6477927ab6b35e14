"""Rows of ClickHouse tables, as columns, and what all row builders share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from stepstream.sinks.batching.records import Record, Refused, RowBlocks, Source
from stepstream.sinks.clickhouse.migrated import inserted_columns

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


def sink_table(name: str) -> Table:
    """A table with the columns and types of the migrations."""
    return Table(name, inserted_columns(name))


class FieldColumns:
    """The columns of a table that hold the field of the same name of a struct."""

    def __init__(self, table: Table, struct: Any, *, without: Collection[str] = ()) -> None:
        """``without`` names fields that become columns in another way."""
        self.table = table
        self.struct = struct
        fields = set(struct.__struct_fields__) - set(without)
        self._getters = {name: attrgetter(name) for name in table.types if name in fields}
        self._times = [
            name for name in self._getters if table.types[name].startswith("Nullable(DateTime64")
        ]

    def columns(self, structs: Sequence[Any]) -> Columns:
        """The columns of as many rows as there are structs.

        A time of 0 becomes NULL where the column allows it.
        """
        columns: Columns = {name: list(map(get, structs)) for name, get in self._getters.items()}
        for name in self._times:
            columns[name] = [time or None for time in columns[name]]
        return columns


def read_values(
    records: Sequence[Record], read: Callable[[bytes], Read], blocks: Blocks
) -> list[tuple[Read, Record]]:
    """The decoded value of each record.

    Tombstones are skipped; a record for which ``read`` raises is refused.
    """
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
