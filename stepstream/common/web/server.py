"""Serves an application, in this thread or in another one, until it is stopped."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from stepstream.common.web.protocol import NO_IDLE_TIMER, Limits, protocol_for

GRACE_S = 5.0
_log = logging.getLogger("stepstream.web")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one.

    Raises ``OSError`` with a sentence; EADDRINUSE if the port is in use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            # On Windows the option would let a second server take the same port.
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(256)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                error.errno, f"port {port} of {host} is in use by another process"
            ) from None
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {error.strerror or error}"
        ) from None
    found.setblocking(False)
    return found


class _Server(uvicorn.Server):
    """uvicorn without its handling of signals, which is possible in a main thread only."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class WebServer:
    """One application on one address. It listens at once, and answers while ``run`` runs."""

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        limits: Limits | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        """``port`` 0 takes a free one; see the attribute afterwards. Raises as ``listen`` does."""
        # At once: an address in use is an error of the constructor, not of a thread later.
        self._socket = listen(host, port)
        self.host = host
        self.port = int(self._socket.getsockname()[1])
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        # uvicorn logs every malformed request, and errors that the application logs itself.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        config = uvicorn.Config(
            app,
            http=protocol_for(limits or Limits()),
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=NO_IDLE_TIMER,
            timeout_graceful_shutdown=int(grace_s),
        )
        self._loop_factory = config.get_loop_factory()
        self._server = _Server(config, self._started.set)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def run(self) -> None:
        """Answer in this thread until ``stop`` is called."""
        with asyncio.Runner(loop_factory=self._loop_factory) as runner:
            runner.run(self._server.serve([self._socket]))

    def start(self, name: str) -> None:
        """Answer in a new thread. Returns once it is ready."""
        self._thread = threading.Thread(target=self._run_logged, name=name, daemon=True)
        self._thread.start()
        self._started.wait()

    def _run_logged(self) -> None:
        try:
            self.run()
        except Exception:
            _log.exception("the HTTP server at %s failed", self.url)
        finally:
            self._started.set()

    def stop(self) -> None:
        """Accept no more connections and end, after a grace period for answers in progress.

        Can be called from any thread or signal handler.
        """
        self._server.should_exit = True

    def close(self, timeout_s: float = 10.0) -> None:
        """``stop``, and wait for the thread of ``start``."""
        self.stop()
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._socket.close()

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called. An endless stream has to check this."""
        return self._server.should_exit
