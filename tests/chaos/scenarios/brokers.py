"""Brokers are killed, frozen, slow, and all of them go away at once; workers are killed besides."""

from __future__ import annotations

from tests.chaos.faults import BrokerMix, Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape

ONE = Scenario(
    "one-broker",
    Shape(seconds=125, runs_per_second=15),
    Mix(kills=8),
    BrokerMix(kills=9, freezes=1, slows=1, refusals=1),
    workers=2,
    seed=3,
    excused=True,
)

THREE = Scenario(
    "three-brokers",
    Shape(seconds=185, runs_per_second=12),
    Mix(kills=12, freezes=1),
    BrokerMix(kills=13, freezes=2, slows=1, blackouts=1, refusals=1),
    nodes=3,
    workers=3,
    seed=4,
    excused=True,
)

# Longer than a worker holds its outputs: it ends, starts again, waits, and loses nothing.
OUTAGE = Scenario(
    "outage",
    Shape(seconds=20, runs_per_second=15),
    brokers=BrokerMix(blackouts=1, blackout_s=140),
    nodes=1,
    workers=2,
    seed=7,
    excused=True,
)
