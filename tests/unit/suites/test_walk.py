"""From a regression to the promotion of its fix, with every stage's own code and no engine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from stepstream.backtest.history import Event
from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.backtest.saved_run import SavedRun
from stepstream.cli.app import run
from stepstream.evals.gate.trials import parse_results
from stepstream.releases.gates import GateRequest, ask
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.release import Release, hash_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US
from stepstream.suites.replay import find_recording, read_recording
from tests.support.paths import ROOT

SUITE = str(ROOT / "examples" / "refunds.jsonl")
CRITERIA = """
kind: Criteria
name: refund-4712
match: {agent: support}
severity: warning
checks: [{check: answer, number: 15.0}]
"""


def release(version: str) -> Release:
    content = {"agent": "support", "version": version, "prompts": {}, "tools": []}
    made = Release.model_validate(content | {"hash": "0" * 64})
    return made.model_copy(update={"hash": hash_of(made.model_dump(mode="json"))})


def evaluated(version: str, agent: str, *options: str) -> Path:
    """Run the suite with one version of the example; returns the file of results."""
    file = Path("eval-results") / "support" / f"{version}.jsonl"
    trials = ["--agent", f"examples.flaky_agent:{agent}", "-n", "4", "-o", str(file)]
    assert run(["eval", "run", SUITE, *trials, *options]) == 0
    return file


def promoted(version: str) -> str:
    """The verdict of the promotion gate about a version, compared with v1."""
    (verdict,) = ask(
        ["evaluation"], GateRequest(Settings(), release(version), release("v1"), "production")
    )
    return verdict.outcome


def events_of(trace_id: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in Path("events.jsonl").read_text().splitlines()]
    return [event for event in found if event["trace_id"] == trace_id]


def alerts_about(events: list[dict[str, Any]]) -> list[str]:
    """The alerts that the worker's stages raise about a run with the Criteria in force."""
    import yaml

    pipeline = OfflinePipeline(criteria=[Criteria.model_validate(yaml.safe_load(CRITERIA))])
    made = [
        Event(event.get("end_time") or event["start_time"], event["trace_id"], b"")
        for event in events
    ]
    for one, event in sorted(zip(made, events, strict=True), key=lambda pair: pair[0].at_us):
        pipeline.event(one.trace_id, json.dumps(event).encode(), one.at_us)
    pipeline.finish(DAY_US)
    return [alert.alert for alert in pipeline.outcome.alerts.values()]


def test_a_regression_is_seen_replayed_refused_mended_and_promoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    baseline = evaluated("v1", "support")
    worse = evaluated("v2", "worse", "--record", "calls", "--events", "events.jsonl")

    # A failed run of the new version raises the alert of the Criteria; a good one does not.
    trials = parse_results("v2", worse.read_text()).cases["order-4712"]
    failed = next(trial for trial in trials if trial.outcome is False)
    good = next(trial for trial in trials if trial.outcome is True)
    assert alerts_about(events_of(failed.trace_id)) == ["criteria.refund-4712"]
    assert alerts_about(events_of(good.trace_id)) == []

    # Saved with its recording, it is reproduced offline: equal, and failed as it was.
    lines = read_recording(find_recording("calls", failed.trace_id)).lines
    saved = SavedRun(
        name="refund",
        trace_id=failed.trace_id,
        events=tuple(events_of(failed.trace_id)),
        recording=tuple(lines),
    )
    Path("refund.json").write_text(saved.model_dump_json(exclude_none=True))
    Path("criteria.yaml").write_text(CRITERIA)
    capsys.readouterr()
    replay = ["eval", "replay", "refund.json", "-c", "criteria.yaml", "--agent"]
    assert run([*replay, "examples.flaky_agent:worse"]) == 1
    printed = capsys.readouterr().out
    assert "equal to the recording" in printed
    assert "success is false: the answer has no number 15" in printed

    # The gate fails the regression, and so no release of it is promoted.
    Path("eval-results/support/gate.yaml").write_text(
        "kind: Gate\nmetrics: {success: {margin: 0.1, weight: 1}}\n"
    )
    gate = ["eval", "gate", "--policy", "eval-results/support/gate.yaml", "--baseline"]
    assert run([*gate, str(baseline), "--candidate", str(worse)]) == 1
    assert promoted("v2") == "fail"

    # The fix passes both.
    mended = evaluated("v3", "support")
    assert run([*gate, str(baseline), "--candidate", str(mended)]) == 0
    assert promoted("v3") == "pass"
