"""A real HTTP receiver for tests and benchmarks: it answers as configured and keeps requests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from stepstream.common.web.server import WebServer


@dataclass
class Call:
    """A request that arrived as a whole."""

    # With the query.
    path: str
    # Found in any case.
    headers: Mapping[str, str]
    body: bytes
    # Unix time.
    at_s: float
    # Address and port of the client: the same for requests over one connection.
    peer: tuple[str, int] = ("", 0)

    @property
    def data(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def alerts(self) -> list[tuple[str, int]]:
        """Id and sequence number of each alert of a notification."""
        return [(one["alert_id"], one["seq"]) for one in self.data["alerts"]]


@dataclass
class Receiver:
    """``status`` decides each answer, in a thread that it may block; what was answered with 2xx
    counts as taken."""

    status: Callable[[Call], int] = lambda _call: 200
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b"thanks"
    taken: list[Call] = field(default_factory=list)
    refused: list[Call] = field(default_factory=list)
    url: str = ""

    def alerts_taken(self) -> list[tuple[str, int]]:
        """Every (alert, seq) that was taken, in order, with repeats."""
        return [pair for call in list(self.taken) for pair in call.alerts]

    async def respond(self, request: Request) -> Response:
        """Answer a request. One that its client left before its end is no call."""
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        query = f"?{request.url.query}" if request.url.query else ""
        client = request.client
        peer = (client.host, client.port) if client is not None else ("", 0)
        path = request.scope["raw_path"].decode() + query
        call = Call(path, request.headers, body, time.time(), peer)
        status = await run_in_threadpool(self.status, call)
        (self.taken if 200 <= status < 300 else self.refused).append(call)
        return Response(self.answer, status, self.headers)


@contextmanager
def receiver(**given: Any) -> Iterator[Receiver]:
    """A ``Receiver`` with these fields, on loopback, for as long as it is needed."""
    found = Receiver(**given)
    with serving(
        Starlette(routes=[Route("/{path:path}", found.respond, methods=["POST"])])
    ) as found.url:
        yield found


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The URL of an application that is served on loopback."""
    server = WebServer(app, "127.0.0.1", 0, grace_s=1)
    server.start("receiver")
    try:
        yield server.url
    finally:
        server.close()
