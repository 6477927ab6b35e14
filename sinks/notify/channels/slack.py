"""Slack, through an incoming webhook."""

from __future__ import annotations

from typing import Final

from stepstream.schemas.channels import CHANNELS, Channel, Secret
from stepstream.schemas.documents import Subscription
from stepstream.sinks.notify import escape
from stepstream.sinks.notify.channel import ChannelContext
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import message

_MAX_CHARS: Final = 3_000


@CHANNELS.register("slack")
class Slack(Channel):
    """A message to a Slack channel, through an incoming webhook."""

    url: Secret

    def send(
        self, notification: Notification, subscription: Subscription, context: ChannelContext
    ) -> str:
        """Post the message."""
        text = message(notification, subscription, escape.slack)
        template = subscription.template
        data = {
            "text": escape.shortened(f"{text.title}\n{text.body}", _MAX_CHARS),
            # Slack interprets markup only if the subscription's own template may contain some.
            "mrkdwn": bool(template.title or template.body),
            "unfurl_links": False,
            "unfurl_media": False,
            "link_names": False,
            "parse": "none",
        }
        return context.post(context.secret(self.url), data, self.timeout)
