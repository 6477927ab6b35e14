"""A program on the notifier's machine."""

from __future__ import annotations

import os
import subprocess
from typing import ClassVar, Final

from pydantic import Field

from stepstream.schemas.channels import CHANNELS, Channel, Text
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channel import ChannelContext, Refused, TemporaryFailure, encode_json
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import payload

# The notifier's other variables hold its credentials for Kafka.
_INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT")
_MAX_OUTPUT_CHARS: Final = 1_000
_MAX_ERROR_CHARS: Final = 200


@CHANNELS.register("command")
class Command(Channel):
    """A program that gets the notification as JSON on standard input; exit code 0 accepts it.

    It runs only where the notifier's setting ``notify_allow_commands`` is on.
    """

    max_alerts: ClassVar[int | None] = 200

    argv: tuple[Text, ...] = Field(
        min_length=1, description="the program and its arguments; no shell is involved"
    )

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Run the program."""
        if not context.allow_commands:
            # Otherwise every author of a document could run programs here.
            raise Refused(
                "commands are off: the notifier runs them only with the setting "
                "notify_allow_commands"
            )
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment["STEPSTREAM_NOTIFICATION_ID"] = notification.id
        environment["STEPSTREAM_ATTEMPT"] = str(notification.attempt)
        try:
            done = subprocess.run(
                self.argv,
                input=encode_json(payload(notification, subscription)),
                capture_output=True,
                timeout=self.timeout / 1e6,
                env=environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise TemporaryFailure("the program did not end in time") from None
        except OSError as error:
            raise TemporaryFailure(f"the program cannot be run: {error.strerror}") from None
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip()[-_MAX_ERROR_CHARS:]
            raise TemporaryFailure(f"exit code {done.returncode}: {text}".rstrip(": "))
        return done.stdout.decode("utf-8", "replace")[:_MAX_OUTPUT_CHARS]
