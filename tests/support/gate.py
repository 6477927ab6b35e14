"""A gate before a server: it can be shut, as when the server is gone, and opened again."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit


class Gate:
    """Forwards connections to ``url`` while it is open; a context manager.

    Shut it ends every connection and refuses new ones, at the same address. With ``tls`` it ends
    TLS, as a proxy before a server does.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        where = urlsplit(url)
        self._host, self._port = where.hostname or "127.0.0.1", where.port or 80
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._own_port = 0
        login = f"{where.username}:{where.password}@" if where.username else ""
        # Certificates are made for a name.
        self._prefix = (
            f"{'https' if tls else 'http'}://{login}{'localhost' if tls else '127.0.0.1'}"
        )

    @property
    def url(self) -> str:
        """The address of the gate, with the login of the server's."""
        return f"{self._prefix}:{self._own_port}"

    def __enter__(self) -> Gate:
        self._thread.start()
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    def open(self) -> None:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    def shut(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._own_port, reuse_address=True, ssl=self._tls
        )
        self._own_port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        served = dict(self._open)
        for writer in served.values():
            writer.transport.abort()
        # Aborted, each of them reads its end and returns.
        await asyncio.gather(*served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            onward_reader, onward = await asyncio.open_connection(self._host, self._port)
            await asyncio.gather(_copy(reader, onward), _copy(onward_reader, writer))
        except OSError:
            writer.transport.abort()
        finally:
            del self._open[task]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


def certificate_in(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost, and what a server needs to present it."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context
