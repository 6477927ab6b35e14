"""The application factory: routes, health and metrics, behind the checks of ``front``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from stepstream.common.web.access import Identifies
from stepstream.common.web.errors import WebError, json_error
from stepstream.common.web.front import Front, require
from stepstream.common.web.headers import Hosts

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Observed(Protocol):
    """Health and metrics of a process; ``stepstream.common.observe.Observer`` is one."""

    def health(self) -> str:
        """What is wrong; empty if nothing is."""

    def readiness(self) -> str:
        """Why the process is not ready; empty if it is."""

    def text(self) -> bytes:
        """The metrics, in Prometheus' text format."""


def create(
    routes: Sequence[BaseRoute],
    *,
    hosts: Hosts,
    access: Identifies | None,
    observed: Observed | None = None,
    open_paths: Iterable[str] = (),
    page_path: Callable[[str], bool] = lambda _path: False,
    error: Callable[[WebError], Response] = json_error,
) -> ASGIApp:
    """An application with ``routes``, ``/healthz``, ``/readyz`` and, if observed, ``/metrics``.

    Without ``access`` no path needs credentials. With it, ``open_paths`` and the two paths of
    health need none, nor do pages (see ``Front``).
    """
    # Health first: the last route of an application may take every path.
    every = [*_health(observed), *routes]
    inner = ExactPaths(Router(every, redirect_slashes=False), every)
    return Front(
        inner,
        hosts,
        access,
        open_paths=("/healthz", "/readyz", *open_paths),
        page_path=page_path,
        error=error,
    )


class ExactPaths:
    """A router that looks up paths without parameters instead of trying one route after the other:
    that takes 12 us of a small request.
    """

    def __init__(self, router: Router, routes: Sequence[BaseRoute]) -> None:
        self._router = router
        self._apps: dict[tuple[str, str], ASGIApp] = {}
        # An earlier route of any form goes before a later one.
        earlier: list[BaseRoute] = []
        for route in routes:
            if isinstance(route, Route) and "{" not in route.path and route.methods:
                for method in route.methods:
                    if not any(_takes(other, method, route.path) for other in earlier):
                        self._apps[method, route.path] = route.app
            earlier.append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = None
        if scope["type"] == "http" and not scope.get("root_path"):
            app = self._apps.get((scope["method"], scope["path"]))
        await (app or self._router)(scope, receive, send)


def _takes(route: BaseRoute, method: str, path: str) -> bool:
    """Whether a route would answer a request, or refuse its method."""
    matched, _ = route.matches({"type": "http", "method": method, "path": path, "root_path": ""})
    return matched is not Match.NONE


def _health(observed: Observed | None) -> list[BaseRoute]:
    # Fixed texts: these paths need no credentials, and a reason could contain names.

    async def healthz(_request: Request) -> Response:
        wrong = observed is not None and observed.health()
        return PlainTextResponse("failing\n" if wrong else "ok\n", 503 if wrong else 200)

    async def readyz(_request: Request) -> Response:
        wrong = observed is not None and (observed.health() or observed.readiness())
        return PlainTextResponse("not ready\n" if wrong else "ok\n", 503 if wrong else 200)

    async def metrics(request: Request) -> Response:
        assert observed is not None
        require(request.scope, "read")
        return Response(observed.text(), headers={"Content-Type": METRICS_TYPE})

    routes: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz)]
    return [*routes, Route("/metrics", metrics)] if observed is not None else routes


class Raw:
    """An endpoint with the plain ASGI interface: ``Route(path, Raw(function))``."""

    def __init__(self, function: Callable[[Scope, Receive, Send], object]) -> None:
        self._function = function

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._function(scope, receive, send)  # type: ignore[misc]
