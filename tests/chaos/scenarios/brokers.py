"""Brokers are killed, frozen, and all of them go away at once; workers are killed besides."""

from __future__ import annotations

from tests.chaos.faults import Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape

ONE = Scenario(
    "one-broker",
    Shape(seconds=60, runs_per_second=20),
    Mix(kills=4, broker_kills=4, broker_freezes=1),
    workers=2,
    seed=3,
    excused=True,
)

THREE = Scenario(
    "three-brokers",
    Shape(seconds=90, runs_per_second=15),
    Mix(kills=6, broker_kills=4, broker_freezes=2, blackouts=1),
    nodes=3,
    workers=3,
    seed=4,
    excused=True,
)
