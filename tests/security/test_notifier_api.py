"""The notifier's admin API over HTTP: who is answered, what a body may be, and what a page
reaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stepstream.common.observe import Observer
from stepstream.common.web.credentials import (
    Credential,
    Credentials,
    Scope,
    new_credential,
    save,
    token_of,
)
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.api import BODY_BYTES, Actions, Api, ApiServer
from stepstream.sinks.notify.service import context_of
from stepstream.sinks.notify.subscriptions import Subscriptions
from tests.security.raw import RawAnswer, connect, is_cut, request, send

SCOPES: dict[str, list[Scope]] = {
    "all": ["read", "act", "admin"],
    "reader": ["read"],
    "actor": ["act"],
    "sender": ["ingest"],
}


@dataclass
class World:
    """An API without Kafka, and the calls of its actions."""

    url: str
    secrets: dict[str, str]
    done: list[tuple[Any, ...]] = field(default_factory=list)

    def ask(
        self, target: str, method: str = "GET", user: str = "all", data: Any = None, **headers: str
    ) -> RawAnswer:
        """One request of that user; none: without credentials."""
        known = {"Authorization": f"Bearer {token_of(user, self.secrets[user])}"} if user else {}
        body = (
            b"" if data is None else data if isinstance(data, bytes) else json.dumps(data).encode()
        )
        kind = {"Content-Type": "application/json"} if body else {}
        return request(self.url, target, method, {**known, **kind, **headers}, body)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An API and its callers."""
    entries: list[Credential] = []
    secrets: dict[str, str] = {}
    for name, scopes in SCOPES.items():
        entry, secrets[name] = new_credential(name, scopes)
        entries.append(entry)
    save(tmp_path / "credentials.json", Credentials(entries))
    settings = Settings(
        kafka_brokers="127.0.0.1:1", credentials_file=str(tmp_path / "credentials.json")
    )
    made = World("", secrets)

    def apply(subscription: Subscription) -> str:
        made.done.append(("apply", subscription.name))
        return "created"

    def act(alert_id: str, action: str, data: dict[str, Any]) -> dict[str, Any]:
        made.done.append((alert_id, action, data))
        return {"alert_id": alert_id}

    api = Api(
        settings,
        Subscriptions(settings),
        context_of(settings),
        Actions(apply, lambda name: made.done.append((name,)), act),
    )
    server = ApiServer(api, 0, Observer())
    made.url = f"http://127.0.0.1:{server.port}"
    yield made
    server.close()


DOCUMENT = {"name": "x", "to": {"webhook": {"url": "https://h.example"}}}
REQUESTS = [
    ("GET", "/subscriptions", "read", None),
    ("GET", "/subscriptions/x", "read", None),
    ("POST", "/subscriptions", "admin", DOCUMENT),
    ("DELETE", "/subscriptions/x", "admin", None),
    ("POST", "/subscriptions/x/test", "admin", None),
    ("GET", "/alerts?limit=%C2%B2", "read", None),
    ("GET", "/alerts/stream?colour=red", "read", None),
    ("GET", "/deliveries?state=lost", "read", None),
    ("POST", "/alerts/a/acknowledge", "act", {"by": "ada"}),
    ("POST", "/alerts/a/silence", "act", {"by": "ada", "for": "2h"}),
    ("POST", "/alerts/a/resolve", "act", {"by": "ada"}),
]


@pytest.mark.parametrize(("method", "target", "scope", "data"), REQUESTS)
def test_each_path_needs_its_scope(
    world: World, method: str, target: str, scope: Scope, data: Any
) -> None:
    """No caller without credentials, and none whose credentials have another scope."""
    assert world.ask(target, method, "", data).status == 401
    for user, scopes in SCOPES.items():
        if scope not in scopes:
            answer = world.ask(target, method, user, data)
            assert (answer.status, json.loads(answer.body)["code"]) == (403, "forbidden"), user
    assert world.done == []
    assert world.ask(target, method, "all", data).status in (200, 400, 404)


def test_without_a_credential_file_every_request_is_refused(tmp_path: Path) -> None:
    """But health, in a fixed text, and metrics on loopback."""
    settings = Settings(kafka_brokers="127.0.0.1:1")
    server = ApiServer(
        Api(settings, Subscriptions(settings), context_of(settings), Actions(str, print)),
        0,
        Observer(),
    )
    try:
        url = f"http://127.0.0.1:{server.port}"
        assert [
            request(url, path).status for path in ("/subscriptions", "/alerts/stream", "/")
        ] == [401] * 3
        assert (request(url, "/healthz").body, request(url, "/readyz").body) == (
            b"ok\n",
            b"not ready\n",
        )
        assert request(url, "/metrics").status == 200
        assert request(url, "/metrics", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    finally:
        server.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil]"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_no_page_is_answered(world: World, headers: dict[str, str]) -> None:
    """And nothing is done: also for a POST without a body, and for a page on another port here."""
    for method, target in (
        ("GET", "/subscriptions"),
        # Without a body a browser sends it without asking first (CORS preflight).
        ("POST", "/subscriptions/x/test"),
        ("POST", "/alerts/a/resolve"),
    ):
        assert world.ask(target, method, **headers).status == 403
    assert world.done == []


@pytest.mark.parametrize("length", ["-1", "+8", "1_0", "\u0668", "8, 8", "99000000000"])
def test_a_body_has_a_length(world: World, length: str) -> None:
    """One that is a number and no larger than allowed, or it is not read."""
    token = token_of("all", world.secrets["all"])
    head = (
        "POST /subscriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "
        f"{token}\r\nContent-Length: {length}\r\n\r\n"
    )
    with connect(world.url) as connection:
        connection.sendall(head.encode())
        assert is_cut(connection, bytes(1 << 20), 256 << 20)
    assert world.done == []


def test_bodies_are_json_of_bounded_size(world: World) -> None:
    """By Content-Type, in bytes, and in depth."""
    post = "POST"
    for data, headers, status in (
        (b"x" * (BODY_BYTES + 1), {}, 413),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{}", {"Content-Type": "application/jsonx"}, 415),
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"\xff", {}, 400),
        (b'{"name": "x"}', {}, 400),
    ):
        assert world.ask("/subscriptions", post, data=data, **headers).status == status, data[:20]
    token = token_of("all", world.secrets["all"])
    head = f"POST /subscriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
    assert send(world.url, f"{head}Transfer-Encoding: chunked\r\n\r\n+8\r\n".encode()).status in (
        400,
        0,
    )
    assert world.done == []
    assert (
        world.ask(
            "/subscriptions",
            post,
            data=DOCUMENT,
            **{"Content-Type": "application/json; charset=utf-8"},
        ).status
        == 200
    )


@pytest.mark.parametrize(
    "number", ["\u00b2", "\u2460", "\u0663", "1_0", "-1", "1e3", " 1", "", "9" * 5000]
)
def test_numbers_are_digits(world: World, number: str) -> None:
    """And nothing else that Python calls a digit; the answer is an error 400, not 500."""
    from urllib.parse import quote

    for target in ("/alerts", "/deliveries"):
        answer = world.ask(
            f"{target}?limit={quote(number)}&state=lost"
            if number == ""
            else f"{target}?limit={quote(number)}"
        )
        assert answer.status == 400 or number == ""


@pytest.mark.parametrize(
    "place", ["x", "0-\u00b2", "0-1_0", "0--1", "0-1.", "0-" + "9" * 400, "0 - 1"]
)
def test_a_place_in_the_stream_is_one(world: World, place: str) -> None:
    """Or the answer is an error."""
    header = place.encode().decode("latin-1")
    assert world.ask("/alerts/stream", **{"Last-Event-ID": header}).status == 400
