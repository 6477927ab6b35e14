"""Two small stores that a sink can fill: in memory, and in SQLite. Each keeps one row per record.

A value that begins with ``REFUSED`` is one that the store does not accept.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from stepstream.sinks.batching.batcher import PendingBatch
from stepstream.sinks.batching.position import Position
from stepstream.sinks.batching.records import Record, RowBlocks, Source
from stepstream.sinks.batching.writer import RowsRefused, TopicHandler

REFUSED = b"refused"


@dataclass(frozen=True)
class OffsetBlock:
    """Records of a partition, to be stored as they are."""

    name: str
    topic_id: str
    partition: int
    records: list[Record]

    @property
    def rows(self) -> int:
        return len(self.records)


class MemoryWriter:
    """A store in memory."""

    topics: Collection[str] = ("findings",)
    temporary_errors: tuple[type[Exception], ...] = ()
    unreachable: tuple[type[Exception], ...] = ()
    description = "a store in memory"

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._rows: list[int] = []

    def migrate(self) -> None:
        pass

    def handler(self, name: str) -> TopicHandler:
        return OffsetHandler(self, name)

    def offsets(self, name: str) -> Counter[int]:
        """How often each offset is stored."""
        return Counter(self._rows)

    def last_offset(self, name: str, source: Source, at_least: int) -> int | None:
        return max((offset for offset in self._rows if offset >= at_least), default=None)

    def count_rows(self, name: str, source: Source, first: int, last: int) -> int:
        return sum(first <= offset <= last for offset in self._rows)

    def insert(self, block: OffsetBlock, token: str) -> float:
        refuse(block)
        # As ClickHouse does: the same token is the same block, whatever its rows.
        if token not in self._tokens:
            self._tokens.add(token)
            self._rows += [record.offset for record in block.records]
        return 0.0

    def reconnect(self) -> None:
        pass

    def explain(self, error: Exception) -> str:
        return str(error)

    def idle(self) -> None:
        pass


class SqliteWriter(MemoryWriter):
    """A store in a SQLite file; rows and token of an insert are one transaction."""

    temporary_errors = (sqlite3.OperationalError,)
    unreachable = (sqlite3.OperationalError,)
    description = "SQLite"

    def __init__(self, file: Path | str = ":memory:") -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self.migrate()

    def close(self) -> None:
        self._database.close()

    def migrate(self) -> None:
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY);"
            "CREATE TABLE IF NOT EXISTS rows (topic TEXT, topic_id TEXT, partition INT, at INT, "
            "value BLOB);"
        )

    def offsets(self, name: str, partition: int = 0) -> Counter[int]:
        """How often each offset of a partition is stored."""
        found = self._database.execute(
            "SELECT at FROM rows WHERE topic = ? AND partition = ?", (name, partition)
        )
        return Counter(at for (at,) in found)

    def last_offset(self, name: str, source: Source, at_least: int) -> int | None:
        with self._lock:
            (found,) = self._database.execute(
                "SELECT max(at) FROM rows WHERE topic = ? AND topic_id = ? AND partition = ? AND "
                "at >= ?",
                (name, source.topic_id, source.partition, at_least),
            ).fetchone()
        return None if found is None else int(found)

    def count_rows(self, name: str, source: Source, first: int, last: int) -> int:
        with self._lock:
            (found,) = self._database.execute(
                "SELECT count(*) FROM rows WHERE topic = ? AND topic_id = ? AND partition = ? AND "
                "at BETWEEN ? AND ?",
                (name, source.topic_id, source.partition, first, last),
            ).fetchone()
        return int(found)

    def insert(self, block: OffsetBlock, token: str) -> float:
        refuse(block)
        began = time.monotonic()
        rows = [
            (block.name, block.topic_id, block.partition, record.offset, record.value)
            for record in block.records
        ]
        with self._lock:
            self._database.execute("BEGIN")
            new = self._database.execute("INSERT OR IGNORE INTO tokens VALUES (?)", (token,))
            if new.rowcount:
                self._database.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?)", rows)
            self._database.execute("COMMIT")
        return time.monotonic() - began


class OffsetHandler:
    """Drops records whose offset is stored already, as a batch that was split and died half-way
    leaves some behind.
    """

    def __init__(self, writer: MemoryWriter, name: str) -> None:
        self._writer = writer
        self._name = name
        self._source: Source | None = None
        self._stored_to = -1
        self._replayed = range(0)

    def open(self, source: Source, position: Position) -> None:
        end = position.replay_end
        self._replayed = range(position.offset, position.offset if end is None else end + 1)
        self._stored_to = -1 if position.stored is None else position.stored

    def build(self, batch: PendingBatch, source: Source) -> RowBlocks[OffsetBlock]:
        blocks: RowBlocks[OffsetBlock] = RowBlocks()
        records = [record for record in batch.records if not self._is_stored(record, source)]
        if records:
            blocks.blocks.append(
                OffsetBlock(self._name, source.topic_id, source.partition, records)
            )
        return blocks

    def stored(self, blocks: RowBlocks[OffsetBlock]) -> None:
        pass

    def _is_stored(self, record: Record, source: Source) -> bool:
        # The batch to be repeated has to give the same rows as the first time: its token decides.
        if record.offset > self._stored_to or record.offset in self._replayed:
            return False
        return self._writer.count_rows(self._name, source, record.offset, record.offset) > 0


def refuse(block: OffsetBlock) -> None:
    """Raise ``RowsRefused`` for a block that holds a refused value."""
    for record in block.records:
        if record.value is not None and record.value.startswith(REFUSED):
            raise RowsRefused(f"the value at offset {record.offset}")
