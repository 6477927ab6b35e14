"""Delivery attempts: the context and the errors of ``Channel.send``, and ``deliver``.

This module and ``stepstream.schemas.channels`` are all that a channel of another package needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from stepstream.schemas.channels import Channel
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.confinement import confined
from stepstream.sinks.notify.failures import DeliveryError, Refused, TemporaryFailure
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.secrets import (
    Secrets,
    SecretSnapshot,
    SecretUnavailable,
    without,
)

if TYPE_CHECKING:
    # A channel's options are validated where urllib3 may be missing (`stepstream apply`).
    from stepstream.sinks.notify.http_client import HttpClient

__all__ = [
    "ChannelContext",
    "DeliveryError",
    "Outcome",
    "Refused",
    "TemporaryFailure",
    "deliver",
    "encode_json",
]

USER_AGENT: Final = "stepstream-notify/1"
OWN_CHANNELS: Final = "stepstream.sinks.notify.channels."


@dataclass(frozen=True)
class ChannelContext:
    """What ``Channel.send`` works with. One for the process, shared by all threads."""

    client: HttpClient
    secrets: Secrets | SecretSnapshot
    clock_s: Callable[[], float]
    """Returns the Unix time in seconds."""
    allow_commands: bool = False
    allow_private: bool = False
    console_url: str = ""
    """Messages of subscriptions without a ``link_template`` link to the alert there."""
    hosts: Mapping[str, str] | None = None
    """Replaces the base URLs of ``Channel.hosts``, in tests."""

    @property
    def listed_variables(self) -> frozenset[str]:
        """The variables that documents may name besides those with the fixed prefix."""
        return self.secrets.listed

    def secret(self, text: str) -> str:
        """The text, or the secret it refers to. Raises ``SecretUnavailable``."""
        return self.secrets.text(text)

    def host(self, channel: Channel, name: str) -> str:
        """The base URL of a service from ``Channel.hosts``."""
        return (self.hosts or {}).get(name, channel.hosts[name])

    def post(
        self,
        url: str,
        data: Any,
        timeout_us: int,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Post ``data`` as JSON. Returns the beginning of the answer, when its status is 2xx.

        Raises ``Refused`` or ``TemporaryFailure`` as ``HttpClient.post`` does.
        """
        return self.post_bytes(url, encode_json(data), timeout_us, headers)

    def post_bytes(
        self,
        url: str,
        body: bytes,
        timeout_us: int,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Post a JSON text that was encoded before, as ``post`` does."""
        own = {"Content-Type": "application/json", "User-Agent": USER_AGENT}
        sent = {**(headers or {}), **own}
        return self.client.post(url, body, sent, timeout_s=timeout_us / 1e6).text


@dataclass(frozen=True)
class Outcome:
    """The result of a delivery attempt. ``text`` is the answer or the reason, without secrets."""

    kind: Literal["delivered", "failed", "refused"]
    text: str
    retry_after_us: int = 0

    @property
    def label(self) -> str:
        """The name in metrics and in the API, which predates the name used here."""
        return "told" if self.kind == "delivered" else self.kind


def deliver(
    notification: Notification, subscription: Subscription, context: ChannelContext
) -> Outcome:
    """Make one delivery attempt. Never raises."""
    try:
        channel = subscription.options
    except ValueError as error:
        # The document was valid where it was applied; the package of its channel is missing here.
        return Outcome("refused", str(error))
    secrets = context.secrets.values(channel)
    try:
        linked = with_link(subscription, context.console_url)
        answer = _send(channel, notification, linked, context)
    except Refused as error:
        return Outcome("refused", without(str(error), secrets))
    except TemporaryFailure as error:
        return Outcome("failed", without(str(error), secrets), error.retry_after_us)
    except SecretUnavailable as error:  # the operator may add it
        return Outcome("failed", str(error))
    except Exception as error:
        return Outcome("failed", without(f"unexpected {type(error).__name__}: {error}", secrets))
    return Outcome("delivered", without(str(answer), secrets))


def with_link(subscription: Subscription, console_url: str) -> Subscription:
    """The subscription with links to alerts and runs in the console, unless it has links of its
    own.
    """
    if subscription.link_template or not console_url:
        return subscription
    return subscription.linked_to(console_url)


def _send(
    channel: Channel,
    notification: Notification,
    subscription: Subscription,
    context: ChannelContext,
) -> str:
    if type(channel).__module__.startswith(OWN_CHANNELS):
        return channel.send(notification, subscription, context)
    # Code of another package: its own connections are checked too, and it gets no other secrets
    # than those that its subscription names.
    named = context.secrets.snapshot(channel)
    with confined(network=not context.allow_private) as confinement:
        try:
            return channel.send(notification, subscription, replace(context, secrets=named))
        finally:
            if confinement.blocked:
                raise Refused(confinement.blocked[0])


def encode_json(data: Any) -> bytes:
    """The data as compact JSON in UTF-8."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
