"""Alerts in a program, over real Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stepstream.common import kafka
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.alert import Alert, Severity
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.subscribe import NoAlertsTopic, asubscribe, on_alert, subscribe
from tests.support.processes import wait_until

Publish = Callable[..., Alert]


def prepare(settings: Settings) -> Settings:
    """Create the alerts topic."""
    name = topic(settings.topic_prefix, "alerts")
    admin = AdminClient(settings.kafka)
    admin.create_topics([NewTopic(name, num_partitions=2)])[name].result(30)
    return settings


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    """Settings that point to an empty alerts topic of the test's own."""
    return prepare(Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix))


@pytest.fixture
def publish(settings: Settings) -> Iterator[Publish]:
    """Put an alert on the topic, acknowledged when it returns."""
    with publisher(settings) as send:
        yield send


@contextmanager
def publisher(settings: Settings) -> Iterator[Publish]:
    client = kafka.producer(settings)

    def send(
        alert_id: str, seq: int = 1, *, severity: Severity = "warning", agent: str = "support"
    ) -> Alert:
        now = time.time_ns() // 1_000
        alert = Alert(
            alert_id=alert_id,
            seq=seq,
            state="firing",
            severity=severity,
            alert="loop",
            rule="loop",
            project="shop",
            agent=agent,
            opened_at=now,
            updated_at=now,
        )
        client.produce(
            topic(settings.topic_prefix, "alerts"),
            alert.model_dump_json().encode(),
            key=alert_id.encode(),
        )
        assert client.flush(30) == 0
        return alert

    yield send
    client.close()


def test_a_tail_gets_what_comes_from_the_call_on(settings: Settings, publish: Publish) -> None:
    """An alert published between the call and the loop is not missed; what was there before is not
    delivered."""
    publish("before")
    # The subscription begins with the call, not with the first `next`.
    with subscribe(settings=settings, timeout=3) as alerts:
        sent = [publish("a"), publish("b", severity="critical")]
        assert sorted([next(alerts), next(alerts)], key=lambda alert: alert.alert_id) == sent


def test_since_the_earliest_or_a_time(settings: Settings, publish: Publish) -> None:
    """Everything kept, or everything from a time on; the iteration ends after the silence asked
    for."""
    publish("old")
    time.sleep(0.05)
    moment = datetime.now(UTC)
    time.sleep(0.05)
    publish("new")
    assert {
        alert.alert_id for alert in subscribe(since="earliest", settings=settings, timeout=1)
    } == {"old", "new"}
    assert [alert.alert_id for alert in subscribe(since=moment, settings=settings, timeout=1)] == [
        "new"
    ]


def test_repeats_are_dropped_and_changes_are_not(settings: Settings, publish: Publish) -> None:
    """A record published twice comes once, an older one after a newer not at all, each change of an
    alert once."""
    for seq in (1, 1, 2, 1, 2, 3):
        publish("a", seq)
    assert [alert.seq for alert in subscribe(since="earliest", settings=settings, timeout=1)] == [
        1,
        2,
        3,
    ]


def test_filters_and_what_is_no_alert(settings: Settings, publish: Publish) -> None:
    """Only what matches is delivered; a record that is no alert is skipped; a filter that does not
    exist is refused."""
    client = kafka.producer(settings)
    client.produce(topic(settings.topic_prefix, "alerts"), b"{not json", key=b"x")
    # A tombstone: the topic is compacted, so readers meet them.
    client.produce(topic(settings.topic_prefix, "alerts"), None, key=b"y")
    assert client.flush(10) == 0
    client.close()
    publish("a", severity="critical")
    publish("b", severity="critical", agent="buyer")
    publish("c", severity="error", agent="support-2")
    publish("d")
    some = subscribe(
        since="earliest",
        settings=settings,
        timeout=1,
        severity=("critical", "error"),
        agent="support*",
    )
    assert {alert.alert_id for alert in some} == {"a", "c"}
    one = subscribe(since="earliest", settings=settings, timeout=1, severity="critical")
    assert {alert.alert_id for alert in one} == {"a", "b"}
    with pytest.raises(ValueError, match=r"^colour is unknown; there are: severity, alert, "):
        subscribe(settings=settings, colour="red")


def test_a_named_subscription_goes_on_where_its_body_left_off(
    settings: Settings, publish: Publish
) -> None:
    """What was dealt with does not come again; the alert whose body was left unfinished does;
    nothing between is lost."""
    with subscribe("oncall", settings=settings, timeout=20) as alerts:
        for name in ("a", "b", "c"):
            publish(name)
        first, second = next(alerts), next(alerts)  # asking for the second finishes the first
    publish("d")
    rest = {alert.alert_id for alert in subscribe("oncall", settings=settings, timeout=3)}
    # The second was delivered, but its body did not end: it comes again.
    assert rest == {"a", "b", "c", "d"} - {first.alert_id}
    assert second.alert_id in rest
    # All of them were committed when the loop ended.
    assert list(subscribe("oncall", settings=settings, timeout=3)) == []


def test_a_named_subscription_that_saw_nothing_still_keeps_its_place(
    settings: Settings, publish: Publish
) -> None:
    """From the first moment on the place is kept: alerts that come while the program does not run
    are delivered later.
    """
    assert list(subscribe("away", settings=settings, timeout=4)) == []
    publish("while-away")
    assert [alert.alert_id for alert in subscribe("away", settings=settings, timeout=3)] == [
        "while-away"
    ]


async def test_the_async_form_leaves_the_loop_free(settings: Settings, publish: Publish) -> None:
    """While it waits, other tasks run without a pause worth noticing; leaving the loop closes
    it."""
    publish("a")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    got = [
        alert.alert_id async for alert in asubscribe(since="earliest", settings=settings, timeout=1)
    ]
    ticking.cancel()
    assert got == ["a"]
    # Blocked, the loop would run a few times instead of hundreds.
    assert ticks > 20


async def test_a_cancelled_async_subscription_ends(settings: Settings) -> None:
    """Cancelling the task that waits for an alert ends it, in a moment and cleanly."""

    async def wait() -> None:
        async for _ in asubscribe(settings=settings):
            pass

    task = asyncio.create_task(wait())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)


def test_a_callback_in_the_background(
    settings: Settings, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    """Each alert calls back; a callback that fails is logged and the next alert still comes; close
    waits for it."""
    got: list[str] = []

    def note(alert: Alert) -> None:
        got.append(alert.alert_id)
        if alert.alert_id == "bad":
            raise RuntimeError("no")

    with on_alert(note, settings=settings) as listener:
        publish("bad")
        wait_until(lambda: "bad" in got, 40, "alert bad", instead=lambda: got)
        publish("good")
        wait_until(lambda: "good" in got, 40, "alert good", instead=lambda: got)
    assert got == ["bad", "good"]
    assert "the callback failed on alert bad" in caplog.text
    # `close` has waited for the thread: nothing calls back after the block.
    assert not listener.alive
    assert listener.error is None


@pytest.mark.parametrize("name", [pytest.param(None, marks=pytest.mark.long), "oncall"])
def test_a_broker_that_was_killed_is_waited_out(tmp_path: Path, name: str | None) -> None:
    """Killed and started again, the broker finds the subscription still there; nothing is lost and
    nothing comes twice."""
    got: list[str] = []
    with EmbeddedKafka(tmp_path, heap_mb=256) as broker:
        settings = prepare(Settings(kafka_brokers=broker.bootstrap, topic_prefix="t"))
        with (
            publisher(settings) as publish,
            on_alert(
                lambda alert: got.append(alert.alert_id), name, since="earliest", settings=settings
            ) as listener,
        ):
            publish("before")
            wait_until(lambda: "before" in got, 40, "alert before", instead=lambda: got)
            broker.kill(0)
            broker.restart(0)
            publish("after")
            wait_until(lambda: "after" in got, 40, "alert after", instead=lambda: got)
            assert listener.error is None
    assert got == ["before", "after"]


def test_the_error_for_a_missing_topic_has_the_command(kafka_bootstrap: str) -> None:
    """Where the installation was never prepared the error names the topic and the command."""
    with pytest.raises(NoAlertsTopic, match=r"nowhere\.alerts.*stepstream topics create"):
        subscribe(settings=Settings(kafka_brokers=kafka_bootstrap, topic_prefix="nowhere"))
