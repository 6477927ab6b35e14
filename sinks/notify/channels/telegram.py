"""Telegram, through a bot."""

from __future__ import annotations

from typing import ClassVar, Final

from stepstream.schemas.channels import CHANNELS, Channel, Secret, Text
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message

_MAX_CHARS: Final = 4_000


@CHANNELS.register("telegram")
class Telegram(Channel):
    """A message of a Telegram bot to a chat."""

    hosts: ClassVar[dict[str, str]] = {"telegram": "https://api.telegram.org"}

    token: Secret
    chat: Text

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Send the message as plain text."""
        text = message(notification, subscription, escape.no_mention)
        data = {
            "chat_id": self.chat,
            "text": escape.shortened(f"{text.title}\n{text.body}", _MAX_CHARS),
            "disable_web_page_preview": True,
        }
        url = f"{context.host(self, 'telegram')}/bot{context.secret(self.token)}/sendMessage"
        return context.post(url, data, self.timeout)
