"""Scenarios: scripted users, and stubs with faults in the place of tools."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import stepstream
from stepstream.cli.app import run
from stepstream.evals.cases import CasesError, Suite, parse_suite
from stepstream.evals.gate.trials import Trial
from stepstream.suites.agent import AgentError
from stepstream.suites.runner import Plan, run_suite
from stepstream.testing import ToolFault, recording, stubbed
from tests.support.paths import ROOT


def one_case(**fields: Any) -> Suite:
    case = {"id": "a", "input": "hello", "expected": "x"} | fields
    return parse_suite("s.jsonl", json.dumps(case))


def trial_of(agent: Any, **fields: Any) -> Trial:
    return run_suite(one_case(**fields), agent, "agent", [], Plan()).results.cases["a"][0]


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


@pytest.mark.usefixtures("at_root")
def test_a_careful_agent_passes_where_a_careless_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The events of a scenario name it, and are step events."""
    events = tmp_path / "events.jsonl"
    suite = ["eval", "run", "examples/refund_scenarios.jsonl", "--fail-under", "1"]
    careful = ["--agent", "examples.careful_agent:support", "--events", str(events)]
    assert run([*suite, *careful]) == 0
    assert run([*suite, "--agent", "examples.flaky_agent:support"]) == 1
    assert "must not be called: refund" in capsys.readouterr().out
    assert run(["validate", str(events)]) == 0
    roots = [
        event
        for event in map(json.loads, events.read_text().splitlines())
        if not event.get("parent_step_id") and event["phase"] == "end"
    ]
    assert {root["agent"] for root in roots} == {"support"}
    assert {root["attributes"]["case"] for root in roots} >= {"injected-text", "look-up-times-out"}
    assert {root["attributes"]["experiment"] for root in roots} == {"refund_scenarios"}


# --- users ---


def counting(message: str, history: list[dict[str, str]]) -> str:
    return f"{len(history)}: {message}"


def echoing(message: str) -> str:
    return message


def test_turns_are_sent_where_their_condition_holds() -> None:
    """Each at most once, the first that fits; the conversation ends where none does."""
    turns = [
        {"message": "bye", "when": {"contains": ["again"]}},
        {"message": "never", "when": {"contains": ["no such text"]}},
        {"message": "Again?", "when": {"excludes": ["again"]}},
    ]
    assert trial_of(counting, turns=turns, expected="4: bye").success is True


def test_a_conversation_is_one_run() -> None:
    suite = one_case(turns=[{"message": "x"}, {"message": "y"}], expected="y")
    done = run_suite(suite, echoing, "agent", [], Plan())
    assert len({event["trace_id"] for event in done.events}) == 1
    assert done.results.cases["a"][0].success is True


def impatient(history: list[dict[str, str]]) -> str | None:
    return None if len(history) >= 6 else f"message {len(history)}"


def endless(_history: list[dict[str, str]]) -> str:
    return "and?"


@pytest.mark.usefixtures("at_root")
def test_a_user_may_be_a_function() -> None:
    this = "tests.unit.suites.test_scenarios"
    assert trial_of(echoing, user=f"{this}:impatient", expected="message 4").success is True
    found = trial_of(counting, user=f"{this}:endless", max_turns=3, expected="4: and?")
    assert found.success is True
    with pytest.raises(AgentError, match="did you mean impatient"):
        trial_of(echoing, user=f"{this}:impatien")


# --- stubs ---

FOUND = {"order": 7, "amount": 20.5, "paid": True, "note": "ok"}


@stepstream.tool
def find(order: int) -> dict[str, Any]:
    return {"order": order, "amount": 20.5, "paid": True, "note": "ok"}


@stepstream.tool
async def later(order: int) -> str:
    return f"order {order} is on its way"


@stepstream.tool
def listed(order: int) -> Any:
    yield from ["a", "b"]


@pytest.mark.parametrize(
    ("stub", "result"),
    [
        ({"returns": {"amount": 1}}, {"amount": 1}),
        ({"returns": None}, None),
        ({"fault": "error_as_ok", "text": "no"}, {"error": "no"}),
        ({"fault": "wrong_row"}, {"order": 8, "amount": 21.5, "paid": True, "note": "ok"}),
        ({"fault": "truncated"}, {"order": 7, "amount": 20.5}),
        (
            {"fault": "injected_text", "text": "ignore it"},
            {"order": 7, "amount": 20.5, "paid": True, "note": "ok\nignore it"},
        ),
        ({"returns": [1, 2, 3, 4], "fault": "truncated"}, [1, 2]),
        ({"returns": "abcd", "fault": "truncated"}, "ab"),
        ({"returns": [1], "fault": "injected_text", "text": "ignore it"}, [1, "ignore it"]),
        ({"returns": {"a": 1}, "fault": "injected_text", "text": "t"}, {"a": 1, "note": "t"}),
        ({"when": {"order": 9}, "returns": 0}, FOUND),
        ({"when": {"order": 7}, "returns": 0}, 0),
    ],
)
def test_a_stub_answers_for_its_tool(stub: dict[str, Any], result: Any) -> None:
    with stubbed({"tool": "find", **stub}), recording() as recorded, stepstream.run("r"):
        assert find(7) == result
    assert recorded.only_run().tools == ["find"]


def test_stubs_raise_wait_and_are_used_up() -> None:
    with stubbed({"tool": "find", "fault": "error", "text": "down", "times": 1}):
        with pytest.raises(ToolFault, match="down"):
            find(1)
        assert find(1)["amount"] == 20.5
    with stubbed({"tool": "later", "fault": "timeout"}), pytest.raises(TimeoutError):
        asyncio.run(later(1))
    began = time.monotonic()
    with stubbed({"tool": "later", "fault": "slow", "seconds": 0.05}):
        assert asyncio.run(later(1)) == "order 1 is on its way"
    assert time.monotonic() - began >= 0.05
    with stubbed({"tool": "listed", "returns": ["c"]}):
        assert list(listed(1)) == ["c"]


def test_a_share_of_calls_is_drawn_by_the_seed() -> None:
    """The same seed gives the same calls a fault, another seed others."""

    def faulty(seed: int) -> list[bool]:
        with stubbed({"tool": "find", "returns": {}, "rate": 0.3}, seed=seed):
            return [find(number) == {} for number in range(200)]

    assert faulty(1) == faulty(1)
    assert faulty(1) != faulty(2)
    assert 30 < Counter(faulty(1))[True] < 90


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"stubs": [{"tool": "t"}]}, "the stub of t needs returns or fault"),
        ({"stubs": [{"tool": "t", "fault": "tmeout"}]}, "did you mean timeout"),
        ({"stubs": [{"tool": "t", "fault": "slow"}]}, "needs seconds"),
        ({"stubs": [{"tool": "t", "fault": "injected_text"}]}, "needs text"),
        ({"turns": [{"message": "x"}], "user": "a:b"}, "turns and user exclude each other"),
        ({"user": "a"}, "user is 'a'"),
    ],
)
def test_scenarios_that_cannot_be_used_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(CasesError, match=words):
        one_case(**fields)


def test_a_wrong_stub_is_explained() -> None:
    with pytest.raises(ValueError, match="did you mean tool"), stubbed({"tol": "find"}):
        pass


def test_the_version_of_a_suite_without_scenarios_has_not_changed() -> None:
    """Results of suites that were made before have it."""
    assert parse_suite("s", '{"id": "a", "input": 1, "expected": "x"}').version == "9d0f0b929db8"
    assert one_case().version != one_case(turns=[{"message": "x"}]).version
