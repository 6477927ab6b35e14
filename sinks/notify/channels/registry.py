"""Which function serves which channel, and what becomes of a try."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels.http_client import Refused, TemporaryFailure
from stepstream.sinks.notify.channels.webhook import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.secrets import NoSecret, without

_HERE: Final = "stepstream.sinks.notify.channels"
SENDERS: Final = {
    "webhook": ("webhook", "send_webhook"),
    "slack": ("webhook", "send_slack"),
    "teams": ("webhook", "send_teams"),
    "discord": ("webhook", "send_discord"),
    "telegram": ("webhook", "send_telegram"),
    "alertmanager": ("incidents", "send_alertmanager"),
    "pagerduty": ("incidents", "send_pagerduty"),
    "opsgenie": ("incidents", "send_opsgenie"),
    "email": ("mail", "send_email"),
    "apprise": ("services", "send_apprise"),
    "command": ("local", "send_command"),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a try. ``text`` is the answer or the reason, without secrets."""

    kind: Literal["told", "failed", "refused"]
    text: str
    retry_after_us: int = 0


def send(notification: Notification, subscription: Subscription, kit: ChannelContext) -> Outcome:
    """Try once. Never raises: whatever goes wrong is an outcome."""
    try:
        options = subscription.options
    except ValueError as error:
        return Outcome("refused", str(error))
    secrets = kit.secrets.values(options)
    try:
        module, name = SENDERS[subscription.channel]
        function: Callable[..., str] = getattr(importlib.import_module(f"{_HERE}.{module}"), name)
        answer: Any = function(notification, subscription, options, kit)
    except Refused as error:
        return Outcome("refused", without(str(error), secrets))
    except TemporaryFailure as error:
        return Outcome("failed", without(str(error), secrets), error.retry_after_us)
    except NoSecret as error:  # somebody may put it there
        return Outcome("failed", str(error))
    except Exception as error:
        return Outcome("failed", without(f"unexpected {type(error).__name__}: {error}", secrets))
    return Outcome("told", without(str(answer), secrets))
