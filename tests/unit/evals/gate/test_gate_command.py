"""``stepstream eval gate``: exit codes and what is written for CI."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stepstream.cli.app import run
from stepstream.evals.gate.trials import lines_of
from tests.support.eval_results import MIXED, made


@pytest.fixture
def results(tmp_path: Path) -> dict[str, str]:
    """Files of a baseline, the same agent, a worse one and too few trials."""
    sides = {
        "baseline": made("a", MIXED),
        "same": made("b", MIXED, seed=5),
        "worse": made("c", [rate / 2 for rate in MIXED], seed=3),
        "short": made("d", MIXED, 1, seed=4),
    }
    for name, one in sides.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines_of(one)), encoding="utf-8")
    return {name: str(tmp_path / f"{name}.jsonl") for name in sides}


@pytest.mark.parametrize(
    ("candidate", "code", "first"),
    [("same", 0, "PASS: no metric"), ("worse", 1, "FAIL: success"), ("short", 3, "INCONCLUSIVE:")],
)
def test_the_exit_code_is_the_verdict(
    results: dict[str, str],
    candidate: str,
    code: int,
    first: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = ["--baseline", results["baseline"], "--candidate", results[candidate]]
    assert run(["eval", "gate", *sides]) == code
    assert capsys.readouterr().out.startswith(first)


def test_ci_gets_junit_markdown_and_json(
    results: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = ["--baseline", results["baseline"], "--candidate", results["worse"]]
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "s.md")]
    assert run(["eval", "gate", *sides, *files, "--format", "json"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["outcome"] == "fail"
    assert printed["metrics"][0]["metric"] == "success"
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert suite.attrib["failures"] == "2"
    assert [case.attrib["name"] for case in suite] == ["success", "verdict"]
    assert (tmp_path / "s.md").read_text(encoding="utf-8").startswith("## Gate: fail")


def test_a_github_job_gets_annotations(
    results: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a name with a line break no second command is made."""
    sides = ["--baseline", results["baseline"], "--candidate", results["worse"]]
    assert run(["eval", "gate", *sides, "--format", "github"]) == 1
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("::error title=Gate fail::success is worse")
    assert any(line.startswith("::warning title=Case moved::") for line in others)
    for name, success in (("a", True), ("b", False)):
        lines = [
            json.dumps({"case": f"{n} 100%\n::error::x", "trial": 0, "success": success})
            for n in range(12)
        ]
        (tmp_path / name).write_text("\n".join(lines))
    sides = ["--baseline", str(tmp_path / "a"), "--candidate", str(tmp_path / "b")]
    assert run(["eval", "gate", *sides, "--format", "github"]) == 1
    printed = capsys.readouterr().out.splitlines()
    annotations = [line for line in printed if line.startswith("::warning")]
    assert "100%25%0A::error::x" in annotations[0]
    assert [line for line in printed if line.startswith("::error::")] == []


def test_inconclusive_may_pass(results: dict[str, str]) -> None:
    sides = ["--baseline", results["baseline"], "--candidate", results["short"]]
    assert run(["eval", "gate", *sides, "--inconclusive", "pass"]) == 0
    assert run(["eval", "gate", *sides, "--inconclusive", "fail"]) == 1


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("metrics: {sucess: {margin: 0.1}}", "success"),
        ("metrics: [", "policy.yaml"),
        ("rounds: [2, 1]", "rounds must rise"),
    ],
)
def test_wrong_use_is_exit_code_2(
    results: dict[str, str],
    tmp_path: Path,
    policy: str,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy, encoding="utf-8")
    sides = ["--baseline", results["baseline"], "--candidate", results["same"]]
    assert run(["eval", "gate", *sides, "--policy", str(file)]) == 2
    assert words in capsys.readouterr().err
    assert run(["eval", "gate", *sides[:3], str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_verdict_that_cannot_be_published_keeps_its_exit_code(
    results: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """1 would state that the candidate is worse; without a store it is wrong use, before anything
    is decided.
    """
    sides = ["--baseline", results["baseline"], "--candidate", results["same"], "--publish"]
    monkeypatch.delenv("STEPSTREAM_CLICKHOUSE_URL", raising=False)
    assert run(["eval", "gate", *sides]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no ClickHouse is known" in shown.err
    # Port 9 (discard) refuses connections where nothing listens.
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_URL", "http://127.0.0.1:9")
    assert run(["eval", "gate", *sides]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("PASS: no metric")
    assert "the verdict is not published: no ClickHouse answers at http://127.0.0.1:9" in shown.err


def test_files_that_are_no_results_are_not_published(
    results: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n", encoding="utf-8")
    store = ["--clickhouse-url", "http://127.0.0.1:9"]
    bad = str(tmp_path / "bad.jsonl")
    assert run(["eval", "publish", results["baseline"], bad, *store]) == 2
    assert "bad.jsonl, line 1" in capsys.readouterr().err
    assert run(["eval", "publish", results["baseline"], *store]) == 1
    assert "no ClickHouse answers" in capsys.readouterr().err
