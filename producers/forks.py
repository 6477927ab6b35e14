"""Forks: a fork waits for imports, first connections and spool calls of the SDK's threads, and
objects are reset in the child.

A fork copies one thread only. A module that another thread is importing at that moment stays
half-initialised in the child. A lock of the C library that another thread holds at that moment is
never released there: glibc's ``getaddrinfo`` holds one while it asks the kernel for the machine's
addresses (``sysdeps/unix/sysv/linux/check_pf.c``), and librdkafka's threads call it for each
connection. Of the children that were forked while their parent made its first connections, 3 to
5 % could connect to nothing. Connections that are made anew later, after an outage, are not waited
for: librdkafka does not report them.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Final, Protocol
from weakref import WeakSet

# The longest time that a fork waits for an import to finish.
LONGEST_WAIT_S: Final = 5.0
# The longest time that a fork waits for first connections. Without brokers it is waited once only.
CONNECT_WAIT_S: Final = 1.0
CONNECT_PAUSE_S: Final = 0.001


class ForkLock:
    """A lock around imports in the SDK's threads, and what is connecting; a fork waits for both.

    ``to_close`` are closed before a fork.
    """

    def __init__(self) -> None:
        self.to_close: WeakSet[ClosesBeforeFork] = WeakSet()
        # Clients that have reached no broker yet, by id().
        self._connecting: set[int] = set()
        # Re-entrant: an import may cause another one, and the importing thread may fork.
        self._lock = threading.RLock()
        self._thread = threading.local()

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """While the block runs, a fork in another thread waits."""
        lock = self._lock
        with lock:
            yield

    def connecting(self, client: object) -> None:
        """The client begins to connect: a fork waits until ``connected`` is called."""
        self._connecting.add(id(client))

    def connected(self, client: object) -> None:
        """The client has reached a broker, or stopped trying."""
        self._connecting.discard(id(client))

    def before_fork(self) -> None:
        """Wait until no client connects, at most ``CONNECT_WAIT_S``, and no other thread imports,
        at most ``LONGEST_WAIT_S``.
        """
        # First the connections: a thread that connects imports on the way.
        self._wait_for_connections()
        self._thread.by_fork = self._lock.acquire(timeout=LONGEST_WAIT_S)
        if self._thread.by_fork:
            for one in list(self.to_close):
                with contextlib.suppress(Exception):
                    one.disconnect()

    def _wait_for_connections(self) -> None:
        deadline = time.monotonic() + CONNECT_WAIT_S
        while self._connecting:
            if time.monotonic() >= deadline:
                # No broker answers: the next fork does not wait again.
                self._connecting.clear()
                return
            time.sleep(CONNECT_PAUSE_S)

    def after_fork_in_parent(self) -> None:
        """Let imports go on."""
        if getattr(self._thread, "by_fork", False):
            self._thread.by_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Replace the lock: no other thread exists in the child."""
        self._lock = threading.RLock()
        self._thread = threading.local()
        self._connecting = set()


class ClosesBeforeFork(Protocol):
    """An object with a file that must not be open in two processes."""

    def disconnect(self) -> None:
        """Called before a fork, while no other thread is inside ``fork_lock.importing()``."""


fork_lock: Final = ForkLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=fork_lock.before_fork,
        after_in_parent=fork_lock.after_fork_in_parent,
        after_in_child=fork_lock.after_fork_in_child,
    )


def close_before_fork(target: ClosesBeforeFork) -> None:
    """Call ``target.disconnect()`` before each fork, as long as the object is alive."""
    fork_lock.to_close.add(target)


class ResetsAfterFork(Protocol):
    """An object that has to be reset in a forked child."""

    def after_fork(self) -> None:
        """Reset the object; called in the child process."""


def call_after_fork(target: ResetsAfterFork) -> None:
    """Call ``target.after_fork()`` in forked children, as long as the object is alive."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(target)

    def in_child() -> None:
        alive = reference()
        if alive is not None:
            alive.after_fork()

    os.register_at_fork(after_in_child=in_child)
