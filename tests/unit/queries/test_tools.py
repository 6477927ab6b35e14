"""Which model step chose a tool call, and what it could choose."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.queries.tools import choices, next_tools, offered, tool_calls


def step(name: str, kind: str, at: int, parent: str = "root", **more: Any) -> dict[str, Any]:
    return {
        "step_id": name,
        "parent_step_id": parent,
        "kind": kind,
        "name": name,
        "tool": name if kind == "tool_call" else "",
        "start_us": at,
        "end_us": at + 5,
        **more,
    }


def chosen(*steps: dict[str, Any]) -> dict[str, str]:
    """The model step of each call."""
    return {
        choice.call["step_id"]: choice.chooser["step_id"] if choice.chooser else ""
        for choice in choices(steps)
    }


def test_the_model_step_before_a_call_chose_it_and_also_parallel_ones() -> None:
    root = step("root", "agent", 0, "")
    steps = [root, step("plan", "llm_call", 10), step("a", "tool_call", 20)]
    steps += [step("b", "tool_call", 21), step("again", "llm_call", 30), step("c", "tool_call", 40)]
    assert chosen(*steps) == {"a": "plan", "b": "plan", "c": "again"}


def test_the_model_step_above_a_call_chose_it() -> None:
    steps = [step("plan", "llm_call", 10, end_us=90), step("a", "tool_call", 20, "plan")]
    assert chosen(step("root", "agent", 0, ""), *steps) == {"a": "plan"}


def test_a_model_step_of_another_branch_did_not() -> None:
    """A branch that runs at the same time has a model step that ended just before."""
    steps = [
        step("root", "agent", 0, ""),
        step("first", "agent", 1),
        step("second", "agent", 1),
        step("plan", "llm_call", 10, "first"),
        # Later than `plan` and before the call: by time alone it would be the one.
        step("other", "llm_call", 15, "second"),
        step("a", "tool_call", 30, "first"),
    ]
    assert chosen(*steps) == {"a": "plan"}


def test_only_the_calls_that_are_asked_about_are_explained() -> None:
    steps = [step("root", "agent", 0, ""), step("plan", "llm_call", 10)]
    steps += [step("b", "tool_call", 30), step("a", "tool_call", 20)]
    calls = tool_calls(steps)
    assert [call["name"] for call in calls] == ["a", "b"]
    (choice,) = choices(steps, calls[1:])
    assert (choice.call["name"], choice.chooser) == ("b", steps[1])


def test_a_call_without_a_model_step_was_made_by_the_program() -> None:
    steps = [step("root", "agent", 0, ""), step("a", "tool_call", 5), step("l", "llm_call", 9)]
    assert chosen(*steps) == {"a": ""}


def test_steps_in_a_circle_and_orphans_are_no_obstacle() -> None:
    steps = [
        # Each the other's parent: a walk upwards would not end.
        step("x", "tool_call", 5, "y"),
        step("y", "tool_call", 4, "x"),
        step("z", "tool_call", 9, "missing"),
        step("l", "llm_call", 1, ""),
        step("w", "tool_call", 9, ""),
    ]
    assert chosen(*steps)["w"] == "l"
    assert set(chosen(*steps)) == {"x", "y", "z", "w"}


def test_what_was_read_are_the_results_since_the_model_step_before() -> None:
    steps = [
        step("root", "agent", 0, ""),
        step("one", "llm_call", 10),
        step("a", "tool_call", 20),
        step("b", "retrieval", 30),
        step("two", "llm_call", 40),
        step("c", "tool_call", 50),
    ]
    (last,) = [choice for choice in choices(steps) if choice.call["step_id"] == "c"]
    assert [one["step_id"] for one in last.read] == ["a", "b"]


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({}, []),
        (
            {"gen_ai.tool.definitions": '[{"type": "function", "name": "a"}, {"name": "b"}]'},
            ["a", "b"],
        ),
        ({"tools": '[{"function": {"name": "a"}}, 7, "b", {}]'}, ["a", "b"]),
        ({"tools": "a, b"}, ["a", "b"]),
        ({"llm.tools.0.tool.json_schema": '{"function": {"name": "a"}}'}, ["a"]),
        # Text of an agent's program: the JSON parser must not run out of stack.
        ({"tools": "[" * 10_000}, []),
    ],
)
def test_offered_tools_are_read_from_attributes(
    attributes: dict[str, str], names: list[str]
) -> None:
    assert offered(attributes) == names


def test_next_tools_counts_the_first_call_after_a_model_step() -> None:
    paths = [
        ["agent r", "llm_call plan", "tool_call a", "tool_call b", "llm_call plan", "tool_call a"],
        ["llm_call plan", "llm_call other", "tool_call c"],
        ["tool_call d"],
    ]
    assert next_tools(paths, "llm_call plan") == {"a": 2}
