"""Bad input of every kind: each has a sentence and an exit code, and none ends in a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.cli.app import run
from stepstream.evals.gate.trials import Header
from stepstream.schemas import recording
from tests.support.paths import ROOT

HERE: Final = __name__
CONTRADICTS_NOTHING: Final = {"check": "status"}
CASE: Final = {"id": "a", "input": "q", "expected": "yes"}


def answers_yes(_question: str) -> str:
    return "yes"


def never_ends(_question: str) -> str:
    time.sleep(3_600)
    return "yes"


def forks(_question: str) -> str:
    """What it starts goes on; the trial ends with what the agent itself returned."""
    if os.fork() == 0:
        time.sleep(3_600)
    return "yes"


def writes(_question: str) -> str:
    print("\x1b[31mnoise")
    os.write(1, b"noise")
    return "yes"


def exits(_question: str) -> str:
    sys.exit(4)


def raising_grader(_question: str, _answer: str, _rubric: str) -> float:
    raise RuntimeError("no model answers")


def nonsense_grader(_question: str, _answer: str, _rubric: str) -> Any:
    return "very good"


def nan_grader(_question: str, _answer: str, _rubric: str) -> float:
    return float("nan")


def slow_grader(_question: str, _answer: str, _rubric: str) -> float:
    time.sleep(3_600)
    return 1.0


def criteria(*checks: dict[str, Any], **more: Any) -> str:
    return json.dumps({"kind": "Criteria", "name": "bad", "checks": list(checks), **more})


def graded(name: str, **more: Any) -> str:
    check = {"check": "grader", "grader": f"{HERE}:{name}", **more}
    return json.dumps({"id": "a", "input": "q", "checks": [check]})


def results(*cases: str, header: Header | None = None, **more: Any) -> str:
    lines = [{"case": case, "trial": 0, "success": True, **more} for case in cases]
    first = (
        []
        if header is None
        else [{"results": header.results, "suite_version": header.suite_version}]
    )
    return "\n".join(map(json.dumps, [*first, *lines]))


def cassette(given: str = "q", **changed: Any) -> str:
    """A recording of a run without calls; ``changed`` are fields of its first line."""
    first = {**recording.header("0" * 32, "a", "v1", "t", given, 1), **changed}
    digest = hashlib.sha256(f"{recording.written(first)}\n".encode()).hexdigest()
    last = recording.end(0, "yes", "", [], digest)
    return f"{recording.written(first)}\n{recording.written(last)}\n"


CASES: Final = [f"c{n}" for n in range(12)]
GATE: Final = ["eval", "gate", "--baseline", "a", "--candidate", "b"]
REPLAY: Final = ["eval", "replay", "r.jsonl", "--agent", f"{HERE}:answers_yes"]
APPLY: Final = ["policy", "check", "doc.yaml"]


def trying(agent: str, *options: str) -> list[str]:
    return ["eval", "run", "suite", "--agent", f"{HERE}:{agent}", *options]


TABLE: Final[dict[str, tuple[dict[str, str], list[str], int, str]]] = {
    # -- criteria
    "unknown tool": (
        {"doc.yaml": criteria({"check": "never", "tools": ["refnd"]}, tools=["refund"])},
        APPLY,
        1,
        "refnd, which is not in tools; did you mean refund?",
    ),
    "unknown field": (
        {"doc.yaml": criteria({"check": "never", "tool": ["refund"]})},
        APPLY,
        1,
        "did you mean tools?",
    ),
    "contradiction": (
        {
            "doc.yaml": criteria(
                {"check": "never", "tools": ["t"]}, {"check": "tools", "calls": ["t"]}
            )
        },
        APPLY,
        1,
        "t",
    ),
    "a bad document of a suite": (
        {
            "suite": json.dumps(CASE),
            "doc.yaml": criteria({"check": "expr", "when": "run.no_such > 1"}),
        },
        trying("answers_yes", "-c", "doc.yaml"),
        2,
        "no_such",
    ),
    "a pattern that takes too long elsewhere": (
        {
            "suite": json.dumps(
                {
                    "id": "a",
                    "input": "q",
                    "checks": [{"check": "answer", "regex": "(y+)+$x"}, CONTRADICTS_NOTHING],
                }
            )
        },
        trying("answers_yes"),
        0,
        "the answer does not match",
    ),
    # -- suites
    "duplicate case": (
        {"suite": f"{json.dumps(CASE)}\n{json.dumps(CASE)}"},
        trying("answers_yes"),
        2,
        "suite, line 2: the case 'a' stands in line 1 too",
    ),
    "no cases": ({"suite": ""}, trying("answers_yes"), 2, "suite: no cases"),
    "zero trials": ({"suite": json.dumps(CASE)}, trying("answers_yes", "-n", "0"), 2, "--trials"),
    "a grader that does not exist": (
        {"suite": graded("no_such_grader")},
        trying("answers_yes"),
        2,
        "has no function no_such_grader",
    ),
    "a grader that raises": (
        {"suite": graded("raising_grader")},
        trying("answers_yes", "--fail-under", "1"),
        1,
        "RuntimeError: no model answers",
    ),
    "a grader that answers nonsense": (
        {"suite": graded("nonsense_grader")},
        trying("answers_yes"),
        0,
        "1 grades, 0 passed, 1 unknown",
    ),
    "a grader that answers NaN": (
        {"suite": graded("nan_grader")},
        trying("answers_yes"),
        0,
        "1 grades, 0 passed, 1 unknown",
    ),
    "a grader that never returns": (
        {"suite": graded("slow_grader", seconds=0.2)},
        trying("answers_yes"),
        0,
        "had not returned after 0.2 s",
    ),
    # -- agents
    "an agent that never ends": (
        {"suite": json.dumps(CASE)},
        trying("never_ends", "--timeout", "0.5", "--fail-under", "1"),
        1,
        "not ended after 0.5 s",
    ),
    "an agent that forks": ({"suite": json.dumps(CASE)}, trying("forks"), 0, "passed 100.0%"),
    "an agent that writes to stdout": (
        {"suite": json.dumps(CASE)},
        trying("writes"),
        0,
        "passed 100.0%",
    ),
    "an agent that exits": (
        {"suite": json.dumps(CASE)},
        trying("exits", "--fail-under", "1"),
        1,
        "SystemExit: 4",
    ),
    "an agent that does not exist": (
        {"suite": json.dumps(CASE)},
        trying("answers_ye"),
        2,
        "has no function answers_ye; did you mean answers_yes?",
    ),
    # -- recordings
    "a recording of another version": (
        {"r.jsonl": cassette(recording=9)},
        REPLAY,
        2,
        "version 9 of the format; this release reads version 1: record the run again",
    ),
    "a corrupted recording": (
        {"r.jsonl": cassette().replace('"q"', '"p"')},
        REPLAY,
        2,
        "damaged or edited",
    ),
    "half of a recording": (
        {"r.jsonl": cassette().splitlines()[0]},
        REPLAY,
        2,
        "it has no end",
    ),
    "a recording with a planted secret": (
        {"r.jsonl": cassette("key " + "sk-proj-" + "a1B2c3D4e5F6" * 4)},
        REPLAY,
        2,
        "contains a secret, which recordings must not",
    ),
    "a recording that is replayed with a bad document": (
        {"r.jsonl": cassette(), "doc.yaml": criteria({"check": "never", "tool": ["x"]})},
        [*REPLAY, "-c", "doc.yaml"],
        2,
        "did you mean tools?",
    ),
    # -- results
    "one case": (
        {"a": results("c0"), "b": results("c0")},
        GATE,
        3,
        "one case: the verdict is about these cases, not about the agent",
    ),
    "unequal case sets": (
        {"a": results(*CASES, "old"), "b": results(*CASES, "new")},
        GATE,
        3,
        "the sides have different cases: 12 are compared, 1 are only in the",
    ),
    "no common case": (
        {"a": results("old"), "b": results("new")},
        GATE,
        2,
        "no case",
    ),
    "another suite version": (
        {
            "a": results(*CASES, header=Header(1, "", "4f1d")),
            "b": results(*CASES, header=Header(1, "", "77aa")),
        },
        GATE,
        2,
        "4f1d",
    ),
    "another version of the format": (
        {"a": results(*CASES, header=Header(9)), "b": results(*CASES)},
        GATE,
        2,
        "results of version 9; this release reads version 1: run the suite again",
    ),
    "NaN": (
        {"a": results(*CASES, cost_usd=float("nan")), "b": results(*CASES)},
        GATE,
        2,
        "NaN or Infinity is not a result; leave an unknown value out",
    ),
    "missing scores": (
        {"a": results(*CASES, success=None), "b": results(*CASES, success=None)},
        GATE,
        3,
        "INCONCLUSIVE",
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_has_a_sentence_and_an_exit_code(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files, command, code, words = TABLE[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    found = run(command)
    shown = capsys.readouterr()
    everything = " ".join(f"{shown.out} {shown.err}".split())
    assert (found, words in everything) == (code, True), everything
    assert "Traceback" not in everything
    assert "unexpected" not in everything
    assert "noise" not in everything
