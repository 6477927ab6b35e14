"""``stepstream import`` over real Kafka: resumable, and the second time adds nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from stepstream.admin.imports import Import, now_us
from stepstream.admin.topics import create_topics
from stepstream.cli.app import run
from stepstream.common.kafka import KafkaUnreachable
from stepstream.schemas.settings import Settings
from tests.support.gateway import stored_steps
from tests.support.otlp import json_request, span


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Settings:
    made = Settings(
        kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, state_dir=str(tmp_path / "state")
    )
    create_topics(made)
    return made


def history(folder: Path, count: int, old: int = 0) -> Path:
    """A file of spans of yesterday, some of them of last year."""
    now = time.time_ns() - 86_400_000_000_000
    spans = [
        span(number, trace_id=f"{number:032x}", start_ns=now, end_ns=now + 1_000)
        for number in range(1, count + 1)
    ]
    for one in spans[:old]:
        one.start_ns = one.end_ns = now - 400 * 86_400_000_000_000
    file = folder / "spans.json"
    file.write_text(json.dumps(json_request(spans)))
    return file


def test_a_file_is_imported_once_however_often_it_is_named(
    settings: Settings, tmp_path: Path
) -> None:
    """Times are the original ones; an interrupted import goes on behind what was acknowledged."""
    file = history(tmp_path, 1_200, old=20)
    job = Import(settings, file, project="shop", now_us=now_us())
    plan = job.plan()
    assert (plan.spans, plan.steps, dict(plan.refused)) == (1_200, 1_180, {"time_out_of_range": 20})

    def interrupted(done: int) -> None:
        raise KafkaUnreachable(f"interrupted after {done}")

    # Progress is noted every 500 steps.
    with pytest.raises(KafkaUnreachable, match="500"):
        job.send(plan, interrupted)
    again = job.plan()
    assert again.done == 500
    assert job.send(again, lambda _done: None) == 680
    assert job.send(job.plan(), lambda _done: None) == 0
    steps = stored_steps(settings)
    assert len(steps) == len({step.trace_id for step in steps}) == 1_180
    assert {step.project for step in steps} == {"shop"}
    # Nearly a day ago: the times of the file, not of the import.
    assert all(step.start_time < now_us() - 86_000_000_000 for step in steps)


def test_the_command_lists_what_would_be_refused(
    settings: Settings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before it sends anything, and with --dry-run it sends nothing."""
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", settings.state_dir)
    file = history(tmp_path, 5, old=2)
    flags = ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]
    assert run(["import", str(file), "--dry-run", *flags]) == 0
    printed = capsys.readouterr().out
    assert "2 spans are refused (time_out_of_range)" in printed
    assert stored_steps(settings) == []
    assert run(["import", str(file), *flags]) == 0
    assert "3 steps imported" in capsys.readouterr().out
    assert len(stored_steps(settings)) == 3
    (tmp_path / "odd.json").write_text('{"a": 1}')
    assert run(["import", str(tmp_path / "odd.json"), *flags]) == 1
    assert "Langfuse" in capsys.readouterr().err
