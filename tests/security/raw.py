"""HTTP as an attacker writes it: bytes on a socket, and the answer as it came."""

from __future__ import annotations

import base64
import contextlib
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class RawAnswer:
    """A status (0 where the connection was closed without one), the lines of the head, the rest."""

    status: int
    head: tuple[bytes, ...]
    body: bytes

    def header(self, name: str) -> str:
        """The value of a header, empty where it is not there."""
        for line in self.head[1:]:
            found, _, value = line.partition(b":")
            if found.lower() == name.lower().encode():
                return value.strip().decode("latin-1")
        return ""


def connect(url: str, timeout_s: float = 20) -> socket.socket:
    """A connection to the server at that URL."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=timeout_s)


def read_answer(connection: socket.socket) -> RawAnswer:
    """Everything until the server closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    lines = tuple(head.split(b"\r\n"))
    status = int(lines[0].split(b" ")[1]) if lines[0].startswith(b"HTTP/1.1 ") else 0
    return RawAnswer(status, lines, body)


def send(url: str, request: bytes) -> RawAnswer:
    """Send these bytes, and read until the end.

    The request must ask for ``Connection: close`` where it is a valid one.
    """
    with connect(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        return read_answer(connection)


def is_cut(connection: socket.socket, piece: bytes, most_bytes: int) -> bool:
    """Whether the server closes the connection before this many bytes were sent."""
    sent = 0
    try:
        while sent < most_bytes:
            connection.sendall(piece)
            sent += len(piece)
    except OSError:
        return True
    return False


def basic(user: str, password: str) -> str:
    """The value of a Basic header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def request(
    url: str,
    target: str = "/",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
) -> RawAnswer:
    """A request with these headers, over a connection of its own.

    A header given as an empty text is left out.
    """
    given = {"Host": urlsplit(url).netloc, "Connection": "close", **(headers or {})}
    if body:
        given.setdefault("Content-Length", str(len(body)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in given.items() if value)
    return send(url, f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + body)
