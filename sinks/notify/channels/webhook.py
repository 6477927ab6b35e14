"""Webhooks: the notification as JSON, signed, with its idempotency key. And their little sisters, chats that take JSON."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from stepstream.schemas.channels import Discord, Slack, Teams, Telegram, Webhook
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify.channels import escape
from stepstream.sinks.notify.channels.http_client import Client
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message, payload
from stepstream.sinks.notify.quoting import ELLIPSIS
from stepstream.sinks.notify.secrets import Secrets

SIGNATURE: Final = "Stepstream-Signature"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
AGENT: Final = "stepstream-notify/1"
HOSTS: Final = {
    "telegram": "https://api.telegram.org",
    "pagerduty": "https://events.pagerduty.com",
    "pagerduty-eu": "https://events.eu.pagerduty.com",
    "opsgenie": "https://api.opsgenie.com",
    "opsgenie-eu": "https://api.eu.opsgenie.com",
}
_SLACK_CHARS: Final = 3_000
_TEAMS_BYTES: Final = 20_000
"""Of text: Teams refuses messages above 28 KB."""
_TEAMS_BLOCK_BYTES: Final = 80
_TEAMS_LINE_CHARS: Final = 4_000
_DISCORD_CHARS: Final = 2_000
_DISCORD_NO_EMBEDS: Final = 4
_TELEGRAM_CHARS: Final = 4_000
_COLOURS: Final = {
    "info": "Accent",
    "warning": "Warning",
    "error": "Attention",
    "critical": "Attention",
}


@dataclass(frozen=True)
class ChannelContext:
    """What every channel works with."""

    client: Client
    secrets: Secrets
    clock_s: Callable[[], float]
    allow_commands: bool = False
    allow_private: bool = False
    hosts: dict[str, str] | None = None
    """Other places of the services with one address, for tests and proxies."""

    def host(self, service: str) -> str:
        """Where a service is."""
        return (self.hosts or {}).get(service, HOSTS[service])

    def post(
        self, url: str, data: Any, options_timeout_us: int, headers: dict[str, str] | None = None
    ) -> str:
        """Post JSON; the answer's text. Raises ``Refused``, ``TemporaryFailure``, ``NoSecret``."""
        body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
        sent = {"Content-Type": "application/json", "User-Agent": AGENT, **(headers or {})}
        return self.client.post(url, body, sent, timeout_s=options_timeout_us / 1e6).text


def sign(secret: str, time_s: int, body: bytes) -> str:
    """The signature header: ``t=TIME,v1=HEX``, HMAC-SHA256 over ``TIME.BODY``."""
    digest = hmac.new(secret.encode(), f"{time_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={time_s},v1={digest}"


def verify(
    secret: str, header: str, body: bytes, now_s: float, *, tolerance_s: float = 300
) -> bool:
    """Whether a webhook's body comes from who knows the secret, and not too long ago. For receivers in Python."""
    try:
        parts = dict(part.split("=", 1) for part in header.split(","))
        time_s, given = int(parts["t"]), parts["v1"]
    except (ValueError, KeyError):
        return False
    expected = sign(secret, time_s, body).partition("v1=")[2]
    return abs(now_s - time_s) <= tolerance_s and hmac.compare_digest(given, expected)


def send_webhook(
    notification: Notification, subscription: Subscription, options: Webhook, kit: ChannelContext
) -> str:
    """Post the notification; a 2xx is a yes."""
    body = json.dumps(
        payload(notification, subscription), ensure_ascii=False, separators=(",", ":")
    ).encode()
    headers = {name: kit.secrets.text(value) for name, value in options.headers.items()}
    headers |= {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        IDEMPOTENCY_KEY: notification.id,
    }
    headers["Stepstream-Attempt"] = str(notification.attempt)
    if options.secret:
        headers[SIGNATURE] = sign(kit.secrets.text(options.secret), round(kit.clock_s()), body)
    url = kit.secrets.text(options.url)
    return kit.client.post(url, body, headers, timeout_s=options.timeout / 1e6).text


def send_slack(
    notification: Notification, subscription: Subscription, options: Slack, kit: ChannelContext
) -> str:
    """A message to a Slack channel. Markup is read only where a template of the subscription's own may hold some."""
    words = message(notification, subscription, escape.slack)
    own = bool(subscription.template.title or subscription.template.body)
    text = escape.shortened(f"{words.title}\n{words.body}", _SLACK_CHARS)
    quiet = {"unfurl_links": False, "unfurl_media": False, "link_names": False, "parse": "none"}
    return kit.post(
        kit.secrets.text(options.url), {"text": text, "mrkdwn": own, **quiet}, options.timeout
    )


def send_discord(
    notification: Notification, subscription: Subscription, options: Discord, kit: ChannelContext
) -> str:
    """A message to a Discord channel; it mentions nobody and shows no previews."""
    words = message(notification, subscription, escape.markdown)
    text = escape.shortened(f"**{words.title}**\n{words.body}", _DISCORD_CHARS)
    data = {"content": text, "allowed_mentions": {"parse": []}, "flags": _DISCORD_NO_EMBEDS}
    return kit.post(kit.secrets.text(options.url), data, options.timeout)


def send_teams(
    notification: Notification, subscription: Subscription, options: Teams, kit: ChannelContext
) -> str:
    """A card for a Teams workflow, no larger than Teams takes."""
    words = message(notification, subscription, escape.markdown)
    colour = "Good" if notification.state == "resolved" else _COLOURS[notification.severity]
    lines = _within([line.strip() for line in words.body.splitlines()], _TEAMS_BYTES)
    body = [
        {
            "type": "TextBlock",
            "text": words.title,
            "weight": "Bolder",
            "wrap": True,
            "color": colour,
        },
        *({"type": "TextBlock", "text": line, "wrap": True, "spacing": "None"} for line in lines),
    ]
    actions = [{"type": "Action.OpenUrl", "title": "Look", "url": words.link}] if words.link else []
    card = {"type": "AdaptiveCard", "version": "1.4", "body": body, "actions": actions}
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return kit.post(
        kit.secrets.text(options.url),
        {"type": "message", "attachments": [attachment]},
        options.timeout,
    )


def send_telegram(
    notification: Notification, subscription: Subscription, options: Telegram, kit: ChannelContext
) -> str:
    """A message of a Telegram bot: plain text, in which only a name after ``@`` would mean something."""
    words = message(notification, subscription, escape.no_mention)
    text = escape.shortened(f"{words.title}\n{words.body}", _TELEGRAM_CHARS)
    data = {"chat_id": options.chat, "text": text, "disable_web_page_preview": True}
    return kit.post(
        f"{kit.host('telegram')}/bot{kit.secrets.text(options.token)}/sendMessage",
        data,
        options.timeout,
    )


def _within(lines: list[str], most_bytes: int) -> list[str]:
    """The lines that fit, the last one shortened; each costs what its block costs around it."""
    kept: list[str] = []
    for line in lines:
        fits = escape.shortened(line, _TEAMS_LINE_CHARS)
        most_bytes -= (
            len(json.dumps(fits, ensure_ascii=False).encode("utf-8", "replace"))
            + _TEAMS_BLOCK_BYTES
        )
        if most_bytes < 0:
            return [*kept, ELLIPSIS]
        kept.append(fits)
    return kept
