"""The store as the console uses it: questions in threads, with a time limit, through outages."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from stepstream import queries
from stepstream.common.web.errors import WebError
from stepstream.queries.parameters import QuestionError, Unanswerable
from stepstream.queries.question import time_limit
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import SECOND_US
from stepstream.sinks.clickhouse.client import connect, explained
from stepstream.sinks.clickhouse.errors import StoreError, error_code

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from clickhouse_connect.driver.exceptions import ClickHouseError

    from stepstream.queries import Answer

THREADS: Final = 8
TIMEOUT_EXCEEDED: Final = 159
CHECK_S: Final = 2.0
T = TypeVar("T")
_log = logging.getLogger("stepstream.console")


class Store:
    """Asks the questions of the query layer. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store")
        self._timeout_s = settings.console_query_timeout / SECOND_US
        self.failed_since_us = 0
        """Since when the store does not answer; 0 while it does."""
        self.failure = ""

    async def ask(self, question: str, **given: Any) -> Answer:
        """The answer to a question. Raises ``WebError``."""
        return await self.run(lambda: self.asked(question, **given))

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` in one of the threads for questions."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def asked(self, question: str, **given: Any) -> Answer:
        """As ``ask``, in this thread."""
        return self.answered(
            question,
            lambda client, timeout_s: queries.ask(client, question, timeout_s=timeout_s, **given),
        )

    def answered(self, question: str, work: Callable[[Client, float], Answer]) -> Answer:
        """What ``work`` makes of a client and the time that a query may take.

        Raises ``WebError``.
        """
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            found = work(self._connected(), self._timeout_s)
        except Unanswerable as error:
            raise WebError(404, str(error)) from None
        except QuestionError as error:
            raise WebError(400, str(error)) from None
        except ClickHouseError as error:
            raise self._failed(question, error) from None
        except StoreError as error:
            raise self._unavailable(str(error)) from None
        self._answered()
        return found

    def _connected(self) -> Client:
        with self._guard:
            if self._client is None:
                # The server ends a query at its own limit; this one is for a dead connection.
                self._client = connect(
                    self._settings, readonly=True, timeout_s=round(self._timeout_s) + 5
                )
            return self._client

    def _failed(self, question: str, error: ClickHouseError) -> WebError:
        if error_code(error) == TIMEOUT_EXCEEDED:
            return WebError(
                504,
                f"the query {question} took longer than {self._timeout_s:g} s (setting "
                "console_query_timeout): choose a shorter time or more filters",
                code="query_timeout",
            )
        found = explained(error, self._settings, self._settings.clickhouse_reader_user)
        if error_code(error):
            # An answer, so the store works; what is wrong is ours or the schema's.
            _log.error("the query %s failed: %s", question, found)
            return WebError(503, f"the query {question} failed: {found}", code="store_unavailable")
        return self._unavailable(str(found))

    def _unavailable(self, sentence: str) -> WebError:
        if not self.failed_since_us:
            self.failed_since_us = time.time_ns() // 1_000
            _log.warning("the store does not answer: %s", sentence)
        self.failure = sentence
        return WebError(503, sentence, {"Retry-After": "2"}, code="store_unavailable")

    def _answered(self) -> None:
        if self.failed_since_us:
            _log.warning("the store answers again")
        self.failed_since_us, self.failure = 0, ""

    def check(self) -> None:
        """Find out whether the store answers; sets ``failed_since_us``. Blocks."""
        from clickhouse_connect.driver.exceptions import ClickHouseError

        try:
            client = self._connected()
            client.query("SELECT 1", settings=time_limit(client, CHECK_S))
        except ClickHouseError as error:
            if not error_code(error):
                self._unavailable(str(explained(error, self._settings)))
                return
        except StoreError as error:
            self._unavailable(str(error))
            return
        self._answered()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
