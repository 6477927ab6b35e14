"""Messages link to the alert and to its run in the console."""

from __future__ import annotations

from stepstream.schemas.notification import Notification
from stepstream.sinks.notify.channel import with_link
from stepstream.sinks.notify.message import message, payload
from tests.support.channel_cases import notification
from tests.support.notify_world import alert, subscription

RUN = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_without_a_template_messages_link_to_the_console() -> None:
    linked = with_link(subscription(), "https://console.example.com/")

    assert linked.link_template == "https://console.example.com/alerts/{alert_id}"


def test_a_template_of_the_subscription_is_kept() -> None:
    own = subscription(link_template="https://wiki.example.com/{alert}")

    assert with_link(own, "https://console.example.com") == own
    assert with_link(subscription(), "") == subscription()


def test_a_message_links_to_the_run_at_its_evidence() -> None:
    linked = with_link(subscription(), "https://console.example.com")
    about = notification(alert(trace_id=RUN, step_ids=["00f067aa0ba902b7"]))

    page = f"https://console.example.com/runs/{RUN}?step=00f067aa0ba902b7"
    assert f"\n  run: {page}" in message(about, linked).body
    sent = Notification.model_validate(payload(about, linked))
    assert sent.alerts[0].run_link == page
    assert "run: " not in message(about, subscription()).body


def test_an_incident_links_to_its_first_run() -> None:
    linked = with_link(subscription(), "https://console.example.com")
    about = notification(alert(trace_id="", runs=4, trace_ids=[RUN], step_ids=["1"]))
    without = notification(alert(trace_id="", step_ids=[]))

    assert message(about, linked).body.endswith(f"run: https://console.example.com/runs/{RUN}")
    assert "run: " not in message(without, linked).body
