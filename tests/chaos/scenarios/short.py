"""The short form: a bit of everything, for every run of the tests."""

from __future__ import annotations

from tests.chaos.crew import CrewSpec
from tests.chaos.faults import BrokerMix, Mix, StoreMix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape
from tests.chaos.scenarios.sinks import SMALL_BATCHES
from tests.chaos.store import StoreVerifier, sink

SHORT = Scenario(
    "short",
    Shape(seconds=32, runs_per_second=15, long_runs=10, giant_steps=500, tail_s=6),
    Mix(kills=7, freezes=1, freeze_s=8, rolls=1),
    BrokerMix(kills=2),
    StoreMix(kills=1),
    workers=2,
    seed=5,
    excused=True,
    crews=(CrewSpec("sink", sink, 2, Mix(kills=3)),),
    verifiers=(StoreVerifier,),
    more=SMALL_BATCHES,
)
