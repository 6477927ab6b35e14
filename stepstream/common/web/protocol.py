"""uvicorn's HTTP protocol with limits that it lacks: connections, header bytes, waiting."""

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
    """The limits of one server."""

    connections: int = 1000
    head_bytes: int = 64 << 10
    """Request line and headers."""
    head_s: float = 10.0
    """To the end of a request's headers: of a first request since the connection was made, of a
    later one since its first byte."""
    idle_s: float = 300.0
    """Between two requests of a connection."""
    body_s: float = 60.0
    """Between two parts of a body; see ``body.pieces``."""
    stall_s: float = 300.0
    """How long a client may accept nothing of an answer."""
    drain_bytes: int = 64 << 20
    """Of a body that is not used so much is read. Closing earlier would break the connection before
    the client has received the answer."""
    drain_s: float = 10.0


class HeadTooLarge(Exception):
    """Request line and headers are larger than the limit."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. ``protocol_for`` sets ``limits`` and ``waiting``, once for each server."""

    limits: Limits
    waiting: OrderedDict[BoundedProtocol, None]
    """Connections without a request, longest wait first: closed when there are too many."""

    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _refused = False
    _is_first = True
    _head_done = True
    _body_done = True
    _head_bytes = 0
    _drained = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, if necessary in place of an idle one, or refuse it."""
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
        """Parse, and count the bytes of a head that has not ended."""
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
        if not self._is_first:
            self._arm(self.limits.head_s)
        # The first request has the time since the connection was made. Starting again at its
        # first byte would allow twice the limit.
        self._is_first = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header. One after a chunked body (a trailer) is dropped."""
        if not self._head_done:
            super().on_header(name, value)
        else:
            self._drop(len(name) + len(value))

    def on_headers_complete(self) -> None:
        # Complete in one packet, so data_received has not counted it yet.
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

    # Called when the send buffer is full, and when the client has read enough of it.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.limits.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def send_400_response(self, msg: str) -> None:
        """Answer what is not valid HTTP."""
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
"""Disables uvicorn's own timer for idle connections: the first byte of a request stops it."""


def protocol_for(limits: Limits) -> type[BoundedProtocol]:
    """The protocol class of one server."""
    attributes: dict[str, Any] = {"limits": limits, "waiting": OrderedDict()}
    return type("Protocol", (BoundedProtocol,), attributes)
