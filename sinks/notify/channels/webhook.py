"""Webhooks: the notification as JSON, with a signature and an idempotency key."""

from __future__ import annotations

import hashlib
import hmac
from typing import ClassVar, Final

from pydantic import Field

from stepstream.schemas.channels import CHANNELS, Channel, Headers, Secret, Url
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channel import ChannelContext, encode_json
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import payload

SIGNATURE: Final = "Stepstream-Signature"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"


@CHANNELS.register("webhook")
class Webhook(Channel):
    """JSON over HTTP POST, signed if a secret is given."""

    max_alerts: ClassVar[int | None] = 200

    url: Url
    secret: Secret = Field(
        "", validate_default=False, description="key of the signature: env:VARIABLE or file:/path"
    )
    headers: Headers = Field(default_factory=dict)

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Post the notification; any status 2xx accepts it."""
        body = encode_json(payload(notification, subscription))
        headers = {name: context.secret(value) for name, value in self.headers.items()}
        headers[IDEMPOTENCY_KEY] = notification.id
        headers["Stepstream-Attempt"] = str(notification.attempt)
        if self.secret:
            headers[SIGNATURE] = sign(context.secret(self.secret), round(context.clock_s()), body)
        return context.post_bytes(context.secret(self.url), body, self.timeout, headers)


def sign(secret: str, time_s: int, body: bytes) -> str:
    """The signature header: ``t=TIME,v1=HEX``, HMAC-SHA256 over ``TIME.BODY``."""
    digest = hmac.new(secret.encode(), f"{time_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={time_s},v1={digest}"


def verify(
    secret: str, header: str, body: bytes, now_s: float, *, tolerance_s: float = 300
) -> bool:
    """Whether the signature is valid and not older than ``tolerance_s``. For receivers."""
    try:
        parts = dict(part.split("=", 1) for part in header.split(","))
        time_s, given = int(parts["t"]), parts["v1"]
    except (ValueError, KeyError):
        return False
    expected = sign(secret, time_s, body).partition("v1=")[2]
    return abs(now_s - time_s) <= tolerance_s and hmac.compare_digest(given, expected)
