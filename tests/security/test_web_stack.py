"""The web stack that every server stands on: what it refuses, when it decides, and what stays
bounded."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stepstream.common.web import body
from stepstream.common.web.access import Access
from stepstream.common.web.app import Raw, create
from stepstream.common.web.credentials import Credentials, new_credential, token_of
from stepstream.common.web.front import require
from stepstream.common.web.headers import Hosts, of_answer
from stepstream.common.web.protocol import Limits
from stepstream.common.web.server import WebServer
from tests.security.raw import RawAnswer, basic, connect, is_cut, read_answer, request, send

READER, READER_SECRET = new_credential("reader", ["read"])
# Seconds instead of minutes: the tests wait until they are exceeded.
LIMITS = Limits(
    connections=40, head_bytes=16 << 10, head_s=1.0, idle_s=1.0, drain_bytes=1 << 20, drain_s=1.0
)
KNOWN = {"Authorization": basic("reader", READER_SECRET)}
# As sent, and decompressed: a small body may decompress to a large one.
BODY_BYTES, PLAIN_BYTES = 100_000, 1_000_000


class World:
    """A server and what reached its application."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.began = 0
        routes = [
            Route("/echo", Raw(self._echo)),
            Route("/header", self._header),
            Route("/admin", self._admin, methods=["POST"]),
            Route("/fails", self._fails),
            Route("/html", self._html),
        ]
        app = create(routes, hosts=Hosts("127.0.0.1"), access=Access(Credentials([READER])))
        self.server = WebServer(app, "127.0.0.1", 0, LIMITS)

    async def _echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began += 1
        found = await body.read(
            scope, receive, max_bytes=BODY_BYTES, max_plain_bytes=PLAIN_BYTES, wait_s=1
        )
        self.bodies.append(found)
        await JSONResponse({"size": len(found)})(scope, receive, send)

    async def _header(self, request: Request) -> Response:
        answer = Response("x")
        answer.raw_headers.append((b"x-echo", request.query_params["value"].encode()))
        return answer

    async def _admin(self, request: Request) -> Response:
        require(request.scope, "admin")
        return Response("done")

    async def _fails(self, _request: Request) -> Response:
        # Must be in the log only.
        raise RuntimeError("a secret detail")

    async def _html(self, _request: Request) -> Response:
        return Response("<script>", media_type="text/html")


@pytest.fixture
def world() -> Iterator[World]:
    """A server of the test's own."""
    made = World()
    made.server.start("web-test")
    yield made
    made.server.close()


def ask(
    world: World,
    target: str = "/echo",
    method: str = "GET",
    headers: dict[str, str] | None = None,
    data: bytes = b"",
) -> Any:
    """One request with the reader's credentials."""
    return request(world.server.url, target, method, {**KNOWN, **(headers or {})}, data)


def test_an_answer_carries_the_security_headers(world: World) -> None:
    """Whatever the answer is: data, health, an error, what is not even HTTP."""
    answers = [
        ask(world),
        request(world.server.url, "/healthz"),
        request(world.server.url, "/echo"),
        ask(world, "/nowhere"),
        send(world.server.url, b"nonsense\r\n\r\n"),
    ]
    # Of data, health, a refusal, an unknown path, and of what the HTTP parser refuses.
    assert [answer.status for answer in answers] == [200, 200, 401, 404, 400]
    for answer in answers:
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("content-security-policy").startswith("sandbox; default-src 'none'")
        assert answer.header("cache-control") == "no-store"
        assert "html" not in answer.header("content-type")


def test_errors_have_one_form(world: World) -> None:
    """A sentence for people, a word for programs, no detail of what went wrong inside."""
    for answer, status, code in (
        (request(world.server.url, "/echo"), 401, "unauthorized"),
        (ask(world, "/nowhere"), 404, "not_found"),
        (ask(world, "/admin"), 405, "method_not_allowed"),
        (ask(world, "/admin", "POST"), 403, "forbidden"),
        (ask(world, "/fails"), 500, "internal_error"),
        (
            ask(world, "/echo", "POST", {"Content-Encoding": "bzip9"}, b"x"),
            415,
            "unsupported_media_type",
        ),
        (ask(world, "/echo", "POST", {"Content-Encoding": "gzip"}, b"x"), 400, "bad_request"),
    ):
        open_connections = json.loads(answer.body)
        assert (answer.status, open_connections["code"]) == (status, code)
        assert open_connections["error"]
        # An exception's text may quote data of another user.
        assert "secret detail" not in open_connections["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": basic("reader", "wrong")},
        {"Authorization": basic("unknown", READER_SECRET)},
        {"Authorization": "Basic %%%"},
        # Base64 of a text without a colon.
        {"Authorization": "Basic " + "QQ"},
        {"Authorization": "Digest x"},
        # The secret alone: without the name it is no token.
        {"Authorization": f"Bearer {READER_SECRET}"},
        {"x-api-key": "x"},
    ],
)
def test_nothing_answers_without_credentials(world: World, headers: dict[str, str]) -> None:
    """Neither without them nor with wrong ones; and the application is not reached."""
    assert request(world.server.url, "/echo", "POST", headers, b"x").status == 401
    assert world.began == 0


def test_every_form_of_credentials_is_taken(world: World) -> None:
    """Basic, Bearer and x-api-key."""
    token = token_of("reader", READER_SECRET)
    for headers in (KNOWN, {"Authorization": f"Bearer {token}"}, {"x-api-key": token}):
        assert request(world.server.url, "/echo", headers=headers).status == 200


def test_credentials_are_checked_before_the_body_is_read(world: World) -> None:
    """The answer comes before a byte of the body is sent; a stranger gets no 100-continue."""
    head = f"POST /echo HTTP/1.1\r\nHost: {world.server.host}\r\nContent-Length: 90000\r\n"
    with connect(world.server.url) as stranger:
        stranger.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert stranger.recv(100).startswith(b"HTTP/1.1 401 ")
    with connect(world.server.url) as known:
        known.sendall(
            f"{head}Authorization: {KNOWN['Authorization']}\r\nExpect: "
            "100-continue\r\n\r\n".encode()
        )
        assert known.recv(100).startswith(b"HTTP/1.1 100 ")


def test_a_client_that_keeps_failing_waits(world: World) -> None:
    """Guesses are answered 429 after a while; the right secret is taken at any time."""
    answers = [
        request(world.server.url, "/echo", headers={"Authorization": basic("reader", str(n))})
        # More than a typing error, fewer than any useful guessing.
        for n in range(30)
    ]
    assert {answer.status for answer in answers} == {401, 429}
    assert (
        int(next(answer.header("retry-after") for answer in answers if answer.status == 429)) >= 1
    )
    assert ask(world).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        # A page of another program on this machine, such as a development server.
        {"Origin": "http://localhost:3000"},
        {"Origin": "file://"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Dest": "script"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "style"},
        {"Host": "evil.example"},
        {"Host": "evil.example:8123"},
        # DNS rebinding: a name of the attacker that points to this machine.
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "evil.example]"},
        {"Host": "x@127.0.0.1"},
        {"Host": "localhost evil.example"},
        {"Host": "[::1"},
        {"Host": "127.0.0.1:99999999"},
        {"Host": ""},
    ],
)
def test_web_pages_are_no_clients(world: World, headers: dict[str, str]) -> None:
    """Pages of other origins, other ports of this machine too, embedded answers, and names that
    were made to point here."""
    assert ask(world, headers=headers).status == 403
    assert world.began == 0


def test_a_person_and_a_program_are_clients(world: World) -> None:
    """A URL typed by hand, and the names of this machine."""
    netloc = world.server.url.removeprefix("http://")
    for headers in (
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"},
        {
            "Sec-Fetch-Site": "same-origin",
            "Sec-Fetch-Dest": "empty",
            "Origin": world.server.url,
            "Host": netloc,
        },
        {"Host": "localhost"},
        {"Host": "LOCALHOST:1"},
        {"Host": "[::1]:5"},
    ):
        assert ask(world, headers=headers).status == 200


@pytest.mark.parametrize(
    ("bound", "known", "unknown"),
    [
        (
            "127.0.0.1",
            ["127.0.0.1", "localhost:1", "[::1]"],
            ["store", "10.0.0.1", "a.b", "", "store.example"],
        ),
        (
            "0.0.0.0",
            ["10.0.0.1:8123", "store", "store.example", "[fd00::1]:1", "localhost"],
            ["evil.example", "a b", ""],
        ),
    ],
)
def test_hosts(bound: str, known: list[str], unknown: list[str]) -> None:
    """On loopback only its own names; elsewhere addresses, names without a dot, and those that were
    given."""
    hosts = Hosts(bound, ["store.example"] if bound == "0.0.0.0" else [])
    assert [host for host in known if not hosts.knows(host)] == []
    assert [host for host in unknown if hosts.knows(host)] == []


def test_no_text_of_a_request_splits_a_header(world: World) -> None:
    """CR, LF, NUL and what is not ASCII never reach a header of an answer, and there is one status
    line."""
    for value in (
        "x%0d%0aContent-Type:%20text/html%0d%0a%0d%0a<script>",
        "%E2%82%AC",
        "a%00b",
        "a%0ab",
        "%7f",
    ):
        answer = ask(world, f"/header?value={value}")
        assert answer.status == 500
        assert b"HTTP/1.1" not in b"".join(answer.head[1:]) + answer.body
        assert answer.header("x-echo") == ""
    assert ask(world, "/header?value=plain").header("x-echo") == "plain"
    assert ask(world, "/html").status == 500


@pytest.mark.parametrize("name", [b"a b", b"", b"a:", b"a\r\n"])
def test_a_header_has_a_name(name: bytes) -> None:
    """Of plain characters."""
    with pytest.raises(ValueError, match="header"):
        of_answer([(name, b"x")], page=False)


# Lengths that int() takes and HTTP does not, and pairs that a proxy and a server may read
# differently: the way requests are smuggled.
LENGTHS = [
    "-1",
    "+8",
    "0x8",
    "1_0",
    "1e9",
    "8, 8",
    "\u0668",
    "99999999999999999999999",
    "8\r\nContent-Length: 9",
]
CHUNKS = ["+8", "0x8", "1_0", " 8", "8 ", "-1", "FFFFFFFFFFFFFFFFFF", "\u0668", "8\n"]


@pytest.mark.parametrize(
    "lines",
    [
        *[f"Content-Length: {length}" for length in LENGTHS],
        "Content-Length: 8\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Host: other",
        "Authorization: Basic eA==",
        "X-Folded: a\r\n b",
        "X-Space : a",
        "X-Nul: a\0b",
    ],
)
def test_ambiguous_requests_are_refused(world: World, lines: str) -> None:
    """Lengths that only some parsers take, two lengths, two hosts, folded headers."""
    head = (
        "POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: "
        f"{KNOWN['Authorization']}\r\nConnection: close\r\n"
    )
    answer = send(
        world.server.url, f"{head}{lines}\r\n\r\n".encode() + b"8\r\n12345678\r\n0\r\n\r\n"
    )
    # 0: the connection was closed without an answer.
    assert answer.status in (400, 0)
    assert world.bodies == []


@pytest.mark.parametrize("size", CHUNKS)
def test_chunk_sizes_are_hexadecimal_digits(world: World, size: str) -> None:
    """And nothing else."""
    head = f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {KNOWN['Authorization']}\r\n"
    assert send(
        world.server.url,
        f"{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n12345678\r\n0\r\n\r\n".encode(),
    ).status in (400, 0)
    assert world.bodies == []


def test_a_trailer_is_no_header(world: World) -> None:
    """What follows a body in chunks cannot bring credentials, and cannot be endless."""
    head = (
        b"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: "
        b"chunked\r\n\r\n"
    )
    trailer = f"Authorization: {KNOWN['Authorization']}\r\n\r\n".encode()
    assert send(world.server.url, head + b"1\r\nx\r\n0\r\n" + trailer).status == 401


def test_bodies_are_bounded_on_the_wire_and_in_plain_bytes(world: World) -> None:
    """A long body, one with a large Content-Length, and a few kilobytes that stand for a
    gigabyte."""
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    assert len(bomb) < BODY_BYTES
    for headers, data in (
        ({}, bytes(BODY_BYTES + 1)),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(PLAIN_BYTES + 1))),
        ({"Content-Encoding": "zstd"}, bomb),
    ):
        assert ask(world, "/echo", "POST", headers, data).status == 413
    with connect(world.server.url) as connection:
        head = (
            f"POST /echo HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {KNOWN['Authorization']}\r\n"
        )
        connection.sendall(f"{head}Content-Length: 99000000000\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
    assert (
        ask(
            world, "/echo", "POST", {"Content-Encoding": "gzip"}, gzip.compress(bytes(PLAIN_BYTES))
        ).status
        == 200
    )


def test_a_chunk_without_end_is_not_gathered(world: World) -> None:
    """Neither for a stranger, whose bytes are read to a bound and dropped, nor for a client."""
    for headers in ("", f"Authorization: {KNOWN['Authorization']}\r\n"):
        with connect(world.server.url) as connection:
            head = (
                f"POST /echo HTTP/1.1\r\nHost: localhost\r\n{headers}Transfer-Encoding: "
                "chunked\r\n\r\n"
            )
            connection.sendall(head.encode() + b"FFFFFFFFFFFF\r\n")
            assert is_cut(connection, bytes(65536), 64 << 20)


def test_a_head_is_bounded(world: World) -> None:
    """Headers, a request line, and many small headers, whether they end or not."""
    for head in (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000,
    ):
        assert send(world.server.url, head).status in (431, 0)
    with connect(world.server.url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert is_cut(connection, b"X: y\r\n" * 1000, 64 << 20)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_waiting_ends(world: World, sent: bytes) -> None:
    """For a first byte, the end of a head, the next request."""
    with connect(world.server.url) as connection:
        connection.sendall(sent)
        assert read_answer(connection).status in (0, 401)


def test_a_body_that_stops_is_given_up(world: World) -> None:
    """With an error 408."""
    with connect(world.server.url) as connection:
        head = (
            "POST /echo HTTP/1.1\r\nHost: a\r\nAuthorization: "
            f"{KNOWN['Authorization']}\r\nContent-Length: 9\r\n\r\nx"
        )
        connection.sendall(head.replace("Host: a", "Host: localhost").encode())
        assert read_answer(connection).status == 408


def test_connections_are_bounded(world: World) -> None:
    """With more than the bound, those that wait go, the oldest first: who asks is answered."""
    # Connections that send nothing: only their number costs something.
    open_connections = [connect(world.server.url) for _ in range(LIMITS.connections * 2)]
    try:
        assert ask(world).status == 200
        open_now = sum(_is_open(one) for one in open_connections)
        assert open_now <= LIMITS.connections
    finally:
        for one in open_connections:
            one.close()


def _is_open(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_the_error_for_a_port_in_use_is_a_sentence(world: World) -> None:
    """With the address."""
    with pytest.raises(OSError, match=f"port {world.server.port} of 127.0.0.1 is in use"):
        WebServer(create([], hosts=Hosts("127.0.0.1"), access=None), "127.0.0.1", world.server.port)


def test_many_requests_on_one_connection(world: World) -> None:
    """Pipelined: each is answered, in order, and checked by itself."""
    authorization = f"Authorization: {KNOWN['Authorization']}\r\n"
    one = f"GET /echo HTTP/1.1\r\nHost: localhost\r\n{authorization}\r\n".encode()
    stranger = b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connect(world.server.url) as connection:
        # The last one without credentials: a check per connection would let it through.
        connection.sendall(one * 100 + stranger)
        open_connections = b""
        while piece := connection.recv(65536):
            open_connections += piece
    assert (open_connections.count(b"HTTP/1.1 200 "), open_connections.count(b"HTTP/1.1 401 ")) == (
        100,
        1,
    )


def test_a_server_stops_while_clients_are_connected() -> None:
    """Idle ones do not hold it up."""
    made = World()
    made.server.start("web-test")
    open_connections = [connect(made.server.url) for _ in range(5)]
    closing = threading.Thread(target=made.server.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    for one in open_connections:
        assert read_answer(one) == RawAnswer(0, (b"",), b"")
        one.close()
