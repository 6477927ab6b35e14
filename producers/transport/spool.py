"""The disk spool: step events that could not be delivered, in one file for all processes of a user.

A spool is a SQLite database in WAL mode. A committed event survives ``kill -9`` of its process.
Several processes write to the file at the same time; one of them at a time drains it, under a lease
that names the process, so that the lease of a process that died is taken over. The file must be on
a local disk, because WAL does not work on network file systems.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stepstream.common.process import Identity, identity_of
from stepstream.producers.transport.base import Record

MAX_BYTES: Final = 268_435_456
LEASE_S: Final = 30.0
BUSY_S: Final = 5.0
_PAGE_BYTES: Final = 4_096
# SQLite writes changed pages to the WAL first and copies them at every so many pages. Together
# with the size limit below, this bounds the WAL file, which counts as part of ``max_bytes``.
_CHECKPOINT_PAGES: Final = 100
_WAL_BYTES: Final = 4 * _CHECKPOINT_PAGES * _PAGE_BYTES
_EVICT_ROWS: Final = 64
_CONTENT_FIELDS: Final = ("input", "output", "documents", "attributes")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run BLOB NOT NULL,
    is_end INTEGER NOT NULL,
    has_content INTEGER NOT NULL,
    spooled_us INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_run ON events (run);
CREATE INDEX IF NOT EXISTS events_by_worth ON events (is_end, has_content, id);
CREATE TABLE IF NOT EXISTS lease (
    name TEXT PRIMARY KEY, pid INTEGER NOT NULL, began TEXT NOT NULL, until_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS losses (kind TEXT PRIMARY KEY, count INTEGER NOT NULL);
INSERT OR IGNORE INTO losses VALUES ('dropped', 0), ('shortened', 0);
"""


class SpoolError(Exception):
    """The spool cannot be used: the message has the file and the reason."""


class Spooled(NamedTuple):
    """An event in the spool."""

    id: int
    record: Record


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """What is in a spool. ``oldest_us`` is when the oldest event was spooled; 0 if it is empty.

    ``dropped`` counts events that were lost because the spool was full, ``shortened`` those that
    lost their contents. ``drained_by`` is the pid of the process that drains it, 0 if none does.
    """

    path: Path
    events: int
    runs: int
    bytes: int
    max_bytes: int
    oldest_us: int
    dropped: int
    shortened: int
    drained_by: int


class Spool:
    """One process's access to a spool. Thread-safe; in a forked child it opens the file anew.

    Raises ``SpoolError`` if the file cannot be created, read or written.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = MAX_BYTES,
        lease_s: float = LEASE_S,
        now_s: Callable[[], float] = time.time,
        identity: Identity | None = None,
    ) -> None:
        self.path = path
        self.max_bytes = max(max_bytes, 2 * _WAL_BYTES)
        self._lease_s = lease_s
        self._now_s = now_s
        self._identity = identity
        self._lock = threading.RLock()
        self._pid = 0
        self._database: sqlite3.Connection | None = None
        # Connections of the parent process: closing them here would release the parent's locks.
        self._left_to_parent: list[sqlite3.Connection | None] = []
        with self._connected():
            pass

    # --- writing ---

    def put(self, records: Sequence[Record]) -> int:
        """Store events in one transaction. Returns how many of them are stored.

        When the spool is full it makes room: start events go before end events, because an end
        event alone is the complete record of its step, and contents before end events. What it
        cannot store then is dropped. Everything lost is counted (``SpoolStatus``).
        """
        rows = [_row(record, round(self._now_s() * 1e6)) for record in records]
        with self._connected() as database:
            try:
                with _transaction(database):
                    database.executemany(_INSERT, rows)
                return len(rows)
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
            return sum(self._put_when_full(database, row) for row in rows)

    def _put_when_full(self, database: sqlite3.Connection, row: tuple[Any, ...]) -> bool:
        while True:
            try:
                with _transaction(database):
                    database.execute(_INSERT, row)
                return True
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
            if not self._make_room(database, is_end=bool(row[1])):
                with _transaction(database):
                    _count(database, "dropped", 1)
                return False

    def _make_room(self, database: sqlite3.Connection, *, is_end: bool) -> bool:
        """Free some space for an event. False if there is nothing of less worth than it."""
        if not is_end:
            return False
        with _transaction(database):
            found = database.execute(
                "SELECT id FROM events WHERE is_end = 0 ORDER BY has_content, id LIMIT ?",
                (_EVICT_ROWS,),
            ).fetchall()
            if found:
                database.executemany("DELETE FROM events WHERE id = ?", found)
                _count(database, "dropped", len(found))
                return True
            ends = database.execute(
                "SELECT id, value FROM events WHERE is_end = 1 AND has_content = 1 "
                "ORDER BY id LIMIT ?",
                (_EVICT_ROWS,),
            ).fetchall()
            for number, value in ends:
                database.execute(
                    "UPDATE events SET value = ?, has_content = 0 WHERE id = ?",
                    (_without_content(value), number),
                )
            _count(database, "shortened", len(ends))
            return bool(ends)

    def has_run(self, run: bytes) -> bool:
        """True if the spool has events of a run: later ones go there too, to keep the order."""
        with self._connected() as database:
            found = database.execute("SELECT 1 FROM events WHERE run = ? LIMIT 1", (run,))
            return found.fetchone() is not None

    # --- draining ---

    def acquire(self) -> bool:
        """Take or renew the lease to drain. False while another living process has it."""
        mine = self._identity or identity_of(os.getpid()) or Identity(os.getpid(), "")
        now_s = self._now_s()
        with self._connected() as database, _transaction(database):
            row = database.execute(
                "SELECT pid, began, until_s FROM lease WHERE name = 'drain'"
            ).fetchone()
            if row is not None:
                owner = Identity(row[0], row[1])
                if owner != mine and row[2] > now_s and _is_alive(owner):
                    return False
            database.execute(
                "INSERT OR REPLACE INTO lease VALUES ('drain', ?, ?, ?)",
                (mine.pid, mine.began, now_s + self._lease_s),
            )
        return True

    def release(self) -> None:
        """Give the lease back, so that another process may drain at once."""
        pid = self._identity.pid if self._identity else os.getpid()
        with self._connected() as database, _transaction(database):
            database.execute("DELETE FROM lease WHERE name = 'drain' AND pid = ?", (pid,))

    def read(self, limit: int, after: int = 0) -> list[Spooled]:
        """The oldest events with an id above ``after``, at most ``limit``, in order.

        Order of ids is the order of ``put``, so events of a run in one process keep their order.
        """
        with self._connected() as database:
            rows = database.execute(
                "SELECT id, run, value FROM events WHERE id > ? ORDER BY id LIMIT ?",
                (after, limit),
            ).fetchall()
        return [Spooled(number, Record(run, value)) for number, run, value in rows]

    def delete(self, ids: Sequence[int]) -> None:
        """Delete events that were delivered."""
        with self._connected() as database, _transaction(database):
            database.executemany("DELETE FROM events WHERE id = ?", [(one,) for one in ids])

    # --- state ---

    def status(self) -> SpoolStatus:
        """What is in the spool."""
        with self._connected() as database:
            events, runs, oldest_us = database.execute(
                "SELECT count(*), count(DISTINCT run), coalesce(min(spooled_us), 0) FROM events"
            ).fetchone()
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            free = database.execute("PRAGMA freelist_count").fetchone()[0]
            lost = dict(database.execute("SELECT kind, count FROM losses"))
            lease = database.execute("SELECT pid, began, until_s FROM lease").fetchone()
        is_drained = (
            lease is not None
            and lease[2] > self._now_s()
            and _is_alive(Identity(lease[0], lease[1]))
        )
        return SpoolStatus(
            self.path,
            events,
            runs,
            (pages - free) * _PAGE_BYTES,
            self.max_bytes,
            oldest_us,
            lost.get("dropped", 0),
            lost.get("shortened", 0),
            lease[0] if is_drained else 0,
        )

    def close(self) -> None:
        """Close the file. A later call opens it again."""
        with self._lock:
            database, self._database = self._database, None
            if database is not None and self._pid == os.getpid():
                database.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._database is None or self._pid != os.getpid():
                    self._left_to_parent.append(self._database)
                    self._database, self._pid = self._open(), os.getpid()
                yield self._database
            except (sqlite3.Error, OSError) as error:
                raise SpoolError(f"the spool {self.path} cannot be used: {error}") from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created here with its mode, because it contains prompts; SQLite gives the files of the
        # WAL the mode of the database.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        database = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
            database.execute("PRAGMA journal_mode = WAL")
            # NORMAL: a commit survives the death of the process, not always that of the machine.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            database.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
            pages = (self.max_bytes - _WAL_BYTES) // _PAGE_BYTES
            database.execute(f"PRAGMA max_page_count = {pages}")
            with _transaction(database):
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
        except BaseException:
            database.close()
            raise
        return database


_INSERT: Final = (
    "INSERT INTO events (run, is_end, has_content, spooled_us, value) VALUES (?, ?, ?, ?, ?)"
)


class _Phase(msgspec.Struct):
    """The fields of an event that decide its worth."""

    phase: str = ""
    input: msgspec.Raw = msgspec.Raw(b'""')
    output: msgspec.Raw = msgspec.Raw(b'""')
    documents: msgspec.Raw = msgspec.Raw(b"[]")


def _row(record: Record, now_us: int) -> tuple[bytes, int, int, int, bytes]:
    event = msgspec.json.decode(record.value, type=_Phase)
    has_content = any(len(bytes(raw)) > 2 for raw in (event.input, event.output, event.documents))
    return record.key, int(event.phase == "end"), int(has_content), now_us, record.value


def _without_content(value: bytes) -> bytes:
    event = msgspec.json.decode(value)
    kept = {name: item for name, item in event.items() if name not in _CONTENT_FIELDS}
    return msgspec.json.encode(kept)


def _count(database: sqlite3.Connection, kind: str, number: int) -> None:
    # The rows exist since the file was created: in a full file no row could be added.
    database.execute("UPDATE losses SET count = count + ? WHERE kind = ?", (number, kind))


def _is_full(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode == sqlite3.SQLITE_FULL


def _is_alive(owner: Identity) -> bool:
    """True if the process still runs; also on platforms where that cannot be determined."""
    found = identity_of(owner.pid)
    if found is None:
        return not owner.began
    return found == owner or not owner.began


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    # IMMEDIATE: the write lock is taken at once, so that two writers wait instead of failing.
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")
