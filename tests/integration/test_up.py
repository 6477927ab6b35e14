"""`stepstream up` and its pipeline: found without settings, restarted, ended whole, continued."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stepstream.admin.documents import in_force
from stepstream.common import endpoints
from stepstream.common.process import Identity, identity_of
from stepstream.common.settings import load
from stepstream.local.priority import NICENESS
from stepstream.local.supervisor import Pipeline, PipelineError, require_packages
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import StoreError
from tests.support.processes import wait_until

AGENT = """
import stepstream

with stepstream.run(task="refund", input="where is my order?") as run:
    with run.tool("lookup_order", input={"order": 7}) as step:
        step.set_output("shipped")
    run.set_output("it is on its way")
"""
KEEP = """
import json, sys
from stepstream.common.settings import load
from stepstream.local.supervisor import Pipeline

with Pipeline(load()) as pipeline:
    print(json.dumps(pipeline.pids()), flush=True)
    sys.stdin.read()
"""
RUNS = "SELECT count() AS runs, sum(steps) AS steps FROM runs WHERE status = 'ok'"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    """Nothing set but the folder that everything lies in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")}
    return {
        **kept,
        "STEPSTREAM_STATE_DIR": str(folder),
        "STEPSTREAM_SETTINGS": os.devnull,
        **variables,
    }


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as typed in another terminal."""
    line = [sys.executable, "-m", "stepstream", *arguments]
    return subprocess.run(
        line, env=environment(folder), capture_output=True, text=True, check=False, timeout=60
    )


def stored_runs(folder: Path) -> dict[str, Any]:
    """How many runs and steps the store shows."""
    done = command(folder, "sql", RUNS, "--format", "json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    return {name: int(value or 0) for name, value in rows[0].items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """State and data of one installation, through several starts."""
    return tmp_path_factory.mktemp("up")


@pytest.fixture
def background() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts programs that are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(line: list[str], folder: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            line,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """Lines of its output up to the one with these words."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return lines
    raise AssertionError(f"it ended: {''.join(lines)}")


@pytest.mark.timeout(600)
def test_up_is_found_by_agents_and_commands_and_ends_cleanly(
    folder: Path, background: Callable[..., subprocess.Popen[str]]
) -> None:
    """One command without settings stores an agent's run; Ctrl-C exits with 0, leaving nothing."""
    up = background([sys.executable, "-m", "stepstream", "up"], folder)
    text = "".join(read_until(up, "versions"))
    running = endpoints.read(folder)
    assert running is not None
    for words in (
        running.kafka,
        running.clickhouse,
        str(folder / "data"),
        "stepstream store url",
        *running.others.values(),
        "inputs and outputs are captured",
        "alerts --follow",
    ):
        assert words in text
    agent = subprocess.run(
        [sys.executable, "-c", AGENT],
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert agent.returncode == 0, agent.stderr
    wait_until(lambda: stored_runs(folder) == {"runs": 1, "steps": 2}, 30, "the run stored")
    assert command(folder, "doctor").returncode == 0
    # The output of `up` ends in logs and screenshots.
    assert not any(one.password in text for one in (running.writer, running.reader))
    second = command(folder, "up")
    # Two brokers on one folder would destroy its log.
    assert second.returncode == 1
    assert f"a pipeline already runs from {folder} (process {up.pid}" in second.stderr
    up.send_signal(signal.SIGINT)
    rest, _ = up.communicate(timeout=60)
    assert up.returncode == 0, rest
    assert "stopped; the data stays" in rest
    assert "Traceback" not in text + rest
    assert not (folder / endpoints.FILE_NAME).exists()


@pytest.mark.timeout(600)
def test_everything_ends_with_its_owner_and_goes_on_at_the_next_start(
    folder: Path, background: Callable[..., subprocess.Popen[str]]
) -> None:
    """SIGKILL leaves no process behind, not even one; the data of earlier starts is there."""
    secrets = json.loads((folder / "data" / "secrets.json").read_text())
    keeper = background([sys.executable, "-c", KEEP], folder)
    pids = json.loads(read_until(keeper, "{")[-1])
    assert set(pids) == {
        "kafka",
        "clickhouse",
        "worker",
        "notify",
        "gateway",
        "sink",
        "console",
    }
    found = endpoints.read(folder)
    assert found is not None
    # Clients stay configured.
    assert (found.writer.password, found.reader.password) == (
        secrets["writer"],
        secrets["reader"],
    )
    assert all(os.getpriority(os.PRIO_PROCESS, pid) >= NICENESS for pid in pids["clickhouse"])
    # With the start time: a pid may belong to another process by the time it is checked.
    known = [identity_of(pid) for name in pids for pid in pids[name]]
    assert stored_runs(folder) == {"runs": 1, "steps": 2}
    # SIGKILL cannot be handled: each process has to notice for itself that its owner is gone.
    keeper.kill()
    keeper.wait()

    def all_gone() -> bool:
        return not any(isinstance(one, Identity) and identity_of(one.pid) == one for one in known)

    wait_until(all_gone, 40, "every process to end")
    assert endpoints.read(folder) is None


@pytest.fixture
def settings(
    kafka_bootstrap: str,
    clickhouse_url: str,
    topic_prefix: str,
    clickhouse_database: str,
    tmp_path: Path,
) -> Settings:
    """A pipeline on the engines that all tests share."""
    return Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=topic_prefix,
        clickhouse_database=clickhouse_database,
        partitions=2,
        state_dir=str(tmp_path / "state"),
    )


def test_a_pipeline_on_servers_of_ones_own_starts_no_engines(
    settings: Settings, tmp_path: Path
) -> None:
    """Set addresses are used; with the exported settings ``load`` and others work."""
    with Pipeline(settings) as pipeline:
        status = pipeline.status()
        assert status.engines == {}
        names = [process.name for process in status.processes]
        assert names == ["worker", "notify", "gateway", "sink", "console"]
        assert status.healthy
        for part in ("worker", "notify", "sink"):
            place = [
                "--kafka-brokers",
                settings.kafka_brokers,
                "--topic-prefix",
                settings.topic_prefix,
            ]
            assert command(tmp_path, "ready", part, *place).returncode == 0
        assert (pipeline.settings.kafka_brokers, pipeline.settings.clickhouse_url) == (
            settings.kafka_brokers,
            settings.clickhouse_url,
        )
        found = load(
            environ={"STEPSTREAM_STATE_DIR": settings.state_dir, "STEPSTREAM_SETTINGS": os.devnull}
        )
        assert (found.kafka_brokers, found.clickhouse_url) == (
            settings.kafka_brokers,
            settings.clickhouse_url,
        )
        # Also without engines: two supervisors would start every process twice.
        with pytest.raises(PipelineError, match="a pipeline already runs"):
            Pipeline(settings).start()
    assert not pipeline.status().healthy
    assert endpoints.read(Path(settings.state_dir)) is None


def test_a_process_that_ends_is_started_again(settings: Settings) -> None:
    """Killed at any moment; the supervisor reports and counts it."""
    reported: list[tuple[str, str]] = []
    with Pipeline(settings, report=lambda who, line: reported.append((who, line))) as pipeline:
        before = pipeline.pids()
        for name in ("worker", "notify", "gateway", "sink", "console"):
            pipeline.kill(name)
        wait_until(
            lambda: all(
                process.restarts == 1 and process.running for process in pipeline.status().processes
            ),
            30,
            "every process started again",
        )
        after = pipeline.pids()
        assert set(before) == set(after)
        assert all(before[name] != after[name] for name in before)
        assert set(before) == {"worker", "notify", "gateway", "sink", "console"}
        usual = os.getpriority(os.PRIO_PROCESS, 0)
        niceness = {
            name: {os.getpriority(os.PRIO_PROCESS, pid) for pid in pids}
            for name, pids in after.items()
        }
        # An alert cannot wait.
        assert niceness == {
            "worker": {usual},
            "notify": {usual},
            "gateway": {usual},
            "console": {usual},
            "sink": {max(usual, NICENESS)},
        }
    assert {
        who
        for who, line in reported
        if "ended with exit code -9; it is started again in 0.5 s" in line
    } == {
        "worker",
        "notify",
        "gateway",
        "sink",
        "console",
    }


def test_a_folder_of_documents_is_applied_and_watched(settings: Settings, tmp_path: Path) -> None:
    """In force before the first step is read, and again after each change."""
    home = tmp_path / "documents"
    home.mkdir()
    (home / "p.yaml").write_text("kind: Policy\nname: first")
    with Pipeline(settings.model_copy(update={"documents_dir": str(home)})) as pipeline:
        assert list(in_force(pipeline.settings)) == ["policy/first"]
        (home / "q.yaml").write_text("kind: Policy\nname: second")
        wait_until(
            lambda: list(in_force(pipeline.settings)) == ["policy/first", "policy/second"],
            30,
            "both policies in force",
        )


def test_a_start_that_fails_reports_why_and_leaves_nothing_running(settings: Settings) -> None:
    """One side may be up when the other one cannot be."""
    pipeline = Pipeline(settings.model_copy(update={"clickhouse_user": "stranger"}))
    with pytest.raises(StoreError, match="stranger"):
        pipeline.start()
    names = [process.name for process in pipeline.status().processes]
    assert names == ["worker", "notify", "gateway"]
    assert not pipeline.status().processes[0].running


@pytest.mark.skipif(shutil.which("false") is None, reason="there is no program that always fails")
def test_a_part_that_keeps_ending_is_reported(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instead of a start that never ends."""
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    pipeline = Pipeline(settings)
    with pytest.raises(PipelineError, match=r"the worker keeps ending \(exit code 1\)"):
        pipeline.start()
    assert not any(process.running for process in pipeline.status().processes)


def test_missing_packages_are_reported_before_anything_starts() -> None:
    """With the line that brings them."""
    with pytest.raises(
        PipelineError, match=r"not installed: faust .*pip install 'stepstream\[all\]'"
    ):
        require_packages(lambda name: name != "faust")
