"""Notifiers, workers and the broker are killed and frozen: subscribers receive every alert, in
order."""

from __future__ import annotations

from tests.chaos.crew import CrewSpec
from tests.chaos.faults import BrokerMix, Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape
from tests.chaos.notify import NotificationVerifier, notifier

NOTIFY = Scenario(
    "notify",
    Shape(seconds=70, runs_per_second=10),
    Mix(kills=5),
    BrokerMix(kills=2),
    workers=2,
    seed=12,
    excused=True,
    settle_s=120,
    crews=(CrewSpec("notify", notifier, 2, Mix(kills=20, freezes=2, rolls=1)),),
    verifiers=(NotificationVerifier,),
    more={"notify_allow_private": True, "notify_port": -1, "log_level": "info"},
)
