"""The queue between the program and the transport, and the thread that sends.

``enqueue`` never waits for the network and never raises into the program. Records in memory are
bounded by number and bytes, from ``enqueue`` until they are delivered, in the spool or failed.

A program that records faster than one thread can encode fills the queue. ``enqueue`` then waits
for that thread, for a bounded time (``room``). What does not fit then is dropped and counted. A
start event is dropped a little before an end event, because an end event alone is the complete
record of its step.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stepstream.producers.forks import call_after_fork, fork_lock
from stepstream.producers.sdk_log import internal_error, sdk_log, suppressed
from stepstream.producers.transport.base import Record, Transport
from stepstream.producers.transport.delivery import Delivery, LeftEvents, SpoolPlace
from stepstream.producers.transport.room import RoomWait
from stepstream.schemas.step import Step as StepRecord

BATCH: Final = 256
SHORTEST_WAIT_S: Final = 0.001
LONGEST_WAIT_S: Final = 0.05
# How long a stopping thread waits for records that came between the flush and the stop.
GRACE_S: Final = 1.0
# How long a stopping thread encodes at most what is still in the queue, to write it to the spool.
SAVE_S: Final = 5.0
JOIN_S: Final = SAVE_S + 3.0
# How long the end of a process waits at most for unacknowledged records.
EXIT_WAIT_S: Final = 5.0
_ALL: Final = sys.maxsize
_Item = tuple[int, StepRecord, int | None]
"""A record in the queue: its number, the record, and the limit of its contents, if it has one."""

# Memory of a record without its contents: a StepRecord with its short texts, by sys.getsizeof.
RECORD_BYTES: Final = 700
# Shares of the limits, in tenths: start events leave the last tenth to end events.
_START_SHARE: Final = 9
_END_SHARE: Final = 10
# A call that waits for room ends its wait at this share.
_AMPLE_SHARE: Final = 8
# While the transport has no room and there is no spool, events wait for the network, and
# ``enqueue`` does not wait for them.
_NO_ROOM_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of a sender so far: ``enqueued`` = ``delivered`` + ``failed`` + ``pending``.

    ``dropped`` events were not enqueued, because the queue was full. ``spooled`` is the part of
    ``pending`` that is in the spool on disk, and survives the end of the process.
    """

    enqueued: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    pending: int = 0
    spooled: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class BackgroundSender:
    """Sends records of any thread to one transport, in the order of ``enqueue`` within each run.

    ``encode`` and ``connect`` are called in the sender's thread; ``connect`` at the first record.
    ``other_bytes`` returns how much of ``max_bytes`` the encoder uses for steps that are open.
    Records that are not acknowledged in time go to ``spool``, if one is given.
    """

    def __init__(
        self,
        encode: Callable[..., Record],
        connect: Callable[[], Transport],
        *,
        max_events: int = 10_000,
        max_bytes: int = 67_108_864,
        other_bytes: Callable[[], int] = int,
        spool: SpoolPlace | None = None,
        on_fork: Callable[[], None] | None = None,
    ) -> None:
        self._encode = encode
        self._connect = connect
        self._max_events = max_events
        self._max_bytes = max_bytes
        # Less than this needs no exact check: with the encoder's memory it is within the limits.
        self._few_events = max_events // 4
        self._few_bytes = max_bytes // 4
        self._other_bytes = other_bytes
        self._on_fork = on_fork
        self._spool = spool
        self._delivery: Delivery | None = None
        self.generation = 0
        """The number of forks between the process that created the sender and this one."""
        self._clear()
        call_after_fork(self)

    def _clear(self) -> None:
        # Re-entrant: a step may end in a signal handler or a garbage collection inside the lock.
        self._lock = threading.RLock()
        self._settled = threading.Condition(self._lock)
        self._room = RoomWait()
        self._no_room_until_s = float("-inf")
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        # The newest record of the queue, and the newest that the thread has given to the transport
        # or written to the spool.
        self._last_number = self._last_handled = 0
        # The size of each pending event by its number, oldest first.
        self._pending: dict[int, int] = {}
        self._pending_bytes = 0
        self._delivered = self._failed = self._dropped = self._dropped_logged = 0
        # Events in the spool: of this thread of the sender, and of those before it.
        self._spooled = 0
        self._left: list[LeftEvents] = []
        self._waiting = 0
        # Set while the end of the queue is waited for.
        self._is_wanted = threading.Event()
        self._exit_registered = False
        self._thread: threading.Thread | None = None
        self._stopping = self._connecting = False
        self._give_up_to = _ALL
        self._grace_s = 0.0

    # --- called by the program's threads ---

    def enqueue(self, record: StepRecord, max_bytes: int | None = None) -> bool:
        """Queue a record; the caller must not change it afterwards. False if it was dropped.

        ``max_bytes``, if given, is passed to ``encode``: the limit of the record's contents.
        """
        size = _size(record)
        with self._lock:
            pending = self._pending
            in_memory = self._pending_bytes + size
            # In a small part of the limits nothing else needs to be checked.
            if len(pending) < self._few_events and in_memory <= self._few_bytes:
                number = self._last_number = self._last_number + 1
                pending[number] = size
                self._pending_bytes = in_memory
                self._queue.put((number, record, max_bytes))
                if self._thread is None:
                    self._start()
                return True
        # Lambdas only here: most records find room at once.
        share = _END_SHARE if record.phase == "end" else _START_SHARE
        if self._put(record, max_bytes, size, share):
            return True
        self._room.wait(
            lambda: self._has_room(size, _END_SHARE),
            lambda: self._has_room(size, _AMPLE_SHARE),
            self._is_behind,
        )
        # A start has the whole queue then: the reserve for ends is for outages, in which no room
        # comes back.
        is_behind = self._is_behind()
        if self._put(record, max_bytes, size, _END_SHARE if is_behind else share):
            return True
        with self._lock:
            self._dropped += 1
        return False

    def _has_room(self, size: int, share: int) -> bool:
        events = len(self._pending) + 1
        in_memory = self._pending_bytes + self._other_bytes() + size
        return events * 10 <= self._max_events * share and in_memory * 10 <= self._max_bytes * share

    def _is_behind(self) -> bool:
        """True if the thread has records to encode or write, and the caller is another one."""
        return (
            self._last_number > self._last_handled
            and threading.current_thread() is not self._thread
            and time.monotonic() > self._no_room_until_s
        )

    def _put(self, record: StepRecord, max_bytes: int | None, size: int, share: int) -> bool:
        """Queue the record if it fits in this many tenths of the limits."""
        with self._lock:
            if not self._has_room(size, share):
                return False
            number = self._last_number = self._last_number + 1
            self._pending[number] = size
            self._pending_bytes += size
            self._queue.put((number, record, max_bytes))
            if self._thread is None:
                self._start()
        return True

    @property
    def counts(self) -> Counts:
        """The events so far, by their outcome."""
        with self._lock:
            spooled = self._spooled + sum(left.rows for left in self._left)
            delivered = self._delivered + sum(left.delivered for left in self._left)
            failed = self._failed + sum(left.failed for left in self._left)
            pending = len(self._pending) + spooled
            enqueued = delivered + failed + pending
            return Counts(enqueued, delivered, failed, self._dropped, pending, spooled)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every event enqueued so far is delivered or failed. False after a timeout."""
        deadline = time.monotonic() + timeout_s
        with self._settled:
            if threading.current_thread() is self._thread:
                return False
            last = next(reversed(self._pending), 0)
            if self._thread is None and self._queue.qsize() and not self._start():
                return False
            self._waiting += 1
            self._is_wanted.set()
            try:
                while not self._settled_up_to(last):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._settled.wait(left):
                        return self._settled_up_to(last)
            finally:
                self._waiting -= 1
                if not self._waiting:
                    self._is_wanted.clear()
        return True

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop the thread; what is still pending is written to the spool.

        Without a spool it counts as failed. Returns False if the flush timed out. A later record
        starts a new thread.
        """
        done = self.flush(timeout_s)
        with self._lock:
            thread = self._thread
            if thread is None or thread is threading.current_thread():
                return done
            self._stopping = True
            self._is_wanted.set()
            self._grace_s = GRACE_S if done else 0.0
            self._give_up_to = next(reversed(self._pending), 0)
            self._queue.put(None)
        thread.join(JOIN_S)
        return done

    def _settled_up_to(self, last: int) -> bool:
        # Spooled events are not tracked by number: ``flush`` waits until the spool has none of this
        # sender, also of those that were enqueued after the call.
        return next(iter(self._pending), last + 1) > last and not self._spooled

    def _start(self) -> bool:
        """Start the thread. False if no thread can start, because the interpreter shuts down."""
        if not self._exit_registered:
            self._exit_registered = True
            _call_at_exit_of_worker(lambda: self.close(EXIT_WAIT_S))
        self._stopping = False
        self._is_wanted.clear()
        self._grace_s = 0.0
        self._give_up_to = _ALL
        thread = threading.Thread(target=self._work, name="stepstream-sender", daemon=True)
        self._thread = thread
        self._connecting = True
        fork_lock.connecting(self)
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
            self._connected_or_stopped()
        return self._thread is not None

    # --- called in the sender's thread ---

    def _work(self) -> None:
        suppressed.set(True)
        try:
            self._delivery = Delivery(self._connected(), self, self._spool)
            self._run(self._delivery)
            self._wait_for_the_last(self._delivery)
        except Exception as error:
            internal_error("sender", error)
        finally:
            self._finish()

    def _connected(self) -> Transport:
        try:
            return self._connect()
        except Exception as error:
            sdk_log.log("connect", f"stepstream: events cannot be sent: {error}")
            return Refusing(str(error))

    def _run(self, delivery: Delivery) -> None:
        wait_s = SHORTEST_WAIT_S
        while not self._stopping:
            batch = self._take(wait_s if self._pending or delivery.has_work else None)
            for item in batch:
                self._send(delivery, *item)
            before = len(self._pending)
            is_draining = delivery.poll(0)
            idle = not batch and len(self._pending) == before and not is_draining
            wait_s = min(wait_s * 2, LONGEST_WAIT_S) if idle else SHORTEST_WAIT_S
            if batch:
                self._last_handled = batch[-1][0]
            self._log_dropped()
            if 0 < len(batch) < BATCH and not self._waiting:
                self._is_wanted.wait(delivery.gather_s)

    def _wait_for_the_last(self, delivery: Delivery) -> None:
        until = time.monotonic() + self._grace_s
        while time.monotonic() < until and self._is_any_pending(self._give_up_to):
            delivery.poll(SHORTEST_WAIT_S)

    def _is_any_pending(self, last: int) -> bool:
        # Another thread may add to the dictionary while this one looks for its first key.
        with self._lock:
            return next(iter(self._pending), last + 1) <= last

    def _take(self, wait_s: float | None) -> list[_Item]:
        """At most ``BATCH`` records. Without ``wait_s`` it waits for a record or for the stop."""
        batch: list[_Item] = []
        try:
            item = self._queue.get(timeout=wait_s)
            while item is not None:
                batch.append(item)
                if len(batch) == BATCH:
                    break
                item = self._queue.get_nowait()
        except queue.Empty:
            pass
        return batch

    def _send(
        self, delivery: Delivery, number: int, record: StepRecord, max_bytes: int | None
    ) -> None:
        try:
            encoded = self._encode(record) if max_bytes is None else self._encode(record, max_bytes)
        except Exception as error:
            internal_error("encode", error)
            self.settled(number, "it could not be encoded")
            return
        while not delivery.send(encoded, number):
            self._no_room_until_s = time.monotonic() + _NO_ROOM_S
            if self._stopping or self._delivery is None:
                self.settled(number, "the transport had no room until the end")
                return
            delivery.poll(LONGEST_WAIT_S)
            self._log_dropped()

    def settled(self, number: int, reason: str) -> None:
        """A record was delivered or, with a reason, failed (``Outcomes``)."""
        with self._settled:
            is_new = self._take_out(number)
            if is_new:
                self._count(reason)
        if is_new and reason:
            self._log_failed(reason)

    def spooled(self, number: int) -> None:
        """A record is in the spool (``Outcomes``): its memory is free again."""
        with self._settled:
            if self._take_out(number):
                self._spooled += 1

    def unspooled(self, reason: str) -> None:
        """A record of the spool was delivered or, with a reason, failed (``Outcomes``)."""
        with self._settled:
            self._spooled -= 1
            self._count(reason)
        if reason:
            self._log_failed(reason)

    def _take_out(self, number: int) -> bool:
        size = self._pending.pop(number, None)
        self._pending_bytes -= size or 0
        return size is not None

    def _count(self, reason: str) -> None:
        if reason:
            self._failed += 1
        else:
            self._delivered += 1
            if self._connecting:
                self._connected_or_stopped()
        if self._waiting:
            self._settled.notify_all()

    def _log_failed(self, reason: str) -> None:
        # What is pending at the end is counted in the exit summary instead.
        if not self._stopping:
            sdk_log.log("failed", f"stepstream: an event could not be delivered: {reason}")

    def _connected_or_stopped(self) -> None:
        """A fork needs not wait for the transport's first connection any more."""
        self._connecting = False
        fork_lock.connected(self)

    def _log_dropped(self) -> None:
        fresh = self._dropped - self._dropped_logged
        if fresh and sdk_log.log(
            "dropped", f"stepstream: {fresh} events dropped, the queue is full"
        ):
            self._dropped_logged = self._dropped

    def _finish(self) -> None:
        """End what was pending at the stop; start a new thread for what was enqueued later."""
        self._connected_or_stopped()
        delivery, self._delivery = self._delivery, None
        left: LeftEvents | None = None
        if delivery is not None:
            try:
                self._spool_queued(delivery)
                left = delivery.close()
            except Exception as error:
                internal_error("close", error)
        with self._lock:
            given_up = [number for number in self._pending if number <= self._give_up_to]
            self._keep_later_than(self._give_up_to)
            if left is not None:
                self._left.append(left)
            self._spooled = 0
            self._thread = None
            if self._queue.qsize():
                self._start()
        for number in given_up:
            self.settled(number, "it was not acknowledged in time")

    def _spool_queued(self, delivery: Delivery) -> None:
        """Encode what is still in the queue, so that it is written to the spool at the end."""
        if self._spool is None:
            return
        until = time.monotonic() + SAVE_S
        for _ in range(self._queue.qsize()):
            if time.monotonic() > until:
                return
            item = self._queue.get_nowait()
            if item is None or item[0] > self._give_up_to:
                self._queue.put(item)
            else:
                self._send(delivery, *item)

    def _keep_later_than(self, number: int) -> None:
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            if item is not None and item[0] > number:
                self._queue.put(item)

    def after_fork(self) -> None:
        """Start empty in the child: the parent sends what it queued, and its thread is not here."""
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.abandon()
            _left_to_parent.append(delivery)
        sdk_log.reset_after_fork()
        self.generation += 1
        self._clear()
        if self._on_fork is not None:
            self._on_fork()


# Connections of parent processes, referenced so that nothing destroys them in this process.
_left_to_parent: Final[list[Delivery]] = []


class Refusing:
    """The transport after a failed ``connect``: every record fails with the reason."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def send(self, record: Record, done: Callable[[str], None]) -> bool:
        done(self._reason)
        return True

    def poll(self, timeout_s: float) -> None:
        pass

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def _size(record: StepRecord) -> int:
    size = (
        RECORD_BYTES
        + record.input.__sizeof__()
        + record.output.__sizeof__()
        + len(record.name)
        + len(record.error_message)
    )
    if record.documents:
        size += sum(80 + document.content.__sizeof__() for document in record.documents)
    if record.attributes:
        size += sum(
            8 + key.__sizeof__() + value.__sizeof__() for key, value in record.attributes.items()
        )
    return size


def _call_at_exit_of_worker(close: Callable[[], object]) -> None:
    """Call ``close`` at the end of a ``multiprocessing`` child.

    Such a child ends without ``atexit``, but runs the finalizers of ``multiprocessing.util``.
    """
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, close, exitpriority=10)
