"""Places among the queries that run at once: a bound for all, a lower one for readers, so that the
writer always finds one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from stepstream.local.clickhouse_server.errors import TOO_MANY_QUERIES, error

WAIT_S = 30.0
MOST_WAITING = 256


class Places:
    """Used by one event loop."""

    def __init__(self, at_once: int) -> None:
        self._all = asyncio.Semaphore(at_once)
        self._readers = asyncio.Semaphore(max(1, at_once * 3 // 4))
        self._waiting = 0
        self.running = 0

    @contextlib.asynccontextmanager
    async def one(self, reader: bool) -> AsyncIterator[None]:
        """A place.

        Raises TOO_MANY_QUERIES when none becomes free in time, or too many wait already.
        """
        if self._waiting >= MOST_WAITING:
            raise error(TOO_MANY_QUERIES, f"too many queries at once: {self._waiting} wait already")
        async with contextlib.AsyncExitStack() as stack:
            self._waiting += 1
            try:
                async with asyncio.timeout(WAIT_S):
                    for places in [self._readers, self._all] if reader else [self._all]:
                        await stack.enter_async_context(places)
            except TimeoutError:
                raise error(
                    TOO_MANY_QUERIES, f"too many queries at once: none ended within {WAIT_S:.0f} s"
                ) from None
            finally:
                self._waiting -= 1
            self.running += 1
            try:
                yield
            finally:
                self.running -= 1
