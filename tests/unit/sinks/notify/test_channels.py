"""Every channel has the same guarantees: one suite over all, with real receivers on loopback."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.documents import Subscription
from stepstream.schemas.notification import Notification as Contract
from stepstream.schemas.times import SECOND_US
from stepstream.sinks.notify.channel import Outcome, deliver
from stepstream.sinks.notify.channels.webhook import sign, verify
from stepstream.sinks.notify.failures import Refused, TemporaryFailure
from stepstream.sinks.notify.message import message, payload
from stepstream.sinks.notify.secrets import Secrets, SecretUnavailable
from stepstream.sinks.notify.ssrf import ForbiddenAddress, checked_addresses, is_public
from tests.support.channel_cases import (
    CASES,
    OWN_CHANNELS,
    SECRET,
    WITHOUT_HTTP,
    client,
    context,
    context_for,
    mailbox,
    notification,
    wanted,
)
from tests.support.notify_world import alert, subscription
from tests.support.receiver import receiver

# apprise imports what Python 3.13 does not have any more, and does without it there.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_every_channel_is_tried_here() -> None:
    """A channel that is added is added here too."""
    assert CASES.keys() | WITHOUT_HTTP.keys() == OWN_CHANNELS


@pytest.mark.parametrize("name", CASES)
def test_a_notification_arrives_as_the_channel_has_it(name: str) -> None:
    """At the right place, in the right form, once."""
    with receiver(answer=b"ok") as there:
        assert (
            deliver(notification(), wanted(name, there.url), context_for(there.url)).kind
            == "delivered"
        )
        (call,) = there.taken
        assert call.path.split("?")[0] == CASES[name].path
        assert CASES[name].check(call)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("status", "kind"), [(503, "failed"), (429, "failed"), (400, "refused"), (302, "refused")]
)
def test_an_error_status_decides_whether_it_is_tried_again(
    name: str, status: int, kind: str
) -> None:
    """Temporary errors are tried again, others are not; the reason has the answer, without
    secrets."""
    with receiver(status=lambda _call: status, answer=f"no, {SECRET} is wrong".encode()) as there:
        outcome = deliver(notification(), wanted(name, there.url), context_for(there.url))
    assert outcome.kind == (kind if CASES[name].refuses else "failed")
    assert str(status) in outcome.text
    assert SECRET not in outcome.text or name == "alertmanager"  # which has none


@pytest.mark.parametrize("name", CASES)
def test_no_connection_and_no_answer_are_temporary(name: str) -> None:
    """A refused connection and a receiver that hangs: tried again, and the time limit is kept."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert deliver(notification(), wanted(name, url), context_for(url)).kind == "failed"
        silent.listen()
        to = {name: {**CASES[name].to(url), "timeout": "300ms"}}
        # A time limit that is not kept ends in the time limit of the test.
        outcome = deliver(notification(), subscription("oncall", to=to), context_for(url))
        assert outcome.kind == "failed"
        assert SECRET not in outcome.text


@pytest.mark.parametrize("name", CASES)
def test_addresses_of_our_own_network_are_refused(name: str) -> None:
    """Unless a setting allows them."""
    with receiver() as there:
        outcome = deliver(
            notification(), wanted(name, there.url), context_for(there.url, private=False)
        )
        assert (outcome.kind, there.taken) == ("refused", [])
        assert "notify_allow_private" in outcome.text


@pytest.mark.parametrize("name", CASES)
def test_a_secret_that_is_missing_is_named(name: str) -> None:
    """It is tried again: the operator may add it. A channel without secrets needs none."""
    with receiver() as there:
        bare = replace(
            context_for(there.url), secrets=Secrets(Path("/nowhere"), {}, frozenset({"APPRISE"}))
        )
        outcome = deliver(notification(), wanted(name, there.url), bare)
        assert (
            outcome.kind == "delivered" if name == "alertmanager" else "is not set" in outcome.text
        )


def test_systems_that_keep_alerts_get_the_end() -> None:
    """PagerDuty and Opsgenie close what they opened; an alert that is new to them is opened
    first."""
    over = alert(state="resolved")
    for name, ends in (
        ("pagerduty", ["/v2/enqueue"]),
        ("opsgenie", ["/v2/alerts/oncall-g/close?identifierType=alias"]),
    ):
        with receiver() as there:
            assert (
                deliver(notification(over), wanted(name, there.url), context_for(there.url)).kind
                == "delivered"
            )
            assert [call.path for call in there.taken] == ends
            assert (
                deliver(
                    notification(over, new_alerts=1),
                    wanted(name, there.url),
                    context_for(there.url),
                ).kind
                == "delivered"
            )
            assert [call.path for call in there.taken] == [*ends, CASES[name].path, *ends]


def test_a_signature_is_of_this_body_and_this_time() -> None:
    """Another body, another key or a time long ago is not accepted."""
    header = sign("key", 1_000, b"body")
    assert verify("key", header, b"body", 1_100)
    assert not verify("key", header, b"bodY", 1_100)
    assert not verify("other", header, b"body", 1_100)
    assert not verify("key", header, b"body", 2_000)
    assert not verify("key", "nonsense", b"body", 1_100)


def test_the_body_has_the_fields_of_its_schema() -> None:
    """``stepstream schema Notification`` describes what a webhook gets, field by field."""
    sent = payload(
        notification(alert(), alert("b", state="resolved")),
        subscription(link_template="https://t/{trace_id}"),
    )
    read = Contract.model_validate_json(json.dumps(sent))
    assert set(sent) == set(json.loads(read.model_dump_json()))
    for given, found in zip(sent["alerts"], read.alerts, strict=True):
        assert set(given) <= set(type(found).model_fields)
        assert (given["alert_id"], given["command"]) == (found.alert_id, found.command)


def test_the_body_is_the_same_at_every_try() -> None:
    """One idempotency key, one content: tries differ in a header alone."""
    one = notification()
    # Receivers store the answer by the key: another body under it is an error for some.
    assert payload(one, subscription()) == payload(replace(one, attempt=7), subscription())


# -- HTTP ------------------------------------------------------------------------------------------


def test_redirects_are_followed_only_as_posts_and_checked_again() -> None:
    """307 and 308 lead on, without the headers that may be secrets; into our own network they lead
    nowhere."""
    with receiver() as there, receiver(status=lambda _call: 307) as here:
        # A receiver could otherwise send our secrets to any address.
        here.headers["Location"] = f"{there.url}/moved"
        client(allow_private=True).post(
            here.url, b"{}", {"Authorization": "x", "Content-Type": "a/b"}, timeout_s=5
        )
        assert [(call.path, "Authorization" in call.headers) for call in there.taken] == [
            ("/moved", False)
        ]

        inside = there.url.rpartition(":")[2]

        def lookup(host: str, port: int) -> list[tuple[Any, ...]]:
            return [(0, 0, 0, "", ("127.0.0.1", port))]

        guarded = client(allow_private=False, lookup=lookup)
        with pytest.raises(Refused, match="notify_allow_private"):
            guarded.post(f"http://public.example:{inside}/", b"{}", {}, timeout_s=5)
    with receiver(status=lambda _call: 308) as loop:
        loop.headers["Location"] = loop.url
        with pytest.raises(Refused, match="more than 3"):
            client(allow_private=True).post(loop.url, b"{}", {}, timeout_s=5)


def test_a_name_is_looked_up_and_checked_for_every_connection() -> None:
    """A name that pointed to a good address and points into our network now is refused; the
    connection is made to the address that was checked, not to the one that a second question would
    give."""
    # DNS rebinding: the second answer of the same name leads into our network.
    answers = [["93.184.216.34"], ["127.0.0.1"]]
    asked: list[str] = []

    def lookup(host: str, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [
            (0, 0, 0, "", (address, port)) for address in answers[min(len(asked), len(answers)) - 1]
        ]

    assert checked_addresses("h.example", 443, allow_private=False, lookup=lookup) == [
        ("93.184.216.34", 443)
    ]
    with pytest.raises(ForbiddenAddress):
        checked_addresses("h.example", 443, allow_private=False, lookup=lookup)
    with receiver() as there:
        port = int(there.url.rpartition(":")[2])
        named = client(
            allow_private=True, lookup=lambda _host, at: [(0, 0, 0, "", ("127.0.0.1", at))]
        )
        named.post(f"http://nowhere.invalid:{port}/x", b"{}", {}, timeout_s=5)
        assert there.taken[0].headers["Host"] == f"nowhere.invalid:{port}"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    """Loopback, private, link-local (with the clouds' metadata), shared, reserved and multicast are
    not, in any disguise."""
    assert is_public(address) is public


def test_a_mixed_name_is_refused() -> None:
    """One address inside is enough."""
    with pytest.raises(ForbiddenAddress):
        checked_addresses(
            "h",
            1,
            allow_private=False,
            lookup=lambda _h, p: [(0, 0, 0, "", (a, p)) for a in ("8.8.8.8", "10.0.0.1")],
        )


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"])
def test_a_slow_answer_is_cut_off(head: bytes) -> None:
    """The time limit holds for the whole request, however often a byte of head or body arrives."""
    cut = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_slowly() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    connection.sendall(head or b"HTTP/1.1 200 OK\r\nX-Slow: ")
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.02)
                except OSError:
                    cut.set()

        thread = threading.Thread(target=send_slowly)
        thread.start()
        with pytest.raises(TemporaryFailure, match="no answer in time"):
            client(allow_private=True).post(
                f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {}, timeout_s=0.3
            )
        assert cut.wait(30)
        thread.join()


def test_connections_are_kept() -> None:
    """A second request to the same address needs no new connection."""
    own = client(allow_private=True)
    with receiver() as there:
        for _ in range(3):
            own.post(there.url, b"{}", {}, timeout_s=5)
        assert len({call.peer for call in there.taken}) == 1


def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    """Before the next request or in the middle of it: it is sent again, over a new connection."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    received: list[bytes] = []

    def receive(connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            while file.readline() not in (b"\r\n", b""):
                pass
            received.append(file.read(1))

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            # The first connection is closed when the second request arrives on it.
            connection, _ = server.accept()
            with connection:
                receive(connection)
                connection.sendall(answer)
                receive(connection)
            connection, _ = server.accept()
            with connection:
                receive(connection)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        own = client(allow_private=True)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        own.post(url, b"1", {}, timeout_s=20)
        own.post(url, b"2", {}, timeout_s=20)
        thread.join()
    assert received == [b"1", b"2", b"2"]


def test_no_request_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy the address of the connection could not be checked."""
    with receiver() as proxy, receiver() as there:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        client(allow_private=True).post(there.url, b"{}", {}, timeout_s=5)
        assert (len(there.taken), proxy.taken) == (1, [])


def test_the_next_address_is_tried_when_one_accepts_no_connection() -> None:
    """A name with several addresses, the first of which is down."""
    with receiver() as there, socket.create_server(("127.0.0.1", 0)) as other:
        closed = other.getsockname()[1]
        other.close()
        port = int(there.url.rpartition(":")[2])

        def lookup(_host: str, _port: int) -> list[tuple[Any, ...]]:
            return [(0, 0, 0, "", ("127.0.0.1", at)) for at in (closed, port)]

        client(allow_private=True, lookup=lookup).post(
            "http://two.example:1/x", b"{}", {}, timeout_s=5
        )
        assert [call.headers["Host"] for call in there.taken] == ["two.example:1"]


def test_retry_after_is_heard() -> None:
    """What the other side asks for is kept, within an hour."""
    with receiver(status=lambda _call: 429, headers={"Retry-After": "7"}) as there:
        outcome = deliver(notification(), wanted("webhook", there.url), context_for(there.url))
        assert outcome.retry_after_us == 7 * SECOND_US
        there.headers["Retry-After"] = "99999999"
        assert (
            deliver(
                notification(), wanted("webhook", there.url), context_for(there.url)
            ).retry_after_us
            == 3_600 * SECOND_US
        )
        for odd in (
            "soon",
            "-1",
            "\u00b2".encode().decode("latin-1"),
            "Mon, 01 Jan 2026 00:00:00 +" + "9" * 30,
        ):
            there.headers["Retry-After"] = odd
            assert (
                deliver(
                    notification(), wanted("webhook", there.url), context_for(there.url)
                ).retry_after_us
                == 0
            )


# -- programs, mail --------------------------------------------------------------------------------


def command(code: str, **fields: Any) -> Subscription:
    return subscription("oncall", to={"command": {"argv": [sys.executable, "-c", code], **fields}})


def test_a_program_gets_the_notification_and_nothing_of_our_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JSON on standard input. Exit code 0 accepts it, others and a time-out are temporary
    failures."""
    # The notifier's environment has passwords of Kafka and of the store.
    monkeypatch.setenv("STEPSTREAM_HIDDEN", "x")
    code = (
        "import json, os, sys; "
        "print(json.load(sys.stdin)['alerts'][0]['alert'], 'STEPSTREAM_HIDDEN' in os.environ)"
    )
    assert deliver(notification(), command(code), context()) == Outcome("delivered", "loop False")
    assert deliver(notification(), command("import sys; sys.exit('oh no')"), context()) == Outcome(
        "failed", "exit code 1: oh no"
    )
    assert (
        deliver(
            notification(), command("import time; time.sleep(9)", timeout="300ms"), context()
        ).kind
        == "failed"
    )
    missing = subscription("oncall", to={"command": {"argv": ["/no/such/program"]}})
    assert "cannot be run" in deliver(notification(), missing, context()).text
    assert (
        "notify_allow_commands"
        in deliver(notification(), command(code), context(commands=False)).text
    )


def test_a_mail_arrives() -> None:
    """Title as subject, the text as body, to every recipient."""
    with mailbox() as (port, mails):
        to = {
            "host": "127.0.0.1",
            "port": port,
            "sender": "a@h.example",
            "to": ["b@h.example"],
            "encryption": "none",
        }
        outcome = deliver(notification(), subscription("oncall", to={"email": to}), context())
        assert outcome.kind == "delivered", outcome
    text = "".join(mails)
    assert "b@h.example" in text
    assert "CRITICAL" in text
    refused = deliver(
        notification(), subscription("oncall", to={"email": to}), context(private=False)
    )
    assert refused.kind == "refused"


# -- words -----------------------------------------------------------------------------------------


def test_messages_have_rule_place_severity_time_and_command() -> None:
    """And carry evidence, numbers and a link that is safe to click."""
    one = alert(
        severity="critical",
        environment="prod",
        task="refund",
        trace_id="4bf9",
        value=1.84,
        threshold=0.5,
        baseline=0.31,
        unit="usd",
        message="$1.84 so far",
        detail="62 % of it is 11 x search_docs",
        step_ids=["s1", "s2"],
    )
    words = message(
        notification(one),
        subscription(link_template="https://t.example/{project}/{trace_id}?a={agent}"),
    )
    assert words.title == "[CRITICAL] loop shop/support/refund (prod): $1.84 so far"
    for part in (
        "since 2026-01-01 00:00:00 UTC",
        "limit $0.50",
        "normal $0.31",
        "62 %",
        "steps s1, s2",
        "stepstream trace 4bf9",
    ):
        assert part in words.body
    assert words.link == "https://t.example/shop/4bf9?a=support"
    evil = message(
        notification(alert(agent="a/../b&c=d e")),
        subscription(link_template="https://t.example/?a={agent}"),
    )
    assert evil.link == "https://t.example/?a=a%2F..%2Fb%26c%3Dd%20e"


def test_what_alerts_quote_is_cut_and_cleared_of_secrets() -> None:
    """By default; ``full`` leaves it, ``none`` leaves it out."""
    quoted = (
        "tool wrote: password=hunter22 Bearer abcdefgh12345 jo@mail.example 4111 1111 1111 1111 "
        f"sk-{'a' * 30} {'x' * 900}"
    )
    one = notification(alert(message=f"failed with token=abc123def: {quoted}", detail=quoted))
    words = message(one, subscription()).body
    for secret in (
        "hunter22",
        "abcdefgh12345",
        "jo@mail",
        "4111",
        "a" * 30,
        "abc123def",
        "x" * 600,
    ):
        assert secret not in words
    assert "hunter22" in message(one, subscription(content="full")).body
    assert "tool wrote" not in payload(one, subscription(content="none"))["alerts"][0]["detail"]
    assert "hunter22" not in json.dumps(payload(one, subscription()))


def test_words_of_ones_own() -> None:
    """Templates for title and body."""
    own = subscription(template={"title": "{severity}: {alert} {{x}}", "body": "{who} {since}"})
    words = message(notification(alert()), own)
    assert (words.title, words.body) == (
        "warning: loop {x}",
        "shop/support 2026-01-01 00:00:00 UTC",
    )


def test_a_chat_cannot_be_made_to_mention_people() -> None:
    """A mention that an agent wrote is plain text."""
    one = notification(alert(message="<!channel> <http://evil.example|click> @everyone"))
    with receiver(answer=b"ok") as there:
        deliver(one, wanted("slack", there.url), context_for(there.url))
        deliver(one, wanted("discord", there.url), context_for(there.url))
        slack, discord = there.taken
    assert "<" not in slack.data["text"]
    assert discord.data["allowed_mentions"] == {"parse": []}


def test_a_long_list_is_counted() -> None:
    """Ten are shown, the rest is a number; programs get all."""
    # Services cut or refuse messages of this length.
    many = notification(*(alert(f"a{n}") for n in range(30)))
    words = message(many, subscription())
    assert "and 29 more (30 firing)" in words.title
    assert words.body.endswith("and 20 more")
    assert len(payload(many, subscription())["alerts"]) == 30


def test_secrets_come_from_where_they_may(tmp_path: Path) -> None:
    """Variables with the prefix or listed, files under one folder; links out of it lead nowhere."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "key").write_text("value\n")
    (tmp_path / "out").write_text("no")
    # A link is checked by where it leads.
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    environ = {
        "A": "x",
        "STEPSTREAM_NOTIFY_SECRET_A": "z",
        "STEPSTREAM_KAFKA_SASL_PASSWORD": "y",
        "OPENAI_API_KEY": "sk",
    }
    secrets = Secrets(tmp_path / "in", environ, frozenset({"A", "STEPSTREAM_KAFKA_SASL_PASSWORD"}))
    given = ("env:A", "env:STEPSTREAM_NOTIFY_SECRET_A", f"file:{tmp_path}/in/key", "plain")
    assert [secrets.text(one) for one in given] == ["x", "z", "value", "plain"]
    for ref, why in (
        ("env:STEPSTREAM_NOTIFY_SECRET_C", "is not set"),
        (
            "env:OPENAI_API_KEY",
            "call it STEPSTREAM_NOTIFY_SECRET_OPENAI_API_KEY, or list it in .* "
            "notify_secret_variables",
        ),
        ("env:PATH", "notify_secret_variables"),
        ("env:STEPSTREAM_KAFKA_SASL_PASSWORD", "own settings"),
        (f"file:{tmp_path}/out", "notify_secrets_dir"),
        (f"file:{tmp_path}/in/link", "notify_secrets_dir"),
        (f"file:{tmp_path}/in/../out", "notify_secrets_dir"),
    ):
        with pytest.raises(SecretUnavailable, match=why):
            secrets.text(ref)
