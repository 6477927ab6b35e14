"""The admin API of a notifier, on loopback: JSON over HTTP, and the alert stream.

    GET    /subscriptions            POST /subscriptions (a document)       DELETE /subscriptions/NAME
    POST   /subscriptions/NAME/test  GET  /deliveries?subscription=&state=  GET    /alerts/stream?severity=...
    GET    /alerts?state=firing&severity=...
    POST   /alerts/ID/acknowledge {"by": ...}, /alerts/ID/silence {"by": ..., "for": "2h"}, /alerts/ID/resolve {"by": ...}

Credentials are those of the setting ``credentials_file``: the scope ``read`` for GET, ``act`` for alerts, ``admin`` for
subscriptions. Without such a file nobody is answered.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepstream.common.listen import explained
from stepstream.common.web import body
from stepstream.common.web.access import Access
from stepstream.common.web.app import Observed, Raw, create
from stepstream.common.web.credentials import Scope as CredentialScope
from stepstream.common.web.credentials import load_or_none
from stepstream.common.web.errors import WebError, json_body
from stepstream.common.web.exchange import Exchange, end_of
from stepstream.common.web.front import require
from stepstream.common.web.headers import Hosts
from stepstream.common.web.protocol import Limits
from stepstream.common.web.server import WebServer
from stepstream.schemas.channels import refused_variables
from stepstream.schemas.delivery import DELIVERY_STATES
from stepstream.schemas.documents import Subscription, WrongDocument, document_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.suggestions import did_you_mean
from stepstream.sinks.notify.alert_stream import (
    AlertStream,
    BadQuery,
    StreamLimit,
    content_of,
    match_of,
    places_of,
)
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.latest_records import RecordLists
from stepstream.sinks.notify.quoting import texts_of
from stepstream.sinks.notify.sample_notification import send_sample
from stepstream.sinks.notify.subscriptions import Subscriptions

HOST: Final = "127.0.0.1"
BODY_BYTES: Final = 262_144
MOST_LISTED: Final = 1_000
LISTED: Final = 100
LIMITS: Final = Limits(connections=500)
_EVENTS: Final = [(b"content-type", b"text/event-stream")]
_log = logging.getLogger("stepstream.admin.notify")


@dataclass(frozen=True)
class Actions:
    """What the API does outside this room; each raises ``ValueError`` or ``LookupError`` with words for people."""

    apply: Callable[[Subscription], str]
    remove: Callable[[str], None]
    alert: Callable[[str, str, dict[str, Any]], dict[str, Any]] | None = None
    """(alert_id, acknowledge | silence | resolve, what was sent) -> what to answer."""


class Api:
    """What each request gets. Its methods block, so they are called in threads."""

    def __init__(
        self, settings: Settings, directory: Subscriptions, kit: ChannelContext, actions: Actions
    ) -> None:
        self.settings = settings
        self._directory = directory
        self._kit = kit
        self._actions = actions
        self._listing = RecordLists(settings)
        self.streams = StreamLimit()
        self.stopping = threading.Event()

    def routes(self) -> list[Route]:
        """The paths of the API."""
        get, post = ["GET"], ["POST"]
        found = [
            Route(
                "/subscriptions",
                self._route("read", lambda _request, _body: self._list()),
                methods=get,
            ),
            Route(
                "/subscriptions",
                self._route("admin", lambda _request, sent: self._apply(sent)),
                methods=post,
            ),
            Route(
                "/subscriptions/{name}",
                self._route("read", lambda request, _body: _shown(self._known(request))),
                methods=get,
            ),
            Route(
                "/subscriptions/{name}",
                self._route("admin", lambda request, _body: self._remove(request)),
                methods=["DELETE"],
            ),
            Route(
                "/subscriptions/{name}/test",
                self._route("admin", lambda request, _body: self._test(request)),
                methods=post,
            ),
            Route(
                "/alerts",
                self._route("read", lambda request, _body: self._alerts(request.url.query)),
                methods=get,
            ),
            Route("/alerts/stream", Raw(self._stream), methods=get),
            Route(
                "/deliveries",
                self._route("read", lambda request, _body: self._deliveries(request.url.query)),
                methods=get,
            ),
        ]
        if self._actions.alert is not None:
            found += [
                Route(
                    f"/alerts/{{alert_id}}/{action}",
                    self._route("act", self._act(action)),
                    methods=post,
                )
                for action in ("acknowledge", "silence", "resolve")
            ]
        return found

    def close(self) -> None:
        """End the streams, and what is kept of the alerts."""
        self.stopping.set()
        self._listing.close()

    def _route(self, scope: CredentialScope, answer: Callable[[Request, bytes], Any]) -> Any:
        """An endpoint: the scope is checked before the body is read, and the answer made in a thread."""

        async def endpoint(request: Request) -> Response:
            require(request.scope, scope)
            sent = await body.read(request.scope, request.receive, max_bytes=BODY_BYTES)
            if (
                sent
                and request.headers.get("content-type", "").partition(";")[0].strip()
                != "application/json"
            ):
                raise WebError(415, "send JSON, with Content-Type: application/json")
            found = await run_in_threadpool(answer, request, sent)
            return Response(
                await run_in_threadpool(json_body, found), media_type="application/json"
            )

        return endpoint

    def _list(self) -> list[Any]:
        return [_shown(one) for one in self._directory.subscriptions.values()]

    def _known(self, request: Request) -> Subscription:
        name = request.path_params["name"]
        found = self._directory.subscriptions.get(name)
        if found is None:
            raise WebError(
                404,
                f"there is no subscription {name[:100]}; {did_you_mean(name[:100], self._directory.subscriptions)}",
            )
        return found

    def _apply(self, sent: bytes) -> dict[str, str]:
        try:
            document = document_of({"kind": "Subscription", **_data(sent)})
        except WrongDocument as error:
            raise WebError(400, str(error)) from None
        if not isinstance(document, Subscription):
            raise WebError(400, f"a {document.kind} is no Subscription")
        if refused := refused_variables(document.options, self._kit.secrets.listed):
            raise WebError(400, "; ".join(refused))
        return {"name": document.name, "what": _worded(lambda: self._actions.apply(document))}

    def _remove(self, request: Request) -> dict[str, str]:
        name = self._known(request).name
        _worded(lambda: self._actions.remove(name))
        return {"name": name, "what": "deleted"}

    def _test(self, request: Request) -> dict[str, str]:
        known = self._known(request)
        outcome = send_sample(known, self._kit, time.time_ns() // 1000)
        return {"name": known.name, "outcome": outcome.kind, "answer": outcome.text}

    def _act(self, action: str) -> Callable[[Request, bytes], Any]:
        act = self._actions.alert
        assert act is not None
        return lambda request, sent: _worded(
            lambda: act(request.path_params["alert_id"], action, _data(sent))
        )

    def _alerts(self, query: str) -> list[Any]:
        given = _given(query)
        state = given.get("state", [""])[-1]
        limit = _limit(given)
        try:
            match = match_of(query, besides=("state", "limit"))
            content = content_of(query)
        except BadQuery as error:
            raise WebError(400, str(error)) from None
        found = self._listing.alerts(match, state=state, limit=limit)
        return [{**one.model_dump(mode="json"), **texts_of(one, content)} for one in found]

    def _deliveries(self, query: str) -> list[Any]:
        given = _given(query)
        state, subscription = given.get("state", [""])[-1], given.get("subscription", [""])[-1]
        if state and state not in DELIVERY_STATES:
            raise WebError(
                400, f"state {state[:100]}: {did_you_mean(state[:100], DELIVERY_STATES)}"
            )
        found = self._listing.deliveries(
            subscription=subscription, state=state, limit=_limit(given)
        )
        return [
            {name: value for name, value in msgspec.to_builtins(one).items() if name != "record"}
            for one in found
        ]

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The alert stream: each in a thread of its own, of which there is a bound."""
        require(scope, "read")
        if not self.streams.enter():
            raise WebError(503, "too many streams are open", {"Retry-After": "5"})
        pool = ThreadPoolExecutor(1, thread_name_prefix="alert-stream")
        try:
            request = Request(scope)
            query, place = request.url.query, request.headers.get("last-event-id", "")
            exchange = Exchange(receive, send)
            for message in await exchange.run(pool, lambda: self._events(query, place, exchange)):
                await send(message)
        finally:
            pool.shutdown(wait=False)
            self.streams.leave()

    def _events(self, query: str, last_event_id: str, exchange: Exchange) -> list[Message]:
        try:
            earliest = _given(query).get("since") == ["earliest"]
            match, content = match_of(query), content_of(query)
            stream = AlertStream(
                self.settings, match, places_of(last_event_id), earliest=earliest, content=content
            )
        except BadQuery as error:
            raise WebError(400, str(error)) from None
        try:
            exchange.start(200, [*_EVENTS, (b"connection", b"close")])
            for event in stream.events(lambda: self.stopping.is_set() or exchange.left.is_set()):
                exchange.more(event)
        finally:
            stream.close()
        return [end_of()]


class ApiServer:
    """Serves the API on loopback, in a thread, until closed."""

    def __init__(self, api: Api, port: int, observed: Observed | None = None) -> None:
        """``port`` 0 takes a free one; see ``port`` afterwards.

        Raises ``AddressTaken`` when another program has it, ``CredentialsError`` where the credential file cannot be used.
        """
        self._api = api
        try:
            self._server = WebServer(self._application(observed), HOST, port, LIMITS)
        except OSError as error:
            raise explained(error, port, "notify_port", HOST) from None
        self.port = self._server.port
        self._server.start("stepstream-admin")
        _log.info("admin API and alert stream at %s", self._server.url)

    def _application(self, observed: Observed | None) -> ASGIApp:
        file = self._api.settings.credentials_file
        if not file:
            _log.warning(
                "nobody may use the admin API and the alert stream: no setting credentials_file (`stepstream credentials`)"
            )
        table = load_or_none(file)
        return create(
            self._api.routes(), hosts=Hosts(HOST), access=Access(table), observed=observed
        )

    def close(self) -> None:
        """Stop serving; streams end."""
        self._api.close()
        self._server.close()


def _shown(subscription: Subscription) -> dict[str, Any]:
    """A subscription as it was written; secrets are only named in it."""
    return json.loads(subscription.model_dump_json(exclude_defaults=True)) | {  # type: ignore[no-any-return]
        "kind": "Subscription"
    }


def _given(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, max_num_fields=100)
    except ValueError:
        raise WebError(400, "the URL has more than 100 parameters") from None


def _limit(given: dict[str, list[str]]) -> int:
    text = given.get("limit", [str(LISTED)])[-1]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise WebError(400, f"limit is a number, at most {MOST_LISTED}")
    return min(MOST_LISTED, int(text))


def _data(sent: bytes) -> dict[str, Any]:
    try:
        data = json.loads(sent or b"{}")
    except (ValueError, RecursionError) as error:
        raise WebError(400, f"that is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise WebError(400, "send a JSON object")
    return data


def _worded(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except LookupError as error:
        raise WebError(404, str(error.args[0] if error.args else error)) from None
    except ValueError as error:
        raise WebError(400, str(error)) from None
