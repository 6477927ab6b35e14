"""Messages link to the alert in the console."""

from __future__ import annotations

from stepstream.sinks.notify.channel import with_link
from tests.support.notify_world import subscription


def test_without_a_template_messages_link_to_the_console() -> None:
    linked = with_link(subscription(), "https://console.example.com/")

    assert linked.link_template == "https://console.example.com/alerts/{alert_id}"


def test_a_template_of_the_subscription_is_kept() -> None:
    own = subscription(link_template="https://wiki.example.com/{alert}")

    assert with_link(own, "https://console.example.com") == own
    assert with_link(subscription(), "") == subscription()
