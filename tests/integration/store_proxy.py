"""A proxy before ClickHouse's HTTP interface that does to inserts what networks, full disks and tired servers do."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Choose = Callable[[int], str]
"""What happens to the so manyth insert: one of the deeds below, or empty to let it pass."""

ERRORS = {
    "disk full": "Code: 243. DB::Exception: Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)",
    "memory": "Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)",
    "too many parts": "Code: 252. DB::Exception: Too many parts (300). Merges are slower than inserts. (TOO_MANY_PARTS)",
    "read only": "Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)",
}
DEEDS = (*ERRORS, "gone", "half", "lost", "hang")
"""Errors with ClickHouse's words; ``gone``: the connection ends before anything is forwarded, ``half``: in the middle of the
rows, ``lost``: after the insert, before the answer, ``hang``: it never answers."""


class StoreProxy:
    """Forwards to ``url``; ``choose`` says what happens to each insert. A context manager."""

    def __init__(self, url: str, choose: Choose) -> None:
        place = urlsplit(url)
        self.counts: Counter[str] = Counter()
        self.at_half: Callable[[], None] = lambda: None
        """Called when half of an insert has been forwarded."""
        self._guard = threading.Lock()
        self._inserts = 0
        self._choose = choose
        self._over = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self, "host": place.hostname, "port": place.port})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> StoreProxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def deed(self) -> str:
        """What is done to the next insert."""
        with self._guard:
            self._inserts += 1
            what = self._choose(self._inserts)
            self.counts[what or "passed"] += 1
            return what

    def hang(self) -> None:
        """Say nothing until all is over."""
        self._over.wait(60)


class _Handler(BaseHTTPRequestHandler):
    proxy: StoreProxy
    host: str
    port: int
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._forward(b"")

    def do_POST(self) -> None:
        body = b"".join(self._body())
        what = self.proxy.deed() if "insert_deduplication_token" in self.path else ""
        if not what:
            self._forward(body)
        elif what in ERRORS:
            self._answer(500, ERRORS[what].encode(), [("X-ClickHouse-Exception-Code", ERRORS[what][6:9])])
        else:
            self._break(what, body)
            self.close_connection = True

    def _break(self, what: str, body: bytes) -> None:
        if what == "hang":
            self.proxy.hang()
        elif what == "lost":
            self._ask(body).close()
        elif what == "half":
            with contextlib.suppress(OSError):
                server = http.client.HTTPConnection(self.host, self.port, timeout=30)
                server.putrequest("POST", self.path, skip_accept_encoding=True)
                for name, value in self._headers(len(body)).items():
                    server.putheader(name, value)
                server.endheaders(body[: len(body) // 2])
                self.proxy.at_half()
                server.close()

    def _forward(self, body: bytes) -> None:
        connection = self._ask(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
        self._answer(answer.status, data, kept)

    def _ask(self, body: bytes) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        connection.request(self.command, self.path, body, self._headers(len(body)))
        return connection

    def _headers(self, length: int) -> dict[str, str]:
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        return {**kept, "Content-Length": str(length)}

    def _answer(self, status: int, data: bytes, headers: list[tuple[str, str]]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def _body(self) -> Iterator[bytes]:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


_HOP = frozenset({"content-length", "transfer-encoding", "connection", "host", "date", "server", "keep-alive"})
