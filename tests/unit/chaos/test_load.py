"""Without faults the worker's logic finds exactly what the load of the chaos suite planned."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from stepstream.schemas.policy import Policy
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from tests.chaos.load import POLICIES, ROOTLESS_IDLE_S, Plan, Shape
from tests.support.stream_world import PRICES, START_US, Rec

TURN_US = 50_000
Findings = Counter[tuple[str, str, str, str]]


def played(plan: Plan, end_us: int) -> tuple[Findings, dict[str, int]]:
    """Distinct findings, and the highest revision of each run, after the logic processed the
    plan.
    """
    rules = RuleBook(tuple(Policy.model_validate(policy) for policy in POLICIES), make_detector)
    limits = AssembleLimits(rootless_idle_us=ROOTLESS_IDLE_S * 1_000_000, replay_records=1_000)
    logic = AssemblePartition(0, 1, rules=rules, prices=PRICES, limits=limits)
    found: Findings = Counter()
    revisions: dict[str, int] = {}
    records = [
        Rec(n, START_US // 1000 + round(r.at_s * 1_000), r.key, r.value)
        for n, r in enumerate(plan.records)
    ]
    for now_us in range(0, end_us, TURN_US):
        while records and records[0].timestamp * 1000 <= START_US + now_us:
            logic.process(records.pop(0))
        logic.tick(START_US + now_us)
        logic.flush()
        while outputs := logic.take_outputs():
            for output in outputs:
                value = (
                    msgspec.json.decode(output.value or b"0")
                    if output.topic in ("findings", "trajectories")
                    else {}
                )
                if output.topic == "findings":
                    key = (
                        value["trace_id"],
                        value["alert"],
                        value.get("subject", ""),
                        value.get("state", "firing"),
                    )
                    found[key] += 1
                elif output.topic == "trajectories":
                    revisions[value["trace_id"]] = max(
                        value["revision"], revisions.get(value["trace_id"], 0)
                    )
                logic.acknowledged(output)
    return found, revisions


@pytest.mark.parametrize("seed", [1, 2])
def test_the_logic_finds_what_the_load_planned(seed: int) -> None:
    """Every finding, none that was not planned, whatever rules are on by default.

    Every final revision.
    """
    plan = Plan(
        seed,
        Shape(seconds=20, runs_per_second=10, long_runs=5, giant_steps=200, tail_s=8),
        START_US,
        1,
    )
    found, revisions = played(plan, 45_000_000)
    wanted: Findings = Counter()
    for run in plan.truth.runs.values():
        for (alert, subject), expected in run.findings.items():
            wanted[run.trace_id, alert, subject, "firing"] += expected.firing
            wanted[run.trace_id, alert, subject, "resolved"] += expected.resolved
    assert found == +wanted
    assert revisions == {run.trace_id: run.final_revision for run in plan.truth.runs.values()}
