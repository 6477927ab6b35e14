"""One tool called with the arguments of cases: its results, its errors and its time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

import stepstream
from stepstream.cli.app import run
from stepstream.evals.gate.trials import parse_results
from stepstream.evals.tool_cases import Called, ToolCase, problem_of
from tests.support.paths import ROOT

HERE: Final = __name__


class UnknownOrder(LookupError):
    """No such order."""


@stepstream.tool
def find_order(order: int, currency: str = "EUR") -> dict[str, Any]:
    if order == 0:
        raise UnknownOrder("there is no order 0")
    if order == 1:
        time.sleep(3_600)
    if order == 2:
        os._exit(3)
    return {"order": order, "amount": 129.5, "currency": currency, "lines": (1, 2)}


async def later(order: int) -> str:
    await asyncio.sleep(0)
    return f"order {order}"


FOUND: Final = {"order": 7, "amount": 129.5, "currency": "EUR", "lines": [1, 2]}


@pytest.mark.parametrize(
    ("expected", "called", "problem"),
    [
        ({"returns": FOUND}, Called(0.1, FOUND), ""),
        ({"returns": None}, Called(0.1, None), ""),
        ({"returns": 5}, Called(0.1, 6), "it returned 6 and should return 5"),
        ({"contains": ["129.5", "EUR"]}, Called(0.1, FOUND), ""),
        ({"contains": ["USD"]}, Called(0.1, "EUR"), "the result does not contain 'USD': \"EUR\""),
        ({"json_schema": {"type": "array"}}, Called(0.1, [1]), ""),
        ({"raises": "LookupError"}, Called(0.1, raised=("UnknownOrder", "LookupError")), ""),
        ({"message": "no order"}, Called(0.1, raised=("UnknownOrder",), message="no order 0"), ""),
        (
            {"raises": "KeyError"},
            Called(0.1, raised=("UnknownOrder", "LookupError")),
            "it raised UnknownOrder and should raise KeyError",
        ),
        (
            {"message": "no card"},
            Called(0.1, raised=("UnknownOrder",), message="no order 0"),
            "the text of UnknownOrder does not contain 'no card'",
        ),
        ({"raises": "KeyError"}, Called(0.1, 5), "it returned 5 and should raise KeyError"),
        (
            {"returns": 5},
            Called(0.1, raised=("ValueError",), message="bad"),
            "it raised ValueError: bad",
        ),
        ({"seconds": 1}, Called(2.5, 5), "it took 2.500 s, more than 1 s"),
    ],
)
def test_each_expectation_decides(expected: dict[str, Any], called: Called, problem: str) -> None:
    case = ToolCase.model_validate({"id": "a", **expected})
    assert problem_of(case, called) == problem


def test_a_result_is_checked_by_its_schema() -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "string"}}}
    case = ToolCase.model_validate({"id": "a", "json_schema": schema})
    assert "amount" in problem_of(case, Called(0.1, {"amount": 5}))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes cases and runs the command; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])

    def called(cases: list[dict[str, Any]], *options: str, function: str = "find_order") -> int:
        Path("cases.jsonl").write_text("\n".join(map(json.dumps, cases)))
        return run(["eval", "tool", f"{HERE}:{function}", "cases.jsonl", *options])

    return called


def test_a_tool_is_called_in_processes_of_its_own(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [
        {"id": "known", "arguments": {"order": 7}, "returns": FOUND},
        {"id": "unknown", "arguments": {"order": 0}, "raises": "UnknownOrder"},
        {"id": "wrong", "arguments": {"ordr": 7}, "raises": "TypeError", "message": "ordr"},
    ]
    assert command(cases, "-n", "2", "-o", "results.jsonl", "--junit", "j.xml") == 0
    results = parse_results("r", Path("results.jsonl").read_text())
    assert {case: len(trials) for case, trials in results.cases.items()} == {
        "known": 2,
        "unknown": 2,
        "wrong": 2,
    }
    assert 'failures="0"' in Path("j.xml").read_text()
    capsys.readouterr()
    wrong = [
        {"id": "other", "arguments": {"order": 7}, "contains": ["USD"]},
        {"id": "hangs", "arguments": {"order": 1}, "returns": 1},
        {"id": "exits", "arguments": {"order": 2}, "returns": 1},
    ]
    assert command(wrong, "--timeout", "1") == 1
    shown = capsys.readouterr().out
    assert "other: 0 of 1 succeeded: the result does not contain 'USD'" in shown
    assert "hangs: 0 of 1 succeeded: not ended after 1 s" in shown
    assert "exits: 0 of 1 succeeded: its process ended with code 3" in shown


def test_an_asynchronous_tool_is_awaited(command: Any) -> None:
    cases = [{"id": "a", "arguments": {"order": 7}, "returns": "order 7"}]
    assert command(cases, function="later") == 0


@pytest.mark.parametrize(
    ("cases", "words"),
    [
        ([], "no cases; a case is a line like"),
        ([{"id": "a"}], "give it one of returns, contains, json_schema, raises, message, seconds"),
        ([{"id": "a", "raises": "E", "returns": 1}], "raises means that it returns nothing"),
        ([{"id": "a", "return": 1}], "did you mean returns?"),
        ([{"id": "a", "returns": 1}] * 2, "the case 'a' stands in an earlier line too"),
    ],
)
def test_cases_that_cannot_be_used_are_refused(
    cases: list[dict[str, Any]], words: str, command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(cases) == 2
    assert words in " ".join(capsys.readouterr().err.split())
