"""The sender: takes records from the agent's threads at once, and sends them from a thread of its own.

It never blocks and never raises into the program. What it holds is bounded by events and bytes, from the moment a record is
taken until its fate is known; what does not fit is dropped and counted. A start is refused a little before an end, because an
end alone is the complete record of its step.
"""

from __future__ import annotations

import itertools
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stepstream.producers.error_guard import internal_error, sdk_log, suppressed
from stepstream.producers.forks import call_after_fork
from stepstream.producers.transport.base import Record, Transport
from stepstream.schemas.step import Step as StepRecord

BATCH: Final = 256
SHORTEST_WAIT_S: Final = 0.001
LONGEST_WAIT_S: Final = 0.05
JOIN_S: Final = 3.0
GRACE_S: Final = 1.0
"""How long a stopping thread waits for what came in between a successful flush and the order to stop."""
EXIT_WAIT_S: Final = 5.0
"""How long a process's end waits, at most, for what is still on its way."""
_ALL: Final = sys.maxsize
RECORD_BYTES: Final = 700
"""What a record weighs besides its contents."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Events of a sender so far. ``held`` are queued or under way; the rest of ``enqueued`` was delivered or failed.

    ``dropped`` ones were never enqueued, because there was no room.
    """

    enqueued: int = 0
    delivered: int = 0
    failed: int = 0
    dropped: int = 0
    held: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class BackgroundSender:
    """Records from any thread to one transport, in the order they came.

    ``encode`` and ``connect`` are called in the sender's thread; ``connect`` when the first record is there. ``also_held``
    says how many of ``max_bytes`` are held elsewhere, for steps that have not ended.
    """

    def __init__(
        self,
        encode: Callable[[StepRecord], Record],
        connect: Callable[[], Transport],
        *,
        max_events: int = 10_000,
        max_bytes: int = 67_108_864,
        also_held: Callable[[], int] = int,
        on_fork: Callable[[], None] | None = None,
    ) -> None:
        self._encode = encode
        self._connect = connect
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._also_held = also_held
        self._on_fork = on_fork
        self._transport: Transport | None = None
        self.generation = 0
        """How many forks lie between this process and the one that made the sender."""
        self._clear()
        call_after_fork(self)

    def _clear(self) -> None:
        self._lock = (
            threading.RLock()
        )  # re-entrant: a step may end in a signal handler or a garbage collection
        self._settled = threading.Condition(self._lock)
        self._queue: queue.SimpleQueue[tuple[int, StepRecord] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._held: dict[int, int] = {}
        """Size of each event whose fate is not known, by number, oldest first."""
        self._held_bytes = 0
        self._delivered = self._failed = self._dropped = self._dropped_said = 0
        self._waiting = 0
        self._knows_of_exit = False
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._give_up_to = _ALL
        self._grace_s = 0.0

    # --- the agent's side ---

    def enqueue(self, record: StepRecord) -> bool:
        """Take the record over; the caller must not touch it again. False when there was no room: it is dropped."""
        size = _size(record)
        with self._lock:
            share = 10 if record.phase == "end" else 9
            events, weight = len(self._held) + 1, self._held_bytes + self._also_held() + size
            if events * 10 > self._max_events * share or weight * 10 > self._max_bytes * share:
                self._dropped += 1
                return False
            number = next(self._numbers)
            self._held[number] = size
            self._held_bytes += size
            self._queue.put((number, record))
            if self._thread is None:
                self._start()
        return True

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        with self._lock:
            held = len(self._held)
            return Counts(
                self._delivered + self._failed + held,
                self._delivered,
                self._failed,
                self._dropped,
                held,
            )

    def flush(self, timeout_s: float) -> bool:
        """Wait until the fate of everything enqueued before is known; False when that took longer than ``timeout_s``."""
        deadline = time.monotonic() + timeout_s
        with self._settled:
            if threading.current_thread() is self._thread:
                return False
            last = next(reversed(self._held), 0)
            if self._thread is None and self._queue.qsize() and not self._start():
                return False
            self._waiting += 1
            try:
                while not self._settled_up_to(last):
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._settled.wait(left):
                        return self._settled_up_to(last)
            finally:
                self._waiting -= 1
        return True

    def close(self, timeout_s: float) -> bool:
        """Flush, then stop the thread and give up what is left, counted as failed. A later record starts anew."""
        done = self.flush(timeout_s)
        with self._lock:
            thread = self._thread
            if thread is None or thread is threading.current_thread():
                return done
            self._stopping = True
            self._grace_s = GRACE_S if done else 0.0
            self._give_up_to = next(reversed(self._held), 0)
            self._queue.put(None)
        thread.join(JOIN_S)
        return done

    def _settled_up_to(self, last: int) -> bool:
        return next(iter(self._held), last + 1) > last

    def _start(self) -> bool:
        """Start the thread; False where the interpreter is going down and no thread can be."""
        if not self._knows_of_exit:
            self._knows_of_exit = True
            _call_at_exit_of_worker(lambda: self.close(EXIT_WAIT_S))
        self._stopping = False
        self._grace_s = 0.0
        self._give_up_to = _ALL
        thread = threading.Thread(target=self._work, name="stepstream-sender", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            self._thread = None
        return self._thread is not None

    # --- the sender's thread ---

    def _work(self) -> None:
        suppressed.set(True)
        try:
            self._transport = self._connected()
            self._run(self._transport)
            self._wait_for_the_last(self._transport)
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

    def _run(self, transport: Transport) -> None:
        wait_s = SHORTEST_WAIT_S
        while not self._stopping:
            batch = self._take(wait_s if self._held else None)
            for number, record in batch:
                self._send(transport, number, record)
            before = len(self._held)
            self._poll(transport, 0)
            idle = not batch and len(self._held) == before
            wait_s = min(wait_s * 2, LONGEST_WAIT_S) if idle else SHORTEST_WAIT_S
            self._say_dropped()

    def _wait_for_the_last(self, transport: Transport) -> None:
        until = time.monotonic() + self._grace_s
        while (
            time.monotonic() < until
            and next(iter(self._held), self._give_up_to + 1) <= self._give_up_to
        ):
            self._poll(transport, SHORTEST_WAIT_S)

    def _take(self, wait_s: float | None) -> list[tuple[int, StepRecord]]:
        """The records that are there; without a wait given, at least one or the order to stop."""
        batch: list[tuple[int, StepRecord]] = []
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

    def _send(self, transport: Transport, number: int, record: StepRecord) -> None:
        try:
            encoded = self._encode(record)
        except Exception as error:
            internal_error("encode", error)
            self._done(number, "it could not be encoded")
            return
        while not self._sent(transport, encoded, number):
            if self._stopping:
                self._done(number, "there was no room until the end")
                return
            self._poll(transport, LONGEST_WAIT_S)
            self._say_dropped()

    def _sent(self, transport: Transport, record: Record, number: int) -> bool:
        try:
            return transport.send(record, lambda reason: self._done(number, reason))
        except Exception as error:
            internal_error("send", error)
            self._done(number, str(error))
            return True

    def _done(self, number: int, reason: str) -> None:
        with self._settled:
            size = self._held.pop(number, None)
            if size is None:
                return
            self._held_bytes -= size
            if reason:
                self._failed += 1
            else:
                self._delivered += 1
            if self._waiting:
                self._settled.notify_all()
        if (
            reason and not self._stopping
        ):  # what is left at the end is counted in the program's last line
            sdk_log.log("failed", f"stepstream: an event could not be delivered: {reason}")

    def _poll(self, transport: Transport, timeout_s: float) -> None:
        try:
            transport.poll(timeout_s)
        except Exception as error:
            internal_error("poll", error)

    def _say_dropped(self) -> None:
        fresh = self._dropped - self._dropped_said
        if fresh and sdk_log.log(
            "dropped", f"stepstream: {fresh} events dropped, the queue is full"
        ):
            self._dropped_said = self._dropped

    def _finish(self) -> None:
        """Give up what was held when the order to stop came; what came later gets a thread of its own."""
        if self._transport is not None:
            try:
                self._transport.close()
            except Exception as error:
                internal_error("close", error)
            self._transport = None
        with self._lock:
            given_up = [number for number in self._held if number <= self._give_up_to]
            self._keep_later_than(self._give_up_to)
            self._thread = None
            if self._queue.qsize():
                self._start()
        for number in given_up:
            self._done(number, "it was not confirmed in time")

    def _keep_later_than(self, number: int) -> None:
        for _ in range(self._queue.qsize()):
            item = self._queue.get_nowait()
            if item is not None and item[0] > number:
                self._queue.put(item)

    def after_fork(self) -> None:
        """In the child: start empty. What the parent holds is the parent's to send, and its thread does not exist here."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abandon()
            _left_to_parent.append(transport)
        sdk_log.reset_after_fork()
        self.generation += 1
        self._clear()
        if self._on_fork is not None:
            self._on_fork()


_left_to_parent: Final[list[Transport]] = []
"""Transports of the parent process, kept so that nothing destroys them here."""


class Refusing:
    """A transport that cannot be: it settles every record with the reason."""

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
    """A ``multiprocessing`` child leaves without atexit; it does run its own finalizers."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, close, exitpriority=10)
