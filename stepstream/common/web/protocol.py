"""uvicorn's HTTP protocol with the bounds that it lacks: of connections, of header bytes, and of every kind of waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from stepstream.common.web.errors import WebError, error_body
from stepstream.common.web.headers import SECURITY


@dataclass(frozen=True)
class Limits:
    """What one server takes from its clients."""

    connections: int = 1000
    head_bytes: int = 64 << 10
    """Request line and headers."""
    head_s: float = 30.0
    """From the connection, or the request's first byte, to the end of its headers."""
    idle_s: float = 300.0
    """Between two requests of a connection."""
    body_s: float = 60.0
    """Between two pieces of a body; see ``body.pieces``."""
    stall_s: float = 300.0
    """For how long a client may take nothing of an answer."""
    drain_bytes: int = 64 << 20
    """Of a body that nobody wants so much is read, so that the client sees the answer instead of a broken connection."""
    drain_s: float = 10.0


class HeadTooLarge(Exception):
    """Request line and headers are larger than the limit."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``limits`` and ``waiting`` are set by ``protocol_for``, one of each for a server."""

    limits: Limits
    waiting: OrderedDict[BoundedProtocol, None]
    """Connections without a request at work, the one that has waited longest first: they go when there are too many."""

    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _refused = False
    _head_done = True
    _body_done = True
    _head_bytes = 0
    _drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, in the place of one that waits where there are too many, or refuse it."""
        if len(self.connections) >= self.limits.connections and not self._make_room():
            self.transport = transport
            self._refused = True
            self._refuse(WebError(503, "too many connections are open", {"Retry-After": "1"}))
            return
        super().connection_made(transport)
        self.waiting[self] = None
        self._arm(self.limits.head_s)

    def _make_room(self) -> bool:
        if not self.waiting:
            return False
        oldest, _ = self.waiting.popitem(last=False)
        self.connections.discard(oldest)
        oldest.transport.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        self._disarm()
        if self._stalled is not None:
            self._stalled.cancel()
        if not self._refused:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; the bytes of a head that does not end are counted."""
        if self._refused or self.transport.is_closing():
            return
        if not self._head_done:
            self._head_bytes += len(data)
        try:
            super().data_received(data)
            if not self._head_done and self._head_bytes > self.limits.head_bytes:
                raise HeadTooLarge
        except HeadTooLarge:
            self._refuse(
                WebError(
                    431, f"request line and headers are more than {self.limits.head_bytes} bytes"
                )
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_done = self._body_done = False
        self._head_bytes = self._drained = 0
        self._arm(self.limits.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """What comes behind a body in chunks is no header any more: nobody looks at it."""
        if not self._head_done:
            super().on_header(name, value)
        else:
            self._drop(len(name) + len(value))

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._head_bytes = size
            return
        self._head_done = True
        self._disarm()
        self.waiting.pop(self, None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._head_done:
            super().on_body(body)
            if self.cycle.response_complete:
                self._drop(len(body))

    def on_message_complete(self) -> None:
        if not self._head_done:
            return
        super().on_message_complete()
        self._body_done = True
        if self.cycle.response_complete and not self.transport.is_closing():
            self._wait_for_next()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() or not self.cycle.response_complete:
            return
        if self._body_done:
            self._wait_for_next()
        else:
            self._arm(self.limits.drain_s)

    def _wait_for_next(self) -> None:
        self.waiting[self] = None
        self._arm(self.limits.idle_s)

    def _drop(self, size: int) -> None:
        self._drained += size
        if self._drained > self.limits.drain_bytes:
            self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP."""
        if self._head_bytes > self.limits.head_bytes:
            raise HeadTooLarge
        self._refuse(WebError(400, "this is not a valid HTTP request"))

    def _refuse(self, error: WebError) -> None:
        body = error_body(error)
        headers = [
            *SECURITY,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ]
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(
            STATUS_LINE[error.status] + lines + b"connection: close\r\n\r\n" + body
        )
        self.transport.close()

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


NO_IDLE_TIMER: Final = 1 << 30
"""uvicorn's own timer of idle connections, out of the way: it is stopped by the first byte of a request."""


def protocol_for(limits: Limits) -> type[BoundedProtocol]:
    """The protocol of one server."""
    attributes: dict[str, Any] = {"limits": limits, "waiting": OrderedDict()}
    return type("Protocol", (BoundedProtocol,), attributes)
