"""The console's process: the API, the live stream and the pages on one port."""

from __future__ import annotations

import logging
import signal
from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from stepstream.common.listen import explained
from stepstream.common.observe import Observer
from stepstream.common.web.app import Raw, create
from stepstream.common.web.headers import Hosts
from stepstream.common.web.protocol import Limits
from stepstream.common.web.server import WebServer
from stepstream.console import address
from stepstream.console.actions import Actions
from stepstream.console.budgets import Budgets
from stepstream.console.evals import EvalPages
from stepstream.console.live.stream import Streams
from stepstream.console.live.tail import BUFFER_BYTES, Tail
from stepstream.console.login import Login, names_of
from stepstream.console.pages import Pages, is_page
from stepstream.console.reads import Reads
from stepstream.console.releases import ReleasePages
from stepstream.console.store import Store
from stepstream.console.system import System
from stepstream.console.tasks import TaskPages
from stepstream.schemas.settings import Settings

USUAL_PORT: Final = 8125
LIMITS: Final = Limits(connections=1_000)
GRACE_S: Final = 2.0
_log = logging.getLogger("stepstream.console")


class Console:
    """A console that listens from the moment it is made."""

    def __init__(self, settings: Settings, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        """Raises ``AddressTaken``, ``OSError``, ``ValueError`` and ``CredentialsError``."""
        from stepstream.common.settings import state_dir

        self.observer = Observer()
        folder = state_dir(settings)
        secret = address.kept_secret(folder)
        self._handler: ASGIApp | None = None
        self.server = _listening(self._answer, settings)
        # After the port is taken: a console that cannot start must not overwrite another's file.
        self.address = address.publish(folder, self.server.url, secret)
        self.url = settings.console_url or self.server.url
        self.login = Login(settings, secret, self.address.start, folder)
        self.store = Store(settings)
        self.tail = Tail(settings, buffer_bytes=buffer_bytes)
        self.streams = Streams(
            self.tail, self.store, lambda: self.server.stopping, self.login.identify
        )
        self._budgets = Budgets(settings)
        self._reads = Reads(settings, self.store, self._budgets)
        self._actions = Actions(settings, self._reads, self.login)
        self._tasks = TaskPages(settings, self.store, self._actions)
        self._releases = ReleasePages(settings, self.store)
        self._system = System(settings, self.store, self.tail)
        self._handler = create(
            [
                *self._reads.routes(),
                *self._actions.routes(),
                *self._tasks.routes(),
                *self._releases.routes(),
                *EvalPages(self.store).routes(),
                *self._system.routes(),
                Route("/api/v1/live", Raw(self.streams.serve), methods=["GET"]),
                *Pages(self.login).routes(),
            ],
            hosts=Hosts(settings.console_host, names_of(settings.console_hosts)),
            access=self.login,
            observed=self.observer,
            open_paths=("/login",),
            page_path=is_page,
        )
        self.observer.readiness = lambda: ""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._handler is not None
        if scope["type"] == "http" and self.login.is_proxy(scope):
            # The proxy ends TLS: pages have https in their Origin.
            forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
            if forwarded == [b"https"]:
                scope["scheme"] = "https"
        await self._handler(scope, receive, send)

    def run(self) -> None:
        """Answer until ``stop``."""
        _log.info("the console answers at %s", self.server.url)
        try:
            self.server.run()
        finally:
            self._close_parts()

    def start(self) -> None:
        """Answer in a thread, until ``close``."""
        self.server.start("stepstream-console")

    def stop(self) -> None:
        """Take no more requests and end; from any thread or signal."""
        self.server.stop()

    def close(self) -> None:
        """``stop``, and wait for the end of ``start``."""
        self.server.close()
        self._close_parts()

    def _close_parts(self) -> None:
        self.tail.close()
        for part in (
            self.streams,
            self._budgets,
            self._actions,
            self._releases,
            self._system,
            self.store,
        ):
            part.close()


def _listening(app: ASGIApp, settings: Settings) -> WebServer:
    """A server on the port of the settings, or on the usual one, or on a free one."""
    host = settings.console_host
    ports = [settings.console_port] if settings.console_port > 0 else [USUAL_PORT, 0]
    for port in ports:
        try:
            return WebServer(app, host, port, LIMITS, grace_s=GRACE_S)
        except OSError as error:
            if port == ports[-1]:
                raise explained(error, port, "console_port", host) from None
    raise AssertionError("there is always a last port")


def run(settings: Settings, *, show: bool = True) -> int:
    """Run a console until SIGTERM or SIGINT; returns the exit code. Raises as ``Console``.

    With ``show`` a link is printed that signs its first visitor in.
    """
    from stepstream.common.terminal import echo

    for name in ("clickhouse_connect", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    console = Console(settings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: console.stop())
    if show:
        link = address.link(console.address, base=settings.console_url)
        echo(f"the console answers at {console.url}")
        echo(f"sign in, once and within ten minutes: {link}")
    console.run()
    return 0
