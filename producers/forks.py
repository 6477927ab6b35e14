"""Forks: a fork waits for imports of the SDK's threads, and objects are reset in the child.

A fork copies one thread only. A module that another thread is importing at that moment stays
half-initialised in the child.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Final, Protocol

# The longest time that a fork waits for an import to finish.
LONGEST_WAIT_S: Final = 5.0


class Gate:
    """A lock around imports in the SDK's threads; a fork waits for it."""

    def __init__(self) -> None:
        # Re-entrant: an import may cause another one, and the importing thread may fork.
        self._lock = threading.RLock()
        self._thread = threading.local()

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """While the block runs, a fork in another thread waits."""
        lock = self._lock
        with lock:
            yield

    def before_fork(self) -> None:
        """Wait until no other thread imports, at most ``LONGEST_WAIT_S``."""
        self._thread.by_fork = self._lock.acquire(timeout=LONGEST_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Let imports go on."""
        if getattr(self._thread, "by_fork", False):
            self._thread.by_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Replace the lock: no other thread exists in the child."""
        self._lock = threading.RLock()
        self._thread = threading.local()


gate: Final = Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=gate.before_fork,
        after_in_parent=gate.after_fork_in_parent,
        after_in_child=gate.after_fork_in_child,
    )


class ResetsAfterFork(Protocol):
    """An object that has to be reset in a forked child."""

    def after_fork(self) -> None:
        """Called in the child."""


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
