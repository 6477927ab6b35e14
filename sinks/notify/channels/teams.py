"""Microsoft Teams, through a workflow webhook."""

from __future__ import annotations

import json
from typing import Any, Final

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message
from stepstream.sinks.notify.quoting import ELLIPSIS

_MAX_TEXT_BYTES: Final = 20_000
"""Teams refuses messages above 28 KB; the rest is left for the card around the text."""
_BLOCK_BYTES: Final = 80
"""JSON around the text of one block."""
_MAX_LINE_CHARS: Final = 4_000
_COLORS: Final = {
    "info": "Accent",
    "warning": "Warning",
    "error": "Attention",
    "critical": "Attention",
}


@CHANNELS.register("teams")
class Teams(Channel):
    """A card in Microsoft Teams, through a workflow webhook."""

    url: Secret

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Post the card."""
        text = message(notification, subscription, escape.markdown)
        is_resolved = notification.state == "resolved"
        title = {
            "type": "TextBlock",
            "text": text.title,
            "weight": "Bolder",
            "wrap": True,
            "color": "Good" if is_resolved else _COLORS[notification.severity],
        }
        link = {"type": "Action.OpenUrl", "title": "Open", "url": text.link}
        card = {
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [title, *_blocks(text.body)],
            "actions": [link] if text.link else [],
        }
        attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
        data = {"type": "message", "attachments": [attachment]}
        return context.post(context.secret(self.url), data, self.timeout)


def _blocks(body: str) -> list[dict[str, Any]]:
    lines = _fitting([line.strip() for line in body.splitlines()])
    return [{"type": "TextBlock", "text": line, "wrap": True, "spacing": "None"} for line in lines]


def _fitting(lines: list[str]) -> list[str]:
    """The first lines that fit into a message; a cut is marked by a last line ``...``."""
    kept: list[str] = []
    left = _MAX_TEXT_BYTES
    for line in lines:
        text = escape.shortened(line, _MAX_LINE_CHARS)
        left -= len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) + _BLOCK_BYTES
        if left < 0:
            return [*kept, ELLIPSIS]
        kept.append(text)
    return kept
