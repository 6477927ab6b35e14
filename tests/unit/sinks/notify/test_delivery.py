"""What is delivered, when, and what is saved of it."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.times import MINUTE_US, SECOND_US
from stepstream.sinks.notify.delivery import FINISHED_KEPT_US, PartitionDelivery
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.rate_limits import quiet_until_us
from tests.support.notify_world import NOW, SHAPES, World, _decode, alert, subscription


def content(sent: list[Notification]) -> list[list[tuple[str, int, str]]]:
    return [[(a.alert_id, a.seq, a.state) for a in one.alerts] for one in sent]


def test_without_grouping_every_alert_is_delivered_at_once() -> None:
    """Each in a notification of its own. Of later changes a higher severity and the end are
    sent."""
    world = World(subscription())
    world.publish(alert("a"))
    world.publish(alert("b"))
    assert content(world.deliver()) == [[("a", 1, "firing")], [("b", 1, "firing")]]
    world.publish(alert("a", 2, message="same call 6 times"))
    # A changed message alone is no news for a person.
    assert world.deliver(1) == []
    world.publish(alert("a", 3, severity="critical"))
    assert content(world.deliver()) == [[("a", 3, "firing")]]
    world.publish(alert("a", 4, severity="critical", state="resolved"))
    assert content(world.deliver()) == [[("a", 4, "resolved")]]
    assert world.committed == len(world.log)


def test_a_resolved_alert_that_was_never_delivered_is_delivered() -> None:
    """``send_resolved: false`` leaves out the end, not the alert."""
    world = World(subscription(send_resolved=False))
    world.publish(alert("a", 1))
    world.publish(alert("a", 2, state="resolved"))
    world.publish(alert("b", 1))
    assert content(world.deliver()) == [[("a", 2, "resolved")], [("b", 1, "firing")]]
    world.publish(alert("b", 2, state="resolved"))
    assert world.deliver() == []


def test_groups_wait_and_send_changes_after_the_interval() -> None:
    """group_wait before the first, group_interval before the next; repeat_interval while it
    fires."""
    world = World(
        subscription(
            group_by=["alert"], group_wait="10s", group_interval="1m", repeat_interval="1h"
        )
    )
    for name in ("a", "b"):
        world.publish(alert(name))
    world.publish(alert("c", project="other"))
    assert world.deliver() == []
    assert sorted(content(world.deliver(10))) == [
        [("a", 1, "firing"), ("b", 1, "firing")],
        [("c", 1, "firing")],
    ]
    world.publish(alert("d"))
    world.publish(alert("a", 2, state="resolved"))
    assert world.deliver(30) == []
    (one,) = world.deliver(30)
    assert content([one]) == [[("d", 1, "firing"), ("a", 2, "resolved")]]
    assert [(o.alert_id, one.firing, one.resolved) for o in one.others] == [("b", 2, 1)]
    assert sorted(content(world.deliver(3_600))) == [
        [("b", 1, "firing"), ("d", 1, "firing")],
        [("c", 1, "firing")],
    ]
    world.publish(alert("c", 2, acknowledged_by="ada", project="other"))
    assert [one.alerts[0].alert_id for one in world.deliver(3_600)] == ["b"]


def test_a_silenced_alert_is_delivered_when_its_silence_ends() -> None:
    """If it still fires then; one that was resolved before is not."""
    world = World(subscription())
    world.publish(alert("a", 1, silenced_until=NOW + MINUTE_US))
    world.publish(alert("b", 1, silenced_until=NOW + MINUTE_US))
    world.publish(alert("b", 2, silenced_until=NOW + MINUTE_US, state="resolved"))
    assert world.deliver(30) == []
    world.crash()
    assert content(world.deliver(30)) == [[("a", 1, "firing")]]
    assert world.deliver(600) == []


def test_an_incident_is_delivered_in_place_of_its_runs() -> None:
    """An alert about one run that is part of an incident is not delivered."""
    world = World(subscription())
    world.publish(alert("a", incident_id="i"))
    world.publish(alert("i", runs=3))
    assert content(world.deliver()) == [[("i", 1, "firing")]]


def test_an_alert_that_became_part_of_an_incident_is_grouped() -> None:
    """With the incident's id as the reason, also when it is resolved and after a restart."""
    world = World(subscription(group_by=["alert"]))
    world.publish(alert("a"))
    world.deliver(1)
    world.deliver(1)
    assert standing(world)["a"] == ("pending", "")
    for seq, state in ((2, "firing"), (3, "resolved")):
        world.publish(alert("a", seq, incident_id="incident-1", state=state))
        world.deliver(1)
        world.crash()
        world.deliver(1)
        world.deliver(1)
        assert standing(world)["a"] == ("grouped", "delivered as part of incident incident")
    assert world.deliver(600) == []


def test_a_silenced_alert_has_a_reason() -> None:
    """It is pending until the silence ends; resolved before that, it is silenced."""
    world = World(subscription())
    world.publish(alert("a", 1, silenced_until=NOW + MINUTE_US))
    world.publish(alert("b", 1, silenced_until=NOW + MINUTE_US))
    world.publish(alert("b", 2, silenced_until=NOW + MINUTE_US, state="resolved"))
    world.deliver(1)
    world.deliver(1)
    found = standing(world)
    assert found["a"][0] == "pending"
    assert found["a"][1].startswith("silenced until 20")
    assert found["b"] == ("silenced", "it was resolved before its silence ended")


def test_an_alert_that_was_withdrawn_before_it_was_delivered_is_not() -> None:
    """Later steps of the run contradict it. One that was delivered before is sent as resolved."""
    world = World(subscription())
    world.publish(alert("a", 1))
    world.publish(alert("a", 2, state="resolved", withdrawn=True))
    assert world.deliver() == []
    world.publish(alert("b", 1))
    assert content(world.deliver()) == [[("b", 1, "firing")]]
    world.publish(alert("b", 2, state="resolved", withdrawn=True))
    assert content(world.deliver()) == [[("b", 2, "resolved")]]


def standing(world: World) -> dict[str, tuple[str, str]]:
    """State and reason of the newest delivery record of each alert."""
    records = [msgspec.json.decode(value) for value in world.records]
    return {record["alert_id"]: (record["state"], record.get("reason", "")) for record in records}


def test_quiet_hours_delay_all_but_the_listed_severities() -> None:
    """At night only critical alerts are sent, the rest in the morning of the time zone."""
    quiet = {"begin": "22:00", "end": "07:00", "timezone": "Europe/Berlin"}
    world = World(subscription(quiet_hours=quiet))
    world.publish(alert("a"))
    world.publish(alert("b", severity="critical"))
    assert content(world.deliver()) == [[("b", 1, "firing")]]
    assert world.deliver(6 * 3_600 - 1) == []
    assert content(world.deliver(1)) == [[("a", 1, "firing")]]  # 06:00 UTC is 07:00 in Berlin


def test_quiet_hours_begin_on_the_days_that_are_listed() -> None:
    """``days`` are the days on which they begin; they last into the next morning."""
    quiet = {"begin": "22:00", "end": "07:00", "timezone": "Europe/Berlin", "days": ["fri"]}
    friday = subscription(quiet_hours=quiet).quiet_hours
    hours = 3_600 * SECOND_US
    # NOW is Thursday 01:00 in Berlin. Friday's quiet hours are from Friday 22:00, which is 45
    # hours later, to Saturday 07:00.
    begin, end = NOW + 45 * hours, NOW + 54 * hours
    assert quiet_until_us(friday, NOW + 21 * hours) == 0  # Thursday evening
    assert quiet_until_us(friday, begin - 1) == 0
    assert quiet_until_us(friday, begin) == end
    assert quiet_until_us(friday, end - 1) == end
    assert quiet_until_us(friday, end) == 0
    assert quiet_until_us(friday, begin + 24 * hours) == 0  # Saturday evening


def test_what_exceeds_a_rate_limit_is_sent_together() -> None:
    """No more than this many notifications; nothing is lost, and no queue of old ones grows."""
    world = World(subscription(rate_limit={"notifications": 2, "per": "1m"}))
    for n in range(20):
        world.publish(alert(f"a{n:02}"))
    assert len(world.deliver()) == 2
    assert world.deliver(10) == []
    (rest,) = world.deliver(21)
    # One notification for the rest, instead of nine minutes of two a minute.
    assert len(rest.alerts) == 18
    assert {a.alert_id for a in rest.alerts} == {f"a{n:02}" for n in range(2, 20)}


def test_a_digest_sends_all_alerts_once_in_its_time() -> None:
    """One message for all, at the end of each period in which there was something."""
    world = World(subscription(digest="1h"))
    world.publish(alert("a"))
    world.deliver()
    world.publish(alert("b", agent="buyer"))
    assert world.deliver(1_800) == []
    assert content(world.deliver(1_800)) == [[("a", 1, "firing"), ("b", 1, "firing")]]
    world.publish(alert("c"))
    assert world.deliver(1_800) == []
    assert content(world.deliver(1_800)) == [[("c", 1, "firing")]]


def test_a_dead_channel_pins_no_offset_and_gets_the_newest_state() -> None:
    """Its alerts are pending on the deliveries topic; when it lives again it gets each once, as it
    is then."""
    world = World(subscription(), subscription("other", match={"agent": "other"}))
    for n in range(50):
        world.publish(alert(f"a{n}"))
    tries = 0
    for _ in range(40):
        sent = world.step(30)
        tries += len(sent)
        for one in sent:
            world.delivery.failed(one, "HTTP 503", world.now)
        world.save()
    # An offset that waited for this channel would be read again after each restart, for all of
    # them.
    assert world.committed == 50
    assert tries < 40  # the channel is tried, not every alert
    world.publish(alert("a7", 2, state="resolved"))
    world.step()
    world.save()
    world.crash()
    got = [item for _ in range(60) for one in content(world.deliver(30)) for item in one]
    assert sorted(got) == sorted(
        [(f"a{n}", 1, "firing") for n in range(50) if n != 7] + [("a7", 2, "resolved")]
    )


def test_what_is_tried_for_too_long_is_parked_and_tried_again_when_the_subscription_changes() -> (
    None
):
    """Parked with its reason, not tried any more, not lost."""
    world = World(subscription(retry_for="10m"))
    world.publish(alert("a"))
    world.publish(alert("b"))
    for _ in range(60):
        for one in world.step(30):
            world.delivery.failed(one, "HTTP 503", world.now)
        world.save()
    last = {d.alert_id: d for d in map(_decode, world.records)}
    assert {d.state for d in last.values()} == {"parked"}
    assert all("503" in d.reason or "did not work" in d.reason for d in last.values())
    world.crash()
    assert world.deliver(3_600) == []
    world.subscriptions = {"oncall": subscription(retry_for="20m")}
    world.delivery.update_subscriptions(world.subscriptions, world.now)
    assert sorted(content(world.deliver(1))) == [[("a", 1, "firing")], [("b", 1, "firing")]]


def test_what_a_channel_refuses_stops_nothing_else() -> None:
    """A refusal parks this notification; others go on at once."""
    world = World(subscription())
    world.publish(alert("a"))
    (one,) = world.step()
    world.delivery.refused(one, "HTTP 400", world.now)
    world.publish(alert("b"))
    assert content(world.deliver()) == [[("b", 1, "firing")]]


def test_one_that_always_fails_does_not_block_the_others() -> None:
    """Attempts alternate between waiting notifications, so that one that always fails does not
    block the channel."""
    world = World(subscription())
    for n in range(10):
        world.publish(alert(f"a{n}"))
    taken = set()
    for _ in range(40):
        for one in world.step(60):
            # This one is refused with a temporary error for ever.
            if one.alerts[0].alert_id == "a0":
                world.delivery.failed(one, "HTTP 500", world.now)
            else:
                taken.add(one.alerts[0].alert_id)
                world.delivery.delivered(one, world.now)
        world.save()
    assert taken == {f"a{n}" for n in range(1, 10)}


def test_large_groups_go_to_programs_in_pieces_and_to_people_in_one() -> None:
    """A webhook's reader gets every alert; a chat gets one message that counts them."""
    world = World(
        subscription(group_by=["project"], group_wait="1s"),
        subscription(
            "chat", group_by=["project"], group_wait="1s", to={"slack": {"url": "env:SLACK"}}
        ),
    )
    for n in range(450):
        world.publish(alert(f"a{n:03}"))
    world.deliver()
    sent = [*world.deliver(1), *world.deliver(), *world.deliver()]
    # Programs get at most 200 alerts in a body.
    assert sorted(len(one.alerts) for one in sent if one.subscription == "oncall") == [50, 200, 200]
    assert [len(one.alerts) for one in sent if one.subscription == "chat"] == [450]


def test_a_restart_knows_what_was_delivered_and_what_waits() -> None:
    """Groups keep their schedule, nothing is sent twice, and old state is dropped in time."""
    world = World(subscription(group_by=["alert"], group_wait="10s", group_interval="1m"))
    world.publish(alert("a"))
    world.deliver()
    world.deliver(1)  # remembered as pending
    world.crash()
    assert world.deliver(5) == []
    assert content(world.deliver(5)) == [[("a", 1, "firing")]]
    world.publish(alert("b"))
    world.deliver(1)
    world.crash()
    assert world.deliver(50) == []
    assert content(world.deliver(10)) == [[("b", 1, "firing")]]
    for name in ("a", "b"):
        world.publish(alert(name, 2, state="resolved"))
    assert len(world.deliver(60)) == 1
    world.publish(alert("c"))
    world.deliver(FINISHED_KEPT_US / SECOND_US)
    assert set(world.delivery.queues["oncall"].alerts) == {"c"}


def test_a_successor_sends_nothing_before_it_has_read_the_newest_state() -> None:
    """A killed notifier may have sent a newer state than the one its successor reads first, without
    saving that. Alerts that were not sent are sent when the end of the topic is reached."""
    core = PartitionDelivery(0, {"oncall": subscription(send_updates=True)})
    # The topic has three records; the newest state is in the second.
    core.restore([], 0, NOW, end=3)
    core.read(0, msgspec.json.encode(alert("a")), NOW, NOW)
    assert core.due(NOW) == []
    assert not core.next_us or core.next_us > NOW
    core.read(1, msgspec.json.encode(alert("a", 2, state="resolved")), NOW, NOW)
    core.read(2, b"no alert", NOW, NOW)
    assert content(core.due(NOW)) == [[("a", 2, "resolved")]]
    core.restore([], 0, NOW, end=9)
    core.read(3, msgspec.json.encode(alert("b")), NOW, NOW)
    assert core.due(NOW) == []
    core.reached_end()  # the rest was removed by retention
    assert content(core.due(NOW)) == [[("b", 1, "firing")]]
    assert core.counts.unreadable == 1


def test_records_that_come_twice_change_nothing() -> None:
    """The alerts topic may hold a change twice, or an older one after a newer."""
    world = World(subscription(send_updates=True))
    for seq in (1, 2, 1, 2, 3):
        world.publish(alert("a", seq))
        world.deliver()
    assert [d.seq for d in map(_decode, world.records) if d.notification_id] == [1, 2, 3]


def test_a_subscription_comes_and_goes_while_the_rest_goes_on() -> None:
    """A new one gets later alerts, a removed one no more, and keeps no offset back."""
    world = World(subscription())
    world.publish(alert("a"))
    world.step()
    world.delivery.update_subscriptions({"fresh": subscription("fresh")}, world.now)
    world.publish(alert("b"))
    assert [(one.subscription, one.alerts[0].alert_id) for one in world.deliver()] == [
        ("fresh", "b")
    ]
    assert world.committed == 2


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, "abc"),
        ({"severity": ["critical"]}, "b"),
        ({"agent": "buy*"}, "b"),
        ({"agent_version": "v2"}, "c"),
        ({"text": "REFUND"}, "c"),
        ({"project": "x"}, ""),
    ],
)
def test_filters(match: dict[str, Any], expected: str) -> None:
    """Every field that is given must match."""
    world = World(subscription(match=match))
    world.publish(alert("a"))
    world.publish(alert("b", severity="critical", agent="buyer"))
    world.publish(alert("c", agent_version="v2", message="the refund was paid twice"))
    assert "".join(one.alerts[0].alert_id for one in world.deliver()) == expected


class History:
    """What was published and what subscribers received while a notifier fails in random ways."""

    def __init__(self, wanted: Subscription, dice: random.Random) -> None:
        self.world = World(wanted)
        self.seqs: dict[str, int] = defaultdict(int)
        self.final: dict[str, AlertStruct] = {}
        self.received: list[tuple[str, int]] = []
        self._dice = dice
        self._under_way: list[Notification] = []

    def play(self) -> None:
        """One random event: a change of an alert, time, answers of the subscriber, or a crash."""
        match self._dice.randrange(8):
            case 0 | 1:
                self._publish()
            case 2 | 3 | 4:
                self._under_way += self.world.step(self._dice.choice([0, 0.3, 5, 30]))
            case 5 | 6:
                self._answer()
            case 7:
                self._under_way = []
                self.world.crash()

    def finish(self) -> None:
        """Crash once more; then every notification is accepted."""
        self.world.crash()
        for _ in range(30):
            for one in self.world.step(60):
                self._receive(one)
                self.world.delivery.delivered(one, self.world.now)
            self.world.save()

    def _publish(self) -> None:
        dice, name = self._dice, f"a{self._dice.randrange(6)}"
        if name in self.final and self.final[name].state == "resolved":
            return
        self.seqs[name] += 1
        state = dice.choice(["firing", "firing", "resolved"])
        self.final[name] = alert(
            name, self.seqs[name], state=state, severity=dice.choice(["warning", "critical"])
        )
        self.world.publish(self.final[name])
        if dice.random() < 0.2:
            self.world.publish(self.final[name])

    def _answer(self) -> None:
        dice, world = self._dice, self.world
        dice.shuffle(self._under_way)
        while self._under_way and dice.random() < 0.7:
            one = self._under_way.pop()
            if dice.random() >= 0.7:
                world.delivery.failed(one, "HTTP 503", world.now)
                continue
            self._receive(one)
            if dice.random() < 0.8:
                world.delivery.delivered(one, world.now)
            else:
                world.delivery.failed(one, "the answer was lost", world.now)
        if dice.random() < 0.8:
            world.save()

    def _receive(self, one: Notification) -> None:
        self.received += [(item.alert_id, item.seq) for item in one.alerts]


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.sampled_from(range(len(SHAPES))))
def test_nothing_is_lost_and_order_is_kept_whatever_happens(seed: int, shape: int) -> None:
    """Crashes between any two steps, failures, duplicates: in the end every alert's newest state
    was sent, and each alert's changes in order."""
    wanted = SHAPES[shape]()
    history = History(wanted, random.Random(seed))
    for _ in range(60):
        history.play()
    history.finish()
    world = history.world
    for name, last in history.final.items():
        sent = [seq for alert_id, seq in history.received if alert_id == name]
        assert sent, f"{name} was never sent"
        assert sent == sorted(sent), f"{name} was sent out of order: {sent}"
        if last.state == "resolved" or wanted.send_updates:
            assert sent[-1] == history.seqs[name], f"the end of {name} was not sent"
    assert world.committed == len(world.log)
    world.crash()
    assert world.deliver(3_600) == []
