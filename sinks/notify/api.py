"""The admin API of a notifier, on loopback: JSON over HTTP, and the alert stream.

    GET    /subscriptions            POST /subscriptions (a document)       DELETE /subscriptions/NAME
    POST   /subscriptions/NAME/test  GET  /deliveries?subscription=&state=  GET    /alerts/stream?severity=...
    GET    /alerts?state=firing&severity=...
    POST   /alerts/ID/acknowledge {"by": ...}, /alerts/ID/silence {"by": ..., "for": "2h"}, /alerts/ID/resolve {"by": ...}

It answers only requests that were made to a loopback name, so that no web page can reach it through a browser.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from stepstream.common.listen import explained
from stepstream.schemas.channels import refused_variables
from stepstream.schemas.delivery import DELIVERY_STATES
from stepstream.schemas.documents import Subscription, WrongDocument, document_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.wording import did_you_mean
from stepstream.sinks.notify.channels.webhook import Kit
from stepstream.sinks.notify.directory import Directory
from stepstream.sinks.notify.listing import alerts, deliveries
from stepstream.sinks.notify.sample import send_sample
from stepstream.sinks.notify.stream import BadStream, Stream, Streams, content_of, match_of, places_of
from stepstream.sinks.notify.wording import texts_of

HOST: Final = "127.0.0.1"
BODY_BYTES: Final = 262_144
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]", "::1"})
_ACTIONS: Final = frozenset({"acknowledge", "silence", "resolve"})
_log = logging.getLogger("stepstream.notify")


@dataclass(frozen=True)
class Actions:
    """What the API does outside this room; each raises ``ValueError`` or ``LookupError`` with words for people."""

    apply: Callable[[Subscription], str]
    remove: Callable[[str], None]
    alert: Callable[[str, str, dict[str, Any]], dict[str, Any]] | None = None
    """(alert_id, acknowledge | silence | resolve, what was sent) -> what to answer."""


class Wrong(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Api:
    """Answers requests; each in a thread of its own."""

    def __init__(self, settings: Settings, directory: Directory, kit: Kit, actions: Actions) -> None:
        self.settings = settings
        self._directory = directory
        self._kit = kit
        self._actions = actions
        self.streams = Streams()
        self.stopping = threading.Event()

    def answer(self, method: str, path: str, query: str, body: bytes) -> Any:
        """What a request gets. Raises ``Wrong``."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        match method, parts:
            case "GET", ["subscriptions"]:
                return [_shown(one) for one in self._directory.subscriptions.values()]
            case "POST", ["subscriptions"]:
                return self._apply(body)
            case "GET", ["subscriptions", name]:
                return _shown(self._known(name))
            case "DELETE", ["subscriptions", name]:
                self._known(name)
                _worded(lambda: self._actions.remove(name))
                return {"name": name, "what": "deleted"}
            case "POST", ["subscriptions", name, "test"]:
                outcome = send_sample(self._known(name), self._kit, time.time_ns() // 1000)
                return {"name": name, "outcome": outcome.kind, "answer": outcome.text}
            case "GET", ["alerts"]:
                return self._alerts(query)
            case "GET", ["deliveries"]:
                return self._deliveries(query)
            case "POST", ["alerts", alert_id, action] if action in _ACTIONS and self._actions.alert is not None:
                act, data = self._actions.alert, _data(body)
                return _worded(lambda: act(alert_id, action, data))
        raise Wrong(404, f"there is no {method} {path}")

    def stream(self, query: str, last_event_id: str) -> Stream:
        """The alert stream. Raises ``Wrong``."""
        try:
            earliest = parse_qs(query).get("since") == ["earliest"]
            match, content = match_of(query), content_of(query)
            return Stream(self.settings, match, places_of(last_event_id), earliest=earliest, content=content)
        except BadStream as error:
            raise Wrong(400, str(error)) from None

    def _known(self, name: str) -> Subscription:
        found = self._directory.subscriptions.get(name)
        if found is None:
            raise Wrong(404, f"there is no subscription {name}; {did_you_mean(name, self._directory.subscriptions)}")
        return found

    def _apply(self, body: bytes) -> dict[str, str]:
        try:
            document = document_of({"kind": "Subscription", **_data(body)})
        except WrongDocument as error:
            raise Wrong(400, str(error)) from None
        if not isinstance(document, Subscription):
            raise Wrong(400, f"a {document.kind} is no Subscription")
        if refused := refused_variables(document.options, self._kit.secrets.listed):
            raise Wrong(400, "; ".join(refused))
        return {"name": document.name, "what": _worded(lambda: self._actions.apply(document))}

    def _alerts(self, query: str) -> list[Any]:
        given = {name: values[-1] for name, values in parse_qs(query).items()}
        try:
            match = match_of("&".join(part for part in query.split("&") if part.partition("=")[0] not in ("state", "limit")))
            content = content_of(query)
        except BadStream as error:
            raise Wrong(400, str(error)) from None
        limit = int(given["limit"]) if given.get("limit", "").isdigit() else 100
        found = alerts(self.settings, match, state=given.get("state", ""), limit=min(1_000, limit))
        return [{**one.model_dump(mode="json"), **texts_of(one, content)} for one in found]

    def _deliveries(self, query: str) -> list[Any]:
        given = {name: values[-1] for name, values in parse_qs(query).items()}
        state = given.get("state", "")
        if state and state not in DELIVERY_STATES:
            raise Wrong(400, f"state {state}: {did_you_mean(state, DELIVERY_STATES)}")
        limit = int(given["limit"]) if given.get("limit", "").isdigit() else 100
        found = deliveries(self.settings, subscription=given.get("subscription", ""), state=state, limit=min(1_000, limit))
        return [{name: value for name, value in msgspec.to_builtins(one).items() if name != "record"} for one in found]


class ApiServer:
    """Serves the API on loopback until closed."""

    def __init__(self, api: Api, port: int) -> None:
        """``port`` 0 takes a free one; see ``port`` afterwards. Raises ``AddressTaken`` when another program has it."""
        handler = type("Handler", (_Handler,), {"api": api})
        try:
            self._server = ThreadingHTTPServer((HOST, port), handler)
        except OSError as error:
            raise explained(error, port, "notify_port", HOST) from None
        self._api = api
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="stepstream-admin", daemon=True).start()
        _log.info("admin API and alert stream at http://%s:%d", HOST, self.port)

    def close(self) -> None:
        """Stop serving; streams end."""
        self._api.stopping.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/alerts/stream":
            self._guarded(self._stream)
        else:
            self._guarded(self._plain)

    def do_POST(self) -> None:
        self._guarded(self._plain)

    def do_DELETE(self) -> None:
        self._guarded(self._plain)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            self._check_host()
            action()
        except Wrong as error:
            self._answer(error.status, {"error": str(error)})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            _log.exception("answering %s %s failed", self.command, self.path)
            self._answer(500, {"error": f"{type(error).__name__}: see the notifier's log"})

    def _check_host(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0] if self.headers.get("Host", "")[-1:] != "]" else "[::1]"
        if host not in _LOOPBACK:
            raise Wrong(403, "only for requests to a loopback name")
        if self.headers.get("Origin") is not None and urlsplit(self.headers["Origin"]).hostname not in _LOOPBACK:
            raise Wrong(403, "not for web pages")

    def _plain(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_BYTES:
            self.close_connection = True
            raise Wrong(413, f"more than {BODY_BYTES} bytes")
        body = self.rfile.read(length)
        if body and not (self.headers.get("Content-Type") or "").startswith("application/json"):
            raise Wrong(415, "send JSON, with Content-Type: application/json")
        at = urlsplit(self.path)
        self._answer(200, self.api.answer(self.command, at.path, at.query, body))

    def _stream(self) -> None:
        if not self.api.streams.enter():
            raise Wrong(503, "too many streams are open")
        try:
            stream = self.api.stream(urlsplit(self.path).query, self.headers.get("Last-Event-ID") or "")
            try:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Cache-Control", "no-store")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                for event in stream.events(self.api.stopping.is_set):
                    self.wfile.write(event)
                    self.wfile.flush()
            finally:
                stream.close()
        finally:
            self.api.streams.leave()

    def _answer(self, status: int, data: Any) -> None:
        body = json.dumps(data, ensure_ascii=False).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not worth a line."""


def _shown(subscription: Subscription) -> dict[str, Any]:
    """A subscription as it was written; secrets are only named in it."""
    return json.loads(subscription.model_dump_json(exclude_defaults=True)) | {"kind": "Subscription"}  # type: ignore[no-any-return]


def _data(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body or b"{}")
    except ValueError as error:
        raise Wrong(400, f"that is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise Wrong(400, "send a JSON object")
    return data


def _worded(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except LookupError as error:
        raise Wrong(404, str(error.args[0] if error.args else error)) from None
    except ValueError as error:
        raise Wrong(400, str(error)) from None
