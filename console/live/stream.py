"""Server-sent events: one stream a tab, with everything that its page follows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from confluent_kafka import KafkaException
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from stepstream.admin.versions import package_versions
from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import require
from stepstream.console.encode import json_bytes
from stepstream.console.live.tail import Tail
from stepstream.console.live.view import View, event_id, positions_of
from stepstream.console.login import User, user_of
from stepstream.console.store import Store
from stepstream.schemas.ids import TRACE_ID

MAX_STREAMS: Final = 300
FRAME_S: Final = 0.1
CHANGED_S: Final = 2.0
STATE_S: Final = 1.0
QUIET_S: Final = 5.0
STORE_CHECK_S: Final = 2.0
ACCESS_CHECK_S: Final = 2.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
    (b"connection", b"close"),
]


class Streams:
    """All streams of the process."""

    def __init__(
        self,
        tail: Tail,
        store: Store,
        stopping: Callable[[], bool],
        identify: Callable[[Scope], Awaitable[User]],
    ) -> None:
        """``identify`` returns whose request it is, and raises ``WebError``."""
        self.tail = tail
        self.identify = identify
        self.store = store
        self.stopping = stopping
        self.open = 0
        # What blocks for a moment: reading back, and waiting for Kafka.
        self.pool = ThreadPoolExecutor(4, thread_name_prefix="live")
        self._checked_s = 0.0

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The endpoint ``/api/v1/live``."""
        require(scope, "read")
        if self.open >= MAX_STREAMS:
            raise WebError(503, "too many streams are open", {"Retry-After": "5"})
        stream = Stream(self, Request(scope))
        self.open += 1
        self.tail.enter()
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            async for event in stream.events(gone):
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()
            stream.close()
            self.tail.leave()
            self.open -= 1

    async def check_store(self) -> None:
        """Ask the store whether it answers, every two seconds for all streams."""
        if time.monotonic() - self._checked_s >= STORE_CHECK_S:
            self._checked_s = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(self.pool, self.store.check)

    def close(self) -> None:
        self.pool.shutdown(wait=False)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Stream:
    """One viewer."""

    def __init__(self, streams: Streams, request: Request) -> None:
        """Raises ``WebError`` 400 for a run's id that is none."""
        query = request.query_params
        self._streams = streams
        self._scope = request.scope
        self._user = user_of(request.scope)
        self._checked_s = time.monotonic()
        self._run = query.get("run", "").strip().lower()
        if self._run and not TRACE_ID.fullmatch(self._run):
            raise WebError(400, "run is the whole id of a run: 32 hex digits")
        self._wants_runs = query.get("runs", "") in ("1", "true")
        self._wants_tasks = query.get("tasks", "") in ("1", "true")
        self._resume = positions_of(request.headers.get("last-event-id", ""))
        self._views: list[View] = []
        tail = streams.tail
        allowed = self._allowed
        if self._run:
            self._views.append(View(tail, "steps", self._run, allowed))
        if query.get("alerts", "") in ("1", "true"):
            self._views.append(View(tail, "alerts", "", allowed))
        self._opened = False
        self._seen = (-1, 0.0)
        self._seen_tasks = streams.tail.stored_task_changes
        self._state: tuple[dict[str, Any], float] = ({}, 0.0)

    def _allowed(self, project: str) -> bool:
        return self._user.allows("read", project)

    async def events(self, gone: asyncio.Future[None]) -> AsyncIterator[bytes]:
        """Events, until the client has gone, may read no more, or the server stops."""
        yield b"retry: 1000\n" + self._event("hello", hello(self._user))
        while not gone.done() and not self._streams.stopping() and await self._may_read():
            began = time.monotonic()
            found = [*await self._frame()]
            if found:
                yield b"".join(found)
            rest = FRAME_S - (time.monotonic() - began)
            await asyncio.wait([gone], timeout=max(0.02, rest))

    async def _may_read(self) -> bool:
        """Whether session or key are valid still; a stream may last longer than they do."""
        if time.monotonic() - self._checked_s < ACCESS_CHECK_S:
            return True
        self._checked_s = time.monotonic()
        try:
            self._user = await self._streams.identify(self._scope)
        except WebError:
            return False
        return self._user.allows("read")

    async def _frame(self) -> list[bytes]:
        """What is to be sent now."""
        found: list[bytes] = []
        try:
            if not self._opened:
                found += await self._open()
            elif any(view.is_overtaken for view in self._views):
                found += await self._resync()
            if self._opened:
                found += [event for view in self._views for event in self._taken(view)]
        except (KafkaUnreachable, KafkaException):
            pass  # the state event reports the outage; the next frame tries again
        except KeyError:
            # The buffers were freed between two viewers.
            self._opened = False
        found += self._changed()
        found += self._changed_tasks()
        await self._streams.check_store()
        found += self._state_event()
        return found

    async def _open(self) -> list[bytes]:
        if not self._streams.tail.is_ready:
            return []
        loop = asyncio.get_running_loop()
        found = []
        for view in self._views:
            view.close()
            resumed = await loop.run_in_executor(self._streams.pool, view.open, self._resume)
            found.append(self._ready(view, resumed))
        self._opened = True
        return found

    async def _resync(self) -> list[bytes]:
        loop = asyncio.get_running_loop()
        found = [self._event("resync", {"reason": "this page was too far behind"})]
        for view in self._views:
            if view.is_overtaken:
                await loop.run_in_executor(self._streams.pool, view.begin, {})
                found.append(self._ready(view, False))
        return found

    def _ready(self, view: View, resumed: bool) -> bytes:
        about = {"run": view.key} if view.key else {"alerts": True}
        return self._event("ready", {**about, "resumed": resumed, "store_behind": view.behind})

    def _taken(self, view: View) -> list[bytes]:
        items = view.take()
        if not items:
            return []
        if view.name == "alerts":
            return [self._event("alerts", {"alerts": items})]
        return [self._event("steps", {"run": view.key, "steps": items})]

    def _changed(self) -> list[bytes]:
        count, at = self._seen
        now = time.monotonic()
        seen = self._streams.tail.seen_steps
        if not self._wants_runs or seen == count or now - at < CHANGED_S:
            return []
        self._seen = (seen, now)
        return [self._event("changed", {"runs": True})]

    def _changed_tasks(self) -> list[bytes]:
        # The tail asks for the sink's progress once a second, so this is no more frequent.
        stored = self._streams.tail.stored_task_changes
        if not self._wants_tasks or stored == self._seen_tasks:
            return []
        self._seen_tasks = stored
        return [self._event("changed", {"tasks": True})]

    def _state_event(self) -> list[bytes]:
        state = state_of(self._streams.tail, self._streams.store)
        known, at = self._state
        since_s = time.monotonic() - at
        # Times and the number of records that the store lacks change all the time.
        same = {**state, "store": {**state["store"], "behind": 0}, "data_as_of": 0}
        if since_s < STATE_S or (since_s < QUIET_S and same == known):
            return []
        self._state = (same, time.monotonic())
        return [self._event("state", {**state, "server_time": time.time_ns() // 1_000})]

    def _event(self, name: str, data: object) -> bytes:
        lines = [f"event: {name}".encode()]
        positions = {
            place: at
            for view in self._views
            for place, at in view.positions.items()
            # Until what was read again is sent, a position would leave it out after a reconnect.
            if not any(source.earlier for source in view.sources)
        }
        if positions and self._opened:
            lines.append(b"id: " + event_id(positions).encode())
        lines.append(b"data: " + json_bytes(data).rstrip(b"\n"))
        return b"\n".join(lines) + b"\n\n"

    def close(self) -> None:
        with contextlib.suppress(KeyError):
            for view in self._views:
                view.close()


def hello(user: User) -> dict[str, Any]:
    """The first event."""
    return {
        "server_time": time.time_ns() // 1_000,
        "version": package_versions()["stepstream"],
        "user": user.name,
    }


def state_of(tail: Tail, store: Store) -> dict[str, Any]:
    """How old the data is, and what does not answer."""
    health = tail.health
    return {
        "data_as_of": health.caught_up_us,
        "kafka": {"ok": health.kafka_ok, "since": health.kafka_since_us},
        "store": {
            "ok": not store.failed_since_us,
            "since": store.failed_since_us,
            "behind": health.behind,
            "error": store.failure,
        },
    }
