"""Policies evaluated in processes find what they find in the caller's process."""

from __future__ import annotations

import os
import signal
from typing import Any

import msgspec
import pytest

from stepstream.backtest import parallel
from stepstream.backtest.evaluate import batched
from stepstream.backtest.history import Event
from stepstream.backtest.parallel import (
    PARALLEL_STEPS,
    EvaluationFailed,
    evaluators,
    offline_limits,
)
from stepstream.backtest.timeline import PolicyChange, Timeline
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.simulate.generate import events
from stepstream.simulate.scenario import Scenario
from tests.support.step_events import NOW_US
from tests.support.stream_bench import policy

CHANGE = PolicyChange(
    NOW_US + 150_000_000, "p", policy({"rule": "run_steps", "limit": 3}, revision=2)
)
SETS = [
    Timeline(
        (policy({"rule": "run_cost", "limit_usd": "0.05", "action": "stop"}, mode="enforce"),)
    ),
    Timeline((policy({"rule": "expr", "when": "run.calls['mail'] > 1"}),), (CHANGE,)),
]


def load() -> list[Event]:
    faults = [{"fault": "loop", "share": 0.2}, {"fault": "hung_step", "share": 0.4}]
    scenario = Scenario.model_validate(
        {"name": "s", "duration": "5m", "agents": [{"agent": "a"}], "faults": faults}
    )
    return [
        Event(one.at_us, one.event["trace_id"], msgspec.json.encode(one.event))
        for one in events(scenario, NOW_US)
    ]


def outcomes(steps: int) -> list[Any]:
    working = evaluators(SETS, PriceBook(), offline_limits(Settings()), steps)
    try:
        for chunk in batched(load(), 100):
            working.take(chunk)
        return working.outcomes()
    finally:
        working.close()


def test_processes_find_the_same() -> None:
    """Every finding with its cost, every alert and every run, for each set of policies."""
    here, there = outcomes(0), outcomes(PARALLEL_STEPS)
    assert here == there
    assert [len(one.alerts) > 3 for one in here] == [True, True]
    assert {alert.alert for alert in here[0].alerts.values()} >= {"run-cost", "loop", "hung-step"}


def test_a_process_that_ends_is_an_error() -> None:
    working = evaluators(SETS, None, offline_limits(Settings()), PARALLEL_STEPS)
    assert isinstance(working, parallel._Processes)
    os.kill(working._processes[0].pid or 0, signal.SIGKILL)
    working._processes[0].join(30)
    with pytest.raises(EvaluationFailed, match="exit codes: -9"):
        working.outcomes()
    working.close()


def test_batches_have_every_item_once() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
