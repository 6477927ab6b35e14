"""The checks in front of every application: headers, credentials, headers of answers, errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepstream.common.web.access import Caller, Identifies
from stepstream.common.web.body import ClientLeft
from stepstream.common.web.credentials import Scope as CredentialScope
from stepstream.common.web.errors import WebError, json_error
from stepstream.common.web.headers import Hosts, check, is_loopback, of_answer

PAGE = "stepstream.page"
"""A key of ``scope``: set by an application that answers with a page and its own policy."""
CALLER = "stepstream.caller"
"""A key of ``scope``: the ``Caller``; missing on open paths."""
_log = logging.getLogger("stepstream.web")


class Front:
    """An ASGI application around another one, which is called before any of a body is read."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Hosts,
        access: Identifies | None,
        *,
        open_paths: Iterable[str] = ("/healthz", "/readyz"),
        loopback_paths: Iterable[str] = ("/metrics",),
        page_path: Callable[[str], bool] = lambda _path: False,
        error: Callable[[WebError], Response] = json_error,
    ) -> None:
        """``open_paths`` need no credentials, ``loopback_paths`` none from this machine.

        Without ``access`` no path needs credentials. A path for which ``page_path`` is true has a
        page or its parts, without data: it needs no credentials, and other sites may link to it.
        """
        self._app = app
        self._hosts = hosts
        self._access = access
        self._open = frozenset(open_paths)
        self._loopback = frozenset(loopback_paths)
        self._page_path = page_path
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        started = False

        async def checked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                message = {
                    **message,
                    "headers": of_answer(message.get("headers", ()), bool(scope.get(PAGE))),
                }
                started = True
            await send(message)

        try:
            page = scope["method"] in ("GET", "HEAD") and self._page_path(scope["path"])
            check(scope["headers"], scope["http_version"], scope["scheme"], self._hosts, page=page)
            if not page and self._access is not None and not self._is_open(scope):
                scope[CALLER] = await self._access.identify(scope)
            scope["app"] = self._app  # with it, a router raises what it cannot route
            await self._app(scope, receive, checked)
        except ClientLeft:
            pass  # no client is left to answer
        except Exception as problem:
            error = _web_error(problem, scope)
            if started:
                raise  # breaks the answer off, so that the client does not take it for complete
            await self._error(error)(scope, receive, checked)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        client: tuple[str, int] | None = scope.get("client")
        if path in self._open:
            return True
        return (
            path in self._loopback
            and self._hosts.loopback
            and client is not None
            and is_loopback(client[0])
        )


def _web_error(problem: Exception, scope: Scope) -> WebError:
    if isinstance(problem, WebError):
        return problem
    if isinstance(problem, HTTPException):
        sentence = {
            404: "there is nothing at this path",
            405: "this path does not support that method",
        }
        allow = {
            name: value
            for name, value in (problem.headers or {}).items()
            if name.lower() == "allow"
        }
        return WebError(
            problem.status_code, sentence.get(problem.status_code, problem.detail), allow
        )
    _log.error("answering %s %r failed", scope["method"], scope["path"][:200], exc_info=problem)
    return WebError(500, f"{type(problem).__name__}: see the server's log")


def require(scope: Scope, wanted: CredentialScope, project: str | None = None) -> None:
    """Raise ``WebError`` 403 unless the caller has the scope. On open paths every caller has it."""
    found: Caller | None = scope.get(CALLER)
    if found is not None and not found.allows(wanted, project):
        raise WebError(403, f"credential {found.name} lacks the scope {wanted}")
