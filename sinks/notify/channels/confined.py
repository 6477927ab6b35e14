"""Confines code of others: while it runs, each connection it makes is checked at the very address it is made to.

A library resolves names by itself, when and as often as it likes, so that a name that was checked may lead elsewhere a moment
later. The interpreter tells of every connection just before it is made (an audit event); there the address is looked at and
the connection refused. That holds for the thread that is confined and for every ``threading.Thread`` that it starts.
Programs are not started either: what they connect to nobody could see.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from stepstream.sinks.notify.channels.guard import forbidden, is_public

_SENDS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_STARTS_PROGRAM: Final = frozenset(
    {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "pty.spawn"}
)
_WATCHED: Final = _SENDS | _STARTS_PROGRAM


class Blocked(ConnectionRefusedError):
    """A connection, or a program, that confined code may not have."""


class Confinement:
    """One stay of others' code. ``blocked`` is what it was refused; empty: nothing."""

    def __init__(self) -> None:
        self.blocked: list[str] = []

    def refuse(self, reason: str) -> NoReturn:
        """Note it and raise ``Blocked``."""
        self.blocked.append(reason)
        raise Blocked(reason)


_here: Final = threading.local()
_children: Final[weakref.WeakKeyDictionary[threading.Thread, Confinement]] = weakref.WeakKeyDictionary()
_guard: Final = threading.Lock()
_installed = False


@contextlib.contextmanager
def confined() -> Iterator[Confinement]:
    """This thread connects to nothing but public addresses, and starts no programs."""
    _install()
    before = getattr(_here, "confinement", None)
    _here.confinement = Confinement()
    try:
        yield _here.confinement
    finally:
        _here.confinement = before


def _install() -> None:
    global _installed
    with _guard:
        if not _installed:
            sys.addaudithook(_audit)  # for the rest of the process: there is no way to take it away
            threading.Thread.start = _started(threading.Thread.start)  # type: ignore[method-assign, assignment]
            _installed = True


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _WATCHED:
        return
    confinement = _current()
    if confinement is None:
        return
    if event in _STARTS_PROGRAM:
        confinement.refuse("no program is started for a notification")
    elif arguments[-1] is not None:  # None: on a connection that was checked when it was made
        _check(confinement, arguments[-1])


def _started(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """``Thread.start`` that hands on the confinement of the thread that starts another one."""

    @functools.wraps(start)
    def starting(thread: threading.Thread) -> None:
        confinement = _current()
        if confinement is not None:
            _children[thread] = confinement
        start(thread)

    return starting


def _current() -> Confinement | None:
    """The confinement of this thread: its own, or that of the thread that started it."""
    own: Confinement | None = getattr(_here, "confinement", None)
    if own is not None or not _children:
        return own
    thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]  # current_thread() makes one where there is none
    return None if thread is None else _children.get(thread)


def _check(confinement: Confinement, address: Any) -> None:
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        confinement.refuse(f"{host or 'a local socket'} is no address: it cannot be checked before the connection is made")
    if not is_public(host):
        confinement.refuse(forbidden("", host))
