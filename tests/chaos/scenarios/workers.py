"""Workers are killed, frozen, rolled, and come and go; the brokers stay up."""

from __future__ import annotations

from tests.chaos.faults import Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape

CALM = Scenario("calm", Shape(seconds=15, runs_per_second=20), Mix())

KILLS = Scenario("kills", Shape(seconds=40, runs_per_second=25), Mix(kills=14), workers=3)

EVERYTHING = Scenario(
    "workers", Shape(seconds=120, runs_per_second=15), Mix(kills=30, freezes=4, rolls=2, joins=3), workers=3, seed=2
)
