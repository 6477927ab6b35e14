"""One walk from a regression to the promotion of its fix, by the commands that a person types.

A worse version of an agent runs and raises the alert of its Criteria. The run is saved with its
recording and reproduced offline. The gate fails the regression and refuses its promotion; it passes
the fix, which is promoted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.cli.app import run as stepstream
from stepstream.common.settings import to_environment
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.release_folder import write_folder

SUITE: Final = str(ROOT / "examples" / "refunds.jsonl")
DOCUMENTS: Final = """
kind: Criteria
name: refund-4712
match: {agent: support}
severity: error
checks: [{check: answer, number: 15.0}]
---
kind: Policy
name: careful
match: {agent: support}
promotion: {gate: evaluation}
"""
GATE: Final = "kind: Gate\nmetrics: {success: {margin: 0.1, weight: 1}}\n"
# The version with the regression: of these runs some fail and some do not.
AGENT: Final = """
import os
import stepstream
from examples import flaky_agent

for number in range(8):
    os.environ["TRIAL_SEED"] = str(number)
    flaky_agent.worse("Please refund order 4712.")
stepstream.flush(60)
"""


@pytest.fixture(scope="module")
def settings(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A worker and a sink of this module's own."""
    name = f"evals_{uuid.uuid4().hex[:8]}"
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(tmp_path_factory.mktemp("evals")),
        partitions=2,
        close_after="500ms",
        gateway_port=-1,
        console_port=-1,
        quiet=True,
    )
    with Pipeline(given) as pipeline:
        yield pipeline.settings


def rows(settings: Settings, sql: str) -> list[dict[str, Any]]:
    with connect(settings, readonly=True) as client:
        return list(client.query(sql).named_results())


def python(*words: str, code: int = 0, **variables: str) -> str:
    """Python in a process of its own: one with threads of Kafka's client must not fork trials."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def evaluated(version: str, agent: str) -> str:
    """Run the suite with one version of the example; returns the file of results."""
    file = f"eval-results/support/{version}.jsonl"
    trials = ["--agent", f"examples.flaky_agent:{agent}", "-n", "4", "-o", file]
    python("-m", "stepstream", "eval", "run", SUITE, *trials)
    return file


def test_a_regression_raises_an_alert_is_replayed_and_refused_and_its_fix_is_promoted(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    for name, value in to_environment(settings).items():
        monkeypatch.setenv(name, value)

    def command(*words: str, code: int = 0) -> str:
        assert stepstream(list(words)) == code, capsys.readouterr()
        shown = capsys.readouterr()
        return shown.out + shown.err

    for version in ("v1", "v2", "v3"):
        folder = write_folder(tmp_path / version, version=version, tone=f"Tone of {version}.")
        command("build", str(folder), "--publish")
    command("promote", "support@v1", "--wait", "120s")
    Path("documents.yaml").write_text(DOCUMENTS)
    command("apply", "-f", "documents.yaml")

    # The version with the regression runs: its failed runs have an alert, the others none.
    def failed_runs() -> list[dict[str, Any]]:
        python("-c", AGENT, STEPSTREAM_RECORDINGS=str(tmp_path / "calls"))
        return rows(
            settings,
            "SELECT trace_id, success_reason FROM runs WHERE success = 'false' AND trace_id IN "
            "(SELECT trace_id FROM alerts WHERE alert = 'criteria.refund-4712')",
        )

    # Again until the worker has read the document: runs that began before have no success.
    failed = wait_until(failed_runs, 180, "an alert about a run of the regression")[0]
    assert failed["success_reason"] == "the answer has no number 15"
    assert rows(settings, "SELECT 1 FROM runs WHERE success = 'true' LIMIT 1")
    good = "SELECT trace_id FROM runs WHERE success = 'true'"
    assert not rows(settings, f"SELECT 1 FROM alerts WHERE trace_id IN ({good})")

    # The incident is saved with its recording and reproduced without Kafka, store or network.
    saved = ["incident", "save", failed["trace_id"], "-o", "refund.json", "--recordings", "calls"]
    assert "with its recording; expected: criteria.refund-4712" in command(*saved)
    replay = ["eval", "replay", "refund.json", "-c", "documents.yaml", "--agent"]
    away = {"STEPSTREAM_KAFKA_BROKERS": "", "STEPSTREAM_CLICKHOUSE_URL": ""}
    shown = python("-m", "stepstream", *replay, "examples.flaky_agent:worse", code=1, **away)
    assert "equal to the recording: every call and the answer" in shown
    assert "success is false: the answer has no number 15" in shown

    # The gate fails the regression, and the release is not promoted.
    baseline, worse = evaluated("v1", "support"), evaluated("v2", "worse")
    Path("eval-results/support/gate.yaml").write_text(GATE)
    gate = ["eval", "gate", "--policy", "eval-results/support/gate.yaml", "--publish"]
    gate += ["--baseline", baseline, "--candidate"]
    assert command(*gate, worse, code=1).startswith("FAIL: success")
    refused = command("promote", "support@v2", "--wait", "120s", code=1)
    assert "the gate evaluation" in refused
    assert "v1" in command("releases", "support")

    # The fix passes, and its release gets the label through the same gate.
    fix = evaluated("v3", "support")
    assert command(*gate, fix).startswith("PASS")
    assert "production of support is v3" in command("promote", "support@v3", "--wait", "120s")
    decided = json.loads(command("ask", "verdicts", "--format", "json"))
    assert [row["outcome"] for row in decided] == ["pass", "fail"]
