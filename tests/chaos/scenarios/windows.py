"""Workers are killed while windows fill and while they are sealed: the sealed sums are exactly what
was sent."""

from __future__ import annotations

from tests.chaos.faults import BrokerMix, Mix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape
from tests.chaos.windows import WindowVerifier

# Windows are sealed in parts of five minutes, and the scenario waits for the last one.
WINDOWS = Scenario(
    "windows",
    Shape(seconds=90, runs_per_second=12),
    Mix(kills=14, freezes=1),
    BrokerMix(kills=1),
    workers=2,
    seed=10,
    settle_s=480,
    excused=True,
    verifiers=(WindowVerifier,),
    more={"window_lateness": "40s"},
)
