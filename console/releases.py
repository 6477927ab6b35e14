"""The pages about releases: labels, decisions, one release, what two of them have different, and
runs under another configuration.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepstream.admin.topics import TopicsError
from stepstream.common.kafka import KafkaUnreachable, words
from stepstream.common.web.errors import WebError
from stepstream.console.encode import answer, plain
from stepstream.console.login import user_of
from stepstream.console.reads import Parameters, parameters_of, require_read
from stepstream.console.store import Store
from stepstream.releases.diff import differences
from stepstream.releases.drift import config_drift
from stepstream.releases.promote import NoSuchRelease, find
from stepstream.releases.topic import read_log
from stepstream.schemas.promotion import Decision
from stepstream.schemas.release import Release
from stepstream.schemas.release_log import Published, ReleaseLog
from stepstream.schemas.settings import Settings

KEPT_S: Final = 2.0
"""How long what was read of the topic is used for further requests."""
SINCE: Final = "30d"
MAX_DECISIONS: Final = 200
T = TypeVar("T")


class ReleasePages:
    """The endpoints below /api/v1/releases."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="releases")
        self._guard = threading.Lock()
        self._read: tuple[float, ReleaseLog] | None = None

    def routes(self) -> list[BaseRoute]:
        found: dict[str, Callable[[Request], dict[str, Any]]] = {
            "/releases": self._all,
            "/releases/{agent}": self._agent,
            "/releases/{agent}/{version}": self._release,
            "/releases/{agent}/{old}/{new}": self._diff,
        }
        return [
            Route(f"/api/v1{path}", self._endpoint(work), methods=["GET"])
            for path, work in found.items()
        ]

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    def _endpoint(self, work: Callable[[Request], dict[str, Any]]) -> Any:
        async def endpoint(request: Request) -> Response:
            require_read(request)
            if user_of(request.scope).projects:
                # A release belongs to no project, so a key for some projects may not read prompts.
                raise WebError(403, "releases belong to no project, and your key has projects")
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, lambda: self._answered(work, request)
            )

        return endpoint

    def _answered(self, work: Callable[[Request], dict[str, Any]], request: Request) -> Response:
        try:
            found = work(request)
        except (NoSuchRelease, TopicsError) as error:
            raise WebError(404, str(error)) from None
        except (KafkaUnreachable, KafkaException) as error:
            raise WebError(
                503, words(error), {"Retry-After": "5"}, code="kafka_unavailable"
            ) from None
        data = {**found, "as_of": time.time_ns() // 1_000}
        return answer(data, request.headers.get("accept-encoding", ""))

    def _log(self) -> ReleaseLog:
        with self._guard:
            if self._read is None or time.monotonic() - self._read[0] > KEPT_S:
                self._read = (time.monotonic(), read_log(self._settings))
            return self._read[1]

    # -- each endpoint, in a thread --

    def _all(self, request: Request) -> dict[str, Any]:
        log = self._log()
        agents = [
            {"agent": agent, "releases": len(log.releases(agent)), "labels": _labels(log, agent)}
            for agent in log.agents()
        ]
        return {"agents": agents, **self._drift(log, "*", parameters_of(request))}

    def _agent(self, request: Request) -> dict[str, Any]:
        log, agent = self._log(), request.path_params["agent"]
        published = log.releases(agent)
        if not published:
            find(log, agent, "")
        decisions = log.decisions(agent)[-MAX_DECISIONS:]
        return {
            "agent": agent,
            "labels": _labels(log, agent),
            "releases": [_listed(one) for one in reversed(published)],
            "decisions": [_decided(one) for one in reversed(decisions)],
            **self._drift(log, agent, parameters_of(request)),
        }

    def _release(self, request: Request) -> dict[str, Any]:
        log, path = self._log(), request.path_params
        release = find(log, path["agent"], path["version"])
        return {"release": release.model_dump(mode="json"), "labels": _labels(log, release.agent)}

    def _diff(self, request: Request) -> dict[str, Any]:
        log, path, given = self._log(), request.path_params, parameters_of(request)
        old, new = (find(log, path["agent"], path[name]) for name in ("old", "new"))
        return {
            "old": _named(old),
            "new": _named(new),
            "differences": [asdict(one) for one in differences(old, new)],
            **self._figures(old, new, given.get("since", SINCE)),
        }

    def _figures(self, old: Release, new: Release, since: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            found = self._store.asked(
                "versions", agent=old.agent, old=old.version, new=new.version, since=since
            )
            return {"figures": plain(found.records()), "sentence": found.sentence}

        return _unless_away(ask, {"figures": [], "sentence": ""})

    def _drift(self, log: ReleaseLog, agent: str, given: Parameters) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            asked = {"agent": agent, "since": given.get("since", SINCE)}
            found = self._store.asked("configurations", **asked)
            drift = [asdict(one) for one in config_drift(found.records(), log)]
            return {"drift": plain(drift)}

        return _unless_away(ask, {"drift": []})


def _unless_away(ask: Callable[[], dict[str, Any]], instead: dict[str, Any]) -> dict[str, Any]:
    """An answer of the store; while it does not answer ``instead``, with the reason."""
    try:
        return {**ask(), "store_problem": ""}
    except WebError as error:
        if error.status == 400:
            raise
        return {**instead, "store_problem": str(error)}


def _labels(log: ReleaseLog, agent: str) -> dict[str, Any]:
    head = log.head(agent)
    labels = {} if head is None else head.labels
    return {
        name: {"version": one.version, "hash": one.release, "by": one.by, "at": one.at}
        for name, one in sorted(labels.items())
    }


def _named(release: Release) -> dict[str, Any]:
    return {"agent": release.agent, "version": release.version, "hash": release.hash}


def _listed(one: Published) -> dict[str, Any]:
    release = one.release
    return {
        **_named(release),
        "published_at": one.timestamp_ms * 1_000,
        "prompts": list(release.prompts),
        "tools": [tool.name for tool in release.tools],
        "source": release.source.model_dump(),
    }


def _decided(decision: Decision) -> dict[str, Any]:
    promotion = decision.promotion
    return {
        "at": decision.decided_at,
        "label": promotion.label,
        "action": promotion.action,
        "outcome": decision.outcome,
        "from": decision.previous_version,
        "to": decision.wanted_version,
        "by": promotion.by,
        "why": decision.why,
        "reason": promotion.reason,
        "override": promotion.override,
        "verdicts": [one.model_dump() for one in promotion.verdicts],
    }
