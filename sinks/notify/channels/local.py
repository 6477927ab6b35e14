"""A program on this machine, told on its standard input."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Final

from stepstream.schemas.channels import Command
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels.http_client import Refused, TemporaryFailure
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import payload

_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")


def send_command(
    notification: Notification, subscription: Subscription, options: Command, kit: ChannelContext
) -> str:
    """Run the program; exit code 0 is a yes. Only where the notifier's settings allow commands, because whoever may write
    documents could otherwise run programs here."""
    if not kit.allow_commands:
        raise Refused(
            "commands are off: the notifier runs them only with the setting notify_allow_commands"
        )
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    environment |= {
        "STEPSTREAM_NOTIFICATION_ID": notification.id,
        "STEPSTREAM_ATTEMPT": str(notification.attempt),
    }
    try:
        done = subprocess.run(
            options.argv,
            input=json.dumps(payload(notification, subscription), ensure_ascii=False).encode(),
            capture_output=True,
            timeout=options.timeout / 1e6,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TemporaryFailure("the program did not end in time") from None
    except OSError as error:
        raise TemporaryFailure(f"the program cannot be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise TemporaryFailure(f"exit code {done.returncode}: {said}".rstrip(": "))
    return done.stdout.decode("utf-8", "replace")[:1_000]
