"""Sinks, the store, the broker and workers are killed and frozen: the store has exactly what was
sent."""

from __future__ import annotations

from tests.chaos.crew import CrewSpec
from tests.chaos.faults import BrokerMix, Mix, StoreMix
from tests.chaos.harness import Scenario
from tests.chaos.load import Shape
from tests.chaos.store import StoreVerifier, sink

SMALL_BATCHES = {"sink_batch_rows": 300, "sink_batch_interval": "50ms"}

SINKS = Scenario(
    "sinks",
    Shape(seconds=110, runs_per_second=15),
    Mix(kills=4),
    BrokerMix(kills=3, freezes=1),
    StoreMix(kills=6, freezes=2),
    workers=2,
    seed=8,
    excused=True,
    settle_s=120,
    crews=(CrewSpec("sink", sink, 2, Mix(kills=20, freezes=3, rolls=1, joins=2)),),
    verifiers=(StoreVerifier,),
    more=SMALL_BATCHES,
)

# The store is down until everything is sent: nothing is dropped, memory does not grow, and the
# time of settling is the time that catching up takes.
STORE_DOWN = Scenario(
    "store-down",
    Shape(seconds=100, runs_per_second=60),
    store=StoreMix(kills=1, down_s=120),
    workers=1,
    seed=9,
    settle_s=120,
    crews=(CrewSpec("sink", sink, 1, Mix()),),
    verifiers=(StoreVerifier,),
)
