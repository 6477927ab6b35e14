"""``stepstream eval replay``, and what a suite records for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import stepstream
from stepstream.cli.app import run
from stepstream.suites.replay import Rules, read_recording, replay
from stepstream.testing import recording
from tests.support.paths import ROOT

AGENT = "examples.flaky_agent:"
SUITE = (
    '{"id": "a", "input": "Refund order 4711", "checks": [{"check": "answer", "number": 129.5}]}'
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recordings of twelve trials, and their results."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    (tmp_path / "suite.jsonl").write_text(SUITE)
    made = tmp_path / "recordings"
    options = ["--agent", f"{AGENT}support", "-n", "12", "--seed", "7"]
    suite = str(tmp_path / "suite.jsonl")
    assert run(["eval", "run", suite, *options, "--record", str(made)]) == 0
    return made


def trace_ids(folder: Path, *, amount: float) -> list[str]:
    """The recorded runs that refunded this amount."""
    return [
        file.stem
        for file in sorted(folder.iterdir())
        if f"refunded {amount:.2f}" in file.read_text().splitlines()[-1]
    ]


def test_a_failed_run_is_reproduced_and_its_mend_diverges(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the beginning of its id; the Criteria fail as they did, and an other agent is named."""
    failed = trace_ids(folder, amount=130.5)
    assert failed, "the seeds give some failed trials"
    criteria = tmp_path / "criteria.yaml"
    criteria.write_text("kind: Criteria\nname: x\nchecks: [{check: answer, number: 129.5}]\n")
    name = ["eval", "replay", failed[0][:12], "--recordings", str(folder)]
    capsys.readouterr()
    assert run([*name, "--agent", f"{AGENT}support"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{failed[0]}: 3 calls served, 0 made",
        "equal to the recording: every call and the answer",
    ]
    assert run([*name, "--agent", f"{AGENT}support", "-c", str(criteria)]) == 1
    assert "success is false: the answer has no number 129.5" in capsys.readouterr().out
    fine = trace_ids(folder, amount=129.5)
    events = tmp_path / "events.jsonl"
    options = ["--agent", f"{AGENT}support", "-c", str(criteria), "--events", str(events)]
    assert run(["eval", "replay", str(folder / f"{fine[0]}.jsonl"), *options]) == 0
    assert run(["validate", str(events)]) == 0


def test_a_worse_version_diverges_where_it_differs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same draws give the version with a regression another amount in some runs."""
    capsys.readouterr()
    codes = [
        run(["eval", "replay", str(file), "--agent", f"{AGENT}worse"])
        for file in sorted(folder.iterdir())
    ]
    out = capsys.readouterr().out
    assert set(codes) == {0, 1}
    assert out.count("DIVERGED: call 3, refund (recorded step ") == codes.count(1)
    assert "argument amount is 130.5; recorded: 129.5" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--swap", "refund"], "write TOOL=MODULE:FUNCTION"),
        (["--swap", "refnd=examples.flaky_agent:support"], "no call of refnd; did you mean refund"),
        (["--until", "9"], "--until 9: the run has 3 calls"),
        (["--agent", "examples.flaky_agent:suport"], "did you mean support"),
        (["--live", "everything"], "everything: one of models, tools"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = next(iter(folder.iterdir()))
    assert run(["eval", "replay", str(file), "--agent", f"{AGENT}support", *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_recordings_that_cannot_be_used_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged one, one with a gap, and ids that are not there or not unique."""
    agent = ["--agent", f"{AGENT}support"]
    file = next(iter(folder.iterdir()))
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text(file.read_text().replace("4711", "4712"))
    assert run(["eval", "replay", str(damaged), *agent]) == 2
    assert "damaged or edited" in capsys.readouterr().err
    for name, words in (
        ("", "is the beginning of 12 recorded runs"),
        ("0123456789abcdef", "has no recording of the run 0123456789abcdef"),
        ("../*", "has no recording of the run ../*"),
    ):
        given = name or "".join(sorted({one.name[0] for one in folder.iterdir()}))[:1]
        if not name:
            for one in list(folder.iterdir()):
                one.rename(one.with_name(f"{given}{one.name}"))
        assert run(["eval", "replay", given, "--recordings", str(folder), *agent]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert run(["eval", "replay", "0123", *agent]) == 2
    assert "STEPSTREAM_RECORDINGS" in capsys.readouterr().err


def test_a_swapped_tool_is_called(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = folder / f"{trace_ids(folder, amount=129.5)[0]}.jsonl"
    swap = "find_order=tests.unit.suites.test_replay_command:free_order"
    options = ["--agent", f"{AGENT}support", "--swap", swap]
    assert run(["eval", "replay", str(file), *options]) == 1
    assert "argument amount is 0.0; recorded: 129.5" in capsys.readouterr().out
    assert run(["eval", "replay", str(file), *options, "--until", "1"]) == 0


@stepstream.agent
def several(order: int, currency: str = "EUR") -> str:
    return f"{order} {currency}"


def test_an_agent_with_several_arguments_gets_them_by_name(tmp_path: Path) -> None:
    """As the decorator records them."""
    with recording(recordings=str(tmp_path)):
        several(7, currency="USD")
    (file,) = tmp_path.iterdir()
    found = replay(read_recording(file), several, Rules())
    assert (found.divergence, found.error) == ("", "")


def free_order(order: int) -> dict[str, object]:
    return {"order": order, "amount": 0.0}


def test_a_saved_run_has_its_recording(folder: Path, tmp_path: Path) -> None:
    """As `stepstream incident save --recordings` writes it; `policy test` reads the same file."""
    from stepstream.backtest.saved_run import SavedRun
    from stepstream.suites.replay import find_recording

    (trace_id, *_) = [one.stem for one in folder.iterdir()]
    lines = read_recording(find_recording(str(folder), trace_id)).lines
    root = {
        "trace_id": trace_id,
        "step_id": "a" * 16,
        "phase": "end",
        "kind": "agent",
        "name": "support",
        "start_time": 1,
        "end_time": 2,
    }
    saved = SavedRun(name="refund", trace_id=trace_id, events=(root,), recording=tuple(lines))
    file = tmp_path / "refund.json"
    file.write_text(saved.model_dump_json(indent=1, exclude_none=True))
    assert json.loads(file.read_text())["recording"][0]["recording"] == 1
    assert run(["eval", "replay", str(file), "--agent", f"{AGENT}support"]) == 0
    (tmp_path / "policy.yaml").write_text(
        "kind: Policy\nname: p\nrules: [{rule: run_steps, limit: 9}]\n"
    )
    assert run(["policy", "test", str(tmp_path / "policy.yaml"), str(file)]) == 0
