"""Workers are killed, frozen, rolled, and come and go; the broker stays up."""

from __future__ import annotations

from tests.chaos.faults import Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape

CALM = Scenario("calm", Shape(seconds=15, runs_per_second=20))

KILLS = Scenario("kills", Shape(seconds=100, runs_per_second=20), Mix(kills=45), workers=3)

WORKERS = Scenario(
    "workers",
    Shape(seconds=120, runs_per_second=15),
    Mix(kills=35, freezes=5, rolls=2, joins=4),
    workers=4,
    seed=2,
)

# Hundreds of runs that stay open while the safe offset passes their first records.
OPEN = Scenario(
    "open-runs",
    Shape(seconds=90, runs_per_second=6, long_runs=300, giant_steps=3_000),
    Mix(kills=20, freezes=1),
    seed=6,
)
