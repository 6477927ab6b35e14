"""Cases out of the files of other tools, and out of recorded runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepstream.cli.app import run
from stepstream.evals.cases import CasesError, parse_suite
from stepstream.evals.from_runs import RunLost, case_of_run
from stepstream.evals.importers import case_line, cases_from

QUESTION = [{"role": "user", "content": "capital of France?"}]
CHAT = [{"role": "system", "content": "Be brief."}, *QUESTION]


@pytest.mark.parametrize(
    ("record", "label", "expected"),
    [
        (
            {"id": 7, "input": "q", "target": "Paris"},
            "Inspect",
            {"id": "7", "input": "q", "expected": "Paris"},
        ),
        (
            {"input": QUESTION, "target": ["Paris", "paris (FR)"]},
            "Inspect",
            {
                "input": "capital of France?",
                "checks": [{"check": "answer", "regex": r"(?i)Paris|paris\ \(FR\)"}],
            },
        ),
        (
            {"input": "q", "target": "B", "choices": ["a", "b"]},
            "Inspect",
            {"input": {"question": "q", "choices": ["a", "b"]}, "expected": "B"},
        ),
        ({"input": CHAT, "ideal": "Paris"}, "OpenAI evals", {"input": CHAT, "expected": "Paris"}),
        (
            {"inputs": {"question": "q"}, "outputs": {"answer": "Paris"}},
            "LangSmith",
            {"input": "q", "expected": "Paris"},
        ),
        (
            {"inputs": {"a": 1, "b": 2}, "outputs": {"x": "1", "y": 2}},
            "LangSmith",
            {
                "input": {"a": 1, "b": 2},
                "checks": [
                    {"check": "answer", "path": "x", "equals": "1"},
                    {"check": "answer", "path": "y", "equals": "2"},
                ],
            },
        ),
        (
            {"input": {"q": 1}, "expected": 12.5, "tags": ["new"]},
            "Braintrust",
            {"input": {"q": 1}, "checks": [{"check": "answer", "number": 12.5}], "tags": ["new"]},
        ),
        (
            {"id": "x", "input": {"q": "q"}, "expectedOutput": "Paris"},
            "Langfuse",
            {"id": "x", "input": "q", "expected": "Paris"},
        ),
        ({"input": "q", "expected": True}, "Braintrust", {"input": "q", "expected": "true"}),
        ({"input": "q"}, "input alone", {"input": "q"}),
        ({"input": "q", "target": ""}, "Inspect", {"input": "q"}),
        (
            {"id": "a", "input": 1, "checks": [{"check": "status"}]},
            "stepstream",
            {"id": "a", "input": 1, "checks": [{"check": "status", "equals": "ok"}]},
        ),
    ],
)
def test_a_record_becomes_a_case(
    record: dict[str, Any], label: str, expected: dict[str, Any]
) -> None:
    found = cases_from("data/export.v2.jsonl", json.dumps(record))
    (case,) = found.cases
    assert list(found.formats) == [label]
    made = case.model_dump(mode="json", exclude_defaults=True)
    if "checks" in expected:
        made["checks"] = [
            check.model_dump(mode="json", exclude_unset=True) | {"check": check.check}
            for check in case.checks
        ]
        if label == "stepstream":
            made["checks"] = [check.model_dump(mode="json") for check in case.checks]
    assert made == {"id": "export-1"} | expected


def test_promptfoo_is_read_and_what_has_no_check_is_named() -> None:
    text = """
tests:
  - description: greets
    vars: {name: Ann}
    assert:
      - {type: icontains, value: hello}
      - {type: not-contains, value: error}
      - {type: contains-any, value: [Ann, Anna]}
      - {type: latency, threshold: 5000}
      - {type: cost, threshold: 0.01}
      - {type: llm-rubric, value: is friendly}
      - {type: javascript, value: output.length}
"""
    found = cases_from("promptfooconfig.yaml", text)
    assert found.cases[0].input == "Ann"
    assert found.cases[0].id == "greets"
    assert [check.check for check in found.cases[0].checks] == [*["answer"] * 3, *["limits"] * 2]
    assert found.left_out == {"llm-rubric": 1, "javascript": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"input": "a", "id": 1}, {"input": "b", "id": 1}]', "the id '1' is that of record 1"),
        ('[{"prompt": "x"}]', "no known format has these fields: prompt"),
        ("[1]", "record 1: not an object"),
        ("[]", "no records"),
        ('{"input": 1}\n{', "line 2: not JSON"),
        ("a: [", "neither JSON nor YAML"),
        ('{"id": "a", "input": 1, "checks": [{"check": "tols"}]}', "did you mean tools"),
        ("[" * 3000, "nested too deeply|neither JSON nor YAML"),
    ],
)
def test_files_that_cannot_be_used_are_refused(text: str, words: str) -> None:
    with pytest.raises(CasesError, match=words):
        cases_from("f", text)


def test_the_command_appends_to_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A suite that `eval run` reads; ids that it has are refused, and nothing is written then."""
    suite, export = tmp_path / "suites" / "s.jsonl", tmp_path / "export.jsonl"
    export.write_text('{"id": "a", "input": "q", "ideal": "x"}\n{"input": "no check"}\n')
    assert run(["eval", "import", str(export), "-o", str(suite)]) == 0
    printed = capsys.readouterr()
    assert f"{export}: 2 cases: 1 of OpenAI evals, 1 of input alone" in printed.out
    assert "1 cases have nothing that decides" in printed.err
    before = suite.read_text()
    assert run(["eval", "import", str(export), "-o", str(suite)]) == 1
    assert "has the id 'a' already; nothing was written" in capsys.readouterr().err
    assert suite.read_text() == before
    assert [case.id for case in cases_from("s", before).cases] == ["a", "export-2"]
    assert run(["eval", "import", str(tmp_path / "no"), "-o", str(suite)]) == 2


# --- recorded runs ---

KEY = "sk-proj-" + "abcdefghijklmnopqrstuvwx12345678"
ROOT = {
    "parent_step_id": "",
    "kind": "agent",
    "tool": "",
    "agent": "support",
    "input": f"Refund order 7 with {KEY}",
    "input_bytes": 60,
}
CALL = {"parent_step_id": "a", "kind": "tool_call", "tool": "refund", "input": "", "agent": ""}


def test_a_run_becomes_a_case_of_its_tools() -> None:
    case = case_of_run("4bf92f3577b34da6", [ROOT, CALL], None)
    assert (case.id, case.source_trace) == ("support-4bf92f35", "4bf92f3577b34da6")
    assert KEY not in case.input
    assert [check.check for check in case.checks] == ["status", "tools"]
    assert parse_suite("s", case_line(case)).cases == [case]
    with_text = case_of_run("4bf92f3577b34da6", [ROOT, CALL], "129.50")
    assert (with_text.expected, with_text.checks) == ("129.50", ())


def test_an_input_in_json_is_what_the_agent_got() -> None:
    root = ROOT | {"input": '{"order": 7}', "input_bytes": 12}
    assert case_of_run("4bf92f3577b34da6", [root], None).input == {"order": 7}


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([CALL], "has no root"),
        ([ROOT | {"input": ""}], "not recorded whole \\(nothing\\)"),
        ([ROOT | {"input": "cut", "input_bytes": 900}], "3 of 900 bytes"),
    ],
)
def test_runs_without_a_whole_input_are_refused(steps: list[Any], words: str) -> None:
    with pytest.raises(RunLost, match=words):
        case_of_run("4bf92f3577b34da6", steps, None)
