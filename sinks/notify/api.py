"""The notifier's API, on loopback: JSON over HTTP, and the alert stream.

    GET    /subscriptions            POST /subscriptions (a document)
    DELETE /subscriptions/NAME
    POST   /subscriptions/NAME/test  GET  /deliveries?subscription=&state=
    GET    /alerts?state=firing&severity=...                GET    /alerts/stream?severity=...
    POST   /alerts/ID/acknowledge {"by": ...}
    POST   /alerts/ID/silence {"by": ..., "for": "2h"}
    POST   /alerts/ID/resolve {"by": ...}

Credentials are those of the setting ``credentials_file``: the scope ``read`` for GET, ``act`` for
alerts, ``admin`` for subscriptions. Without the file every request is refused.
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
    offsets_of,
)
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.latest_records import RecordLists
from stepstream.sinks.notify.quoting import texts_of
from stepstream.sinks.notify.sample_notification import send_sample
from stepstream.sinks.notify.subscriptions import Subscriptions

HOST: Final = "127.0.0.1"
BODY_BYTES: Final = 262_144
MAX_LISTED: Final = 1_000
DEFAULT_LISTED: Final = 100
MAX_NAME_CHARS: Final = 100
"""Of a name that an error repeats."""
LIMITS: Final = Limits(connections=500)
_EVENT_HEADERS: Final = [(b"content-type", b"text/event-stream"), (b"connection", b"close")]
_log = logging.getLogger("stepstream.admin.notify")


@dataclass(frozen=True)
class Actions:
    """Operations that other packages provide. Each raises ``ValueError`` or ``LookupError`` with a
    sentence for the caller."""

    apply: Callable[[Subscription], str]
    """Puts a subscription in force; returns ``created``, ``changed`` or ``unchanged``."""
    remove: Callable[[str], None]
    alert: Callable[[str, str, dict[str, Any]], dict[str, Any]] | None = None
    """(alert id, ``acknowledge``, ``silence`` or ``resolve``, the request) -> the alert."""


class Api:
    """The endpoints. They block, so they run in threads."""

    def __init__(
        self,
        settings: Settings,
        subscriptions: Subscriptions,
        context: ChannelContext,
        actions: Actions,
    ) -> None:
        self.settings = settings
        self._subscriptions = subscriptions
        self._context = context
        self._actions = actions
        self._lists = RecordLists(settings)
        self.streams = StreamLimit()
        self.stopping = threading.Event()

    def routes(self) -> list[Route]:
        """The paths of the API."""
        get, post = ["GET"], ["POST"]
        routes = [
            Route("/subscriptions", self._endpoint("read", self._list), methods=get),
            Route("/subscriptions", self._endpoint("admin", self._apply), methods=post),
            Route("/subscriptions/{name}", self._endpoint("read", self._get), methods=get),
            Route(
                "/subscriptions/{name}", self._endpoint("admin", self._remove), methods=["DELETE"]
            ),
            Route("/subscriptions/{name}/test", self._endpoint("admin", self._test), methods=post),
            Route("/alerts", self._endpoint("read", self._alerts), methods=get),
            Route("/alerts/stream", Raw(self._stream), methods=get),
            Route("/deliveries", self._endpoint("read", self._deliveries), methods=get),
        ]
        if self._actions.alert is not None:
            routes += [
                Route(
                    f"/alerts/{{alert_id}}/{action}",
                    self._endpoint("act", self._act(action)),
                    methods=post,
                )
                for action in ("acknowledge", "silence", "resolve")
            ]
        return routes

    def close(self) -> None:
        """End the streams and close the lists."""
        self.stopping.set()
        self._lists.close()

    def _endpoint(self, scope: CredentialScope, answer: Callable[[Request, bytes], Any]) -> Any:
        """An endpoint that runs ``answer`` in a thread. The scope is checked before the body is
        read."""

        async def endpoint(request: Request) -> Response:
            require(request.scope, scope)
            sent = await body.read(request.scope, request.receive, max_bytes=BODY_BYTES)
            if sent:
                body.require_json(request.scope)
            found = await run_in_threadpool(answer, request, sent)
            encoded = await run_in_threadpool(json_body, found)
            return Response(encoded, media_type="application/json")

        return endpoint

    def _list(self, _request: Request, _sent: bytes) -> list[Any]:
        return [_as_document(one) for one in self._subscriptions.current.values()]

    def _get(self, request: Request, _sent: bytes) -> dict[str, Any]:
        return _as_document(self._known(request))

    def _known(self, request: Request) -> Subscription:
        """The subscription that the path names. Raises ``WebError`` 404."""
        known = self._subscriptions.current
        name = request.path_params["name"]
        found = known.get(name)
        if found is None:
            short = name[:MAX_NAME_CHARS]
            raise WebError(404, f"there is no subscription {short}; {did_you_mean(short, known)}")
        return found

    def _apply(self, _request: Request, sent: bytes) -> dict[str, str]:
        try:
            document = document_of({"kind": "Subscription", **body.json_object(sent)})
        except WrongDocument as error:
            raise WebError(400, str(error)) from None
        if not isinstance(document, Subscription):
            raise WebError(400, f"a {document.kind} is not a Subscription")
        if refused := refused_variables(document.options, self._context.listed_variables):
            raise WebError(400, "; ".join(refused))
        what = _call(lambda: self._actions.apply(document))
        return {"name": document.name, "what": what}

    def _remove(self, request: Request, _sent: bytes) -> dict[str, str]:
        name = self._known(request).name
        _call(lambda: self._actions.remove(name))
        return {"name": name, "what": "deleted"}

    def _test(self, request: Request, _sent: bytes) -> dict[str, str]:
        known = self._known(request)
        outcome = send_sample(known, self._context, time.time_ns() // 1000)
        return {"name": known.name, "outcome": outcome.label, "answer": outcome.text}

    def _act(self, action: str) -> Callable[[Request, bytes], Any]:
        act = self._actions.alert
        assert act is not None

        def endpoint(request: Request, sent: bytes) -> Any:
            alert_id, data = request.path_params["alert_id"], body.json_object(sent)
            return _call(lambda: act(alert_id, action, data))

        return endpoint

    def _alerts(self, request: Request, _sent: bytes) -> list[Any]:
        query = request.url.query
        given = _parameters(query)
        state = given.get("state", [""])[-1]
        limit = _limit(given)
        try:
            match = match_of(query, other=("state", "limit"))
            content = content_of(query)
        except BadQuery as error:
            raise WebError(400, str(error)) from None
        found = self._lists.alerts(match, state=state, limit=limit)
        return [{**one.model_dump(mode="json"), **texts_of(one, content)} for one in found]

    def _deliveries(self, request: Request, _sent: bytes) -> list[Any]:
        given = _parameters(request.url.query)
        state, subscription = given.get("state", [""])[-1], given.get("subscription", [""])[-1]
        if state and state not in DELIVERY_STATES:
            short = state[:MAX_NAME_CHARS]
            raise WebError(400, f"state {short}: {did_you_mean(short, DELIVERY_STATES)}")
        found = self._lists.deliveries(subscription=subscription, state=state, limit=_limit(given))
        # The alert's own record may quote from steps; GET /alerts has it, with `content`.
        return [
            {name: value for name, value in msgspec.to_builtins(one).items() if name != "record"}
            for one in found
        ]

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream, in a thread of its own: the pool of Starlette would be used up."""
        require(scope, "read")
        if not self.streams.enter():
            raise WebError(503, "too many streams are open", {"Retry-After": "5"})
        pool = ThreadPoolExecutor(1, thread_name_prefix="alert-stream")
        try:
            request = Request(scope)
            query, event_id = request.url.query, request.headers.get("last-event-id", "")
            exchange = Exchange(receive, send)
            for message in await exchange.run(
                pool, lambda: self._send_events(query, event_id, exchange)
            ):
                await send(message)
        finally:
            pool.shutdown(wait=False)
            self.streams.leave()

    def _send_events(self, query: str, last_event_id: str, exchange: Exchange) -> list[Message]:
        try:
            stream = AlertStream(
                self.settings,
                match_of(query),
                offsets_of(last_event_id),
                earliest=_parameters(query).get("since") == ["earliest"],
                content=content_of(query),
            )
        except BadQuery as error:
            raise WebError(400, str(error)) from None
        try:
            exchange.start(200, _EVENT_HEADERS)
            for event in stream.events(lambda: self.stopping.is_set() or exchange.left.is_set()):
                exchange.more(event)
        finally:
            stream.close()
        return [end_of()]


class ApiServer:
    """Serves the API on loopback, in a thread, until it is closed."""

    def __init__(self, api: Api, port: int, observed: Observed | None = None) -> None:
        """``port`` 0 takes a free one; see the attribute ``port`` afterwards.

        Raises ``AddressTaken`` if the port is in use, ``CredentialsError`` if the credential file
        is invalid.
        """
        self._api = api
        try:
            self._server = WebServer(self._application(observed), HOST, port, LIMITS)
        except OSError as error:
            raise explained(error, port, "notify_port", HOST) from None
        self.port = self._server.port
        self._server.start("stepstream-admin")
        _log.info("API and alert stream at %s", self._server.url)

    def _application(self, observed: Observed | None) -> ASGIApp:
        file = self._api.settings.credentials_file
        if not file:
            _log.warning(
                "the API and the alert stream refuse every request: the setting credentials_file "
                "is empty (see `stepstream credentials`)"
            )
        table = load_or_none(file)
        return create(
            self._api.routes(), hosts=Hosts(HOST), access=Access(table), observed=observed
        )

    def close(self) -> None:
        """Stop serving; streams end."""
        self._api.close()
        self._server.close()


def _as_document(subscription: Subscription) -> dict[str, Any]:
    """A subscription as a document, without defaults. Secrets are only named in it."""
    fields: dict[str, Any] = json.loads(subscription.model_dump_json(exclude_defaults=True))
    return fields | {"kind": "Subscription"}


def _parameters(query: str) -> dict[str, list[str]]:
    try:
        return parse_qs(query, max_num_fields=100)
    except ValueError:
        raise WebError(400, "the URL has more than 100 parameters") from None


def _limit(given: dict[str, list[str]]) -> int:
    text = given.get("limit", [str(DEFAULT_LISTED)])[-1]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise WebError(400, f"limit is a number, at most {MAX_LISTED}")
    return min(MAX_LISTED, int(text))


def _call(action: Callable[[], Any]) -> Any:
    """The result of an action. Its errors become 404 and 400."""
    try:
        return action()
    except LookupError as error:
        raise WebError(404, str(error.args[0] if error.args else error)) from None
    except ValueError as error:
        raise WebError(400, str(error)) from None
