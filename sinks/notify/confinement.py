"""Restricts what code of other packages can reach: the network, programs and files.

A library resolves names by itself, so a name that was checked before may lead elsewhere when the
library connects. The interpreter raises an audit event just before each connection
(``sys.addaudithook``); there the numeric address is checked and the connection refused. This holds
for the confined thread and for every ``threading.Thread`` that it starts.

Starting programs is refused, because their connections could not be seen. Opening files is refused
except code, certificates and similar files: service URLs can name files ("template", "keyfile"),
whose contents would be sent.
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

from stepstream.sinks.notify.ssrf import forbidden, is_public

_SEND_EVENTS: Final = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})
_PROGRAM_EVENTS: Final = frozenset(
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
_OPEN_EVENT: Final = "open"
_WATCHED: Final = _SEND_EVENTS | _PROGRAM_EVENTS | {_OPEN_EVENT}
# Folders of code, certificates and time zones.
_READABLE_FOLDERS: Final = tuple(
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
_READABLE_FILES: Final = frozenset(
    {"/dev/null", "/dev/urandom", "/etc/hosts", "/etc/mime.types", "/etc/resolv.conf"}
)
_CODE_SUFFIXES: Final = (".py", ".pyc", ".so")


class Blocked(ConnectionRefusedError):
    """A connection, a program or a file was refused to confined code."""


class Confinement:
    """One confined block. ``network``: connections are checked. ``blocked``: what was refused."""

    def __init__(self, network: bool) -> None:
        self.network = network
        self.blocked: list[str] = []

    def refuse(self, reason: str) -> NoReturn:
        """Note the reason and raise ``Blocked``."""
        self.blocked.append(reason)
        raise Blocked(reason)


_here: Final = threading.local()
_children: Final[weakref.WeakKeyDictionary[threading.Thread, Confinement]] = (
    weakref.WeakKeyDictionary()
)
_install_lock: Final = threading.Lock()
_installed = False


@contextlib.contextmanager
def confined(network: bool = True) -> Iterator[Confinement]:
    """Confine this thread until the block is left.

    It opens no files except code, certificates and the like. With ``network`` it connects only to
    public addresses and starts no programs.
    """
    _install()
    before = getattr(_here, "confinement", None)
    _here.confinement = Confinement(network)
    try:
        yield _here.confinement
    finally:
        _here.confinement = before


def _install() -> None:
    global _installed
    with _install_lock:
        if not _installed:
            sys.addaudithook(_audit)  # for the rest of the process: hooks cannot be removed
            threading.Thread.start = _started(threading.Thread.start)  # type: ignore[method-assign, assignment]
            _installed = True


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in _WATCHED:
        return
    confinement = _current()
    if confinement is None:
        return
    if event == _OPEN_EVENT:
        _check_file(confinement, arguments[0])
    elif not confinement.network:
        return
    elif event in _PROGRAM_EVENTS:
        confinement.refuse("programs are not started for a notification")
    elif arguments[-1] is not None:  # None: over a connection, which was checked when it was made
        _check_address(confinement, arguments[-1])


def _started(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    """``Thread.start`` that passes the confinement of the starting thread on to the new one."""

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
    # Not current_thread(), which makes a thread object where there is none.
    thread = threading._active.get(threading.get_ident())  # type: ignore[attr-defined]
    return None if thread is None else _children.get(thread)


def _check_file(confinement: Confinement, path: Any) -> None:
    if not isinstance(path, (str, bytes)):
        return  # a descriptor: the file was opened before, or by code that was checked
    real = os.path.realpath(os.fsdecode(path))
    is_code = real.endswith(_CODE_SUFFIXES) or os.path.dirname(real).endswith("__pycache__")
    if not is_code and not real.startswith(_READABLE_FOLDERS) and real not in _READABLE_FILES:
        confinement.refuse(
            "files are not read for a notification: name a secret with env: or file: instead"
        )


def _check_address(confinement: Confinement, address: Any) -> None:
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        confinement.refuse(
            f"{host or 'a local socket'} is not an IP address: "
            f"it cannot be checked before the connection is made"
        )
    if not is_public(host):
        confinement.refuse(forbidden("", host))
