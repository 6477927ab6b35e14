"""One case per notification channel, and the receivers, clients and notifications that the cases use."""

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
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels.http_client import Client
from stepstream.sinks.notify.channels.webhook import HOSTS, ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.sample_notification import sample
from stepstream.sinks.notify.secrets import Secrets
from tests.support.notify_world import NOW, alert, subscription
from tests.support.receiver import Call

SECRET = "s3cr3t-0123456789-abcdef"


S = 1_000_000


_clients: list[Client] = []


@pytest.fixture(autouse=True)
def closing() -> Iterator[None]:
    """Connections do not outlive the test."""
    yield
    while _clients:
        _clients.pop().close()
    time.sleep(0.01)  # the receivers' threads notice


def client(**given: Any) -> Client:
    """A client that is closed with the test."""
    _clients.append(Client(**given))
    return _clients[-1]


def kit(
    url: str = "", *, private: bool = True, commands: bool = True, **environ: str
) -> ChannelContext:
    """What channels work with; every service is at ``url``."""
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
        hosts=dict.fromkeys(HOSTS, url),
    )


def notification(*alerts: AlertStruct, **fields: Any) -> Notification:
    """A notification about these alerts."""
    told = alerts or (
        alert(
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            severity="critical",
            step_ids=["1c3a5e7f90b2d4f6"],
        ),
    )
    firing = sum(one.state == "firing" for one in told)
    made = sample(subscription("oncall"), NOW)
    known: dict[str, Any] = {
        "alerts": told,
        "firing": firing,
        "resolved": len(told) - firing,
        "untold": 0,
        "group": "g",
    }
    return replace(made, **(known | fields))


@dataclass(frozen=True)
class Case:
    """A channel, how it is written, and what its receiver gets of a firing alert."""

    to: Callable[[str], dict[str, Any]]
    check: Callable[[Call], bool]
    path: str
    refuses: bool = True
    """It can tell a refusal from trouble that may pass."""


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


OTHERWISE = {"email", "command"}
"""Channels without HTTP, with tests of their own below."""


def wanted(name: str, url: str, **fields: Any) -> Subscription:
    return subscription("oncall", to={name: CASES[name].to(url)}, **fields)


def kit_for(url: str, **fields: Any) -> ChannelContext:
    return kit(url, APPRISE=f"json://{url.removeprefix('http://')}/{SECRET}", **fields)


@contextmanager
def mailbox() -> Iterator[tuple[int, list[str]]]:
    """A mail server that takes what comes."""
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
                        answer = b"" if in_mail else b"250 taken\r\n"
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
