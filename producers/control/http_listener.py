"""Reads the commands of a gateway, ``GET /v1/control``, for agents without a route to Kafka.

The gateway sends server-sent events: a command each, and a comment every 15 seconds. A connection
that ends is opened again with the id of the last command, so that none is missed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import msgspec

from stepstream.producers.control.listener import CommandListener
from stepstream.producers.forks import fork_lock
from stepstream.schemas.endpoint import split_http_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH: Final = "/v1/control"
# Three of the gateway's comments.
SILENCE_S: Final = 45.0
MAX_LINE_BYTES: Final = 1 << 20
_decode_event: Final = msgspec.json.Decoder(tuple[str, msgspec.Raw]).decode
"""A policy's key, and its guardrails or null."""


class HttpCommandListener(CommandListener):
    """Follows a gateway's commands for the project of the settings."""

    _last_id = ""
    _socket: socket.socket | None = None

    def _follow(self, stopping: threading.Event) -> None:
        try:
            with fork_lock.importing():
                from stepstream.producers.transport.http import new_pool
            url, _, base = split_http_endpoint(self._settings.endpoint)
            pool = new_pool(url, answer_s=SILENCE_S)
            response = self._opened(pool, base)
        finally:
            fork_lock.connected(self)
        try:
            self.ready.set()
            self._take_events(_fields(response, stopping))
            if not stopping.is_set():
                raise RuntimeError(f"{url}{base}{PATH} ended the stream of commands")
        finally:
            self.ready.clear()
            self._socket = None
            response.close()
            pool.close()

    def _take_events(self, fields: Iterator[tuple[bytes, bytes]]) -> None:
        """Take the events with these fields: commands and guardrails."""
        event = b""
        for name, value in fields:
            if name == b"event":
                event = value
            elif name == b"id":
                self._last_id = value.decode("utf-8", "replace")
            elif name == b"data" and event.startswith(b"guardrail"):
                self._take_guardrail_event(event, value)
            elif name == b"data":
                self._deliver(value)

    def _take_guardrail_event(self, event: bytes, value: bytes) -> None:
        """Take an event about guardrails: ``guardrails-begin``, ``guardrail``, ``guardrails-end``.

        A gateway of an older release sends none.
        """
        reader = self._guardrails
        if reader is None:
            return
        if event == b"guardrails-begin":
            reader.begin((0,))
        elif event == b"guardrails-end":
            reader.ended(0)
        elif event == b"guardrail":
            try:
                policy, record = _decode_event(value)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return
            reader.record(policy, None if bytes(record) == b"null" else bytes(record))

    def _opened(self, pool: Any, base: str) -> Any:
        headers = {"Accept": "text/event-stream"}
        key = self._settings.endpoint_key.get_secret_value()
        if key:
            headers["x-api-key"] = key
        if self._last_id:
            headers["Last-Event-ID"] = self._last_id
        asked = {"project": self._settings.project or "default"}
        if self._guardrails is not None:
            asked["guardrails"] = "1"
        query = urlencode(asked)
        response = pool.request(
            "GET", f"{base}{PATH}?{query}", headers=headers, preload_content=False
        )
        if response.status != 200:
            text = " ".join(response.read(300).decode("utf-8", "replace").split())
            response.close()
            raise RuntimeError(f"HTTP {response.status} {text}")
        connection = getattr(response, "connection", None)
        self._socket = getattr(connection, "sock", None)
        return response

    def _interrupt(self) -> None:
        connected = self._socket
        if connected is not None:
            # Ends a read in the other thread; to close the response here would wait for it.
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def after_fork(self) -> None:
        self._left_to_parent.append(self._socket)
        self._socket = None
        super().after_fork()


def _fields(response: Any, stopping: threading.Event) -> Iterator[tuple[bytes, bytes]]:
    """The fields of the events, in order. Raises ``RuntimeError`` for a line without an end."""
    left = b""
    while not stopping.is_set():
        data = response.read1(65_536)
        if not data:
            return
        *lines, left = (left + data).split(b"\n")
        if len(left) > MAX_LINE_BYTES:
            raise RuntimeError("a line of the command stream is too long")
        for line in lines:
            name, colon, value = line.rstrip(b"\r").partition(b":")
            if name and colon:
                yield name, value.removeprefix(b" ")
