"""Forks: no process forks in the middle of what the SDK's threads import, and what a child must start anew is told so.

A fork copies one thread. A module that another thread is importing at that moment stays half made in the child for ever.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Final, Protocol

LONGEST_WAIT_S: Final = 5.0
"""A fork waits this long at most for imports under way."""


class Gate:
    """Held while modules are imported; a fork waits for it."""

    def __init__(self) -> None:
        self._lock = (
            threading.RLock()
        )  # re-entrant: one import may lead to another, and a thread that holds it may fork
        self._held = threading.local()

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """No other thread forks meanwhile."""
        lock = self._lock
        with lock:
            yield

    def before_fork(self) -> None:
        """Wait for imports under way."""
        self._held.by_fork = self._lock.acquire(timeout=LONGEST_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Imports go on."""
        if getattr(self._held, "by_fork", False):
            self._held.by_fork = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Nobody imports here."""
        self._lock = threading.RLock()
        self._held = threading.local()


gate: Final = Gate()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=gate.before_fork,
        after_in_parent=gate.after_fork_in_parent,
        after_in_child=gate.after_fork_in_child,
    )


class Forks(Protocol):
    """What starts anew in a child."""

    def after_fork(self) -> None:
        """Called in the child."""


def call_after_fork(held: Forks) -> None:
    """Call its ``after_fork`` in child processes, as long as it is there."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(held)

    def in_child() -> None:
        there = reference()
        if there is not None:
            there.after_fork()

    os.register_at_fork(after_in_child=in_child)
