"""Suspects of failed runs, their evidence, and how their values reached the output."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.evals.blame.features import FEATURES, MOST_NEW_VALUES, features
from stepstream.evals.blame.step import MAX_STEPS, BlameStep, candidates, has_coordinator
from stepstream.evals.blame.suspects import Reports, rank, suspects
from stepstream.evals.blame.weights import COORDINATED, PLAIN


def step(place: int, name: str, kind: str, output: str = "", **more: Any) -> BlameStep:
    given = {"parent_step_id": "root", **more}
    return BlameStep(f"{place:04x}", name, kind, place * 1_000, output, **given)


ROOT = BlameStep("root", "team", "agent", 0, "42,000")
WRONG = [
    ROOT,
    step(1, "plan", "llm_call", "Plan: look for the population, then answer."),
    step(2, "search", "tool_call", "The town of Springfield has 1,204 people."),
    step(3, "writer", "llm_call", "I assume that the population is 42,000."),
    step(4, "checker", "llm_call", "42,000 is right."),
    step(5, "answer", "output", "42,000"),
]


def test_a_step_that_brought_a_value_to_the_output_has_the_path_of_it() -> None:
    found = rank("How many people live there?", WRONG)
    writer = next(one for one in found if one.step.name == "writer")
    assert "first step with 42,000, which the output contains" in writer.evidence
    assert any(text.startswith("is not sure: I assume that") for text in writer.evidence)
    assert writer.path == ("0003", "0004", "0005")


def test_a_failed_call_and_the_model_step_that_issued_it_come_first() -> None:
    error = {"status": "error", "error": "PaymentError: no such order"}
    steps = [
        ROOT,
        step(1, "plan", "llm_call", "search"),
        step(2, "search", "tool_call", "found"),
        step(3, "decide", "llm_call", "refund"),
        step(4, "refund", "tool_call", **error),
        step(5, "answer", "llm_call", "Done."),
    ]
    found = suspects("", steps, most=2)
    assert {one.step.name for one in found} == {"decide", "refund"}
    evidence = {one.step.name: one.evidence[0] for one in found}
    assert evidence["refund"] == "failed and was not repaired: PaymentError: no such order"
    assert evidence["decide"] == "issued the call of refund, which failed"


def test_a_call_that_fails_the_criteria_and_the_step_that_issued_it_come_first() -> None:
    steps = [
        ROOT,
        step(1, "plan", "llm_call", "search"),
        step(2, "search", "tool_call", "found"),
        step(3, "decide", "llm_call", "refund"),
        step(4, "refund", "tool_call", "done"),
        step(5, "answer", "llm_call", "Done."),
    ]
    named = {"0004": ["refund must not be called"], "0005": ["the answer has no number 15"]}
    reports = Reports(named, {"0002": ["repetition: the same search"]})
    found = suspects("", steps, most=5, reports=reports)
    assert {one.step.name for one in found[:2]} == {"decide", "refund"}
    evidence = {one.step.name: one.evidence for one in found}
    assert evidence["refund"][0] == "refund must not be called"
    assert evidence["decide"][0] == (
        "issued the call of refund, which does not meet the run's Criteria"
    )
    assert "repetition: the same search" in evidence["search"]
    # Where a wrong answer shows is not where it came from: named, and ranked as before.
    (before,) = [one for one in rank("", steps) if one.step.name == "answer"]
    (after,) = [one for one in found if one.step.name == "answer"]
    assert after.evidence[0] == "the answer has no number 15"
    assert after.probability < before.probability


def test_a_failure_that_was_repaired_is_no_failure() -> None:
    steps = [
        ROOT,
        step(1, "plan", "llm_call", "search"),
        step(2, "search", "tool_call", status="error", error="timeout"),
        step(3, "search", "tool_call", "found", retry_of="0002"),
    ]
    (second,) = [one for one in rank("", steps) if one.step.step_id == "0002"]
    assert second.evidence[0] == "failed, and worked later: timeout"
    assert all("issued" not in text for one in rank("", steps) for text in one.evidence)


def test_an_error_that_is_marked_ok_and_ignored_is_evidence() -> None:
    steps = [
        ROOT,
        step(1, "search", "tool_call", "Error: no such table"),
        step(2, "answer", "llm_call", "It is fine."),
    ]
    found = {one.step.name: one.evidence for one in rank("", steps)}
    assert found["search"][0] == "its status is ok, its output reads like an error"
    assert found["answer"][0] == "went on after search, whose output reads like an error"


def test_steps_that_only_contain_others_and_the_root_are_no_candidates() -> None:
    steps = [ROOT, step(1, "helper", "agent"), step(2, "plan", "llm_call", parent_step_id="0001")]
    assert [one.name for one in candidates(steps)] == ["plan"]


def test_there_are_at_most_three_suspects_the_likeliest_first() -> None:
    found = suspects("How many people live there?", WRONG)
    assert len(found) == 3
    assert found == sorted(found, key=lambda one: -one.probability)


def test_a_run_without_steps_has_no_suspects() -> None:
    assert suspects("", []) == []
    assert suspects("", [ROOT]) == []


def test_probabilities_of_a_run_add_up_to_one_in_any_order_of_its_steps() -> None:
    found = rank("", WRONG)
    assert sum(one.probability for one in found) == pytest.approx(1)
    assert rank("", list(reversed(WRONG))) == found


def test_there_is_a_weight_for_each_feature() -> None:
    rows, seen = features("", candidates(WRONG))
    assert {len(row) for row in rows} == {len(FEATURES)} == {len(PLAIN)} == {len(COORDINATED)}
    assert len(seen) == len(rows)


def test_a_coordinator_is_recognised_by_its_name() -> None:
    assert has_coordinator([step(1, "Orchestrator (thought)", "llm_call")])
    assert not has_coordinator(WRONG)


def test_a_long_run_is_bounded() -> None:
    many = [
        step(place, "s", "tool_call", f"x 1 Abc {place} " * 20)
        for place in range(1, MAX_STEPS + 100)
    ]
    ranked = rank("", [ROOT, *many])
    assert len(ranked) == MAX_STEPS
    assert max(len(one.path) for one in ranked) <= 20


def test_a_table_of_numbers_keeps_its_most_specific_values() -> None:
    """Memory does not grow with the numbers of a text."""
    table = " ".join(str(number) for number in range(100_000, 101_000)) + " 7 Marie Curie"
    answers = [step(place, "answer", "output", "Marie Curie") for place in (2, 3)]

    _, seen = features("", [step(1, "table", "tool_call", table), *answers])

    assert len(seen[0].new_values) == MOST_NEW_VALUES
    assert "Marie Curie" in seen[0].new_values
    assert seen[0].reaching == {"Marie Curie"}
