"""``GET /v1/releases/AGENT/NAME``: releases for agents without a route to Kafka.

The topic is read by one thread, from the first request on. While Kafka does not answer, what is in
memory is answered: all releases up to a bound, of which those that labels name are removed last. An
agent asks again with the ETag it has, and gets 304 without a body.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Final

from confluent_kafka import KafkaException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepstream.common.kafka import Follower, KafkaUnreachable
from stepstream.common.release_topic import apply_messages, read_contents, release_topic
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import CALLER
from stepstream.schemas.release import Release, encode_release
from stepstream.schemas.release_log import IN_A_GATEWAY, Published, ReleaseLog
from stepstream.schemas.settings import Settings

POLL_S: Final = 0.5
PAUSE_S: Final = 1.0
READY_S: Final = 5.0
"""The longest wait of a request for the first reading of the topic."""
READY_CHECK_S: Final = 0.05
MAX_NAME: Final = 128
_log = logging.getLogger("stepstream.gateway")


class ReleaseReader:
    """Follows the topic in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._reading = threading.Lock()
        self._releases = ReleaseLog(IN_A_GATEWAY)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.ready = threading.Event()
        """Set once the topic was read to its end."""

    def ensure(self) -> None:
        """Start, unless it has started."""
        with self._guard:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="gateway-releases", daemon=True
                )
                self._thread.start()

    def find(self, agent: str, name: str) -> Published | None:
        """The release that a label, version or hash names."""
        with self._guard:
            return self._releases.find_published(agent, name)

    def contents(self, published: Published) -> Release | None:
        """The release with its contents, which are read again if they are not in memory.

        Blocks then, and raises ``KafkaUnreachable``.
        """
        if published.is_complete:
            return published.release
        with self._reading:  # one at a time: each has up to a megabyte
            return read_contents(self._settings, published)

    def close(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * POLL_S)

    def _work(self) -> None:
        while not self._stopping.is_set():
            follower = Follower(self._settings, release_topic(self._settings))
            try:
                self._follow(follower)
            # Kafka does not answer, or its answer cannot be read.
            except Exception as error:
                _log.warning("releases cannot be read, trying again: %s", error)
                self._stopping.wait(PAUSE_S)
            finally:
                follower.close()

    def _follow(self, follower: Follower) -> None:
        found = ReleaseLog(IN_A_GATEWAY)
        apply_messages(found, follower.read_all())
        with self._guard:
            self._releases = found
        self.ready.set()
        while not self._stopping.is_set():
            messages = follower.poll(POLL_S)
            with self._guard:
                apply_messages(found, messages)
            if not follower.exists:  # an installation without the topic, until it is created
                self._stopping.wait(PAUSE_S)


class ReleaseEndpoint:
    """The handler of the path."""

    def __init__(self, reader: ReleaseReader) -> None:
        self._reader = reader

    def routes(self) -> list[Route]:
        return [Route("/v1/releases/{agent}/{name}", self._release, methods=["GET"])]

    async def _release(self, request: Request) -> Response:
        caller = request.scope.get(CALLER)
        # A release belongs to no project: a scope of its own decides who may read prompts.
        if caller is not None and "releases" not in caller.scopes:
            raise WebError(
                403,
                f"credential {caller.name} lacks the scope releases: "
                "`stepstream keys create --releases` makes a key with it",
            )
        agent, name = request.path_params["agent"], request.path_params["name"]
        await self._until_ready()
        found = self._reader.find(agent, name) if max(len(agent), len(name)) <= MAX_NAME else None
        if found is None:
            raise WebError(404, "there is no such release")
        etag = f'"{found.release.hash}"'
        # Always asked again: a label may name another release at any time.
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if matches(request.headers.get("if-none-match", ""), etag):
            return Response(b"", 304, headers)
        release = await self._contents(found)
        return Response(encode_release(release), 200, headers, "application/json")

    async def _contents(self, found: Published) -> Release:
        try:
            release = await asyncio.to_thread(self._reader.contents, found)
        except (KafkaUnreachable, KafkaException):
            raise _away() from None
        if release is None:
            raise WebError(404, "the release was deleted")
        return release

    async def _until_ready(self) -> None:
        self._reader.ensure()
        deadline = time.monotonic() + READY_S
        while not self._reader.ready.is_set():
            if time.monotonic() > deadline:
                raise _away()
            await asyncio.sleep(READY_CHECK_S)


def _away() -> WebError:
    return WebError(503, "Kafka does not answer at the moment", {"Retry-After": "2"})


def matches(header: str, etag: str) -> bool:
    """Whether an ``If-None-Match`` names the tag (RFC 9110, 13.1.2)."""
    return any(
        one.strip().removeprefix("W/") == etag or one.strip() == "*" for one in header.split(",")
    )
