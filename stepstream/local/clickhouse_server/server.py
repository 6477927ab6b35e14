"""ClickHouse's HTTP interface as an application of the web stack: answers in pieces, errors as
ClickHouse writes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from starlette.datastructures import Headers
from starlette.requests import Request as WebRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepstream.common.web import coding
from stepstream.common.web.access import Access
from stepstream.common.web.app import Raw, create
from stepstream.common.web.body import Spool
from stepstream.common.web.errors import WebError
from stepstream.common.web.exchange import Exchange, Left, RawHeaders, body, head
from stepstream.common.web.front import CALLER
from stepstream.common.web.headers import Hosts
from stepstream.local.clickhouse_server.errors import (
    ACCESS_DENIED,
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    CANNOT_DECOMPRESS,
    TOO_LARGE,
    TOO_MANY_QUERIES,
    UNKNOWN_COMPRESSION,
    UNKNOWN_EXCEPTION,
    ClickHouseError,
    error,
    from_engine,
)
from stepstream.local.clickhouse_server.execute import Answer, Executor
from stepstream.local.clickhouse_server.places import Places
from stepstream.local.clickhouse_server.request import FORM_BYTES, Request, parameters_of, read
from stepstream.local.clickhouse_server.users import User, Users

NAME = b"stepstream embedded"
READER_BODY_BYTES = FORM_BYTES
TRIM_AFTER_S = 10.0
BODY_WAIT_S = 60.0
_log = logging.getLogger("stepstream.store")
_KINDS = {
    400: BAD_ARGUMENTS,
    403: ACCESS_DENIED,
    408: TOO_LARGE,
    413: TOO_LARGE,
    415: UNKNOWN_COMPRESSION,
    429: TOO_MANY_QUERIES,
    503: TOO_MANY_QUERIES,
}


class Store:
    """Answers queries over HTTP; the engine works in threads, of which there are as many as queries
    may run at once."""

    def __init__(
        self, executor: Executor, users: Users, *, at_once: int = 16, body_bytes: int = 1 << 30
    ) -> None:
        self._executor = executor
        self._users = users
        self._body_bytes = body_bytes
        self._places = Places(at_once)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="query")
        self._trim: asyncio.TimerHandle | None = None
        self._timezone = executor.engine.timezone.encode()

    def application(self, hosts: Hosts, access: Access) -> ASGIApp:
        """The ASGI application."""
        routes = [
            Route("/ping", _ok),
            Route("/replicas_status", _ok),
            Route("/", Raw(self._answer), methods=["GET", "POST", "PUT", "HEAD"]),
            Route("/query", Raw(self._answer), methods=["GET", "POST", "PUT", "HEAD"]),
        ]
        return create(routes, hosts=hosts, access=access, open_paths=("/ping",), error=self._error)

    def close(self) -> None:
        """End what still runs. The event loop has ended."""
        if self._places.running:
            self._executor.engine.end_queries()
        self._pool.shutdown(cancel_futures=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        spool = Spool()
        try:
            user = self._users.of(scope[CALLER])
            most = min(READER_BODY_BYTES, self._body_bytes) if user.reader else self._body_bytes
            await spool.fill(scope, receive, max_bytes=most, wait_s=BODY_WAIT_S)
            if not spool.size and "query" not in parameters_of(scope):
                await PlainTextResponse("Ok.\n")(scope, receive, send)
                return
            async with self._places.one(user.reader):
                exchange = Exchange(receive, send, self._executor.engine.cancel)
                rest = await exchange.run(
                    self._pool, lambda: self._work(scope, user, spool, exchange)
                )
            for message in rest:
                await send(message)
        except ClickHouseError as problem:
            await self._failed(problem)(scope, receive, send)
        finally:
            spool.close()
            self._trim_later()

    def _trim_later(self) -> None:
        """Give memory back when there was nothing to do for a while."""
        if self._trim is not None:
            self._trim.cancel()
        self._trim = asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._trim_now)

    def _trim_now(self) -> None:
        if not self._places.running:
            self._pool.submit(self._executor.engine.release_memory)

    # In a thread of the pool.

    def _work(self, scope: Scope, user: User, spool: Spool, exchange: Exchange) -> list[Message]:
        """Run the query and send its answer but for the last messages, which are returned: when a
        client has those, its session is free again. Raises ClickHouseError, and ``Left`` where the
        answer is to break off.
        """
        try:
            plain = coding.decode(
                spool.pieces(),
                Headers(scope=scope).get("content-encoding", ""),
                self._plain_bytes(user),
            )
            request = read(scope, _translated(plain))
            with self._executor.execute(request, user, exchange.begins) as answer:
                return self._send(scope, request, answer, exchange)
        except Left:
            raise
        except Exception as raised:
            problem = raised if isinstance(raised, ClickHouseError) else from_engine(raised)
            if not isinstance(raised, ClickHouseError):
                _log.error("a query failed", exc_info=raised)
            if not exchange.started:
                raise problem from None
            # In the middle of an answer: its text, and an end that no client takes for a good one.
            exchange.more(b"\r\n__exception__\r\n" + _text(problem))
            raise Left from None

    def _plain_bytes(self, user: User) -> int:
        return READER_BODY_BYTES if user.reader else 4 * self._body_bytes

    def _send(
        self, scope: Scope, request: Request, answer: Answer, exchange: Exchange
    ) -> list[Message]:
        """One piece goes out with its length; more go out as they come."""
        if request.flag("wait_end_of_query"):
            first, second = b"".join(answer.pieces), None
        else:
            first, second = next(answer.pieces, b""), next(answer.pieces, None)
        encoding = ""
        if request.flag("enable_http_compression") and (first or second):
            encoding = coding.choose(Headers(scope=scope).get("accept-encoding", ""))
        packer = coding.encoder(encoding) if encoding else None
        if second is None:
            data = packer.compress(first) + packer.flush() if packer else first
            length = (b"content-length", b"%d" % len(data))
            return [
                head(200, [*self._head(answer, encoding), length]),
                body(b"" if scope["method"] == "HEAD" else data, False),
            ]
        exchange.start(200, self._head(answer, encoding))
        for piece in _again(first, second, answer.pieces):
            if data := packer.compress(piece) if packer else piece:
                exchange.more(data)
        return [body(packer.flush() if packer else b"", False)]

    def _common(self) -> RawHeaders:
        return [
            (b"x-clickhouse-server-display-name", NAME),
            (b"x-clickhouse-timezone", self._timezone),
        ]

    def _head(self, answer: Answer, encoding: str) -> RawHeaders:
        given = {
            "content-type": answer.content_type,
            "x-clickhouse-query-id": answer.query_id,
            "x-clickhouse-summary": answer.summary(),
            "x-clickhouse-format": answer.format,
            "content-encoding": encoding,
        }
        return [
            *self._common(),
            *((name.encode(), value.encode()) for name, value in given.items() if value),
        ]

    def _failed(self, problem: ClickHouseError) -> Response:
        answer = PlainTextResponse(_text(problem), problem.status)
        answer.raw_headers += [
            *self._common(),
            (b"x-clickhouse-exception-code", b"%d" % problem.code),
        ]
        return answer

    def _error(self, problem: WebError) -> Response:
        """What the web stack refuses, in ClickHouse's words."""
        if problem.status in (404, 405):
            problem = WebError(
                problem.status,
                "There is no handle of that name: use / for queries, /ping for health checks.\n",
            )
            return PlainTextResponse(str(problem), problem.status)
        if problem.status == 401:
            failure = error(
                AUTHENTICATION_FAILED,
                "Authentication failed: password is incorrect, or there is no user with such name",
            )
        else:
            failure = error(_KINDS.get(problem.status, UNKNOWN_EXCEPTION), str(problem))
        answer = self._failed(failure)
        # As ClickHouse does: a 401 would make browsers ask for a password, and keep it.
        answer.status_code = 403 if problem.status == 401 else problem.status
        for name, value in problem.headers.items():
            if name != "WWW-Authenticate":
                answer.headers[name] = value
        return answer


async def _ok(_request: WebRequest) -> Response:
    return PlainTextResponse("Ok.\n")


def _text(problem: ClickHouseError) -> bytes:
    return f"{problem}\n".encode("utf-8", "surrogateescape")


def _translated(plain: Iterator[bytes]) -> Iterator[bytes]:
    """The pieces of a body, errors of its encoding in ClickHouse's words."""
    try:
        yield from plain
    except coding.TooManyBytes as problem:
        raise error(TOO_LARGE, str(problem)) from None
    except coding.UnknownCoding as problem:
        raise error(UNKNOWN_COMPRESSION, str(problem)) from None
    except coding.CodingError as problem:
        raise error(CANNOT_DECOMPRESS, str(problem)) from None


def _again(first: bytes, second: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield second
    yield from rest
