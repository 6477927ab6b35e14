"""A channel in a package of its own, installed with pip, delivers like ours and is restricted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.receiver import receiver

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "acme-channels"
version = "1.0"

[project.entry-points."stepstream.channels"]
acme = "acme_channels"
"""

CHANNEL = '''
"""Channels of Acme."""

import socket
import subprocess

from stepstream.schemas.channels import CHANNELS, Channel, Secret, Text
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message


@CHANNELS.register("acme")
class Acme(Channel):
    """A message to Acme's own pager."""

    url: Text
    token: Secret
    way: str = "context"

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        text = message(notification, subscription)
        match self.way:
            case "socket":
                host, _, port = self.url.removeprefix("http://").partition(":")
                socket.create_connection((host, int(port)))
            case "file":
                open("/etc/passwd").read()
            case "program":
                subprocess.run(["true"])
            case "secret":
                return context.secret("env:STEPSTREAM_NOTIFY_SECRET_OTHER")
        data = {"title": text.title, "token": context.secret(self.token)}
        return context.post(self.url, data, self.timeout)
'''

DELIVER = """
import json, sys, time
from stepstream.schemas.documents import subscription_of
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.sample_notification import send_sample
from stepstream.sinks.notify.service import context_of

options, settings = json.loads(sys.argv[1]), json.loads(sys.argv[2])
subscription = subscription_of({"name": "pager", "to": {"acme": options}})
outcome = send_sample(subscription, context_of(Settings(**settings)), time.time_ns() // 1000)
print(json.dumps([outcome.kind, outcome.text]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package."""
    source = tmp_path_factory.mktemp("acme")
    target = tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "acme_channels.py").write_text(CHANNEL)
    # Nothing is downloaded: what the package needs is installed here.
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *options, "--target", target, source],
        check=True,
        timeout=100,
    )
    return target


@pytest.fixture
def deliver(installed: Path) -> Callable[..., tuple[str, str]]:
    """Send the sample of a subscription in a process that has the package."""

    def run(options: dict[str, Any], **settings: Any) -> tuple[str, str]:
        done = subprocess.run(
            # A process of its own: entry points are read once per process.
            [sys.executable, "-c", DELIVER, json.dumps(options), json.dumps(settings)],
            env={
                **os.environ,
                "PYTHONPATH": str(installed),
                "STEPSTREAM_NOTIFY_SECRET_TOKEN": "the-token",
                "STEPSTREAM_NOTIFY_SECRET_OTHER": "of another subscription",
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        kind, text = json.loads(done.stdout)
        return kind, text

    return run


TOKEN = "env:STEPSTREAM_NOTIFY_SECRET_TOKEN"


def test_a_channel_of_another_package_delivers(deliver: Callable[..., tuple[str, str]]) -> None:
    """Its options are validated, its secret is read, and the answer has no secret in it."""
    with receiver(answer=b"thanks for the-token") as there:
        found = deliver({"url": there.url, "token": TOKEN}, notify_allow_private=True)
        assert found == ("delivered", "thanks for ***")
        (call,) = there.taken
        assert call.data["token"] == "the-token"
        assert call.data["title"].startswith("[TEST] this is a test of the subscription pager")


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("context", "notify_allow_private"),
        ("socket", "notify_allow_private"),
        ("file", "files are not read"),
        ("program", "programs are not started"),
    ],
)
def test_its_code_is_restricted(
    deliver: Callable[..., tuple[str, str]], way: str, reason: str
) -> None:
    """It reaches no private address, no file and no program, whichever way it tries."""
    with receiver() as there:
        kind, text = deliver({"url": there.url, "token": TOKEN, "way": way})
        assert (kind, there.taken) == ("refused", [])
        assert reason in text


def test_it_gets_no_secret_of_others(deliver: Callable[..., tuple[str, str]]) -> None:
    """Only those that its own subscription names."""
    kind, text = deliver({"url": "https://h.example", "token": TOKEN, "way": "secret"})
    assert kind == "failed"
    assert "is not an option of this subscription" in text


def test_without_the_package_the_name_is_unknown(tmp_path: Path) -> None:
    """The command that applies a document names the nearest channel."""
    document = tmp_path / "pager.yaml"
    document.write_text("{kind: Subscription, name: pager, to: {tems: {url: 'env:X'}}}")
    done = subprocess.run(
        [sys.executable, "-m", "stepstream", "apply", "-f", document],
        env={**os.environ, "STEPSTREAM_KAFKA_BROKERS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "there is no channel 'tems'; did you mean teams?" in done.stdout + done.stderr
