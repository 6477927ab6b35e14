"""One case per notification channel, and the receivers, clients and notifications that the cases
use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.channels import CHANNELS
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.http_client import HttpClient
from stepstream.sinks.notify.sample_notification import sample
from stepstream.sinks.notify.secrets import Secrets
from tests.support.notify_world import NOW, alert, subscription
from tests.support.receiver import Call

SECRET = "s3cr3t-0123456789-abcdef"
_clients: list[HttpClient] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Connections do not outlive the test."""
    yield
    while _clients:
        _clients.pop().close()
    time.sleep(0.01)  # the receivers' threads notice


def client(**given: Any) -> HttpClient:
    """A client that is closed with the test."""
    _clients.append(HttpClient(**given))
    return _clients[-1]


def context(
    url: str = "", *, private: bool = True, commands: bool = True, **environ: str
) -> ChannelContext:
    """A context in which every service with a fixed address is at ``url``."""
    return ChannelContext(
        client=client(allow_private=private),
        secrets=Secrets(
            Path("/nowhere"),
            {
                "STEPSTREAM_NOTIFY_SECRET_TOKEN": SECRET,
                "STEPSTREAM_NOTIFY_SECRET_URL": f"{url}/{SECRET}",
                **environ,
            },
            frozenset({"APPRISE"}),
        ),
        clock_s=lambda: NOW / 1e6,
        allow_commands=commands,
        allow_private=private,
        hosts={name: url for _, channel in CHANNELS.items() for name in channel.hosts},
    )


def notification(*alerts: AlertStruct, **fields: Any) -> Notification:
    """A notification about these alerts."""
    included = alerts or (
        alert(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            severity="critical",
            step_ids=["1c3a5e7f90b2d4f6"],
        ),
    )
    firing = sum(one.state == "firing" for one in included)
    made = sample(subscription("oncall"), NOW)
    known: dict[str, Any] = {
        "alerts": included,
        "firing": firing,
        "resolved": len(included) - firing,
        "new_alerts": 0,
        "group": "g",
    }
    return replace(made, **(known | fields))


@dataclass(frozen=True)
class Case:
    """One channel: its options, and what its receiver gets of a firing alert."""

    to: Callable[[str], dict[str, Any]]
    check: Callable[[Call], bool]
    path: str
    # Whether the channel distinguishes a refusal from a temporary failure.
    refuses: bool = True


CASES = {
    "webhook": Case(
        lambda url: {
            "url": f"{url}/hook",
            "secret": "env:STEPSTREAM_NOTIFY_SECRET_TOKEN",
            "headers": {"X-Team": "ops"},
        },
        lambda call: (
            call.data["alerts"][0]["severity"] == "critical" and call.headers["X-Team"] == "ops"
        ),
        "/hook",
    ),
    "alertmanager": Case(
        lambda url: {"url": url, "labels": {"team": "ops"}},
        lambda call: (
            call.data[0]["labels"]["team"] == "ops"
            and call.data[0]["endsAt"] == "2026-01-01T00:03:00.000Z"
        ),
        "/api/v2/alerts",
    ),
    "slack": Case(
        lambda _: {"url": "env:STEPSTREAM_NOTIFY_SECRET_URL"},
        lambda call: "CRITICAL" in call.data["text"],
        f"/{SECRET}",
    ),
    "discord": Case(
        lambda _: {"url": "env:STEPSTREAM_NOTIFY_SECRET_URL"},
        lambda call: "CRITICAL" in call.data["content"],
        f"/{SECRET}",
    ),
    "teams": Case(
        lambda _: {"url": "env:STEPSTREAM_NOTIFY_SECRET_URL"},
        lambda call: "CRITICAL" in call.data["attachments"][0]["content"]["body"][0]["text"],
        f"/{SECRET}",
    ),
    "telegram": Case(
        lambda _: {"token": "env:STEPSTREAM_NOTIFY_SECRET_TOKEN", "chat": "-100"},
        lambda call: call.data["chat_id"] == "-100" and "CRITICAL" in call.data["text"],
        f"/bot{SECRET}/sendMessage",
    ),
    "pagerduty": Case(
        lambda _: {"routing_key": "env:STEPSTREAM_NOTIFY_SECRET_TOKEN"},
        lambda call: (
            call.data["event_action"] == "trigger"
            and call.data["routing_key"] == SECRET
            and call.data["payload"]["severity"] == "critical"
        ),
        "/v2/enqueue",
    ),
    "opsgenie": Case(
        lambda _: {"api_key": "env:STEPSTREAM_NOTIFY_SECRET_TOKEN", "team": "ops"},
        lambda call: (
            call.data["priority"] == "P1" and call.headers["Authorization"] == f"GenieKey {SECRET}"
        ),
        "/v2/alerts",
    ),
    "apprise": Case(
        lambda _: {"url": "env:APPRISE"},
        lambda call: "CRITICAL" in call.data["title"],
        f"/{SECRET}",
        refuses=False,
    ),
}


# Options of the channels that have tests of their own.
WITHOUT_HTTP: dict[str, dict[str, Any]] = {
    "email": {
        "host": "mail.example",
        "sender": "a@example",
        "to": ["b@example"],
        "user": "u",
        "password": "env:MAIL",
    },
    "command": {"argv": ["/usr/bin/true"]},
}

# The project's channels. Other tests may have registered some of their own.
OWN_CHANNELS = {
    name for name, channel in CHANNELS.items() if channel.__module__.startswith("stepstream.")
}

# Valid options of every channel.
OPTIONS = {name: case.to("https://h.example") for name, case in CASES.items()} | WITHOUT_HTTP


def wanted(name: str, url: str, **fields: Any) -> Subscription:
    """A subscription whose channel is at ``url``."""
    return subscription("oncall", to={name: CASES[name].to(url)}, **fields)


def context_for(url: str, **fields: Any) -> ChannelContext:
    """A context for subscriptions of ``wanted``."""
    return context(url, APPRISE=f"json://{url.removeprefix('http://')}/{SECRET}", **fields)


@contextmanager
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """A mail server that accepts one session."""
    mails: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            there, _ = server.accept()
            with there, there.makefile("rwb") as file:
                file.write(b"220 ready\r\n")
                file.flush()
                in_mail = False
                for line in file:
                    if in_mail:
                        mails.append(line.decode())
                        in_mail = line != b".\r\n"
                        answer = b"" if in_mail else b"250 accepted\r\n"
                    elif line.upper().startswith(b"DATA"):
                        in_mail, answer = True, b"354 go on\r\n"
                    else:
                        answer = (
                            b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n"
                        )
                    file.write(answer)
                    file.flush()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], mails
        thread.join(5)
