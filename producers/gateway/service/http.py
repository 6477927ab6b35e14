"""The HTTP endpoints that take data: OTLP traces, logs and metrics, and steps as JSON."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepstream.common.web import body as bodies
from stepstream.common.web.errors import WebError, json_body
from stepstream.producers.gateway.mapping.mapper import Origin
from stepstream.producers.gateway.otlp import answers
from stepstream.producers.gateway.otlp.answers import JSON, PROTOBUF, Signal
from stepstream.producers.gateway.otlp.malformed import Malformed, TooMany
from stepstream.producers.gateway.service import callers, openapi
from stepstream.producers.gateway.service.admission import UNKNOWN_BYTES, Admission
from stepstream.producers.gateway.service.control import SeenTraces
from stepstream.producers.gateway.service.counts import Counts
from stepstream.producers.gateway.service.ingest import Batch, Ingest, mapped
from stepstream.producers.gateway.service.kafka_writer import (
    KafkaWriter,
    NoRoom,
    NotAcknowledged,
    is_away,
)

INFLATED_BYTES: Final = 64 << 20
"""Bytes that a body may have when it is decompressed."""
BODY_WAIT_S: Final = 20.0
BODY_S: Final = 60.0
"""Longest wait for the next part of a body, and for all of it. Exporters give up after 10 s."""
MAPPED_AT_ONCE: Final = 2
"""Bodies that are decompressed and mapped at the same time: a large one and those that follow.

More would not be faster in one thread, would all end late, and each may have 64 MiB.
"""
_STEP_FORMS: Final = frozenset(
    {JSON, "application/x-ndjson", "application/jsonl", "application/json-lines"}
)

Read = Callable[[bytes, str, Origin], Iterator[Batch]]


class Endpoints:
    """The handlers of the paths that take data."""

    def __init__(
        self,
        *,
        project: str,
        max_body_bytes: int,
        ingest: Ingest,
        writer: KafkaWriter,
        admission: Admission,
        counts: Counts,
        seen: SeenTraces,
    ) -> None:
        self._project = project
        self._max_body_bytes = max_body_bytes
        self._ingest = ingest
        self._writer = writer
        self._admission = admission
        self._counts = counts
        self._seen = seen
        self._mapping = asyncio.Semaphore(MAPPED_AT_ONCE)
        self._description = json_body(openapi.document())

    def routes(self) -> list[Route]:
        """The paths. What stands before ``/v1/traces`` is ignored: exporters are configured with
        and without prefixes.
        """
        post = ["POST"]
        found: list[Route] = []
        for signal, endpoint in (
            ("traces", self._traces),
            ("logs", self._logs),
            ("metrics", self._metrics),
        ):
            paths = (f"/v1/{signal}", f"/v1/{signal}/", f"/{{prefix:path}}/v1/{signal}")
            found += [Route(path, endpoint, methods=post) for path in paths]
        bare = ("/", "/api/public/otel", "/api/public/otel/", "/v1")
        found += [Route(path, self._traces, methods=post) for path in bare]
        found.append(Route("/v1/steps", self._steps, methods=post))
        found.append(Route(openapi.PATH, self._openapi, methods=["GET"]))
        return found

    async def _openapi(self, _request: Request) -> Response:
        return Response(self._description, media_type=JSON)

    async def _traces(self, request: Request) -> Response:
        return await self._otlp(request, "traces", self._ingest.traces)

    async def _logs(self, request: Request) -> Response:
        return await self._otlp(request, "logs", self._ingest.logs)

    async def _metrics(self, request: Request) -> Response:
        """Answered, because one setting sends all three signals; nothing is kept."""
        form = _form_of(request)
        if form is None:
            return _failed(WebError(415, _FORMS), JSON)
        self._counts.answered("metrics", 200)
        return Response(answers.success("metrics", form), media_type=form)

    async def _otlp(self, request: Request, signal: Signal, read: Read) -> Response:
        form = _form_of(request)
        try:
            if form is None:
                raise WebError(415, _FORMS)
            batch = await self._taken(request, lambda data, origin: read(data, form, origin))
        except WebError as error:
            self._counts.answered(signal, error.status)
            return _failed(error, form or JSON)
        self._counts.answered(signal, 200, batch)
        sentence = batch.sentence if batch.refused else ""
        return Response(answers.success(signal, form, batch.refused, sentence), media_type=form)

    async def _steps(self, request: Request) -> Response:
        """Steps as JSON: 200 where at least one was taken, else 400 with the reasons."""
        try:
            if _media_type(request) not in _STEP_FORMS:
                raise WebError(
                    415,
                    "send application/json (an object or a list) or application/x-ndjson (one "
                    "object a line)",
                )
            batch = await self._taken(request, self._ingest.steps)
        except WebError as error:
            self._counts.answered("steps", error.status)
            raise
        status = 400 if batch.refused and not batch.taken else 200
        self._counts.answered("steps", status, batch)
        body: dict[str, Any] = {"accepted": batch.taken, "rejected": batch.refused}
        if batch.refused:
            body |= {"error": batch.sentence, "code": "rejected", "rejections": batch.details}
        return Response(json_body(body), status, media_type="application/json")

    async def _taken(
        self, request: Request, read: Callable[[bytes, Origin], Iterator[Batch]]
    ) -> Batch:
        """Read a request and write it to Kafka. Raises ``WebError`` for what is no 200."""
        scope = request.scope
        project = callers.project_of(scope, self._project)
        size = _declared_bytes(request)
        if size > self._max_body_bytes:
            raise WebError(413, f"the body is larger than {self._max_body_bytes} bytes")
        # While Kafka does not answer one request at a time is let through to find out when it does:
        # all others would fill the producer's queue with what their clients send again.
        if is_away(self._writer):
            raise WebError(503, "Kafka does not answer at the moment", self._retry_later())
        began = time.monotonic()
        if (refusal := self._admission.enter(size, project, began)) is not None:
            raise WebError(
                refusal.status, refusal.sentence, {"Retry-After": str(refusal.retry_after_s)}
            )
        counts, waited_s = False, 0.0
        try:
            parts = [piece async for piece in self._pieces(request)]
            arrived = time.monotonic()
            waited_s = arrived - began
            async with self._mapping:
                data = bodies.decompressed(scope, parts, INFLATED_BYTES)
                origin = Origin(project, time.time_ns() // 1_000, callers.projects_of(scope))
                batch = await mapped(read(data, origin))
            # The number of spans is known only now, so a project that sent too many is refused next
            # time.
            self._admission.spent(project, batch.items, time.monotonic())
            await self._written(batch, arrived)
            self._seen.add(batch.projects.items())
            counts = True
            return batch
        except TooMany as error:
            raise WebError(413, str(error)) from None
        except Malformed as error:
            raise WebError(400, str(error)) from None
        finally:
            self._admission.leave(size, began, time.monotonic(), counts=counts, waited_s=waited_s)

    def _pieces(self, request: Request) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        return bodies.pieces(
            request.scope,
            request.receive,
            max_bytes=self._max_body_bytes,
            wait_s=BODY_WAIT_S,
            total_s=BODY_S,
        )

    async def _written(self, batch: Batch, arrived: float) -> None:
        waited_s = time.monotonic() - arrived
        try:
            await self._writer.write(batch.records, batch.letters, waited_s=waited_s)
        except NoRoom as error:
            raise WebError(503, str(error), {"Retry-After": "1"}) from None
        except NotAcknowledged as error:
            raise WebError(503, f"nothing was acknowledged: {error}", self._retry_later()) from None

    def _retry_later(self) -> dict[str, str]:
        return {"Retry-After": str(self._writer.retry_after_s)}


_FORMS: Final = f"Content-Type must be {PROTOBUF} or {JSON}"


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _form_of(request: Request) -> str | None:
    media = _media_type(request)
    return media if media in (PROTOBUF, JSON) else None


def _declared_bytes(request: Request) -> int:
    length = Headers(scope=request.scope).get("content-length")
    return int(length) if length is not None and length.isdigit() else UNKNOWN_BYTES


def _failed(error: WebError, form: str) -> Response:
    data = answers.failure(error.status, str(error), form)
    return Response(data, error.status, error.headers, form)
