"""Open streams of the console, without browsers."""

from __future__ import annotations

import select
import socket
import threading
from urllib.parse import urlsplit

from benchmarks.console.installation import Installation


class Viewers:
    """Streams over runs. One thread reads them and throws away what comes."""

    def __init__(
        self, installation: Installation, trace_ids: list[str], number: int, *, reads: bool = True
    ) -> None:
        self._sockets = [
            _opened(installation, trace_ids[n % len(trace_ids)]) for n in range(number)
        ]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)
        if reads:
            self._thread.start()

    def _read(self) -> None:
        left = list(self._sockets)
        while not self._stop.is_set():
            ready, _, _ = select.select(left, [], [], 0.2)
            for one in ready:
                if not one.recv(65_536):
                    left.remove(one)

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for one in self._sockets:
            one.close()


def _opened(installation: Installation, trace_id: str) -> socket.socket:
    where = urlsplit(installation.url)
    opened = socket.create_connection((where.hostname or "", where.port or 80))
    request = (
        f"GET /api/v1/live?run={trace_id}&alerts=1 HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Cookie: {installation.cookie}\r\nAccept: text/event-stream\r\n\r\n"
    )
    opened.sendall(request.encode())
    return opened
