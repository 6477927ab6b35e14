"""Baselines over real Kafka: learnt from closed runs, kept over a kill, used for running runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepstream.doctor.baselines import checks, known_runs
from stepstream.stream.baselines.history import MIN_RUNS, Owner
from tests.support.processes import wait_until
from tests.support.worker_world import World, step, trace

pytestmark = pytest.mark.integration

USUAL = Owner("shop", "", "usual", "")


def runs_known(world: World) -> int:
    return known_runs(world.settings).get(USUAL, 0)


def usual_run(world: World) -> None:
    run = trace()
    who: dict[str, Any] = {"agent": "usual"}
    world.send(
        step(run, 1, "start", **who), step(run, 2, **who, cost_usd="0.1"), step(run, 1, **who)
    )


def test_a_run_is_evaluated_by_what_was_learnt_before_a_kill(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Each run is learnt from once despite a kill; an expensive one alerts without a policy."""
    world = World(kafka_bootstrap, tmp_path)
    world.start()
    try:
        # One more than a baseline needs: the last one shows that learning goes on.
        for _ in range(MIN_RUNS + 1):
            usual_run(world)
        wait_until(lambda: runs_known(world) == MIN_RUNS + 1, 40, "a baseline of all runs")
        world.process.kill()
        world.start()
        costly = trace()
        who: dict[str, Any] = {"agent": "usual"}
        world.send(
            step(costly, 1, "start", **who),
            step(costly, 2, **who, cost_usd="0.2"),
            step(costly, 3, **who, cost_usd="0.15"),
        )
        alert = world.wait_for("alerts", lambda value: value["alert"] == "run-cost-spike", 20)
        assert (alert["trace_id"], alert["running"], alert.get("policy", "")) == (costly, True, "")
        assert alert["baseline_runs"] == MIN_RUNS + 1
        assert alert["message"].startswith("$0.35 so far, 3.5 x the median")
        assert alert["detail"].startswith(
            "its most expensive step, step 2, is 57 % of it; 2 model calls so far"
        )
        world.send(step(costly, 1, **who))
        world.wait_for(
            "alerts",
            lambda value: value["alert_id"] == alert["alert_id"] and value["state"] == "resolved",
            20,
        )
        wait_until(
            lambda: runs_known(world) > MIN_RUNS + 1,
            40,
            "a baseline that has learnt the expensive run too",
        )
        (check,) = checks(world.settings)
        assert check.text == f"usual {MIN_RUNS + 2} runs"
    finally:
        world.collected.close()
        world.process.kill()
