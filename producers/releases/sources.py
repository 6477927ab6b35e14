"""Where an agent's releases come from: the topic ``releases``, or a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote

from stepstream.producers.forks import fork_lock
from stepstream.schemas.endpoint import is_http, split_http_endpoint
from stepstream.schemas.release import Release, decode_release

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

PATH: Final = "/v1/releases"
ANSWER_S: Final = 10.0
POLL_S: Final = 10.0
"""Pause between two requests to a gateway; an unchanged release is answered without a body."""
KAFKA_POLL_S: Final = 0.5


class NotPublished(Exception):
    """The endpoint answered: it has no such release."""


class ReleaseSource(Protocol):
    """Reads one release, again and again."""

    pause_s: float
    """How long to wait after ``newest`` has returned None."""

    def newest(self) -> Release | None:
        """The release now; None where it is the one that was returned last.

        Blocks until there may be something new. Raises ``NotPublished``, ``WrongRelease``, and the
        errors of the connection.
        """

    def close(self) -> None:
        """Close the connection."""


def source_of(settings: Settings, agent: str, name: str) -> ReleaseSource:
    """The source at the endpoint of the settings. Nothing is connected yet."""
    kind = GatewaySource if is_http(settings.endpoint) else TopicSource
    return kind(settings, agent, name)


class TopicSource:
    """Reads the topic: first to its end, then what comes."""

    pause_s = 0.0  # a poll waits for records

    def __init__(self, settings: Settings, agent: str, name: str) -> None:
        self._settings = settings
        self._agent = agent
        self._name = name
        self._follower: Any = None
        self._log: Any = None
        self._hash = ""

    def newest(self) -> Release | None:
        with fork_lock.importing():
            from stepstream.common.kafka import Follower
            from stepstream.common.release_topic import (
                apply_messages,
                read_contents,
                release_topic,
            )
            from stepstream.schemas.release_log import IN_AN_AGENT, ReleaseLog

        if self._log is None:
            log = ReleaseLog(IN_AN_AGENT)
            follower = Follower(self._settings, release_topic(self._settings))
            apply_messages(log, follower.read_all(), only=self._agent)
            self._log, self._follower = log, follower
        else:
            messages = self._follower.poll(KAFKA_POLL_S)
            apply_messages(self._log, messages, only=self._agent)
        found = self._log.find_published(self._agent, self._name)
        if found is None:
            versions = ", ".join(one.release.version for one in self._log.releases(self._agent))
            raise NotPublished(
                f"there is no {self._agent}@{self._name} (it has: {versions or '-'})"
            )
        if found.release.hash == self._hash:
            return None
        release: Release | None = found.release
        if not found.is_complete:
            release = read_contents(self._settings, found)
        if release is None:
            raise NotPublished(f"{found.release.title} was deleted")
        self._hash = release.hash
        return release

    def close(self) -> None:
        if self._follower is not None:
            self._follower.close()


class GatewaySource:
    """Asks a gateway, which answers 304 while the release is the same."""

    pause_s = POLL_S

    def __init__(self, settings: Settings, agent: str, name: str) -> None:
        self._url, _, base = split_http_endpoint(settings.endpoint)
        self._path = f"{base}{PATH}/{quote(agent, safe='')}/{quote(name, safe='')}"
        self._key = settings.endpoint_key.get_secret_value()
        self._pool: Any = None
        self._etag = ""

    def newest(self) -> Release | None:
        headers = {"Accept": "application/json", "User-Agent": "stepstream-python"}
        if self._key:
            headers["x-api-key"] = self._key
        if self._etag:
            headers["If-None-Match"] = self._etag
        response = self._connections().request("GET", self._path, headers=headers)
        if response.status == 304:
            return None
        if response.status != 200:
            text = " ".join(response.data[:300].decode("utf-8", "replace").split())
            answer = f"{self._url} answered HTTP {response.status} {text}"
            raise NotPublished(answer) if response.status == 404 else RuntimeError(answer)
        release = decode_release(response.data)
        self._etag = response.headers.get("etag", "")
        return release

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()

    def _connections(self) -> Any:
        if self._pool is None:
            with fork_lock.importing():
                from stepstream.producers.transport.http import new_pool
            self._pool = new_pool(self._url, answer_s=ANSWER_S)
        return self._pool
