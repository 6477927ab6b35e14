"""Hands records to the transport and keeps on disk what is not acknowledged in time.

Without problems a record is in memory only, from ``send`` to its acknowledgement. It is written to
the spool if the acknowledgement takes longer than ``LATE_S``, if the transport has no room, and if
the transport acknowledges nothing at the moment. A row is deleted when its event has been
acknowledged. All methods are called in the sender's thread.

The order of a run: a record goes to the spool while earlier ones of its run wait there, and rows
are sent in the order of their ids.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from stepstream.producers.forks import fork_lock
from stepstream.producers.sdk_log import internal_error, sdk_log
from stepstream.producers.transport.base import GATHER_S, Record, Transport, Undelivered

if TYPE_CHECKING:
    from collections.abc import Container

    from stepstream.producers.transport.spool import Spool, Spooled

T = TypeVar("T")

# From when an event is recorded. With the longest pause between two turns of the sender's thread
# and the write itself, it is on disk 250 ms after it was recorded, however long acknowledgements
# usually take: a write costs some microseconds, and a lost event cannot be had again.
LATE_S: Final = 0.2
# Time without any acknowledgement after which nothing more is sent but probes: longer where
# acknowledgements usually take long, because it costs what is then written to the spool.
AWAY_MEDIANS: Final = 4
LONGEST_AWAY_S: Final = 0.5
# Acknowledgements that took longer are those of an outage and no measure of the usual time.
LONGEST_SAMPLE_S: Final = 1.0
SAMPLES: Final = 63
SAMPLE_EVERY_S: Final = 0.02
# While nothing is acknowledged, some rows are sent at this interval: one partition may be away
# and the others not.
PROBE_EVERY_S: Final = 1.0
PROBE_ROWS: Final = 64
# Rows of the spool that are with the transport at a time.
DRAIN_ROWS: Final = 1_024
READ_ROWS: Final = 256
CHECK_LEFT_EVERY_S: Final = 30.0
RENEW_LEASE_EVERY_S: Final = 10.0
# After an error of the spool, events stay in memory for so long before it is tried again.
BROKEN_S: Final = 30.0


class Outcomes(Protocol):
    """What becomes of the records, by the number that ``send`` got."""

    def settled(self, number: int, reason: str) -> None:
        """Delivered or, with a reason, failed. Not called after ``spooled``."""

    def spooled(self, number: int) -> None:
        """The record is in the spool; ``unspooled`` is called for it later."""

    def unspooled(self, reason: str) -> None:
        """One of the records in the spool was delivered or, with a reason, failed."""


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """Where the spool is, and the destination whose events it is used for."""

    path: Path
    destination: str
    max_bytes: int

    def exists(self) -> bool:
        """True if there is a file, which may have events that earlier processes left."""
        return os.path.exists(self.path)

    def open(self) -> Spool:
        """Open or create it. Raises ``SpoolError``."""
        # Not at the top: only programs that need a spool load sqlite3.
        with fork_lock.importing():
            from stepstream.producers.transport.spool import Spool
        return Spool(self.path, self.destination, max_bytes=self.max_bytes)


class LeftEvents:
    """Events that a closed sender of this process has left in the spool.

    ``rows`` are still there. A later sender of this process sends them, as those of any writer.
    """

    __slots__ = ("delivered", "failed", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.delivered = self.failed = 0

    def settled(self, reason: str) -> None:
        """One of them was delivered or, with a reason, failed."""
        self.rows -= 1
        if reason:
            self.failed += 1
        else:
            self.delivered += 1

    def are_gone(self) -> None:
        """Another process has sent the rest."""
        self.delivered += self.rows
        self.rows = 0


# By the spool and the id of the writer. A forked child has a copy, which nothing reads.
_left_here: Final[dict[tuple[SpoolPlace, int], LeftEvents]] = {}


class _Flight:
    """A record until it is settled. ``row`` is its id in the spool, 0 if it is not there.

    ``writer`` is who left it there, 0 if this sender wrote it.
    """

    __slots__ = ("number", "record", "row", "since_s", "writer")

    def __init__(
        self, number: int, record: Record, since_s: float, row: int = 0, writer: int = 0
    ) -> None:
        self.number = number
        self.record: Record | None = record
        self.since_s = since_s
        self.row = row
        self.writer = writer


class Pace:
    """How long acknowledgements take, and after which time without one the transport is away."""

    def __init__(self, least_s: float = LATE_S) -> None:
        self._least_s = least_s
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._added_s = float("-inf")
        self.away_after_s = least_s

    def add(self, sent_s: float, now_s: float) -> None:
        """Count an acknowledgement that came now."""
        took_s = now_s - sent_s
        if took_s <= LONGEST_SAMPLE_S and now_s - self._added_s >= SAMPLE_EVERY_S:
            self._added_s = now_s
            self._samples.append(took_s)
            usual_s = AWAY_MEDIANS * statistics.median(self._samples)
            self.away_after_s = min(max(self._least_s, usual_s), LONGEST_AWAY_S)


class Delivery:
    """Sends records by a transport. Without ``place`` nothing is written to disk."""

    def __init__(
        self,
        transport: Transport,
        outcomes: Outcomes,
        place: SpoolPlace | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self.gather_s: float = getattr(transport, "gather_s", GATHER_S)
        """How long the sender's thread waits for further records after a few."""
        self._outcomes = outcomes
        self._clock = clock
        # An event may have waited so long for further ones before the transport got it.
        self._late_s = LATE_S - self.gather_s
        self._pace = Pace(self._late_s)
        self._now_s = clock()
        self._sample_s = 0.0
        # Records that only the transport has, oldest first.
        self._fresh: dict[int, _Flight] = {}
        # Records that the transport has and that are in the spool, by row.
        self._kept: dict[int, _Flight] = {}
        # Records that are to be written to the spool.
        self._buffer: list[_Flight] = []
        # Records that neither the transport nor the spool could take.
        self._unsent: deque[_Flight] = deque()
        self._acknowledged_rows: list[int] = []
        self._busy_since_s = 0.0
        self._progress_s = self._blocked_until_s = float("-inf")
        self._has_progress = self._is_away = False
        self._probe_at_s = 0.0
        self._spool = _SpoolAccess(place, clock)
        # Own rows up to this id are with the transport or settled.
        self._cursor = self._last_row = 0
        # Own rows that are neither delivered nor failed.
        self._own_rows = 0
        self._left = _LeftRows(self._spool)

    @property
    def has_work(self) -> bool:
        """True if ``poll`` has to be called although no record may come."""
        return bool(
            self._fresh
            or self._kept
            or self._buffer
            or self._unsent
            or self._acknowledged_rows
            or self._waits
            or self._left.is_active
        )

    @property
    def _waits(self) -> bool:
        """True if own rows wait in the spool that the transport does not have."""
        return self._last_row > self._cursor

    def send(self, record: Record, number: int) -> bool:
        """Take the record. False if there is no room for it in memory and none on disk."""
        if self._unsent:
            return False
        flight = _Flight(number, record, self._clock())
        usable = self._spool.is_usable(flight.since_s)
        if usable and (self._is_away or self._buffer or self._waits_behind(record)):
            self._buffer.append(flight)
            return True
        if self._send_now(flight):
            return True
        if usable:
            self._buffer.append(flight)
        return usable

    def _waits_behind(self, record: Record) -> bool:
        if not self._waits:
            return False
        found = self._spool.call(lambda spool: spool.has_run(record.key, self._cursor))
        return found is not False

    def _send_now(self, flight: _Flight) -> bool:
        record = flight.record
        assert record is not None
        if not (self._fresh or self._kept):
            self._busy_since_s = self._clock()
        # Before the call: a transport may settle the record at once.
        if flight.row:
            self._kept[flight.row] = flight
        else:
            self._fresh[flight.number] = flight
        try:
            taken = self._transport.send(record, lambda reason: self._settle(flight, reason))
        except Exception as error:
            internal_error("send", error)
            self._settle(flight, str(error))
            return True
        if taken:
            if flight.row:
                flight.record = None  # it is in the spool
        elif flight.row:
            self._kept.pop(flight.row, None)
        else:
            self._fresh.pop(flight.number, None)
        return taken

    def _settle(self, flight: _Flight, reason: str) -> None:
        """The transport's answer about a record."""
        self._fresh.pop(flight.number, None)
        if not reason:
            self._has_progress = True
            self._progress_s = self._now_s
            if not flight.row:
                self._sample_s = flight.since_s
        if isinstance(reason, Undelivered):
            self._blocked_until_s = self._now_s + PROBE_EVERY_S
            self._is_away = True
        if flight.row:
            self._settle_row(flight, reason)
        elif isinstance(reason, Undelivered) and self._spool.is_usable(self._now_s):
            self._buffer.append(flight)
        else:
            self._outcomes.settled(flight.number, reason)

    def _settle_row(self, flight: _Flight, reason: str) -> None:
        if self._kept.pop(flight.row, None) is None:
            return
        if isinstance(reason, Undelivered):
            # The row stays. What was sent after it is skipped when it is read again.
            if not flight.writer:
                self._cursor = min(self._cursor, flight.row - 1)
                self._last_row = max(self._last_row, flight.row)
            else:
                self._left.again(flight.row)
            return
        self._acknowledged_rows.append(flight.row)
        if not flight.writer:
            self._own_rows -= 1
            self._outcomes.unspooled(reason)
            return
        self._left.settled(flight.writer, reason)
        if reason:
            _log_failed(reason)

    # --- at every turn of the sender's thread ---

    def poll(self, timeout_s: float) -> bool:
        """Take acknowledgements, waiting up to ``timeout_s``; then write, delete and send rows.

        Returns True if rows were sent, so that there is more to do at once.
        """
        self._sample_s = 0.0
        self._now_s = self._clock()
        try:
            self._transport.poll(timeout_s)
        except Exception as error:
            internal_error("poll", error)
        now_s = self._now_s = self._clock()
        if self._sample_s:
            # One of each poll, so that the backlog of an outage counts little.
            self._pace.add(self._sample_s, now_s)
        self._is_away = self._is_blocked or (
            bool(self._fresh or self._kept)
            and now_s - max(self._progress_s, self._busy_since_s) > self._pace.away_after_s
        )
        self._send_unsent()
        if self._spool.place is None:
            return False
        self._collect_late()
        self._write()
        self._delete()
        return self._drain()

    @property
    def _is_blocked(self) -> bool:
        """True for a while after the transport has given a record back."""
        return self._now_s < self._blocked_until_s

    def _send_unsent(self) -> None:
        while self._unsent and self._send_now(self._unsent[0]):
            self._unsent.popleft()

    def _collect_late(self) -> None:
        if not self._fresh or not self._spool.is_usable(self._now_s):
            return
        # When nothing is acknowledged any more, the youngest ones need not wait either.
        latest_s = self._now_s if self._is_away else self._now_s - self._late_s
        late = list(
            itertools.takewhile(lambda flight: flight.since_s <= latest_s, self._fresh.values())
        )
        # First, because they are older than what is in the buffer.
        self._buffer = late + self._buffer

    def _write(self) -> None:
        if not self._buffer:
            return
        flights, self._buffer = self._buffer, []
        records = [flight.record for flight in flights if flight.record is not None]
        ids = self._spool.call(lambda spool: spool.put(records))
        if ids is None:
            self._keep_in_memory(flights)
            return
        for flight, row in zip(flights, ids, strict=True):
            is_sent = self._fresh.pop(flight.number, None) is not None
            if row:
                self._note_row(flight, row, is_sent)
            elif not is_sent:
                self._outcomes.settled(flight.number, "the spool is full")

    def _note_row(self, flight: _Flight, row: int, is_sent: bool) -> None:
        flight.row = row
        flight.record = None
        self._own_rows += 1
        if is_sent:
            self._kept[row] = flight
        else:
            self._last_row = row
        self._outcomes.spooled(flight.number)

    def _keep_in_memory(self, flights: list[_Flight]) -> None:
        """After an error of the spool. What the transport has already is not sent again."""
        unsent = [flight for flight in flights if flight.number not in self._fresh]
        if self._spool.is_usable(self._now_s):
            self._buffer = unsent  # the spool was only busy
        else:
            self._unsent += unsent
            self._send_unsent()

    def _delete(self) -> None:
        if self._acknowledged_rows:
            rows, self._acknowledged_rows = self._acknowledged_rows, []
            # If this fails the events are sent once more, and their step ids are duplicates.
            self._spool.call(lambda spool: spool.delete(rows))

    # --- draining ---

    def _drain(self) -> bool:
        """Send rows of the spool. Returns True if there may be more to send."""
        if self._is_blocked or len(self._kept) > DRAIN_ROWS:
            return False
        limit = READ_ROWS
        if self._is_away:
            if self._now_s < self._probe_at_s:
                return False
            self._probe_at_s = self._now_s + PROBE_EVERY_S
            limit = PROBE_ROWS
        if self._waits:
            return self._send_own_rows(limit)
        if self._own_rows and not self._kept:
            self._count_lost()
        if self._has_progress and not self._is_away:
            return self._send_left_rows(limit)
        return False

    def _send_own_rows(self, limit: int) -> bool:
        rows = self._spool.call(lambda spool: spool.read(limit, self._cursor))
        if rows is None:
            return False
        before = self._cursor
        for row, record in rows:
            if row not in self._kept and not self._send_now(self._flight_of(row, record)):
                return self._cursor > before
            if self._is_blocked:  # the transport has given it back, which set the cursor back
                return False
            self._cursor = max(self._cursor, row)
        if len(rows) < limit:
            self._cursor = max(self._cursor, self._last_row)
        return bool(rows)

    def _flight_of(self, row: int, record: Record, writer: int = 0) -> _Flight:
        return _Flight(0, record, self._now_s, row, writer)

    def _count_lost(self) -> None:
        """Own rows that are in the spool no more: they were dropped to make room for others."""
        lost, self._own_rows = self._own_rows, 0
        for _ in range(lost):
            self._outcomes.unspooled("the spool was full")

    def _send_left_rows(self, limit: int) -> bool:
        writer, rows = self._left.next_rows(self._now_s, limit, self._kept)
        for row, record in rows:
            self._left.sent()
            if not self._send_now(self._flight_of(row, record, writer)):
                self._left.again(row)
                return False
            if self._is_blocked:
                return False
        return bool(rows)

    # --- the end ---

    def close(self) -> LeftEvents | None:
        """Write what is not acknowledged to the spool, and close transport and spool.

        Returns what is left in the spool.
        """
        self._now_s = self._clock()
        if self._spool.is_usable(self._now_s):
            self._buffer += [*self._fresh.values(), *self._unsent]
            self._unsent.clear()
            self._write()
        try:
            self._transport.close()
        except Exception as error:
            internal_error("close", error)
        self._write()
        self._delete()
        writer = self._spool.close()
        if not self._own_rows or self._spool.place is None:
            return None
        left = _left_here[self._spool.place, writer] = LeftEvents(self._own_rows)
        return left

    def abandon(self) -> None:
        """Leave everything to the parent process, in a forked child."""
        self._transport.abandon()


class _SpoolAccess:
    """Opens the spool when it is needed; after an error it is not used for a while."""

    def __init__(self, place: SpoolPlace | None, clock: Callable[[], float]) -> None:
        self.place = place
        self._clock = clock
        self._spool: Spool | None = None
        self._broken_until_s = float("-inf")

    def is_usable(self, now_s: float) -> bool:
        """False without a spool, and for a while after an error."""
        return self.place is not None and now_s >= self._broken_until_s

    def call(self, function: Callable[[Spool], T]) -> T | None:
        """What the function returns; None after an error, which is logged."""
        if self.place is None or not self.is_usable(self._clock()):
            return None
        try:
            if self._spool is None:
                self._spool = self.place.open()
            return function(self._spool)
        except Exception as error:
            if not getattr(error, "is_busy", False):
                self._broken_until_s = self._clock() + BROKEN_S
                sdk_log.log(
                    "spool", f"stepstream: {error}; undelivered events are kept in memory only"
                )
            return None

    def close(self) -> int:
        """Close the file, if it is open. Returns the id of its writer, 0 if there was none."""
        spool, self._spool = self._spool, None
        if spool is None:
            return 0
        writer = spool.writer
        try:
            spool.close()
        except Exception as error:
            sdk_log.log("spool", f"stepstream: {error}")
        return writer


class _LeftRows:
    """The rows that ended processes left, one writer after the other, under the spool's lease."""

    def __init__(self, spool: _SpoolAccess) -> None:
        self._spool = spool
        self._writers: list[int] = []
        self._cursor = 0
        self._under_way = 0
        self._check_at_s = self._renew_at_s = float("-inf")

    @property
    def is_active(self) -> bool:
        """True while this process sends such rows."""
        return bool(self._writers)

    def next_rows(
        self, now_s: float, limit: int, kept: Container[int]
    ) -> tuple[int, list[Spooled]]:
        """A writer and the next of its rows to send, without those in ``kept``, which the transport
        has.
        """
        if not self._may_send(now_s):
            return 0, []
        writer, after = self._writers[0], self._cursor
        rows = self._spool.call(lambda spool: spool.read(limit, after, writer=writer))
        if rows:
            self._cursor = max(self._cursor, rows[-1].id)
            return writer, [one for one in rows if one.id not in kept]
        if rows is not None and not self._under_way:
            self._writers = self._next_writers()
            self._cursor = 0
        return 0, []

    def _may_send(self, now_s: float) -> bool:
        if self._writers:
            if now_s >= self._renew_at_s:
                self._renew_at_s = now_s + RENEW_LEASE_EVERY_S
                if not self._spool.call(lambda spool: spool.acquire()):
                    self._writers = []
        elif now_s >= self._check_at_s:
            self._check_at_s = now_s + CHECK_LEFT_EVERY_S
            self._renew_at_s = now_s + RENEW_LEASE_EVERY_S
            self._cursor = self._under_way = 0
            if self._spool.place is not None and self._spool.place.exists():
                is_owner = self._spool.call(lambda spool: spool.acquire())
                self._writers = self._next_writers() if is_owner else []
        return bool(self._writers)

    def _next_writers(self) -> list[int]:
        found = self._spool.call(_left_writers)
        if found is None:
            return []
        for key in [key for key in _left_here if key[0] == self._spool.place]:
            if key[1] not in found:
                _left_here.pop(key).are_gone()
        return found

    def sent(self) -> None:
        """A row was given to the transport."""
        self._under_way += 1

    def settled(self, writer: int, reason: str) -> None:
        """A row was delivered or, with a reason, failed."""
        self._under_way = max(0, self._under_way - 1)
        if self._spool.place is not None and (self._spool.place, writer) in _left_here:
            _left_here[self._spool.place, writer].settled(reason)

    def again(self, row: int) -> None:
        """The transport did not take a row, or gave it back."""
        self._under_way = max(0, self._under_way - 1)
        self._cursor = min(self._cursor, row - 1)


def _left_writers(spool: Spool) -> list[int]:
    found = spool.left_writers()
    if not found:
        spool.release()
    return found


def _log_failed(reason: str) -> None:
    sdk_log.log("failed", f"stepstream: an event could not be delivered: {reason}")
