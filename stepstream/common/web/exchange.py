"""An answer that is made in a thread while the event loop communicates with the client."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Executor as Pool

from starlette.types import Message, Receive, Send

from stepstream.common.web.body import ClientLeft

RawHeaders = list[tuple[bytes, bytes]]
CANCEL_EVERY_S = 0.5


def head(status: int, headers: RawHeaders) -> Message:
    """The message with status and headers."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(piece: bytes, more: bool) -> Message:
    """A message with a part of the body."""
    return {"type": "http.response.body", "body": piece, "more_body": more}


def end_of() -> Message:
    """The message that ends an answer."""
    return body(b"", False)


class Left(ClientLeft):
    """The client has disconnected, or the server stops: nothing more can be sent."""


class Exchange:
    """Runs a function in a thread, which can send an answer and learns when the client disconnects.

    ``cancel`` is called then, with the tag that the function gave, repeatedly until it has ended.
    """

    def __init__(
        self, receive: Receive, send: Send, cancel: Callable[[str], None] = lambda _tag: None
    ) -> None:
        self._receive = receive
        self._to_client = send
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._tag = ""
        self.left = threading.Event()
        self.started = False

    async def run(self, pool: Pool, work: Callable[[], list[Message]]) -> list[Message]:
        """Run ``work`` in the pool. Returns its result, the last messages of the answer."""
        working = self._loop.run_in_executor(pool, work)
        watching = asyncio.ensure_future(self._watch(pool, working))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # The server stops. The thread must have ended before its place in the pool is released.
            self.left.set()
            with contextlib.suppress(Exception):
                await self._cancel_until_ended(pool, working)
            raise
        finally:
            watching.cancel()

    async def _watch(self, pool: Pool, working: asyncio.Future[list[Message]]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left.set()
        await self._cancel_until_ended(pool, working)

    async def _cancel_until_ended(self, pool: Pool, working: asyncio.Future[list[Message]]) -> None:
        # Repeatedly: what has not begun yet cannot be cancelled.
        while not working.done():
            if self._tag:
                await asyncio.to_thread(self._cancel, self._tag)
            await asyncio.wait([working], timeout=CANCEL_EVERY_S)

    # The following are for the thread.

    def begins(self, tag: str) -> None:
        """The work can be cancelled by this tag from now on."""
        self._tag = tag
        self._check()

    def start(self, status: int, headers: RawHeaders) -> None:
        """Send status and headers. Raises ``Left``."""
        self.started = True
        self._send(head(status, headers))

    def more(self, piece: bytes) -> None:
        """Send a part of the body. Waits while the client accepts nothing. Raises ``Left``."""
        self._send(body(piece, True))

    def _send(self, message: Message) -> None:
        self._check()
        asyncio.run_coroutine_threadsafe(self._deliver(message), self._loop).result()
        self._check()

    async def _deliver(self, message: Message) -> None:
        await self._to_client(message)

    def _check(self) -> None:
        if self.left.is_set():
            raise Left
