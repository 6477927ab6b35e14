"""One answer between the event loop, which talks to the client, and the thread that makes it."""

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
    """The beginning of an answer."""
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(piece: bytes, more: bool) -> Message:
    """A piece of an answer."""
    return {"type": "http.response.body", "body": piece, "more_body": more}


def end_of() -> Message:
    """The end of an answer that was sent in pieces."""
    return body(b"", False)


class Left(ClientLeft):
    """The client has left, or the answer is to break off: nothing more is sent."""


class Exchange:
    """Runs a function in a thread, lets it send an answer, and tells it when the client leaves.

    ``cancel`` is called then, with the tag that the function gave, again and again until the function has ended.
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
        """What ``work`` returns, in a thread of the pool: the last messages of the answer. Raises what it raises."""
        working = self._loop.run_in_executor(pool, work)
        watching = asyncio.ensure_future(self._watch(pool, working))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # The server stops: the thread must have ended before its place is given up.
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
        """Again and again: what has not begun yet cannot be cancelled."""
        while not working.done():
            if self._tag:
                await asyncio.to_thread(self._cancel, self._tag)
            await asyncio.wait([working], timeout=CANCEL_EVERY_S)

    # What follows is for the thread.

    def begins(self, tag: str) -> None:
        """From now on the work can be cancelled by this tag."""
        self._tag = tag
        self._check()

    def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head of the answer. Raises ``Left``."""
        self.started = True
        self._send(head(status, headers))

    def more(self, piece: bytes) -> None:
        """Send a piece of the body; waits while the client takes nothing. Raises ``Left``."""
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
