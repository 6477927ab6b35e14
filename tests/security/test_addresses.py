"""No notification goes into the notifier's own network: the address that was checked is the one
that is connected to."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.sinks.notify import confinement
from stepstream.sinks.notify.channel import deliver
from stepstream.sinks.notify.confinement import Blocked, confined
from stepstream.sinks.notify.http_client import HttpClient
from stepstream.sinks.notify.ssrf import is_public
from tests.support.channel_cases import (
    CASES,
    OWN_CHANNELS,
    closing,
    context,
    context_for,
    mailbox,
    notification,
    wanted,
)
from tests.support.notify_world import subscription
from tests.support.receiver import receiver

__all__ = ["closing"]  # a fixture of every test here

pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PRIVATE = (
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
)
PUBLIC = (
    "1.1.1.1",
    "8.8.8.8",
    "9.9.9.9",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
)
PRIVATE_V6 = (
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b:1::1",
    "64:ff9b:1:ffff::808:808",
    "100::1",
    "100:0:0:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "ff0e::1",
    "4000::1",
    "2a00::5efe:a00:1",
    "2a00::200:5efe:7f00:1",
)
PUBLIC_V6 = (
    "2606:4700::1111",
    "2a00:1450::1",
    "2620:4f:8000::1",
    "2001:4860:4860::8888",
    "2a00::5efe:808:808",
)


def embedding(v4: str) -> list[str]:
    """The IPv6 addresses that lead to an IPv4 address."""
    number = int(ipaddress.IPv4Address(v4))
    base = ipaddress.IPv6Address
    return [
        str(base((0xFFFF << 32) | number)),
        str(base((0x64FF9B << 96) | number)),
        str(base((0x2002 << 112) | (number << 80) | 1)),
        str(base((0x20010000 << 96) | (0x08080808 << 64) | (~number & 0xFFFFFFFF))),
    ]


@pytest.mark.parametrize(
    "address", [*PRIVATE, *PRIVATE_V6, *(one for v4 in PRIVATE for one in embedding(v4))]
)
def test_what_is_not_public(address: str) -> None:
    """By the registries of special-purpose addresses, not the tables of this Python, in every
    form."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [*PUBLIC, *PUBLIC_V6, *(one for v4 in PUBLIC for one in embedding(v4))]
)
def test_what_is_public(address: str) -> None:
    """Neighbours of the private ranges, and what leads to a public IPv4 address (NAT64 where there
    is no IPv4)."""
    assert is_public(address)


@given(number=st.integers(0, 2**32 - 1))
def test_nothing_that_the_standard_library_forbids_is_public(number: int) -> None:
    """Its table is a part of ours."""
    v4 = ipaddress.IPv4Address(number)
    assert (
        (v4.is_global and not v4.is_multicast)
        or not is_public(str(v4))
        or str(v4).startswith("192.")
    )


@given(number=st.integers(0, 2**128 - 1) | st.integers(0, 2**64))
def test_nothing_in_version_6_that_the_standard_library_forbids_is_public(number: int) -> None:
    """But what leads to a public IPv4 address."""
    v6 = ipaddress.IPv6Address(number)
    led = v6.ipv4_mapped or v6.sixtofour or v6.teredo or v6 in ipaddress.IPv6Network("64:ff9b::/96")
    assert led or v6.is_global or not is_public(str(v6))


# -- code of others --


def in_a_thread(action: Callable[[], object]) -> BaseException | None:
    found: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return found[0] if found else None


def ways(port: int) -> dict[str, Callable[[], object]]:
    """How code may reach a port of this machine."""

    def plain() -> None:
        with socket.socket() as sock:
            sock.connect(("127.0.0.1", port))

    def by_name() -> None:
        with socket.socket() as sock:
            sock.connect(("localhost", port))

    def datagram() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", port))

    def message() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendmsg([b"x"], [], 0, ("127.0.0.1", port))

    def local() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect("/var/run/docker.sock")

    def thread_of_thread() -> None:
        inner: list[BaseException | None] = []
        in_a_thread(lambda: inner.append(in_a_thread(plain)))
        if inner[0] is not None:
            raise inner[0]

    async def streams() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    return {
        "plain": plain,
        "by name": by_name,
        "created": lambda: socket.create_connection(("localhost", port), 2).close(),
        "datagram": datagram,
        "message": message,
        "local": local,
        "thread of a thread": thread_of_thread,
        "asyncio": lambda: asyncio.run(streams()),
        "program": lambda: subprocess.run([sys.executable, "-c", "1"], check=True),
        "shell": lambda: os.system("true"),
        "fork": lambda: os.fork() or os._exit(0),
    }


@pytest.mark.parametrize("way", ways(1))
def test_confined_code_reaches_nothing_of_ours(way: str) -> None:
    """Not by another call, not by a name, not in a thread or a program that it starts; others are
    not confined."""
    with receiver() as there:
        port = int(there.url.rpartition(":")[2])
        with confined() as stay:
            with pytest.raises(OSError) as raised:  # noqa: PT011 - which of several, by the way
                ways(port)[way]()
            assert isinstance(raised.value, Blocked)
            assert stay.blocked
        assert there.taken == []
        # Only the ways that change nothing outside of the block.
        if way in ("plain", "created", "asyncio", "thread of a thread"):
            ways(port)[way]()  # outside it is as ever


def test_other_threads_are_not_confined() -> None:
    """A stay holds for its own thread and what that starts, and ends."""
    with receiver() as there:
        port = int(there.url.rpartition(":")[2])
        go, done = threading.Event(), threading.Event()
        found: list[BaseException | None] = []

        def other_thread() -> None:
            go.wait(20)
            try:
                ways(port)["plain"]()
                found.append(None)
            except OSError as error:
                found.append(error)
            done.set()

        other = threading.Thread(target=other_thread)
        other.start()
        with confined() as stay:
            go.set()
            assert done.wait(20)
        other.join(20)
        assert (found, stay.blocked) == ([None], [])


class Rebinding:
    """A resolver that gives a public address to who checks and ours to who connects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, public_answers: int) -> None:
        self.asked: list[str] = []
        real = socket.getaddrinfo

        def lookup(host: Any, port: Any, *args: Any, **more: Any) -> Any:
            if host != "rebind.example":
                return real(host, port, *args, **more)
            self.asked.append(host)
            address = "93.184.216.34" if len(self.asked) <= public_answers else "127.0.0.1"
            return real(address, port, *args, **more)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)


@pytest.mark.parametrize("form", ["json", "xml", "form", "ntfy", "gotify", "mmost", "rocket"])
def test_a_library_that_resolves_for_itself_is_checked_where_it_connects(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the resolver answered before: the address of the connection is checked."""
    Rebinding(monkeypatch, 0)
    with receiver(answer=b"ok") as there:
        port = there.url.rpartition(":")[2]
        urls = {
            "ntfy": f"ntfy://rebind.example:{port}/topic?mode=private",
            "gotify": f"gotify://rebind.example:{port}/abcdefghijklmno",
            "mmost": f"mmost://rebind.example:{port}/3ccdd113474722377935511fc85d3dd4",
            "rocket": f"rocket://u:p@rebind.example:{port}/#c",
        }
        # A public address for the check and 127.0.0.1 for the connection, as a DNS rebinding has.
        url = urls.get(form, f"{form}://rebind.example:{port}/x")
        own = context("", private=False, APPRISE=url)
        outcome = deliver(notification(), subscription(to={"apprise": {"url": "env:APPRISE"}}), own)
        assert (outcome.kind, there.taken) == ("refused", []), outcome
        assert "notify_allow_private" in outcome.text


def test_a_redirect_of_a_library_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One hop that may be, one that may not."""
    monkeypatch.setattr(confinement, "is_public", lambda address: address == "127.0.0.1")
    with (
        receiver(status=lambda _call: 307) as here,
        socket.create_server(("127.0.0.2", 0)) as inside,
    ):
        inside.settimeout(0.3)
        here.headers["Location"] = f"http://127.0.0.2:{inside.getsockname()[1]}/inside"
        url = here.url.replace("http", "json") + "/x?redirect=yes"
        outcome = deliver(
            notification(),
            subscription(to={"apprise": {"url": "env:APPRISE"}}),
            context("", private=False, APPRISE=url),
        )
        assert outcome.kind != "delivered"
        with pytest.raises(TimeoutError):
            inside.accept()


def test_no_library_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind one the address of a request cannot be checked; the error names the variable."""
    with receiver() as proxy:
        for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            with monkeypatch.context() as at:
                at.setenv(name, proxy.url)
                own = context("", private=False, APPRISE="json://93.184.216.34/x")
                outcome = deliver(
                    notification(), subscription(to={"apprise": {"url": "env:APPRISE"}}), own
                )
                assert outcome.kind == "refused"
                assert name in outcome.text
        assert proxy.taken == []


def dismiss(port: int) -> None:
    """End a mailbox that no client has used."""
    with socket.create_connection(("127.0.0.1", port), 5) as there, there.makefile("rwb") as file:
        file.readline()
        file.write(b"QUIT\r\n")
        file.flush()
        file.readline()


def test_a_mail_is_sent_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's name is looked up once; inside, the mail is refused."""
    asked: list[str] = []

    def lookup(host: str, port: int) -> list[tuple[Any, ...]]:
        asked.append(host)
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    for private, kind in ((False, "refused"), (True, "delivered")):
        asked.clear()
        with mailbox() as (port, mails):
            to = {
                "host": "rebind.example",
                "port": port,
                "sender": "a@h.example",
                "to": ["b@h.example", "C <c@h.example>"],
            }
            found = HttpClient(allow_private=private, lookup=lookup)
            own = replace(context("", private=private), client=found)
            outcome = deliver(
                notification(), subscription(to={"email": {**to, "encryption": "none"}}), own
            )
            found.close()
            if not private:
                dismiss(port)
        # A second look-up could give another address than the one that was checked.
        assert (outcome.kind, asked) == (kind, ["rebind.example"]), outcome
        assert bool(mails) is private


def test_a_mail_keeps_its_time_and_needs_the_encryption_that_it_asks_for() -> None:
    """A server that hangs, one without STARTTLS, and a sender with a line break in it."""
    to = {"host": "127.0.0.1", "sender": "a@h.example", "to": ["b@h.example"], "timeout": "400ms"}
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for encryption in ("none", "starttls", "tls"):
            outcome = deliver(
                notification(),
                subscription(to={"email": {**to, "port": port, "encryption": encryption}}),
                context(""),
            )
            assert (outcome.kind, outcome.text) == ("failed", "no answer in time")
    with mailbox() as (port, mails):
        outcome = deliver(
            notification(), subscription(to={"email": {**to, "port": port}}), context("")
        )
        assert outcome.kind == "failed"
        assert "STARTTLS" in outcome.text
    assert mails == []
    bent = {**to, "port": 1, "sender": "a@h.example\nBcc: x@evil.example"}
    with mailbox() as (port, mails):
        outcome = deliver(
            notification(),
            subscription(to={"email": {**bent, "port": port, "encryption": "none"}}),
            context(""),
        )
        assert outcome.kind == "refused"
        dismiss(port)
    assert mails == []


@pytest.mark.parametrize("name", sorted(OWN_CHANNELS - {"email", "command"}))
@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "①②⑦.0.0.1",
    ],
)
def test_no_spelling_of_our_own_address_is_reached(name: str, spelling: str) -> None:
    """By any channel with an address of its own."""
    with receiver() as there:
        url = f"http://{spelling}:{there.url.rpartition(':')[2]}"
        assert CASES[name]
        outcome = deliver(notification(), wanted(name, url), context_for(url, private=False))
        assert outcome.kind != "delivered"
        assert there.taken == []


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize(
    "form",
    [
        "workflow://{host}/{hex}/{key}?template={file}",
        "workflows://{host}/{hex}/{key}?template=file://{file}",
        "workflow://{host}/{hex}/{key}?template={folder}/../{folder_name}/template.json",
        "vapid://me@example.com/x?keyfile={file}",
        "fcm://project/device?keyfile={file}",
    ],
)
def test_an_address_names_no_file(tmp_path: Path, form: str, private: bool) -> None:
    """Its contents would be sent, or quoted in an error; whether private addresses are allowed or
    not."""
    file = tmp_path / "template.json"
    file.write_text(
        # A valid template of one of the services: a random file would be refused for its form.
        json.dumps({"type": "message", "attachments": [{"content": "secret of the machine"}]})
    )
    with receiver() as there:
        places = {
            "file": str(file),
            "folder": str(tmp_path),
            "folder_name": tmp_path.name,
            "hex": "a" * 32,
            "key": "b" * 43,
        }
        url = form.format(host=there.url.removeprefix("http://"), **places)
        outcome = deliver(
            notification(),
            subscription(to={"apprise": {"url": "env:APPRISE"}}),
            context("", private=private, APPRISE=url),
        )
        assert (outcome.kind, "files are not read" in outcome.text) == ("refused", True), outcome
        assert there.taken == []
