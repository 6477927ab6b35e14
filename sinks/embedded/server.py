"""ClickHouse's HTTP interface, on threads: keep-alive, chunked both ways, errors as ClickHouse writes them."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from stepstream.sinks.embedded import compression
from stepstream.sinks.embedded.errors import ACCESS_DENIED, BAD_ARGUMENTS, ClickHouseError, error, from_engine
from stepstream.sinks.embedded.execute import Answer, Executor
from stepstream.sinks.embedded.request import Request, read

READ_BYTES = 1 << 20
# A refused body up to this size is read to its end, so that the client reads the answer instead of a broken pipe.
DRAIN_BYTES = 64 << 20
IDLE_SECONDS = 3600
# A client that takes or sends nothing for so long gives its place among the running queries to others.
STALL_SECONDS = 300
TRIM_AFTER_SECONDS = 10
WATCH_SECONDS = 0.5
NAME = "stepstream embedded"


class Server(ThreadingHTTPServer):
    """Listens; one thread a client connection."""

    daemon_threads = True
    request_queue_size = 256
    # On Windows the option would let a second server take the same port.
    allow_reuse_address = sys.platform != "win32"

    def __init__(self, host: str, port: int, executor: Executor) -> None:
        self.executor = executor
        self._running: dict[str, socket.socket] = {}
        self._last_used = time.monotonic()
        super().__init__((host, port), Handler)
        self.loopback = _is_loopback(host)
        threading.Thread(target=self._watch, daemon=True, name="leavers").start()

    @contextlib.contextmanager
    def watched(self, client: socket.socket) -> Iterator[Callable[[str], None]]:
        """Cancel the query whose tag is given to the yielded function if its client leaves."""
        tags: list[str] = []

        def begins(tag: str) -> None:
            tags.append(tag)
            self._running[tag] = client

        try:
            yield begins
        finally:
            for tag in tags:
                self._running.pop(tag, None)
            self._last_used = time.monotonic()

    def _watch(self) -> None:
        """Cancel the queries of clients that have left; give memory back when there was nothing to do for a while."""
        trimmed = 0.0
        while True:
            time.sleep(WATCH_SECONDS)
            for tag, client in list(self._running.items()):
                if _has_left(client) and self._running.pop(tag, None) is not None:
                    self.executor.engine.cancel(tag)
            used = self._last_used
            if used > trimmed and not self._running and time.monotonic() - used > TRIM_AFTER_SECONDS:
                self.executor.engine.release_memory()
                trimmed = used

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; everything else is one line on stderr."""
        problem = sys.exception() if sys.version_info >= (3, 11) else None
        if not isinstance(problem, (ConnectionError, TimeoutError)):
            print(f"clickhouse: {client_address}: {type(problem).__name__}: {problem}", file=sys.stderr, flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _has_left(client: socket.socket) -> bool:
    try:
        ready, _, _ = select.select([client], [], [], 0)
        return bool(ready) and client.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


class Handler(BaseHTTPRequestHandler):
    """One client connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        return

    def version_string(self) -> str:
        return "ClickHouse"

    def do_GET(self) -> None:
        self._begun = False
        body = Body(self)
        try:
            body.measure()
            self._check_origin()
            self._route(body)
        except ClickHouseError as problem:
            self._fail(problem, body)
        except OSError:
            raise  # the client has left
        except Exception as problem:
            print(f"clickhouse: {type(problem).__name__}: {problem}", file=sys.stderr, flush=True)
            self._fail(from_engine(problem), body)
        self.wfile.flush()

    do_POST = do_GET
    do_PUT = do_GET
    do_HEAD = do_GET

    def _check_origin(self) -> None:
        """A page in somebody's browser can send requests to this machine too: it is not a client."""
        origin = self.headers.get("Origin", "")
        if origin and origin.partition("://")[2] != self.headers.get("Host"):
            raise error(ACCESS_DENIED, f"requests from web pages are not taken (Origin {origin[:100]})")
        host = self.headers.get("Host", "")
        if self.server.loopback and host and not _is_loopback(_host_name(host)):
            raise error(ACCESS_DENIED, f"this server is for this machine only, it is not {host[:100]}")

    def _route(self, body: Body) -> None:
        path = self.path.partition("?")[0]
        if path in ("/ping", "/replicas_status"):
            self._plain(200, b"Ok.\n")
        elif path not in ("/", "/query"):
            self._plain(404, b"There is no handle " + path.encode() + b"\n\nUse / for queries, /ping for health checks.\n")
        else:
            plain = compression.decode(body.pieces(), self.headers.get("Content-Encoding", ""))
            request = read(self.path, self.command, self.headers, plain)
            if not body.expected and "query" not in request.parameters:
                self._plain(200, b"Ok.\n")
            else:
                self._query(request, body)
        body.drain()

    def _query(self, request: Request, body: Body) -> None:
        self.connection.settimeout(STALL_SECONDS)
        with self.server.watched(self.connection) as begins, self._answer(request, begins) as answer:
            body.drain()
            self._send(request, answer)
        self.connection.settimeout(IDLE_SECONDS)

    def _answer(self, request: Request, begins: Callable[[str], None]) -> contextlib.AbstractContextManager[Answer]:
        return self.server.executor.execute(request, str(self.client_address[0]), begins)

    def _send(self, request: Request, answer: Answer) -> None:
        """One piece goes out with its length; more go out as they come."""
        if request.flag("wait_end_of_query"):
            first, second = b"".join(answer.pieces), None
        else:
            first, second = next(answer.pieces, b""), next(answer.pieces, None)
        encoding = ""
        if request.flag("enable_http_compression") and (first or second):
            encoding = compression.choose(self.headers.get("Accept-Encoding", ""))
        if second is None:
            self._whole(answer, first, encoding)
        else:
            self._chunked(answer, _again(first, second, answer.pieces), encoding)

    def _whole(self, answer: Answer, data: bytes, encoding: str) -> None:
        if encoding:
            packer = compression.encoder(encoding)
            data = packer.compress(data) + packer.flush()
        self._head(200, answer, encoding)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _chunked(self, answer: Answer, pieces: Iterator[bytes], encoding: str) -> None:
        self._head(200, answer, encoding)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._begun = True
        packer = compression.encoder(encoding) if encoding else None
        for piece in pieces:
            self._chunk(packer.compress(piece) if packer else piece)
        if packer:
            self._chunk(packer.flush())
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _head(self, status: int, answer: Answer | None, encoding: str = "") -> None:
        self.send_response(status)
        self.send_header("X-ClickHouse-Server-Display-Name", NAME)
        self.send_header("X-ClickHouse-Timezone", self.server.executor.engine.timezone)
        if answer is not None:
            self.send_header("Content-Type", answer.content_type)
            self.send_header("X-ClickHouse-Query-Id", answer.query_id)
            self.send_header("X-ClickHouse-Summary", answer.summary())
            if answer.format:
                self.send_header("X-ClickHouse-Format", answer.format)
        if encoding:
            self.send_header("Content-Encoding", encoding)

    def _plain(self, status: int, text: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=UTF-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _fail(self, problem: ClickHouseError, body: Body) -> None:
        """The error as an answer; in the middle of one, its text, and an end that no client takes for a good one."""
        text = f"{problem}\n".encode("utf-8", "surrogateescape")
        if self._begun:
            self._chunk(b"\r\n__exception__\r\n" + text)
            self.close_connection = True
            return
        body.drain()
        self._head(problem.status, None)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("X-ClickHouse-Exception-Code", str(problem.code))
        if problem.code in (194, 516):
            self.send_header("WWW-Authenticate", 'Basic realm="ClickHouse"')
        self.send_header("Content-Length", str(len(text)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)


def _host_name(host: str) -> str:
    return host.rpartition("]")[0].strip("[") if host.startswith("[") else host.partition(":")[0]


def _again(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest


class Body:
    """The body of a request, read piece by piece."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._chunked = handler.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._length = 0
        self.expected = self._chunked
        self._pieces = self._read()

    def measure(self) -> None:
        """Raises when the headers do not say where the body ends."""
        length = self._handler.headers.get("Content-Length", "0")
        if not length.isascii() or not length.isdigit():
            self._handler.close_connection = True
            raise error(BAD_ARGUMENTS, f"Content-Length is not a number: {length[:40]}")
        self._length = 0 if self._chunked else int(length)
        self.expected = self._chunked or self._length > 0

    def pieces(self) -> Iterator[bytes]:
        return self._pieces

    def drain(self) -> None:
        """Read what is left, so that the next request of the connection begins where it should."""
        left = DRAIN_BYTES
        with contextlib.suppress(ClickHouseError):
            for piece in self._pieces:
                left -= len(piece)
                if left < 0:
                    break
            else:
                return
        self._handler.close_connection = True

    def _read(self) -> Iterator[bytes]:
        yield from self._read_chunks() if self._chunked else self._read_length(self._length)

    def _read_length(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self._handler.rfile.read(min(length, READ_BYTES))
            if not piece:
                raise ConnectionResetError("the client left in the middle of its request")
            length -= len(piece)
            yield piece

    def _read_chunks(self) -> Iterator[bytes]:
        """Chunks are small with some clients: they are handed on in larger pieces."""
        held: list[bytes] = []
        size = 0
        while length := self._chunk_length():
            held.append(b"".join(self._read_length(length)))
            self._handler.rfile.readline()
            size += length
            if size >= READ_BYTES:
                yield b"".join(held)
                held, size = [], 0
        while self._handler.rfile.readline().strip():
            pass  # trailers
        if held:
            yield b"".join(held)

    def _chunk_length(self) -> int:
        line = self._handler.rfile.readline(64)
        if not line:
            raise ConnectionResetError("the client left in the middle of its request")
        try:
            return int(line.partition(b";")[0], 16)
        except ValueError:
            self._handler.close_connection = True
            raise error(BAD_ARGUMENTS, "the request's chunks cannot be read") from None
