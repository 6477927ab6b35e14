"""The gateway's application without network and without Kafka: requests in, answers and records
out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from starlette.types import ASGIApp, Message

from stepstream.common.observe import Observer
from stepstream.common.web.app import create
from stepstream.common.web.headers import Hosts
from stepstream.common.web.key_file import KeyFile
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.service.admission import Admission
from stepstream.producers.gateway.service.callers import GatewayAccess
from stepstream.producers.gateway.service.control import SeenTraces
from stepstream.producers.gateway.service.counts import Counts
from stepstream.producers.gateway.service.http import Endpoints
from stepstream.producers.gateway.service.ingest import Ingest
from stepstream.producers.gateway.service.kafka_writer import Letter, NotAcknowledged, Record

HOST: Final = "127.0.0.1"


class MemoryWriter:
    """Keeps what it is given; fails where the test asks for it."""

    def __init__(self) -> None:
        self.stuck_s = 0.0
        self.is_probing = False
        self.retry_after_s = 2
        self.fails = ""
        self.records: list[Record] = []
        self.letters: list[Letter] = []

    async def write(
        self, records: Sequence[Record], letters: Sequence[Letter] = (), *, waited_s: float = 0.0
    ) -> None:
        """Take the records. Raises ``NotAcknowledged`` where the test asks for it."""
        if self.fails:
            raise NotAcknowledged(self.fails)
        self.records += records
        self.letters += letters


class App:
    """One application."""

    def __init__(self, *, max_body_bytes: int = 1 << 20, options: Options | None = None) -> None:
        self.writer = MemoryWriter()
        self.admission = Admission(64 << 20)
        self.observer = Observer()
        self.seen = SeenTraces()
        hosts = Hosts(HOST)
        writer: Any = self.writer
        endpoints = Endpoints(
            project="shop",
            max_body_bytes=max_body_bytes,
            ingest=Ingest(options or Options()),
            writer=writer,
            admission=self.admission,
            counts=Counts(self.observer),
            seen=self.seen,
        )
        self.routes = endpoints.routes()
        self.asgi: ASGIApp = create(
            self.routes,
            hosts=hosts,
            access=GatewayAccess(KeyFile(""), hosts),
            observed=self.observer,
        )

    async def post(
        self, path: str, body: bytes, headers: dict[str, str], *, read: bool = True
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an answer. ``read`` false: fails where the body is read."""
        raw = [(b"host", HOST.encode()), (b"content-length", str(len(body)).encode())]
        raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": raw,
            "client": (HOST, 1),
            "server": (HOST, 4318),
        }
        sent: list[Message] = []

        async def receive() -> Message:
            # Refusals must cost the gateway no memory, so they come before the body.
            assert read, "the body was read"
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await self.asgi(scope, receive, send)
        data = b"".join(message.get("body", b"") for message in sent[1:])
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], data, found

    def request(
        self, path: str, body: bytes, headers: dict[str, str], *, read: bool = True
    ) -> tuple[int, bytes, dict[str, str]]:
        """``post``, from code that is not asynchronous."""
        return asyncio.run(self.post(path, body, headers, read=read))
