"""Programs that listen on a port where an embedded engine is expected, and answer its clients."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class Squatter:
    """Listens on a port and answers every request as ClickHouse answers ``SELECT 1``.

    ``received``: all bytes that clients sent.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = int(self._server.getsockname()[1])
        self.received = b""
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            with client:
                client.settimeout(0.5)
                try:
                    self.received += client.recv(65_536)
                    client.sendall(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n1\n"
                    )
                except OSError:
                    continue

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)
