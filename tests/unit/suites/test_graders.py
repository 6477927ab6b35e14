"""Graders and functions as checks, whatever they raise and return."""

from __future__ import annotations

import json
import math
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stepstream.cli.app import run
from stepstream.evals.agreement import agreement, lines
from stepstream.evals.cases import parse_suite
from stepstream.evals.gate.trials import Trial, lines_of, parse_results
from stepstream.schemas.criteria import Criteria, GraderCheck
from stepstream.schemas.graders import GRADERS, Score
from stepstream.suites.agent import AgentError
from stepstream.suites.outside_checks import graded
from stepstream.suites.runner import Plan, run_suite
from tests.support.paths import ROOT

THIS = "tests.unit.suites.test_graders"


@pytest.fixture(autouse=True)
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def agent(_question: str) -> str:
    return "Paris"


def by_rubric(question: str, answer: str, rubric: str) -> Score:
    good = answer in rubric and question == "capital?"
    return Score(0.9 if good else 0.1, "as in the rubric", "m-1", "abc", 0.002)


def plain(_question: str, _answer: str, _rubric: str) -> float:
    return 0.4


def raising(*_: str) -> float:
    raise ConnectionError("no route")


def exiting(*_: str) -> float:
    raise SystemExit(3)


def slow(*_: str) -> float:
    time.sleep(30)
    return 1.0


def nan(*_: str) -> float:
    return math.nan


def high(*_: str) -> float:
    return 7


def text(*_: str) -> str:
    return "excellent"


def nothing(*_: str) -> None:
    return None


def yes(*_: str) -> bool:
    return True


def checked(case: dict[str, Any]) -> Trial:
    suite = parse_suite("s", json.dumps({"id": "a", "input": "capital?"} | case))
    return run_suite(suite, agent, "agent", [], Plan()).results.cases["a"][0]


def grader(name: str, **fields: Any) -> Trial:
    named = f"{THIS}:{name}"
    return checked({"checks": [{"check": "grader", "grader": named, **fields}]})


def test_a_grade_is_kept_with_model_prompt_and_cost() -> None:
    trial = grader("by_rubric", rubric="Paris", at_least=0.8)
    (grade,) = trial.grades
    assert (trial.success, trial.reason) == (True, "")
    assert (grade.score, grade.model, grade.prompt_hash, grade.cost_usd) == (
        0.9,
        "m-1",
        "abc",
        0.002,
    )
    failed = grader("by_rubric", rubric="London")
    assert (failed.success, failed.reason) == (False, "as in the rubric")
    assert grader("plain", at_least=0.4).success is True
    assert grader("plain").reason == f"{THIS}:plain gave 0.4, below 0.5"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raising", "ConnectionError: no route"),
        ("exiting", "RuntimeError: SystemExit"),
        ("slow", "had not returned after 0.2 s"),
        ("nan", "it returned nan, not a number from 0 to 1"),
        ("high", "it returned 7, not a number from 0 to 1"),
        ("text", "it returned str, not a number from 0 to 1"),
        ("nothing", "it returned NoneType, not a number from 0 to 1"),
        ("yes", "it returned bool, not a number from 0 to 1"),
    ],
)
def test_a_grader_that_fails_is_unknown(name: str, reason: str) -> None:
    trial = grader(name, seconds=0.2)
    assert trial.success is None
    assert trial.reason.endswith(reason)


def test_a_failed_check_is_a_failure_whatever_the_grader_does() -> None:
    checks = [{"check": "grader", "grader": f"{THIS}:raising"}, {"check": "answer", "equals": "x"}]
    assert checked({"checks": checks}).success is False


# --- functions ---


def ends_well(given: Any, answer: str, steps: list[dict[str, Any]]) -> bool:
    return given == "capital?" and answer == "Paris" and steps[0]["phase"] == "end"


def complains(_given: Any, answer: str, _steps: Any) -> str:
    return f"{answer} is not booked"


def undecided(*_: Any) -> None:
    return None


def odd(*_: Any) -> int:
    return 5


@pytest.mark.parametrize(
    ("name", "success", "reason"),
    [
        ("ends_well", True, ""),
        ("complains", False, "Paris is not booked"),
        ("undecided", None, f"{THIS}:undecided returned None"),
        ("odd", None, f"{THIS}:odd returned int, not True, False, None or a text"),
        ("raising", None, f"{THIS}:raising: ConnectionError: no route"),
    ],
)
def test_a_function_checks_the_end_state(name: str, success: bool | None, reason: str) -> None:
    trial = checked({"checks": [{"check": "function", "function": f"{THIS}:{name}"}]})
    assert (trial.success, trial.reason) == (success, reason)


def database() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    made.execute("CREATE TABLE orders (id INTEGER, status TEXT, amount NUMERIC)")
    made.execute("INSERT INTO orders VALUES (1, 'refunded', 15.0), (2, 'open', 7)")
    return made


@pytest.mark.parametrize(
    ("query", "expected", "success", "reason"),
    [
        ("SELECT status FROM orders WHERE id = 1", {"equals": "refunded"}, True, ""),
        ("SELECT amount FROM orders WHERE id = 1", {"equals": 15}, True, ""),
        ("SELECT id FROM orders", {"rows": 2}, True, ""),
        ("SELECT id FROM orders WHERE id > 5", {"rows": 0}, True, ""),
        (
            "SELECT status FROM orders WHERE id = 2",
            {"equals": "refunded"},
            False,
            "the query found 'open', not 'refunded'",
        ),
        ("SELECT id FROM orders", {"equals": 1}, False, "the query found 2 rows, not one value"),
        ("SELECT id FROM orders", {"rows": 3}, False, "the query found 2 rows, not 3"),
        (
            "SELECT * FROM no_such",
            {"rows": 0},
            None,
            f"{THIS}:database: OperationalError: no such table: no_such",
        ),
    ],
)
def test_a_query_checks_the_end_state(
    query: str, expected: dict[str, Any], success: bool | None, reason: str
) -> None:
    check = {"check": "sql", "connect": f"{THIS}:database", "query": query, **expected}
    trial = checked({"checks": [check]})
    assert (trial.success, trial.reason) == (success, reason)


@pytest.mark.parametrize("expected", [{}, {"equals": 1, "rows": 1}])
def test_a_query_expects_one_thing(expected: dict[str, Any]) -> None:
    check = {"check": "sql", "connect": "a:b", "query": "SELECT 1", **expected}
    with pytest.raises(ValueError, match="sql needs either equals or rows"):
        Criteria.model_validate({"name": "x", "checks": [check]})


def test_a_grader_that_never_returns_is_not_called_for_ever() -> None:
    """Each call keeps a thread: after eight of them the others are unknown at once."""
    calls: list[int] = []
    ends = threading.Event()

    def hangs(*_: str) -> float:
        calls.append(1)
        ends.wait(60)
        return 1.0

    GRADERS._extensions["hangs"] = hangs
    check = GraderCheck(check="grader", grader="hangs", seconds=0.01)
    try:
        grades = [graded(check, "q", "a", []) for _ in range(10)]
        assert len(calls) == 8
        assert [grade.outcome for grade in grades] == [None] * 10
        assert grades[-1].reason == "hangs was not called: 8 earlier calls still run"
    finally:
        ends.set()
        del GRADERS._extensions["hangs"]


def test_a_document_applies_to_the_runs_that_it_matches() -> None:
    document = Criteria.model_validate(
        {
            "name": "x",
            "match": {"agent": "other"},
            "checks": [{"check": "function", "function": f"{THIS}:complains"}],
        }
    )
    suite = parse_suite("s", '{"id": "a", "input": "capital?", "expected": "Paris"}')
    done = run_suite(suite, agent, "agent", [document], Plan())
    assert done.results.cases["a"][0].success is True


def test_what_does_not_exist_is_refused_before_any_trial(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="did you mean plain"):
        grader("plai")
    with pytest.raises(AgentError, match="there is no grader 'no-such'"):
        checked({"checks": [{"check": "grader", "grader": "no-such"}]})
    file = tmp_path / "s.jsonl"
    case = {"id": "a", "input": 1, "checks": [{"check": "grader", "grader": "no-such"}]}
    file.write_text(json.dumps(case))
    assert run(["eval", "run", str(file), "--agent", f"{THIS}:agent"]) == 2


def test_a_registered_grader_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRADERS, "_extensions", {"mine": by_rubric})
    case = {"checks": [{"check": "grader", "grader": "mine", "rubric": "Paris"}]}
    assert checked(case).success is True


def test_grades_are_summed_up_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, results = tmp_path / "s.jsonl", tmp_path / "r.jsonl"
    checks = [
        {"check": "grader", "grader": f"{THIS}:by_rubric", "rubric": "Paris"},
        {"check": "grader", "grader": f"{THIS}:nan"},
    ]
    file.write_text(json.dumps({"id": "a", "input": "capital?", "checks": checks}))
    options = ["--agent", f"{THIS}:agent", "-n", "2", "-o", str(results)]
    assert run(["eval", "run", str(file), *options]) == 0
    out = capsys.readouterr().out
    assert f"{THIS}:by_rubric: 2 grades, 2 passed, 0 unknown, cost $0.0040" in out
    assert f"{THIS}:nan: 2 grades, 0 passed, 2 unknown" in out
    read = parse_results("r", results.read_text())
    assert list(lines_of(read)) == results.read_text().splitlines()


# --- agreement ---


def test_agreement_is_that_of_the_confusion_table() -> None:
    """Kappa of a published example: 20 of 25 and 15 of 25 agreements (0.4)."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    found = agreement([*pairs, (True, None)])
    assert (found.share, found.unknown) == (0.7, 1)
    assert found.kappa == pytest.approx(0.4)
    assert agreement([(True, True)]).kappa is None
    assert list(lines(agreement([(True, None)]), "x"))[-1] == "no outcome is known"


def test_a_grader_is_compared_with_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.jsonl"
    answers = [("Paris", True), ("London", False), ("Paris", False), ("Rome", False)]
    file.write_text(
        "\n".join(
            json.dumps({"question": "capital?", "answer": answer, "label": label})
            for answer, label in answers
        )
    )
    options = ["--grader", f"{THIS}:by_rubric", "--rubric", "Paris"]
    assert run(["eval", "agreement", str(file), *options]) == 0
    assert "agreement 75.0% of 4, kappa 0.50" in capsys.readouterr().out
    file.write_text('{"question": "x", "answer": "y"}')
    assert run(["eval", "agreement", str(file), *options]) == 2
    assert "line 1: label is missing" in capsys.readouterr().err
    file.write_text("")
    assert run(["eval", "agreement", str(file), *options]) == 2
