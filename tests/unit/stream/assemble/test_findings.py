"""Findings of the stage: ids from the log, raised once, resolved when their run ends."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.ids import derived_id
from tests.support.stream_bench import TRACE, Bench, policy, root, sentence_of, step

COST = {"rule": "run_cost", "limit_usd": "1", "warn_usd": "0.5"}


def spending(bench: Bench, *, until: int = 5) -> Bench:
    """A run that costs 0.3 a step."""
    bench.send(root("start", 0.0), 0.0)
    for number in range(2, 2 + until):
        bench.send(step(number, "end", number, kind="llm_call", cost_usd="0.3"), float(number))
    return bench


def test_ids_are_derived_from_the_log_alone() -> None:
    """A replay, another worker, another day: the same problem has the same id."""
    one, other = (spending(Bench(policy(COST))) for _ in range(2))
    # A restart from the state record, as on another worker.
    other.swap()
    assert [value["finding_id"] for value in one.findings()] == [
        derived_id("finding", TRACE, "run-cost||warn", "firing"),
        derived_id("finding", TRACE, "run-cost||limit", "firing"),
    ]
    assert one.findings() == other.findings()


def test_each_level_is_raised_once() -> None:
    """The tenth dollar too much is no news."""
    bench = spending(Bench(policy(COST)), until=40)
    assert [
        (value["severity"], value["threshold"]) for value in bench.findings() if "severity" in value
    ] == [("error", 1.0)]
    assert len(bench.findings()) == 2


def test_problems_end_with_their_run() -> None:
    """One resolving finding for each alert and subject, however many levels it had."""
    bench = spending(Bench(policy(COST)))
    bench.send(root("end", 0.0, 8.0), 8.0)
    bench.wait(12)
    (resolved,) = bench.findings("resolved")
    assert (resolved["alert"], resolved["rule"], resolved["policy"]) == (
        "run-cost",
        "run_cost",
        "p",
    )
    assert resolved["finding_id"] == derived_id("finding", TRACE, "run-cost||limit+warn", "closed")
    assert bench.values("trajectories")[-1]["findings"] == 2


def test_a_hung_step_that_ends_after_all_is_resolved_at_once() -> None:
    """And not once more when the run closes."""
    bench = Bench(policy({"rule": "hung_step", "after": "5s"}))
    bench.send(root("start", 0.0), 0.0)
    bench.send(step(2, "start", 1.0, kind="tool_call", tool="fetch"), 1.0)
    bench.wait(8)
    bench.send(step(2, "end", 1.0, 9.0, kind="tool_call", tool="fetch"), 9.0)
    (resolved,) = bench.findings("resolved")
    assert resolved["message"] == "tool_call fetch ended after 8 s"
    bench.send(root("end", 0.0, 10.0), 10.0)
    bench.wait(14)
    assert len(bench.findings("resolved")) == 1


def test_a_stuck_run_that_goes_on_is_resolved_at_once() -> None:
    """Any record ends the silence; it is raised no second time."""
    bench = Bench(policy({"rule": "stuck_run", "after": "5s"}))
    bench.send(root("start", 0.0), 0.0)
    bench.send(step(2, "end", 7.0, kind="tool_call", tool="t"), 7.0)
    assert [value["message"] for value in bench.findings("resolved")] == [
        "the run went on with tool_call t"
    ]
    bench.wait(30)
    assert len(bench.findings()) == 1


def test_a_finding_about_a_late_step_is_resolved_with_it() -> None:
    """The run is over: what a late step shows is reported, and does not stay open for ever."""
    bench = Bench(policy({"rule": "run_steps", "limit": 1}))
    bench.send(root("end", 0.0, 1.0), 1.0)
    bench.wait(4)
    # The second step of a limit of one arrives after the close: no later record would resolve it.
    bench.send(step(2, "end", 0.5), 5.0)
    assert (len(bench.findings()), len(bench.findings("resolved"))) == (1, 1)


@pytest.mark.parametrize("mode", ["observe", "enforce"])
@pytest.mark.parametrize("action", ["none", "warn", "pause", "stop"])
def test_orders_are_given_only_by_policies_that_enforce(mode: str, action: str) -> None:
    """``observe`` only reports. An order names its reason, its finding and whose policy it was."""
    bench = spending(Bench(policy({**COST, "action": action}, mode=mode)))
    commands = bench.values("control")
    if mode == "observe" or action == "none":
        assert commands == []
        return
    (command,) = commands
    limit = bench.findings()[-1]
    assert command == {
        "command_id": derived_id("command", limit["finding_id"], action),
        "action": action,
        "time": limit["time"],
        "agent": "tester",
        "trace_id": TRACE,
        "reason": f"run-cost: {sentence_of(limit)}",
        "finding_id": limit["finding_id"],
        "by": "policy:p",
    }


def test_a_warning_orders_nothing() -> None:
    """Only the limit itself is worth stopping for."""
    bench = spending(Bench(policy({**COST, "action": "stop"}, mode="enforce")), until=3)
    assert [value.get("action", "") for value in bench.findings()] == [""]
    assert bench.values("control") == []


def test_the_end_of_a_problem_commands_nothing() -> None:
    """Resolving is no reason to stop."""
    bench = spending(Bench(policy({**COST, "action": "stop"}, mode="enforce")))
    bench.send(root("end", 0.0, 8.0), 8.0)
    bench.wait(12)
    assert len(bench.findings("resolved")) == 1
    assert len(bench.values("control")) == 1


def test_a_finding_carries_whose_run_it_is() -> None:
    """Project, environment, agent, version and task are the root's."""
    whose: dict[str, Any] = {
        "project": "shop",
        "environment": "prod",
        "agent": "support",
        "agent_version": "2",
        "task": "refund",
    }
    bench = Bench(policy({"rule": "run_steps", "limit": 1}))
    bench.send(root("start", 0.0, **whose), 0.0)
    bench.send(step(2, "end", 1.0, agent="helper"), 1.0)
    (found,) = bench.findings()
    assert {name: found.get(name) for name in whose} == whose
    assert [output.key for output in bench.outputs if output.topic == "findings"] == [b"shop"]


def test_policies_that_match_the_root_apply_to_the_run_once_the_root_is_known() -> None:
    """Children may come first, under another agent's name."""
    bench = Bench(policy({"rule": "run_steps", "limit": 2}, match={"agent": "boss"}))
    bench.send(step(2, "end", 0.5, agent="helper"), 0.5)
    bench.send(step(3, "end", 0.6, agent="helper"), 0.6)
    assert bench.findings() == []
    bench.send(root("end", 0.0, 1.0, agent="boss"), 1.0)
    assert [value["agent"] for value in bench.findings()] == ["boss"]


def test_a_change_of_policies_leaves_open_runs_to_the_rules_they_began_with() -> None:
    """A run is compared with what was known when it began; the next one by the new."""
    bench = Bench(policy({"rule": "run_steps", "limit": 2}))
    bench.send(root("start", 0.0), 0.0)
    # The new limit would allow all the steps that follow.
    bench.logic.rules = Bench(policy({"rule": "run_steps", "limit": 50}, name="new")).rules
    for number in range(2, 6):
        bench.send(step(number, "end", 1.0), 1.0)
    bench.send({**root("end", 2.0), "trace_id": "b" * 32}, 2.0)
    assert [value["policy"] for value in bench.findings()] == ["p"]
    assert bench.logic.runs["b" * 32].run.rules.applied[-1].policy == "new"


def test_a_note_is_sent_and_needs_no_end() -> None:
    """It opened nothing, so the close of its run does not resolve it."""
    rule = {"rule": "run_steps", "limit": 1, "severity": "note"}
    bench = spending(Bench(policy(rule)))
    bench.send(root("end", 0.0, 8.0), 8.0)
    bench.wait(12)
    assert [value["severity"] for value in bench.findings()] == ["note"]
    assert bench.findings("resolved") == []


def test_a_model_call_without_usage_is_unpriced_and_reported() -> None:
    """A stream without usage: the run's cost is unknown, in baselines too; reported once."""
    bench = Bench(policy({"rule": "unpriced_model"}))
    bench.send(root("start", 0.0), 0.0)
    for number in range(2, 5):
        bench.send(
            step(
                number, "end", 1.0, kind="llm_call", model="gpt-4o", provider="openai", output="hi"
            ),
            1.0,
        )
    bench.send(
        step(
            5,
            "end",
            1.0,
            kind="llm_call",
            model="gpt-4o",
            status="error",
            error_type="RateLimitError",
        ),
        1.0,
    )
    bench.send(root("end", 0.0, 2.0), 2.0)
    bench.wait(10)
    (finding,) = bench.findings()
    assert (
        finding["message"]
        == "a call of model gpt-4o named no usage: its cost counts as unknown, not as free"
    )
    # The failed call did not answer: it had nothing to name a usage for.
    assert bench.values("trajectories")[-1]["unpriced_steps"] == 3
