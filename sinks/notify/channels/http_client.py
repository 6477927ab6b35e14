"""HTTP for channels: POST to an address that was checked, within a time that is kept, over connections that are kept.

DeliveryError
├── Refused      it will never be taken: parked at once
└── TemporaryFailure      it may be taken later: tried again
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from stepstream.sinks.notify.channels.ssrf import Forbidden, Resolve, addresses, resolve

ANSWER_BYTES: Final = 4_096
REDIRECTS: Final = 3
IDLE_S: Final = 20.0
KEPT: Final = 32
RETRIED: Final = frozenset({408, 425, 429})
LONGEST_WAIT_S: Final = 3_600.0
_PORTS: Final = {"http": 80, "https": 443}


class DeliveryError(Exception):
    """A notification that was not taken; the text says why."""


class Refused(DeliveryError):
    """It will never be taken as it is."""


class TemporaryFailure(DeliveryError):
    """It may be taken later."""

    def __init__(self, reason: str, retry_after_us: int = 0) -> None:
        super().__init__(reason)
        self.retry_after_us = retry_after_us


@dataclass(frozen=True)
class Answer:
    """What the other side said."""

    status: int
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


class Client:
    """Makes requests; may be used by many threads."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        lookup: Resolve = resolve,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.allow_private = allow_private
        self._lookup = lookup
        self.context = context or ssl.create_default_context()
        self._idle: dict[tuple[str, str, int], list[tuple[float, http.client.HTTPConnection]]] = {}
        self._guard = threading.Lock()
        self.watchdog = Watchdog()

    def close(self) -> None:
        """Let go of every connection."""
        with self._guard:
            for kept in self._idle.values():
                for _, connection in kept:
                    connection.close()
            self._idle.clear()
        self.watchdog.close()

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float
    ) -> Answer:
        """The answer with a status of 2xx. Raises ``Refused`` or ``TemporaryFailure``."""
        deadline = time.monotonic() + timeout_s
        host = urlsplit(url).netloc
        for _ in range(REDIRECTS + 1):
            try:
                status, found, answer = self._once(url, body, headers, deadline)
            except Forbidden as error:
                raise Refused(str(error)) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise TemporaryFailure(words_of(error, deadline)) from None
            if status not in (301, 302, 303, 307, 308):
                return _judged(status, found, answer)
            url = _redirected(status, url, found.get("location", ""))
            if urlsplit(url).netloc != host:
                headers = {
                    name: value for name, value in headers.items() if name.lower() in _HARMLESS
                }
        raise Refused(f"redirected more than {REDIRECTS} times")

    def _once(
        self, url: str, body: bytes, headers: Mapping[str, str], deadline: float
    ) -> tuple[int, http.client.HTTPMessage, Answer]:
        """One request, over a kept connection or, when that has died, over a new one."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0))
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        kept = self._take(key)
        if kept is not None:
            try:
                return self._exchange(kept, key, target, body, headers, deadline)
            except (ConnectionError, http.client.RemoteDisconnected, http.client.BadStatusLine):
                pass  # it was closed while it lay idle; the idempotency key makes the second time harmless
        return self._exchange(
            self._connect(parts, key, deadline), key, target, body, headers, deadline
        )

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        key: tuple[str, str, int],
        target: str,
        body: bytes,
        headers: Mapping[str, str],
        deadline: float,
    ) -> tuple[int, http.client.HTTPMessage, Answer]:
        keep = False
        try:
            with self.watchdog.watch(connection.sock, deadline):
                connection.request("POST", target, body=body, headers=dict(headers))
                response = connection.getresponse()
                data = response.read(ANSWER_BYTES)
                if time.monotonic() >= deadline:
                    raise TimeoutError
                keep = (
                    not response.will_close and response.isclosed() and connection.sock is not None
                )
                return response.status, response.headers, Answer(response.status, data)
        finally:
            if keep:
                self._give_back(key, connection)
            else:
                connection.close()

    def _connect(
        self, parts: SplitResult, key: tuple[str, str, int], deadline: float
    ) -> http.client.HTTPConnection:
        scheme, host, port = key
        if scheme not in _PORTS or not host:
            raise Refused("not an http or https URL")
        connection = http.client.HTTPConnection(host, port)
        connection.sock = self.connect(host, port, deadline, tls=scheme == "https")
        connection.auto_open = 0  # it must never connect by itself, unchecked
        connection.default_port = _PORTS[scheme]
        return connection

    def connect(self, host: str, port: int, deadline: float, *, tls: bool) -> socket.socket:
        """A connection to the very address that was checked; TLS is for the host's name. Raises ``Forbidden``, ``OSError``."""
        error: Exception = OSError(f"{host} has no address")
        for address, at in addresses(
            host, port, allow_private=self.allow_private, lookup=self._lookup
        ):
            try:
                sock = socket.create_connection(
                    (address, at), timeout=max(0.001, deadline - time.monotonic())
                )
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return self.context.wrap_socket(sock, server_hostname=host) if tls else sock
            except OSError as problem:
                error = problem
        raise error

    def _take(self, key: tuple[str, str, int]) -> http.client.HTTPConnection | None:
        with self._guard:
            kept = self._idle.get(key, [])
            while kept:
                since, connection = kept.pop()
                if time.monotonic() - since < IDLE_S:
                    return connection
                connection.close()
        return None

    def _give_back(self, key: tuple[str, str, int], connection: http.client.HTTPConnection) -> None:
        with self._guard:
            kept = self._idle.setdefault(key, [])
            if len(kept) < KEPT:
                kept.append((time.monotonic(), connection))
                return
        connection.close()


class Watchdog:
    """Ends connections whose time is up, however slowly the other side goes on sending."""

    def __init__(self) -> None:
        self._watched: dict[int, tuple[float, socket.socket]] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = 0

    @contextlib.contextmanager
    def watch(self, sock: socket.socket, deadline: float) -> Iterator[None]:
        """End the connection at the deadline."""
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        with self._guard:
            self._next += 1
            token = self._next
            self._watched[token] = (deadline, sock)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="stepstream-http", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._guard:
                self._watched.pop(token, None)

    def close(self) -> None:
        """Watch no more."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            now = time.monotonic()
            with self._guard:
                late = [sock for deadline, sock in self._watched.values() if deadline < now]
            for sock in late:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


_HARMLESS: Final = frozenset({"content-type", "user-agent", "idempotency-key"})


def _judged(status: int, headers: http.client.HTTPMessage, answer: Answer) -> Answer:
    if 200 <= status < 300:
        return answer
    reason = f"HTTP {status} {http.client.responses.get(status, '')}".rstrip()
    said = " ".join(answer.text.split())[:200]
    reason = f"{reason}: {said}" if said else reason
    if status in RETRIED or status >= 500:
        raise TemporaryFailure(reason, _retry_after_us(headers.get("retry-after", "")))
    raise Refused(reason)


def _redirected(status: int, url: str, location: str) -> str:
    """Where a redirect leads. A POST is repeated only where that is what the status says."""
    if status not in (307, 308) or not location:
        raise Refused(
            f"HTTP {status}: it is redirected as something else than a POST; write the final URL"
        )
    target = urljoin(url, location)
    if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
        raise Refused("redirected from https to something unencrypted")
    return target


def _retry_after_us(text: str) -> int:
    if not text:
        return 0
    try:
        seconds = (
            float(text)
            if text.strip().isdecimal()
            else parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, TypeError, OverflowError, OSError):
        return 0
    return round(min(LONGEST_WAIT_S, max(0.0, seconds)) * 1e6)


def words_of(error: Exception, deadline: float) -> str:
    """A failure of the network in words."""
    if time.monotonic() >= deadline or isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return f"the host is not known: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return f"no HTTP answer: {type(error).__name__} {error}".strip()
