"""The disk spool: step events that could not be delivered, in one file for all processes of a user.

A spool is a SQLite database in WAL mode. A committed event survives ``kill -9`` of its process.
Several processes write to the file at the same time. Each sends its own events when the endpoint
can be reached; events of processes that have ended are sent by the one process that has the lease.
The file must be on a local disk, because WAL does not work on network file systems.
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
from stepstream.producers.forks import close_before_fork, fork_lock
from stepstream.producers.transport.base import Record

MAX_BYTES: Final = 268_435_456
LEASE_S: Final = 30.0
# How long a statement waits for another process. ``os.fork`` in this process can block for as long,
# because it waits for the statement.
BUSY_S: Final = 2.0
OPEN_PAUSE_S: Final = 0.01
_PAGE_BYTES: Final = 4_096
# SQLite writes changed pages to the WAL first and copies them after this many pages: a hundredth
# of the file's limit, within these bounds. Each copy waits for the disk: with 400 pages an event
# takes half of the time that it takes with 100. With the size limit of the WAL, this bounds the
# WAL file, which counts as part of ``max_bytes``.
_LEAST_CHECKPOINT_PAGES: Final = 100
_MOST_CHECKPOINT_PAGES: Final = 400
_CHECKPOINTS_OF_FILE: Final = 100
# The WAL may grow to several checkpoints while another process reads.
_CHECKPOINTS_OF_WAL: Final = 4
_EVICT_ROWS: Final = 64
# Attributes may be large too, so they are removed with the contents. An event that has only
# attributes is not shortened (``_row``): most have a few short ones.
_CONTENT_FIELDS: Final = ("input", "output", "documents", "attributes")
_VERSION: Final = 1

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS writers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pid INTEGER NOT NULL,
    began TEXT NOT NULL,
    destination TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    writer INTEGER NOT NULL,
    run BLOB NOT NULL,
    is_end INTEGER NOT NULL,
    has_content INTEGER NOT NULL,
    spooled_us INTEGER NOT NULL,
    value BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_writer ON events (writer);
CREATE INDEX IF NOT EXISTS events_by_run ON events (run);
CREATE INDEX IF NOT EXISTS events_by_worth ON events (is_end, has_content, id);
CREATE TABLE IF NOT EXISTS lease (
    destination TEXT PRIMARY KEY, owner TEXT NOT NULL, pid INTEGER NOT NULL, began TEXT NOT NULL,
    until_s REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS losses (kind TEXT PRIMARY KEY, count INTEGER NOT NULL);
INSERT OR IGNORE INTO losses VALUES ('dropped', 0), ('shortened', 0);
"""
_INSERT: Final = (
    "INSERT INTO events (writer, run, is_end, has_content, spooled_us, value) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)


class SpoolError(Exception):
    """The spool cannot be used: the message has the file and the reason.

    ``is_busy``: another process is writing to it; the same call may succeed later.
    """

    def __init__(self, message: str, *, is_busy: bool = False) -> None:
        super().__init__(message)
        self.is_busy = is_busy


class Spooled(NamedTuple):
    """An event in the spool."""

    id: int
    record: Record


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """The events of a spool for one destination.

    ``left``: how many of these are of processes that have ended.
    """

    destination: str
    events: int
    left: int
    drained_by: int
    """The pid of the process that sends what ended processes left, 0 if none does."""


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """What is in a spool. ``oldest_us`` is when the oldest event was spooled; 0 if it is empty.

    ``dropped`` counts events that were lost because the spool was full, ``shortened`` those that
    lost their contents.
    """

    path: Path
    events: int = 0
    runs: int = 0
    bytes: int = 0
    max_bytes: int = 0
    oldest_us: int = 0
    dropped: int = 0
    shortened: int = 0
    destinations: tuple[DestinationStatus, ...] = ()


class Spool:
    """One sender's access to a spool: a writer of its own, for one destination. Thread-safe.

    ``max_bytes`` is raised to 3.3 MB if it is less, because of the WAL.

    The connection is closed before this process forks, and opened again by the next call. Raises
    ``SpoolError`` if the file cannot be created, read or written.
    """

    def __init__(
        self,
        path: Path,
        destination: str = "",
        *,
        max_bytes: int = MAX_BYTES,
        lease_s: float = LEASE_S,
        now_s: Callable[[], float] = time.time,
        identity: Identity | None = None,
    ) -> None:
        self.path = path
        self.destination = destination
        self._checkpoint_pages = min(
            max(max_bytes // (_CHECKPOINTS_OF_FILE * _PAGE_BYTES), _LEAST_CHECKPOINT_PAGES),
            _MOST_CHECKPOINT_PAGES,
        )
        self._wal_bytes = _CHECKPOINTS_OF_WAL * self._checkpoint_pages * _PAGE_BYTES
        self.max_bytes = max(max_bytes, 2 * self._wal_bytes)
        self._lease_s = lease_s
        self._now_s = now_s
        self._identity = identity or _own_identity()
        self._owner = os.urandom(8).hex()
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._writer = 0
        self._database: sqlite3.Connection | None = None
        close_before_fork(self)
        with self._connected():
            pass

    @property
    def writer(self) -> int:
        """The id of this sender among the writers of the file; 0 if it has written nothing."""
        return self._writer

    # --- writing ---

    def put(self, records: Sequence[Record]) -> list[int]:
        """Store events in one transaction. Returns the id of each; 0 for one that has no room.

        When the spool is full, an end event takes the place of start events first, because an end
        event alone is the complete record of its step, then of the contents of older end events. A
        start event takes no other's place. What cannot be stored then is dropped. Everything lost
        is counted (``SpoolStatus``).
        """
        now_us = round(self._now_s() * 1e6)
        with self._connected() as database:
            writer = self._own_writer(database)
            rows = [_row(writer, record, now_us) for record in records]
            try:
                with _transaction(database):
                    database.executemany(_INSERT, rows)
                    last = database.execute("SELECT last_insert_rowid()").fetchone()[0]
                # The transaction excludes other writers, so the ids have no gaps.
                return list(range(last - len(rows) + 1, last + 1))
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
            return [self._put_when_full(database, row) for row in rows]

    def _own_writer(self, database: sqlite3.Connection) -> int:
        if not self._writer:
            with _transaction(database):
                self._writer = (
                    database.execute(
                        "INSERT INTO writers (pid, began, destination) VALUES (?, ?, ?)",
                        (self._identity.pid, self._identity.began, self.destination),
                    ).lastrowid
                    or 0
                )
        return self._writer

    def _put_when_full(self, database: sqlite3.Connection, row: tuple[Any, ...]) -> int:
        while True:
            try:
                with _transaction(database):
                    return database.execute(_INSERT, row).lastrowid or 0
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise
            if not self._make_room(database, is_end=bool(row[2])):
                with _transaction(database):
                    _count(database, "dropped", 1)
                return 0

    def _make_room(self, database: sqlite3.Connection, *, is_end: bool) -> bool:
        """Free some space for an end event. Returns False if only end events without contents are
        left, and always for a start event.
        """
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

    def has_run(self, run: bytes, after: int = 0) -> bool:
        """True if this writer has events of a run with an id above ``after``."""
        with self._connected() as database:
            # The plus sign keeps SQLite from using the index on the writer, which has many events.
            found = database.execute(
                "SELECT 1 FROM events WHERE run = ? AND id > ? AND +writer = ? LIMIT 1",
                (run, after, self._writer),
            )
            return found.fetchone() is not None

    # --- draining ---

    def acquire(self) -> bool:
        """Take or renew the lease for the events of ended processes for this destination.

        Returns True if this spool has it now; False while another process that still runs has one
        that has not expired.
        """
        now_s = self._now_s()
        with self._connected() as database, _transaction(database):
            row = database.execute(
                "SELECT owner, pid, began, until_s FROM lease WHERE destination = ?",
                (self.destination,),
            ).fetchone()
            is_taken = row is not None and row[0] != self._owner and row[3] > now_s
            if is_taken and _is_alive(Identity(row[1], row[2])):
                return False
            database.execute(
                "INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?, ?)",
                (
                    self.destination,
                    self._owner,
                    self._identity.pid,
                    self._identity.began,
                    now_s + self._lease_s,
                ),
            )
        return True

    def release(self) -> None:
        """Give the lease back, so that another process may drain at once."""
        with self._connected() as database, _transaction(database):
            database.execute("DELETE FROM lease WHERE owner = ?", (self._owner,))

    def left_writers(self) -> list[int]:
        """Writers for this destination whose process has ended, oldest first; deletes empty ones.

        Only the owner of the lease may send their events.
        """
        with self._connected() as database:
            found = database.execute(
                "SELECT id, pid, began, "
                "EXISTS (SELECT 1 FROM events WHERE writer = writers.id) FROM writers "
                "WHERE destination = ? AND id <> ? ORDER BY id",
                (self.destination, self._writer),
            ).fetchall()
            dead = [(row[0], row[3]) for row in found if not _is_alive(Identity(row[1], row[2]))]
            empty = [(writer,) for writer, has_events in dead if not has_events]
            if empty:
                with _transaction(database):
                    database.executemany("DELETE FROM writers WHERE id = ?", empty)
        return [writer for writer, has_events in dead if has_events]

    def read(self, limit: int, after: int = 0, *, writer: int = 0) -> list[Spooled]:
        """The oldest events with an id above ``after``, at most ``limit``, in order.

        Those of this writer, or of ``writer``. Order of ids is the order of ``put``, so events of
        a run keep the order in which their process recorded them.
        """
        with self._connected() as database:
            rows = database.execute(
                "SELECT id, run, value FROM events WHERE writer = ? AND id > ? ORDER BY id LIMIT ?",
                (writer or self._writer, after, limit),
            ).fetchall()
        return [Spooled(number, Record(run, value)) for number, run, value in rows]

    def delete(self, ids: Sequence[int]) -> None:
        """Delete events that were delivered."""
        with self._connected() as database, _transaction(database):
            database.executemany("DELETE FROM events WHERE id = ?", [(one,) for one in ids])

    def take_all(self) -> int:
        """Reassign the events of ended processes for other destinations to this destination.

        Returns the number of events.
        """
        with self._connected() as database:
            found = database.execute(
                "SELECT id, pid, began FROM writers WHERE destination <> ?", (self.destination,)
            ).fetchall()
            dead = [row[0] for row in found if not _is_alive(Identity(row[1], row[2]))]
            count = 0
            with _transaction(database):
                for writer in dead:
                    database.execute(
                        "UPDATE writers SET destination = ? WHERE id = ?",
                        (self.destination, writer),
                    )
                    count += database.execute(
                        "SELECT count(*) FROM events WHERE writer = ?", (writer,)
                    ).fetchone()[0]
        return count

    # --- state ---

    def status(self) -> SpoolStatus:
        """What is in the spool."""
        now_s = self._now_s()
        with self._connected() as database:
            events, runs, oldest_us = database.execute(
                "SELECT count(*), count(DISTINCT run), coalesce(min(spooled_us), 0) FROM events"
            ).fetchone()
            pages = database.execute("PRAGMA page_count").fetchone()[0]
            free = database.execute("PRAGMA freelist_count").fetchone()[0]
            lost = dict(database.execute("SELECT kind, count FROM losses"))
            leases = {
                row[0]: row[1]
                for row in database.execute("SELECT destination, pid, began, until_s FROM lease")
                if row[3] > now_s and _is_alive(Identity(row[1], row[2]))
            }
            writers = database.execute(
                "SELECT destination, pid, began, count(*) FROM events "
                "JOIN writers ON writers.id = events.writer GROUP BY writers.id"
            ).fetchall()
        by_destination: dict[str, list[int]] = {}
        for destination, pid, began, count in writers:
            counts = by_destination.setdefault(destination, [0, 0])
            counts[0] += count
            counts[1] += 0 if _is_alive(Identity(pid, began)) else count
        return SpoolStatus(
            self.path,
            events,
            runs,
            (pages - free) * _PAGE_BYTES,
            self.max_bytes,
            oldest_us,
            lost.get("dropped", 0),
            lost.get("shortened", 0),
            tuple(
                DestinationStatus(name, count, left, leases.get(name, 0))
                for name, (count, left) in sorted(by_destination.items())
            ),
        )

    def close(self) -> None:
        """Close the file and give up this writer: its remaining events are then treated like those
        of an ended process. A later call opens the file again, as a new writer.
        """
        with self._lock:
            if self._database is None and not self._writer:
                return
            with self._connected() as database, _transaction(database):
                database.execute("DELETE FROM lease WHERE owner = ?", (self._owner,))
                database.execute("UPDATE writers SET pid = 0 WHERE id = ?", (self._writer,))
                database.execute(
                    "DELETE FROM writers WHERE id = ? AND "
                    "NOT EXISTS (SELECT 1 FROM events WHERE writer = writers.id)",
                    (self._writer,),
                )
            self._writer = 0
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection; the next call opens it again. Called before a fork."""
        with self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Lock, open the file if necessary, yield the connection.

        Raises ``SpoolError`` for any error of SQLite or the operating system.
        """
        # The lock keeps other threads from forking: the child would have a copy of SQLite's locks
        # as they were in the middle of a call.
        with fork_lock.importing(), self._lock:
            try:
                if self._pid != os.getpid():
                    self._after_fork()
                if self._database is None:
                    self._database = self._open()
                yield self._database
            except (sqlite3.Error, OSError) as error:
                raise SpoolError(
                    f"the spool {self.path} cannot be used: {error}", is_busy=_is_busy(error)
                ) from error

    def _after_fork(self) -> None:
        """Become a new writer in a forked child; raise if the connection came with the fork.

        All connections of a process share SQLite's list of the locks they have on the file. In a
        forked child this list still has the parent's locks: the child would write without taking
        them, and corrupt the file.
        """
        if self._database is not None:
            raise OSError("this process was forked while the file was open")
        self._pid = os.getpid()
        self._identity = _own_identity()
        self._owner = os.urandom(8).hex()
        self._writer = 0

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Created here with its mode, because it contains prompts; SQLite gives the files of the
        # WAL the mode of the database.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        until = time.monotonic() + BUSY_S
        while True:
            database = sqlite3.connect(
                self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(database)
                return database
            except sqlite3.OperationalError as error:
                database.close()
                # Two processes that create the file at the same time: the change to WAL does not
                # wait for locks as other statements do.
                if not _is_busy(error) or time.monotonic() > until:
                    raise
                time.sleep(OPEN_PAUSE_S)
            except BaseException:
                database.close()
                raise

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a commit survives the death of the process, not always that of the machine.
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA wal_autocheckpoint = {self._checkpoint_pages}")
        database.execute(f"PRAGMA journal_size_limit = {self._wal_bytes}")
        pages = (self.max_bytes - self._wal_bytes) // _PAGE_BYTES
        database.execute(f"PRAGMA max_page_count = {pages}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise OSError(f"version {version} of its format is newer than this stepstream")
        if version < _VERSION:
            with _transaction(database):
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")


class _Phase(msgspec.Struct):
    """The fields that decide which events are evicted first."""

    # As in ``schemas.step``, where a field with its default is left out.
    phase: str = "end"
    input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    documents: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decode_phase: Final = msgspec.json.Decoder(_Phase).decode


def _row(writer: int, record: Record, now_us: int) -> tuple[int, bytes, int, int, int, bytes]:
    event = _decode_phase(record.value)
    has_content = (
        event.input is not msgspec.UNSET
        or event.output is not msgspec.UNSET
        or event.documents is not msgspec.UNSET
    )
    return (
        writer,
        record.key,
        int(event.phase == "end"),
        int(has_content),
        now_us,
        record.value,
    )


def _without_content(value: bytes) -> bytes:
    event = msgspec.json.decode(value)
    kept = {name: item for name, item in event.items() if name not in _CONTENT_FIELDS}
    return msgspec.json.encode(kept)


def _count(database: sqlite3.Connection, kind: str, number: int) -> None:
    # The rows exist since the file was created: in a full file no row could be added.
    database.execute("UPDATE losses SET count = count + ? WHERE kind = ?", (number, kind))


def _is_full(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode == sqlite3.SQLITE_FULL


def _is_busy(error: BaseException) -> bool:
    # The lower byte is the kind of error; the others are details of it.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _own_identity() -> Identity:
    pid = os.getpid()
    return identity_of(pid) or Identity(pid, "")


def _is_alive(owner: Identity) -> bool:
    """True if the process still runs; also on platforms where that cannot be determined.

    False for pid 0, that of a writer that was closed.
    """
    return bool(owner.pid) and (not owner.began or identity_of(owner.pid) == owner)


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
