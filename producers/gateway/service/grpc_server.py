"""OTLP over gRPC, for exporters that speak nothing else. Needs the extra ``grpc``.

The messages stay bytes until our own decoder reads them. A body has been read when the handler is
called, so only the library's own limit on a message protects memory.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import grpc
from starlette.types import Scope

from stepstream.common.web.access import Access
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import CALLER
from stepstream.producers.gateway.mapping.mapper import Origin
from stepstream.producers.gateway.otlp import answers
from stepstream.producers.gateway.otlp.answers import PROTOBUF, Signal
from stepstream.producers.gateway.otlp.malformed import Malformed, TooMany
from stepstream.producers.gateway.service import callers
from stepstream.producers.gateway.service.admission import Admission
from stepstream.producers.gateway.service.control import SeenTraces
from stepstream.producers.gateway.service.counts import Counts
from stepstream.producers.gateway.service.ingest import Batch, Ingest, mapped
from stepstream.producers.gateway.service.kafka_writer import (
    KafkaWriter,
    NoRoom,
    NotAcknowledged,
    is_away,
)

METHODS: Final[dict[str, Signal]] = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": "traces",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": "logs",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": "metrics",
}
# Exporters repeat UNAVAILABLE; RESOURCE_EXHAUSTED they repeat only with details that no library
# here writes.
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
}
START_S: Final = 20.0
GRACE_S: Final = 5.0


class Shared(NamedTuple):
    """What gRPC shares with HTTP; all of it may be used by several threads."""

    writer: KafkaWriter
    admission: Admission
    counts: Counts
    seen: SeenTraces


class GrpcServer:
    """Serves in a thread of its own."""

    def __init__(
        self,
        address: str,
        *,
        access: Access,
        project: str,
        max_bytes: int,
        ingest: Ingest,
        shared: Shared,
    ) -> None:
        """``address``: ``host:port``; port 0 takes a free one, see ``port``. Raises ``OSError``."""
        self._access = access
        self._project = project
        self._max_bytes = max_bytes
        self._ingest = ingest
        self._writer, self._admission, self._counts, self._seen = shared
        self._address = address
        self.port = 0
        self._error = ""
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-grpc", daemon=True)
        self._thread.start()
        self._started.wait(START_S)
        if self._error or not self.port:
            raise OSError(f"cannot serve gRPC at {address}: {self._error or 'no answer'}")

    def close(self) -> None:
        """Take no more calls, and end."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(GRACE_S + 2)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            self._error = str(error)
        finally:
            self._started.set()
            self._loop.close()

    async def _serve(self) -> None:
        options = [("grpc.max_receive_message_length", self._max_bytes)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((_Handlers(self),))
        self.port = server.add_insecure_port(self._address)
        await server.start()
        self._started.set()
        await self._stop.wait()
        await server.stop(GRACE_S)

    async def export(self, signal: Signal, data: bytes, context: Any) -> bytes:
        """Answer one call."""
        try:
            batch = await self._taken(signal, data, context)
        except WebError as error:
            self._counts.answered(f"grpc_{signal}", error.status)
            code = _CODES.get(error.status, grpc.StatusCode.UNKNOWN)
            await context.abort(code, str(error))
            raise AssertionError from None  # abort raises
        self._counts.answered(f"grpc_{signal}", 200, batch)
        reason = batch.sentence if batch.refused else ""
        return answers.success(signal, PROTOBUF, batch.refused, reason)

    async def _taken(self, signal: Signal, data: bytes, context: Any) -> Batch:
        scope = _scope_of(context)
        scope[CALLER] = await self._access.identify(scope)
        project = callers.project_of(scope, self._project)
        if signal == "metrics":
            return Batch()
        if is_away(self._writer):
            raise WebError(503, "Kafka does not answer at the moment")
        began = time.monotonic()
        refusal = self._admission.enter(len(data), project, began)
        if refusal is not None:
            raise WebError(refusal.status, refusal.sentence)
        counts = False
        try:
            origin = Origin(project, time.time_ns() // 1_000, callers.projects_of(scope))
            read = self._ingest.traces if signal == "traces" else self._ingest.logs
            batch = await mapped(read(data, PROTOBUF, origin))
            self._admission.spent(project, batch.items, time.monotonic())
            waited_s = time.monotonic() - began
            await self._writer.write(batch.records, batch.letters, waited_s=waited_s)
            self._seen.add(batch.projects.items())
            counts = True
            return batch
        except TooMany as error:
            raise WebError(413, str(error)) from None
        except Malformed as error:
            raise WebError(400, str(error)) from None
        except (NoRoom, NotAcknowledged) as error:
            raise WebError(503, str(error)) from None
        finally:
            self._admission.leave(len(data), began, time.monotonic(), counts=counts)


def _scope_of(context: Any) -> Scope:
    """What the HTTP side knows of a request: headers and the client's address."""
    headers = [
        (name.lower().encode(), value.encode("latin-1", "replace"))
        for name, value in context.invocation_metadata() or ()
        if isinstance(value, str)
    ]
    kind, _, rest = str(context.peer()).partition(":")
    host = rest.rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")
    client = (host, 0) if kind in ("ipv4", "ipv6") else None
    return {"type": "http", "headers": headers, "client": client}


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The methods by name; no generated code."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server

    def service(self, details: Any) -> Any:
        """The handler of a method; None for one that is not known."""
        signal = METHODS.get(details.method)
        if signal is None:
            return None
        server = self._server

        async def export(data: bytes, context: Any) -> bytes:
            return await server.export(signal, data, context)

        behavior: Callable[[bytes, Any], Awaitable[bytes]] = export
        return grpc.unary_unary_rpc_method_handler(behavior)
