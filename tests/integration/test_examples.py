"""The programs of examples/ run as they are, against a real broker and a real store."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from stepstream.admin.topics import create_topics
from stepstream.common import kafka
from stepstream.common.settings import to_environment
from stepstream.releases.folder import build
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.alert import Alert
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RELEASE_ATTRIBUTE, happened_us
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import migrate
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.release_labels import labelled

EXAMPLES = ROOT / "examples"
PROGRAMS = (
    "budget_and_stop",
    "careful_agent",
    "first_run",
    "flaky_agent",
    "query_costs",
    "subscribe_to_alerts",
    "tools_and_retries",
    "trace_with_opentelemetry",
    "use_a_release",
)


@dataclass(frozen=True)
class Pipeline:
    """Where an example sends and reads: topics and a state folder of the test's own."""

    settings: Settings
    state: Path

    def environment(self) -> dict[str, str]:
        """The settings as variables, in the place of what a running ``stepstream up`` provides."""
        others = {name: text for name, text in os.environ.items() if "STEPSTREAM" not in name}
        return {
            **others,
            **to_environment(self.settings),
            "STEPSTREAM_STATE_DIR": str(self.state),
            "STEPSTREAM_SETTINGS": os.devnull,
            "PYTHONPATH": str(ROOT),
        }

    def run(self, program: str, *arguments: str) -> str:
        """Run an example to its end. Returns what it printed on stdout."""
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / f"{program}.py"), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ended(self) -> dict[str, list[StepRecord]]:
        """End events on the steps topic by step name, in the order of their ends."""
        found: dict[str, list[StepRecord]] = {}
        for message in kafka.read_to_end(self.settings, topic(self.settings.topic_prefix, "steps")):
            now_us = time.time_ns() // 1_000
            accepted = accept_value(message.value() or b"", timestamp_us=now_us)
            assert isinstance(accepted, Accepted), accepted
            if accepted.step.phase == "end":
                found.setdefault(accepted.step.name, []).append(accepted.step)
        # Runs lie on two partitions, which are read one after the other.
        return {name: sorted(steps, key=happened_us) for name, steps in found.items()}


@pytest.fixture
def pipeline(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Pipeline:
    settings = Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, partitions=2)
    create_topics(settings)
    return Pipeline(settings, tmp_path)


def test_programs_are_short_and_explained() -> None:
    """Each under 80 lines, named in the README, and run by a test of this file."""
    files = {path.stem: path for path in EXAMPLES.glob("*.py") if path.stem != "__init__"}
    assert sorted(files) == sorted(PROGRAMS)
    readme = (EXAMPLES / "README.md").read_text()
    for name, path in files.items():
        assert len(path.read_text().splitlines()) < 80
        assert f"({name}.py)" in readme


def test_first_run(pipeline: Pipeline) -> None:
    """A model call and a decorated tool inside one run."""
    printed = pipeline.run("first_run")
    steps = pipeline.ended()
    assert {name: len(found) for name, found in steps.items()} == {
        "plan": 1,
        "lookup_order": 1,
        "support": 1,
    }
    assert f"run {steps['support'][0].trace_id}" in printed
    assert "Your order is shipped." in printed
    assert steps["lookup_order"][0].parent_step_id == steps["support"][0].step_id


def test_flaky_agent(tmp_path: Path) -> None:
    """A suite of it: the gate passes the version with itself and fails the regression."""
    versions = ("support", "worse")
    files = {name: str(tmp_path / f"{name}.jsonl") for name in versions}
    for name, file in files.items():
        suite = [str(EXAMPLES / "refunds.jsonl"), "--agent", f"examples.flaky_agent:{name}"]
        assert stepstream("eval", "run", *suite, "-n", "8", "-o", file).returncode == 0
    for name, verdict, code in (("support", "PASS", 0), ("worse", "FAIL", 1)):
        gate = ("eval", "gate", "--baseline", files["support"], "--candidate", files[name])
        decided = stepstream(*gate)
        assert decided.stdout.startswith(verdict), decided.stdout + decided.stderr
        assert decided.returncode == code


def test_careful_agent() -> None:
    """Its conversations and its failing tools."""
    suite = [str(EXAMPLES / "refund_scenarios.jsonl"), "--agent", "examples.careful_agent:support"]
    done = stepstream("eval", "run", *suite, "--fail-under", "1")
    assert done.returncode == 0, done.stdout + done.stderr


def stepstream(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder."""
    return subprocess.run(
        [sys.executable, "-m", "stepstream", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_use_a_release(pipeline: Pipeline) -> None:
    """The next run carries the promoted release, and the one before after a rollback, while the
    program goes on.
    """
    folder = EXAMPLES / "support_release"
    first, second = build(folder), build(folder, version="v2")
    with labelled(pipeline.settings) as promote:
        promote(first, 0)
        program = subprocess.Popen(
            [sys.executable, str(EXAMPLES / "use_a_release.py"), "600"],
            env=pipeline.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert program.stdout is not None
            lines = iter(program.stdout)
            assert next(lines).startswith(f"v1 {first.short_hash}")
            promote(second, 1)
            assert any(line.startswith(f"v2 {second.short_hash}") for line in lines)
            promote(None, 2)
            assert any(line.startswith("v1 ") for line in lines)
        finally:
            program.terminate()
            program.communicate(timeout=60)
    steps = pipeline.ended()
    assert [version for version, _ in groupby(steps["support"], by_version)] == ["v1", "v2", "v1"]
    by_hash = {step.agent_version: step.attributes[RELEASE_ATTRIBUTE] for step in steps["support"]}
    assert by_hash == {"v1": first.hash, "v2": second.hash}
    assert "Question: Where is order 7? {{ 7 * 7 }}" in steps["answer"][0].input


def by_version(step: StepRecord) -> str:
    return step.agent_version


def test_tools_and_retries(pipeline: Pipeline) -> None:
    """Three tries of the search, a fallback, and a refused call."""
    printed = pipeline.run("tools_and_retries")
    steps = pipeline.ended()
    assert [(step.attempt, step.status) for step in steps["search"]] == [
        (1, "error"),
        (2, "error"),
        (3, "ok"),
    ]
    assert steps["typical_weather"][0].fallback_of == steps["weather"][0].step_id
    assert steps["refund"][0].error_type.endswith("ArgumentsRefused")
    assert "refused: refund: usd: Input should be less than or equal to 100" in printed
    assert "answer: result for Lisbon; Lisbon: mild" in printed


def test_trace_with_opentelemetry(pipeline: Pipeline) -> None:
    """The ids of the spans, and every run although one in ten is sampled."""
    printed = pipeline.run("trace_with_opentelemetry")
    steps = pipeline.ended()
    (run,), (call,) = steps["invoke_agent support"], steps["chat gpt-4o"]
    assert f"run {run.trace_id}" in printed
    assert (call.trace_id, call.parent_step_id) == (run.trace_id, run.step_id)
    assert (call.kind, call.model, call.input) == ("llm_call", "gpt-4o", "Where is my order?")
    assert call.usage is not None
    assert (call.usage.input_tokens, call.cost_source) == (900, "priced")


def test_budget(pipeline: Pipeline) -> None:
    """Four calls fit into the budget; the warning comes at half of it."""
    printed = pipeline.run("budget_and_stop")
    assert "warning: 0.0" in printed
    assert "4 calls, then the budget of $0.025 was used up" in printed
    steps = pipeline.ended()
    assert len(steps["read"]) == 4
    # The stop is a step of the run, so that its end can be explained later.
    assert [step.attributes["action"] for step in steps["stop"]] == ["stop"]


def test_stop(pipeline: Pipeline) -> None:
    """`stepstream stop` ends the same program, which prints who stopped it and why."""
    code = (
        "import stepstream\n"
        "from examples.budget_and_stop import research\n"
        "print(research(stepstream.Budget(usd=1000)), flush=True)\n"
    )
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        env=pipeline.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: "read" in pipeline.ended(), 120, "the first steps of the run")
        stop = ["stop", "--agent", "researcher", "--yes", "--reason", "enough", "--by", "ada"]
        subprocess.run(
            [sys.executable, "-m", "stepstream", *stop],
            env=pipeline.environment(),
            check=True,
            timeout=120,
        )
        printed, _ = program.communicate(timeout=120)
    finally:
        program.kill()
        program.wait()
    assert "then stopped by ada: enough" in printed


def test_subscribe_to_alerts(pipeline: Pipeline) -> None:
    """It prints the alerts of the severities that it asked for, and ends after their number."""
    now = time.time_ns() // 1_000
    producer = kafka.producer(pipeline.settings)
    for number, severity in enumerate(("error", "warning", "critical"), 1):
        alert = Alert(
            alert_id=f"a{number}",
            seq=1,
            state="firing",
            severity=severity,
            alert="loop",
            rule="loop",
            message=f"message {number}",
            project="shop",
            agent="support",
            opened_at=now,
            updated_at=now,
        )
        name = topic(pipeline.settings.topic_prefix, "alerts")
        producer.produce(name, alert.model_dump_json().encode(), key=alert.alert_id.encode())
    assert producer.flush(30) == 0
    printed = pipeline.run("subscribe_to_alerts", "2")
    assert sorted(line.strip() for line in printed.splitlines() if "message" in line) == [
        "message 1",
        "message 3",
    ]
    assert "critical: loop in shop/support" in printed


def test_query_costs(pipeline: Pipeline, clickhouse_url: str, clickhouse_database: str) -> None:
    """What `first_run` used and cost, from the store."""
    login = urlsplit(clickhouse_url)
    settings = Settings(
        clickhouse_reader_user=login.username,
        clickhouse_reader_password=login.password,
        kafka_brokers=pipeline.settings.kafka_brokers,
        topic_prefix=pipeline.settings.topic_prefix,
        clickhouse_url=clickhouse_url,
        clickhouse_database=clickhouse_database,
    )
    stored = Pipeline(settings, pipeline.state)
    migrate(stored.settings)
    pipeline.run("first_run")
    command = [sys.executable, "-m", "stepstream", "sink"]
    with subprocess.Popen(command, env=stored.environment()) as sink:
        try:
            printed = wait_until(
                lambda: (
                    "gpt-4o" in (text := stored.run("query_costs", clickhouse_database)) and text
                ),
                180,
                "the model call in the store",
                every_s=1,
            )
        finally:
            sink.terminate()
    assert isinstance(printed, str)
    row = next(line.split() for line in printed.splitlines() if "gpt-4o" in line)
    assert row == ["support", "gpt-4o", "1", "940", "0.002650"]
