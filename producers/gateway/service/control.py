"""Commands over HTTP, for agents and people without a route to Kafka.

``GET /v1/control`` streams the commands of the caller's projects as server-sent events, with
``guardrails=1`` also the guardrails of policies for these projects;
``POST /v1/runs/ID/control`` writes one to a run, ``POST /v1/control`` one to all runs of an agent
or project. The topic is read by one consumer for all streams.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.web import body as bodies
from stepstream.common.web.app import Raw
from stepstream.common.web.errors import WebError
from stepstream.common.web.exchange import body, head
from stepstream.common.web.front import CALLER, require
from stepstream.producers.control.listener import CommandListener
from stepstream.producers.gateway.service import callers
from stepstream.producers.gateway.service.guardrails import (
    GuardrailLog,
    GuardrailRecord,
    guardrail_event,
)
from stepstream.schemas.alert import Command
from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.ids import TRACE_ID
from stepstream.schemas.settings import Settings

MAX_STREAMS: Final = 1_000
MAX_RECENT: Final = 1_000
MAX_WAITING: Final = 1_000
"""Commands that a stream may be behind: a client that takes nothing for longer is disconnected."""
MAX_TRACES: Final = 100_000
HEARTBEAT_S: Final = 15.0
STOP_CHECK_S: Final = 0.5
BODY_BYTES: Final = 16_384
ACTIONS: Final = ("stop", "pause", "resume", "warn")
# How long a command to all runs applies to runs that start later.
DEFAULT_LASTS: Final = "5m"
_TO_RUN: Final = ("action", "by", "reason", "budget_usd")
_TO_ALL: Final = ("action", "by", "reason", "project", "agent", "environment", "for")
_EVENTS: Final = [(b"content-type", b"text/event-stream")]


@dataclass(frozen=True)
class Asked:
    """A command as it was asked for: to one run or, without ``trace_id``, to all runs of a project.

    ``agent`` and ``environment`` narrow the latter; it also applies to runs that start within
    ``lasts_us``.
    """

    trace_id: str
    project: str
    action: str
    by: str
    reason: str
    budget_usd: str = ""
    agent: str = ""
    environment: str = ""
    lasts_us: int = 0


SendCommand = Callable[[Asked], Command]
"""Writes the command and returns it once Kafka has it. Blocks; raises ``KafkaUnreachable`` and
``ValueError``.
"""

_encode = msgspec.json.Encoder().encode


class SeenTraces:
    """The projects of runs whose steps went through this gateway, the most recent ones.

    A key for some projects may command only their runs, and a trace id does not contain the
    project.
    """

    def __init__(self) -> None:
        self._projects: OrderedDict[str, str] = OrderedDict()
        self._guard = threading.Lock()

    def add(self, found: Iterable[tuple[str, str]]) -> None:
        """Note traces and their projects; HTTP and gRPC have a thread each.

        The first project of a trace stays: with a span of its own that has another run's trace id,
        a key could otherwise get the right to command that run.
        """
        with self._guard:
            for trace_id, project in found:
                self._projects.setdefault(trace_id, project)
                self._projects.move_to_end(trace_id)
            while len(self._projects) > MAX_TRACES:
                self._projects.popitem(last=False)

    def project_of(self, trace_id: str) -> str | None:
        """The project; None for a trace that was not seen."""
        return self._projects.get(trace_id)


@dataclass(eq=False)
class _Stream:
    """One open stream and what it wants."""

    projects: frozenset[str]
    agent: str
    traces: frozenset[str]
    queue: asyncio.Queue[Command | bytes]
    """Commands, and events about guardrails as they are sent."""
    guardrails: bool = False
    lost: bool = False

    def put(self, item: Command | bytes) -> None:
        """Queue something to send; a client that takes nothing for too long is disconnected."""
        try:
            self.queue.put_nowait(item)
        except asyncio.QueueFull:
            # It reads again from its last command, instead of missing some.
            self.lost = True

    def wants(self, command: Command) -> bool:
        """Whether a command is for this client."""
        if self.projects and command.project not in self.projects:
            return False
        if command.trace_id:
            return not self.traces or command.trace_id in self.traces
        return not self.agent or command.agent in ("", self.agent)


class ControlHub:
    """Delivers commands and guardrails from their topics to the open streams.

    ``deliver`` and the methods about guardrails are called by the listener's thread.
    """

    def __init__(self, settings: Settings) -> None:
        self.failures = 0
        self.malformed = 0
        self._guardrails = GuardrailLog(self._spread_guardrail)
        self._listener = CommandListener(settings, cast(Any, self), self._guardrails)
        self._recent: deque[Command] = deque(maxlen=MAX_RECENT)
        self._streams: set[_Stream] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def open(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    @property
    def follows(self) -> bool:
        """Whether the topic is read: every later command will be delivered."""
        return self._listener.ready.is_set()

    def deliver(self, command: Command) -> None:
        """Take a command over from the listener."""
        # Streams belong to the event loop; this runs in the thread of the listener.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._spread, command)

    def _spread(self, command: Command) -> None:
        self._recent.append(command)
        for stream in self._streams:
            if stream.wants(command):
                stream.put(command)

    def _spread_guardrail(self, changed: list[tuple[str, GuardrailRecord | None]]) -> None:
        # Called by the listener's thread; streams belong to the event loop.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._put_guardrails, changed)

    def _put_guardrails(self, changed: list[tuple[str, GuardrailRecord | None]]) -> None:
        for stream in self._streams:
            if stream.guardrails:
                for key, record in changed:
                    stream.put(guardrail_event(key, record, stream.projects))

    def join(self, stream: _Stream, last_id: str) -> None:
        """Open a stream; it gets what is still in force, behind the command ``last_id`` where that
        is known.
        """
        self._loop = asyncio.get_running_loop()
        self._listener.ensure()
        if len(self._streams) >= MAX_STREAMS:
            raise WebError(503, "too many control streams are open", {"Retry-After": "5"})
        known = [command.command_id for command in self._recent]
        start = known.index(last_id) + 1 if last_id in known else 0
        for command in list(self._recent)[start:]:
            if stream.wants(command):
                stream.queue.put_nowait(command)
        if stream.guardrails:
            for event in self._guardrails.events(stream.projects):
                stream.put(event)
        self._streams.add(stream)

    def leave(self, stream: _Stream) -> None:
        self._streams.discard(stream)

    def close(self) -> None:
        """Stop reading the topic."""
        self._listener.close()


class ControlEndpoints:
    """The handlers of the paths."""

    def __init__(
        self,
        hub: ControlHub,
        seen: SeenTraces,
        send_command: SendCommand,
        *,
        project: str,
        stopping: Callable[[], bool],
    ) -> None:
        self._hub = hub
        self._seen = seen
        self._send_command = send_command
        self._project = project
        self._stopping = stopping

    def routes(self) -> list[Route]:
        return [
            Route("/v1/control", Raw(self._stream), methods=["GET"]),
            Route("/v1/control", self._command_all, methods=["POST"]),
            Route("/v1/runs/{trace_id}/control", self._command, methods=["POST"]),
        ]

    async def _command(self, request: Request) -> Response:
        """Write a command to one run; answered when Kafka has it."""
        trace_id = request.path_params["trace_id"].lower()
        if not TRACE_ID.fullmatch(trace_id):
            raise WebError(400, "a run is named by its trace id: 32 hex digits")
        project = self._project_of(request.scope, trace_id)
        require(request.scope, "act", project)
        sent = _checked(await bodies.read(request.scope, request.receive, max_bytes=BODY_BYTES))
        return await self._written(
            Asked(
                trace_id,
                project,
                sent["action"],
                sent.get("by") or name_of(request),
                sent.get("reason", ""),
                sent.get("budget_usd", ""),
            )
        )

    async def _command_all(self, request: Request) -> Response:
        """Write a command to all runs of an agent or project; answered when Kafka has it."""
        read = await bodies.read(request.scope, request.receive, max_bytes=BODY_BYTES)
        sent = _checked(read, _TO_ALL)
        project = sent.get("project") or self._project
        require(request.scope, "act", project)
        return await self._written(
            Asked(
                "",
                project,
                sent["action"],
                sent.get("by") or name_of(request),
                sent.get("reason", ""),
                agent=sent.get("agent", ""),
                environment=sent.get("environment", ""),
                lasts_us=_lasts_us(sent.get("for", DEFAULT_LASTS)),
            )
        )

    async def _written(self, asked: Asked) -> Response:
        try:
            # It waits for the acknowledgement of Kafka, which would block all requests of the loop.
            command = await run_in_threadpool(self._send_command, asked)
        except KafkaUnreachable as error:
            raise WebError(503, str(error), {"Retry-After": "2"}) from None
        except ValueError as error:
            raise WebError(400, str(error)) from None
        return Response(_encode(command) + b"\n", 202, media_type="application/json")

    def _project_of(self, scope: Scope, trace_id: str) -> str:
        """The run's project. Raises ``WebError`` 404 where the caller may not know it."""
        seen = self._seen.project_of(trace_id)
        allowed = callers.projects_of(scope)
        # 404 and not 403: the answer must not show which runs of other projects exist.
        if allowed and (seen is None or seen not in allowed):
            raise WebError(
                404, "no run of this key's projects with that id has sent steps to this gateway"
            )
        return seen or self._project

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        require_any(scope)
        query = request.query_params
        allowed = callers.projects_of(scope)
        asked = frozenset(query.getlist("project"))
        if allowed and not asked <= allowed:
            raise WebError(403, "the key may not read commands of that project")
        stream = _Stream(
            asked or allowed,
            query.get("agent", ""),
            frozenset(one.lower() for one in query.getlist("trace_id")),
            asyncio.Queue(MAX_RECENT + MAX_WAITING),
            guardrails=query.get("guardrails", "") == "1",
        )
        self._hub.join(stream, request.headers.get("last-event-id", ""))
        # Without reading, a client that has left would be noticed only when a command is sent.
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send(head(200, _EVENTS))
            await send(body(b": commands of this gateway\n\n", True))
            await self._follow(stream, send, gone)
            await send(body(b"", False))
        finally:
            gone.cancel()
            self._hub.leave(stream)

    async def _follow(self, stream: _Stream, send: Send, gone: asyncio.Future[None]) -> None:
        quiet_s = 0.0
        while not gone.done() and not self._stopping() and not stream.lost:
            try:
                command = await asyncio.wait_for(stream.queue.get(), STOP_CHECK_S)
            except TimeoutError:
                quiet_s += STOP_CHECK_S
                if quiet_s >= HEARTBEAT_S:
                    quiet_s = 0.0
                    # A comment in terms of server-sent events: it keeps proxies from closing an
                    # idle stream.
                    await send(body(b": still here\n\n", True))
                continue
            quiet_s = 0.0
            event = command if isinstance(command, bytes) else _event(command)
            await send(body(event, True))


def require_any(scope: Scope) -> None:
    """Raise ``WebError`` 403 unless the caller may send steps for some project, and so may read
    commands to its runs.
    """
    caller = scope.get(CALLER)
    if caller is not None and "ingest" not in caller.scopes:
        raise WebError(403, f"credential {caller.name} lacks the scope ingest")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(command: Command) -> bytes:
    data = _encode(command)
    return b"id: %s\nevent: command\ndata: %s\n\n" % (command.command_id.encode(), data)


def name_of(request: Request) -> str:
    """The sender that is recorded where the request names none."""
    caller = request.scope.get(CALLER)
    return f"key {caller.name}" if caller else "gateway"


def _lasts_us(text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError as error:
        raise WebError(400, f"for: {error}") from None


def _checked(sent: bytes, names: tuple[str, ...] = _TO_RUN) -> dict[str, str]:
    """What was asked for, checked. Raises ``WebError`` 400."""
    fields = bodies.json_object(sent)
    for name, value in _known(fields, names):
        if not isinstance(value, str) or len(value) > 1_000:
            raise WebError(400, f"{name} is a text of at most 1000 characters")
    if fields.get("action") not in ACTIONS:
        raise WebError(400, f"action is one of {', '.join(ACTIONS)}")
    if fields.get("budget_usd") and fields["action"] != "resume":
        raise WebError(400, "budget_usd goes with the action resume")
    if fields.get("budget_usd") and "budget_usd" not in names:
        raise WebError(400, "budget_usd is for one run: /v1/runs/ID/control")
    return dict(_known(fields, names))


def _known(fields: dict[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name in names:
        if fields.get(name) is not None:
            yield name, fields[name]
