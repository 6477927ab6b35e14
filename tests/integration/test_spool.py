"""The spool over a real broker that is frozen, killed and back: what an agent recorded arrives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from stepstream.admin.topics import create_topics
from stepstream.common import kafka
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step
from tests.support.processes import wait_until
from tests.support.spool_agent import recorded


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("broker") / "kafka", heap_mb=384) as started:
        yield started


@pytest.fixture
def settings(broker: EmbeddedKafka, topic_prefix: str) -> Settings:
    made = Settings(kafka_brokers=broker.bootstrap, topic_prefix=topic_prefix, partitions=3)
    create_topics(made)
    return made


@pytest.fixture
def environment(settings: Settings, tmp_path: Path) -> dict[str, str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")
    }
    return {
        **clean,
        "STEPSTREAM_ENDPOINT": f"kafka://{settings.kafka_brokers}",
        "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
        "STEPSTREAM_STATE_DIR": str(tmp_path),
        "PYTHONPATH": os.getcwd(),
    }


def agent(environment: dict[str, str], seconds: float, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.spool_agent", str(seconds), name],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stepstream", "spool", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def arrived(settings: Settings) -> list[tuple[str, str]]:
    """Name and phase of each step in the topic, without repetitions, in order by partition."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for message in kafka.read_to_end(settings, f"{settings.topic_prefix}.steps"):
        step = msgspec.json.decode(message.value() or b"", type=Step)
        found.setdefault((step.step_id, step.phase), (step.name, step.phase))
    return list(found.values())


def test_an_agent_that_is_killed_while_the_broker_is_frozen(
    broker: EmbeddedKafka, settings: Settings, environment: dict[str, str]
) -> None:
    """Everything that was on disk is sent by the next program, in order; nothing else is."""
    first = agent(environment, 120, "killed")
    assert first.stdout is not None
    assert first.stderr is not None
    with first.stdout as lines, first.stderr:
        for _ in range(100):
            lines.readline()
        broker.pause(0)
        try:
            # Until some hundred events are on disk that the broker cannot have.
            while True:
                number, safe, dropped = map(int, lines.readline().split())
                if number > 700 and safe > 1_000:
                    break
            first.send_signal(signal.SIGKILL)
            for line in lines:
                number, safe, dropped = map(int, line.split())
            first.wait(60)
        finally:
            broker.resume(0)
    assert dropped == 0
    done = agent(environment, 0.1, "next")
    _out, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    wait_until(lambda: _left(environment) == 0, 60, "the rest is sent by further programs")
    names = [one for one in arrived(settings) if one[0].startswith("killed")]
    assert names == recorded("killed", number + 1)[: len(names)]
    assert len(names) >= safe


def _left(environment: dict[str, str]) -> int:
    # Each is a program that sends what it finds, if the one before it ended too early.
    agent(environment, 0.2, "further").communicate(timeout=120)
    left = json.loads(command(environment, "status", "--json").stdout)["events"]
    assert isinstance(left, int)
    return left


def test_an_outage_in_the_middle_of_a_run(
    broker: EmbeddedKafka, settings: Settings, environment: dict[str, str]
) -> None:
    """The broker is killed and started again: the agent loses nothing and ends as usual."""
    running = agent(environment, 8, "long")
    assert running.stdout is not None
    for _ in range(50):
        running.stdout.readline()
    broker.kill(0)
    for _ in range(300):
        running.stdout.readline()
    broker.restart(0)
    out, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    steps = int(out.splitlines()[-1].split()[0])
    if "kept on disk" in errors:  # the machine was too slow to send everything in time
        assert command(environment, "drain").returncode == 0
    assert arrived(settings) == [*recorded("long", steps), ("long", "end")]


def test_the_commands(
    broker: EmbeddedKafka, settings: Settings, environment: dict[str, str]
) -> None:
    """``status`` counts what a program could not send, ``take_outputs`` sends it."""
    assert "there is no spool" in command(environment, "status").stdout
    assert "nothing to send" in command(environment, "drain").stdout
    away = environment | {"STEPSTREAM_ENDPOINT": "kafka://127.0.0.1:1"}
    out, errors = agent(away, 0.5, "away").communicate(timeout=120)
    steps = int(out.splitlines()[-1].split()[0])
    events = 2 * steps + 2
    assert f"{events} events kept on disk" in errors.splitlines()[-1]
    shown = command(away, "status").stdout
    assert f"{events} events of 1 runs, the oldest" in shown
    assert re.search(rf"for kafka://127\.0\.0\.1:1/\S+: {events} of programs that have", shown)
    refused = command(away, "drain", "--timeout", "0.5")
    assert refused.returncode == 1
    assert f"{events} events are still in the spool" in refused.stderr
    elsewhere = command(environment, "drain")
    assert "0 events sent" in elsewhere.stdout
    assert f"{events} events are for other endpoints" in elsewhere.stderr
    assert f"{events} events sent" in command(environment, "drain", "--all").stdout
    assert arrived(settings) == [*recorded("away", steps), ("away", "end")]
    assert json.loads(command(environment, "status", "--json").stdout)["events"] == 0
