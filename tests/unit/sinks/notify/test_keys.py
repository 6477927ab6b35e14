"""Idempotency keys: what is sent again, by a retry or another notifier, has the same key and
bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.times import SECOND_US
from stepstream.sinks.notify.grouping import Notification
from stepstream.sinks.notify.message import payload
from tests.support.notify_world import NOW, SHAPES, World, alert, subscription

EVERYTHING: dict[str, Any] = {
    "change": "opened",
    "policy": "p",
    "environment": "prod",
    "agent_version": "v2",
    "task": "refund",
    "user_id": "u",
    "trace_id": "01hzxcv",
    "subject": "pay",
    "step_ids": ["s1", "s2"],
    "value": 0.1 + 0.2,
    "threshold": 1e-7,
    "unit": "usd",
    "baseline": 3.0,
    "baseline_runs": 7,
    "quoted": "api_key=abcdefgh12345678 of ada@example.com \ud7ff \U0001f600",
    "detail": "card 4111 1111 1111 1111",
    "running": True,
    "findings": 3,
    "acknowledged_by": "ada",
    "by": "ada",
    "reopened": 2,
    "runs": 4,
    "trace_ids": ["t1", "t2"],
    "action": "stop",
    "finding_ids": ["f"],
    "opened_by": "f@3",
    "source_partition": 1,
    "source_offset": 9,
}


def body(one: Notification, wanted: Subscription) -> bytes:
    return json.dumps(payload(one, wanted), ensure_ascii=False).encode()


class Bodies:
    """Every body that was made, by key."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seen: dict[str, bytes] = {}

    def __call__(self, sent: list[Notification]) -> list[str]:
        """Their keys. Asserts that a key which is known has the body that it had."""
        for one in sent:
            made = body(one, self._world.subscriptions[one.subscription])
            assert self.seen.setdefault(one.id, made) == made
        return [one.id for one in sent]


@pytest.mark.parametrize("remembered", [False, True])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_a_retry_and_a_take_over_send_the_same_bytes(
    shape: Callable[[], Subscription], remembered: bool
) -> None:
    """From the alerts topic or from what the deliveries topic kept of the record: nothing of it is
    lost on the way."""
    world = World(shape())
    bodies = Bodies(world)
    # Every field has a value: one that a record of `deliveries` lacked would change the bytes.
    world.publish(alert(**EVERYTHING))
    (first,) = world.step() or world.step(6)
    bodies([first])
    if remembered:
        world.delivery.failed(first, "HTTP 503", world.now)
        world.save()
    world.crash()
    again = world.step() or world.step(6)
    assert bodies(again) == [first.id]
    world.delivery.failed(again[0], "HTTP 503", world.now)
    assert bodies(world.step(60)) == [first.id]


def test_a_body_that_has_changed_has_another_key() -> None:
    """The rest of the group is counted and named, and a subscription has words of its own."""
    wanted = subscription(
        group_by=["project"], group_wait="1s", group_interval="1s", send_resolved=False
    )
    world = World(wanted)
    bodies = Bodies(world)
    world.publish(alert("a"))
    world.deliver()
    world.deliver(2)
    world.publish(alert("b"))
    world.step()
    (first,) = world.step(2)
    world.delivery.failed(first, "the answer was lost", world.now)
    world.publish(alert("a", 2, state="resolved"))
    world.step()
    (second,) = world.step(60)
    assert [[one.alert_id for one in sent.alerts] for sent in (first, second)] == [["b"], ["b"]]
    assert len(set(bodies([first, second]))) == 2
    world.delivery.failed(second, "the answer was lost", world.now)
    world.subscriptions = {"oncall": wanted.model_copy(update={"content": "none"})}
    world.delivery.update_subscriptions(world.subscriptions, world.now)
    (third,) = world.step(60)
    assert bodies([third]) != [second.id]


@settings(max_examples=150)
@given(st.integers(0, 10_000), st.sampled_from(range(len(SHAPES))))
def test_one_key_has_one_body_whatever_happens(seed: int, shape: int) -> None:
    """Failures, answers that are lost, ends of other alerts, crashes with and without what was to
    be remembered."""
    dice = random.Random(seed)
    world = World(SHAPES[shape]())
    bodies = Bodies(world)
    newest: dict[str, AlertStruct] = {}
    for _ in range(60):
        name = f"a{dice.randrange(5)}"
        match dice.randrange(6):
            case 0 | 1:
                known = newest.get(name)
                if known is None or known.state == "firing":
                    state = dice.choice(["firing", "firing", "resolved"])
                    silenced = dice.choice([0, 0, 0, world.now + 20 * SECOND_US])
                    newest[name] = alert(
                        name, known.seq + 1 if known else 1, state=state, silenced_until=silenced
                    )
                    world.publish(newest[name])
            case 2 | 3 | 4:
                sent = world.step(dice.choice([0, 0.3, 5, 30]))
                bodies(sent)
                for one in sent:
                    match dice.randrange(3):
                        case 0:
                            world.delivery.delivered(one, world.now)
                        case 1:
                            world.delivery.failed(one, "the answer was lost", world.now)
                if dice.random() < 0.7:
                    world.save()
            case 5:
                world.crash()
    assert world.now >= NOW
