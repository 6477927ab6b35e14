"""Discord, through a webhook."""

from __future__ import annotations

from typing import Final

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message

_MAX_CHARS: Final = 2_000
_SUPPRESS_EMBEDS: Final = 4
"""The message flag that turns off previews of links."""


@CHANNELS.register("discord")
class Discord(Channel):
    """A message to a Discord channel, through a webhook."""

    url: Secret

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Post the message, without mentions and previews."""
        text = message(notification, subscription, escape.markdown)
        data = {
            "content": escape.shortened(f"**{text.title}**\n{text.body}", _MAX_CHARS),
            "allowed_mentions": {"parse": []},
            "flags": _SUPPRESS_EMBEDS,
        }
        return context.post(context.secret(self.url), data, self.timeout)
