"""A proxy before ClickHouse's HTTP interface that fails inserts as networks, full disks and
overloaded servers do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

# Chooses by the number of the insert what happens to it: one of the actions below, or empty.
Choose = Callable[[int], str]

ERRORS: Final = {
    "disk full": "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. "
    "(NOT_ENOUGH_SPACE)",
    "memory": "Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)",
    "too many parts": (
        "Code: 252. DB::Exception: Too many parts (300). Merges are slower than inserts. "
        "(TOO_MANY_PARTS)"
    ),
    "read only": "Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)",
}
# Errors with ClickHouse's words; `gone`: the connection ends before anything is forwarded, `half`:
# in the middle of the rows, `lost`: after the insert, before the answer, `hang`: it never answers.
ACTIONS: Final = (*ERRORS, "gone", "half", "lost", "hang")
HANG_S: Final = 60.0
_HOP: Final = frozenset(
    {b"content-length", b"transfer-encoding", b"connection", b"host", b"expect", b"keep-alive"}
)


@dataclass(frozen=True)
class _Request:
    """A request with its whole body."""

    line: bytes
    # Without those that hold for one connection.
    headers: tuple[bytes, ...]
    body: bytes

    def head(self, host: str) -> bytes:
        """The head to send to the server, which closes the connection after its answer."""
        own = (
            f"Host: {host}".encode(),
            b"Content-Length: %d" % len(self.body),
            # The end of the answer is then the end of the connection: nothing of HTTP has to be
            # parsed.
            b"Connection: close",
        )
        return b"\r\n".join((self.line, *own, *self.headers, b"", b""))


class StoreProxy:
    """Forwards to ``url``, one request for each connection; ``choose`` decides what happens to each
    insert.

    A context manager.
    """

    def __init__(self, url: str, choose: Choose) -> None:
        place = urlsplit(url)
        self._host, self._port = place.hostname or "127.0.0.1", place.port or 8123
        self.counts: Counter[str] = Counter()
        # Called, in a thread, when half of an insert has been forwarded.
        self.at_half: Callable[[], None] = lambda: None
        self.url = ""
        self._inserts = 0
        self._choose = choose
        self._serving: set[asyncio.Task[None]] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="store-proxy", daemon=True
        )

    def __enter__(self) -> StoreProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The event loop has weak references to tasks only. Without another one the garbage
        # collector destroys a task whose client left while it waits for the server's answer.
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # either side left
                await self._handle(await _read(reader), writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _handle(self, request: _Request, writer: asyncio.StreamWriter) -> None:
        # Only the sink's inserts have a token; queries and migrations pass.
        what = self._action() if b"insert_deduplication_token" in request.line else ""
        if what in ERRORS:
            words = ERRORS[what].encode()
            code, length = words[6:9], len(words)
            head = (
                b"HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: %s\r\n" % code
            )
            writer.write(head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % length + words)
            await writer.drain()
        elif what == "hang":
            with contextlib.suppress(TimeoutError):
                # Ends with the proxy, so that a test does not wait for a connection that hangs.
                await asyncio.wait_for(self._over.wait(), HANG_S)
        elif what == "half":
            await self._forward_half(request)
        elif what != "gone":
            answer = await self._forward(request)
            if what != "lost":
                writer.write(answer)
                await writer.drain()

    def _action(self) -> str:
        """What is done to the next insert."""
        self._inserts += 1
        what = self._choose(self._inserts)
        self.counts[what or "passed"] += 1
        return what

    async def _forward(self, request: _Request) -> bytes:
        """The server's answer as it comes over the wire."""
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request.head(f"{self._host}:{self._port}") + request.body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    async def _forward_half(self, request: _Request) -> None:
        _, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(
                request.head(f"{self._host}:{self._port}") + request.body[: len(request.body) // 2]
            )
            await writer.drain()
            # A test kills the sink here, which blocks.
            await asyncio.to_thread(self.at_half)
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> _Request:
    """The next request. Raises ``IncompleteReadError`` where the client leaves before its end."""
    line, *lines = (await reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n").split(b"\r\n")
    given = {
        name.lower(): value.strip() for name, _, value in (each.partition(b":") for each in lines)
    }
    if b"chunked" in given.get(b"transfer-encoding", b""):
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readuntil(b"\r\n")
        body = b"".join(pieces)
    else:
        body = await reader.readexactly(int(given.get(b"content-length", b"0")))
    return _Request(
        line, tuple(each for each in lines if each.partition(b":")[0].lower() not in _HOP), body
    )
