"""Tasks over HTTP, for programs without a route to Kafka.

``POST /v1/tasks`` asks for a run of an agent; ``GET /v1/tasks/ID`` is the task's newest state, with
``wait`` once it is final; ``GET /v1/tasks/ID/events`` streams each change as server-sent events;
``POST /v1/tasks/ID/cancel`` and ``retry`` are commands. All need a key with the scope ``act``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.web import body as bodies
from stepstream.common.web.app import Raw
from stepstream.common.web.errors import WebError, json_body
from stepstream.common.web.exchange import body, head
from stepstream.common.web.front import require
from stepstream.producers.gateway.service.control import name_of
from stepstream.producers.tasks.requests import submit_record, task_id
from stepstream.producers.tasks.ways import KafkaWay, TaskNotSent, now_us
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_state import FINAL, TaskState, encode_state

BODY_BYTES: Final = 1 << 20
MAX_STREAMS: Final = 1_000
LONGEST_WAIT_S: Final = 60.0
CHECK_S: Final = 0.05
"""How often a waiting request looks for a change, which is in memory."""
HEARTBEAT_S: Final = 15.0
ANSWER_S: Final = 1.0
"""How long a submit with an id waits for a refusal: the same id with another input."""
KEY_HEADER: Final = "idempotency-key"
_JSON: Final = "application/json"
_EVENTS: Final = [(b"content-type", b"text/event-stream")]


class TaskHub:
    """The way to the scheduler, connected with the first request."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._way: KafkaWay | None = None
        self.open = 0
        """Requests that wait for a change."""

    @property
    def way(self) -> KafkaWay:
        if self._way is None:
            self._way = KafkaWay(self._settings)
        return self._way

    def close(self) -> None:
        if self._way is not None:
            self._way.close()


class TaskEndpoints:
    """The handlers of the paths."""

    def __init__(self, hub: TaskHub, *, project: str, stopping: Callable[[], bool]) -> None:
        self._hub = hub
        self._project = project
        self._stopping = stopping

    def routes(self) -> list[Route]:
        one = "/v1/tasks/{task_id:path}"
        return [
            Route("/v1/tasks", self._submit, methods=["POST"]),
            Route(f"{one}/events", Raw(self._events), methods=["GET"]),
            Route(f"{one}/cancel", self._cancel, methods=["POST"]),
            Route(f"{one}/retry", self._retry, methods=["POST"]),
            Route(one, self._state, methods=["GET"]),
        ]

    async def _submit(self, request: Request) -> Response:
        """Accept a task: answered when Kafka has it."""
        bodies.require_json(request.scope)
        fields = await self._fields(request)
        project = self._project_of(request.scope, fields.pop("project", ""))
        _take_key(fields, request.headers.get(KEY_HEADER, ""))
        by = name_of(request)
        try:
            record = submit_record(fields, project=project, by=by, now_us=now_us())
        except ValueError as error:
            raise WebError(400, str(error)) from None
        way = self._hub.way
        sent = await self._sent(lambda: way.submit(record))
        if "id" in fields:
            detail = await self._within(
                ANSWER_S, lambda: way.states.answer(project, record.task_id, sent)
            )
            if detail:
                raise WebError(409, f"task {record.task_id}: {detail}")
        return Response(
            json_body({"task_id": record.task_id, "project": project}), 202, media_type=_JSON
        )

    async def _state(self, request: Request) -> Response:
        """The newest state; with ``wait`` the final one, or the newest after so many seconds."""
        project, named = self._place(request)
        wait_s = _seconds(request.query_params.get("wait", "0"))
        state = await self._first(project, named)
        if wait_s and (state is None or state.state not in FINAL):
            state = await self._changed(project, named, wait_s) or state
        if state is None:
            raise WebError(404, f"project {project} has no task {named}")
        return Response(encode_state(state), 200, media_type=_JSON)

    async def _cancel(self, request: Request) -> Response:
        return await self._commanded(request, self._hub.way.cancel)

    async def _retry(self, request: Request) -> Response:
        return await self._commanded(request, self._hub.way.retry)

    async def _commanded(self, request: Request, send: Callable[..., object]) -> Response:
        fields = await self._fields(request)
        named = _checked_id(request.path_params["task_id"])
        project = self._project_of(request.scope, fields.get("project", ""))
        reason, by = fields.get("reason", ""), fields.get("by") or name_of(request)
        for name, value in (("reason", reason), ("by", by)):
            if not isinstance(value, str) or len(value) > 500:
                raise WebError(400, f"{name} is a text of at most 500 characters")
        await self._sent(lambda: send(project, named, reason, by))
        return Response(json_body({"task_id": named, "project": project}), 202, media_type=_JSON)

    async def _events(self, scope: Scope, receive: Receive, send: Send) -> None:
        project, named = self._place(Request(scope, receive))
        state = await self._first(project, named)
        if state is None:
            raise WebError(404, f"project {project} has no task {named}")
        if self._hub.open >= MAX_STREAMS:
            raise WebError(503, "too many requests wait for tasks", {"Retry-After": "5"})
        gone = asyncio.ensure_future(_disconnected(receive))
        self._hub.open += 1
        try:
            await send(head(200, _EVENTS))
            await self._follow(state, send, gone)
            await send(body(b"", False))
        finally:
            self._hub.open -= 1
            gone.cancel()

    async def _follow(self, state: TaskState, send: Send, gone: asyncio.Future[None]) -> None:
        states = self._hub.way.states
        sent_s = time.monotonic()
        await send(body(_event(state), True))
        while state.state not in FINAL and not gone.done() and not self._stopping():
            await asyncio.sleep(CHECK_S)
            newest = states.known(state.project, state.task_id) or state
            if (newest.epoch, newest.revision) != (state.epoch, state.revision):
                state, sent_s = newest, time.monotonic()
                await send(body(_event(state), True))
            elif time.monotonic() - sent_s > HEARTBEAT_S:
                # A comment: it keeps proxies from closing an idle stream.
                sent_s = time.monotonic()
                await send(body(b": still here\n\n", True))

    async def _first(self, project: str, named: str) -> TaskState | None:
        """What is known of a task; read again from Kafka where it is not in memory."""
        states = self._hub.way.states
        try:
            return await run_in_threadpool(states.find, project, named)
        except KafkaUnreachable as error:
            raise WebError(503, str(error), {"Retry-After": "2"}) from None

    async def _changed(self, project: str, named: str, wait_s: float) -> TaskState | None:
        """The state once it is final, or the newest after ``wait_s``."""
        if self._hub.open >= MAX_STREAMS:
            raise WebError(503, "too many requests wait for tasks", {"Retry-After": "5"})
        states = self._hub.way.states

        def final() -> TaskState | None:
            found = states.known(project, named)
            return found if found is not None and found.state in FINAL else None

        self._hub.open += 1
        try:
            return await self._within(wait_s, final) or states.known(project, named)
        finally:
            self._hub.open -= 1

    async def _within(self, seconds: float, found: Callable[[], Any]) -> Any:
        """What ``found`` returns once that is not None; None after so many seconds."""
        deadline = time.monotonic() + seconds
        while (value := found()) is None:
            if time.monotonic() >= deadline or self._stopping():
                return None
            await asyncio.sleep(CHECK_S)
        return value

    async def _sent(self, send: Callable[[], Any]) -> Any:
        try:
            # It waits for the acknowledgement of Kafka, which would block all requests of the loop.
            return await run_in_threadpool(send)
        except TaskNotSent as error:
            raise WebError(503, str(error), {"Retry-After": "2"}) from None

    async def _fields(self, request: Request) -> dict[str, Any]:
        read = await bodies.read(request.scope, request.receive, max_bytes=BODY_BYTES)
        return bodies.json_object(read)

    def _place(self, request: Request) -> tuple[str, str]:
        project = self._project_of(request.scope, request.query_params.get("project", ""))
        return project, _checked_id(request.path_params["task_id"])

    def _project_of(self, scope: Scope, asked: object) -> str:
        if not isinstance(asked, str):
            raise WebError(400, "project is a text")
        project = asked or self._project or "default"
        require(scope, "act", project)
        return project


def _take_key(fields: dict[str, Any], key: str) -> None:
    """The idempotency key is the task's id."""
    if not key:
        return
    if fields.get("id") not in (None, key):
        raise WebError(400, f"id and the header {KEY_HEADER} name different tasks")
    fields["id"] = key


def _checked_id(given: str) -> str:
    try:
        return task_id(given)
    except ValueError as error:
        raise WebError(400, str(error)) from None


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found <= LONGEST_WAIT_S:
        raise WebError(400, f"wait is a number of seconds from 0 to {LONGEST_WAIT_S:.0f}")
    return found


def _event(state: TaskState) -> bytes:
    name = b"result" if state.state in FINAL else b"state"
    place = f"{state.epoch}-{state.revision}".encode()
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (place, name, encode_state(state))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
