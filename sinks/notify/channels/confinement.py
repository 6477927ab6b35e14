"""Confines code of others: while it runs, each connection it makes is checked at the very address it is made to.

A library resolves names by itself, when and as often as it likes, so that a name that was checked may lead elsewhere a moment
later. The interpreter tells of every connection just before it is made (an audit event); there the address is looked at and
the connection refused. That holds for the thread that is confined and for every ``threading.Thread`` that it starts.
Programs are not started either: what they connect to nobody could see. Files are not opened but those of the program itself:
addresses of services can name files ("template", "keyfile"), whose contents would go out.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

from stepstream.sinks.notify.channels.ssrf import forbidden, is_public

_SENDS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_STARTS_PROGRAM: Final = frozenset(
    {
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
    }
)
_OPENS: Final = "open"
_WATCHED: Final = _SENDS | _STARTS_PROGRAM | {_OPENS}
_ITS_OWN: Final = tuple(
    f"{os.path.realpath(folder)}{os.sep}"
    for folder in sorted(
        {
            *sysconfig.get_paths().values(),
            "/etc/ssl",
            "/etc/pki",
            "/usr/share",
            "/usr/local/share",
            "/usr/lib",
            "/etc/ca-certificates",
        }
    )
)
"""Folders of code, certificates and time zones."""
_ITS_OWN_FILES: Final = frozenset(
    {"/dev/null", "/dev/urandom", "/etc/hosts", "/etc/mime.types", "/etc/resolv.conf"}
)
_CODE: Final = (".py", ".pyc", ".so")


class Blocked(ConnectionRefusedError):
    """A connection, a program or a file that confined code may not have."""


class Confinement:
    """One stay of others' code. ``blocked`` is what it was refused; empty: nothing. ``network``: connections are checked."""

    def __init__(self, network: bool) -> None:
        self.network = network
        self.blocked: list[str] = []

    def refuse(self, reason: str) -> NoReturn:
        """Note it and raise ``Blocked``."""
        self.blocked.append(reason)
        raise Blocked(reason)


_here: Final = threading.local()
_children: Final[weakref.WeakKeyDictionary[threading.Thread, Confinement]] = (
    weakref.WeakKeyDictionary()
)
_guard: Final = threading.Lock()
_installed = False


@contextlib.contextmanager
def confined(network: bool = True) -> Iterator[Confinement]:
    """This thread opens no files but those of the program. With ``network`` it connects to nothing but public addresses, and
    starts no programs."""
    _install()
    before = getattr(_here, "confinement", None)
    _here.confinement = Confinement(network)
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
    if event == _OPENS:
        _check_file(confinement, arguments[0])
    elif not confinement.network:
        return
    elif event in _STARTS_PROGRAM:
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


def _check_file(confinement: Confinement, path: Any) -> None:
    if not isinstance(path, (str, bytes)):
        return  # a descriptor: opened before, or by what was checked
    real = os.path.realpath(os.fsdecode(path))
    is_code = real.endswith(_CODE) or os.path.dirname(real).endswith("__pycache__")
    if not is_code and not real.startswith(_ITS_OWN) and real not in _ITS_OWN_FILES:
        confinement.refuse(
            "files are not read for a notification: name a secret with env: or file: instead"
        )


def _check(confinement: Confinement, address: Any) -> None:
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        confinement.refuse(
            f"{host or 'a local socket'} is no address: it cannot be checked before the connection is made"
        )
    if not is_public(host):
        confinement.refuse(forbidden("", host))
