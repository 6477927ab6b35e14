"""Doctor on real engines: nothing to report where all is well, each problem by name and remedy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from stepstream.admin import documents
from stepstream.admin.groups import sink_group
from stepstream.admin.topics import create_topics
from stepstream.cli.app import run
from stepstream.common.kafka import consumer, producer
from stepstream.common.settings import Resolved
from stepstream.doctor import Check, examine, pipeline, standing
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.notify.pipeline_monitor import PROJECT, StallChange, finding_of


@pytest.fixture
def settings(
    kafka_bootstrap: str,
    clickhouse_url: str,
    topic_prefix: str,
    clickhouse_database: str,
    tmp_path: Path,
) -> Settings:
    """Shared engines, with nothing prepared yet."""
    return Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=topic_prefix,
        clickhouse_database=clickhouse_database,
        state_dir=str(tmp_path),
        data_dir=str(tmp_path / "data"),
    )


def checks(settings: Settings) -> dict[str, Check]:
    """The last check of each name."""
    sources = dict.fromkeys(Settings.model_fields, "default")
    return {check.what: check for check in examine(Resolved(settings, sources, None))}


def test_an_installation_that_was_never_prepared_gets_instructions(settings: Settings) -> None:
    """Topics and schema are missing: the commands that make them are named."""
    found = checks(settings)
    assert (found["kafka"].status, found["clickhouse"].status) == ("ok", "ok")
    assert (found["topics"].status, found["topics"].todo) == ("fail", "stepstream topics create")
    assert (found["schema"].status, found["schema"].todo) == ("fail", "stepstream store migrate")


def test_a_prepared_installation_lacks_only_its_processes(settings: Settings) -> None:
    """No worker, sink or notifier is a warning, not a failure: they may run elsewhere soon."""
    create_topics(settings)
    migrate(settings)
    found = checks(settings)
    assert {name for name, check in found.items() if check.status != "ok"} == {
        "worker",
        "sink",
        "notify",
    }
    assert found["worker"].todo == "start `stepstream worker` or `stepstream up`"


def test_a_dropped_table_fails(settings: Settings) -> None:
    """By its name, with the command that makes it again."""
    create_topics(settings)
    migrate(settings)
    client = connect(settings)
    client.command("DROP TABLE steps_raw")
    client.command("DROP VIEW runs")
    client.close()
    found = checks(settings)["schema"]
    assert (found.status, found.todo) == ("fail", "stepstream store migrate")
    assert "table steps_raw is missing" in found.text
    migrate(settings)
    assert checks(settings)["schema"].status == "ok"


def test_a_firing_alert_about_the_pipeline_fails_until_it_is_over(settings: Settings) -> None:
    """Whichever process raised it: the notifier, or a worker about one of its partitions."""
    create_topics(settings)
    now_us = time.time_ns() // 1_000
    verdict = StallChange("sink", True, "the sink makes no progress on steps: 130 records wait")
    send_finding(settings, finding_of(verdict, now_us - 60_000_000, now_us - 60_000_000))
    found = checks(settings)["alert"]
    assert found.status == "fail"
    assert found.text.startswith("pipeline-stalled has been firing for 1 m ")
    assert "130 records wait" in found.text
    send_finding(settings, finding_of(StallChange("sink", False), now_us, now_us - 60_000_000))
    assert "alert" not in checks(settings)


def send_finding(settings: Settings, finding: FindingStruct) -> None:
    """Put a finding of ours on its topic."""
    client = producer(settings)
    client.produce(
        f"{settings.topic_prefix}.findings", key=PROJECT, value=msgspec.json.encode(finding)
    )
    assert client.flush(10) == 0


def test_a_part_that_is_there_and_makes_no_progress_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group with members and waiting records that commits nothing fails; else it passes."""
    monkeypatch.setattr(pipeline, "WATCHED_S", 2.0)
    # A sink that has just started has a time in which it need not commit.
    monkeypatch.setitem(standing.GRACE_US, "sink", 0)
    settings = settings.model_copy(update={"watch_after": 1})
    create_topics(settings)
    steps = f"{settings.topic_prefix}.steps"
    client = producer(settings)
    for number in range(3):
        client.produce(steps, key=f"{number:032x}", value=b"{}")
    assert client.flush(10) == 0
    assert checks(settings)["sink"].text.startswith("none is running")
    assert "3 records of steps wait" in checks(settings)["sink"].text
    with frozen_member(settings, sink_group(settings), steps) as member:
        found = checks(settings)["sink"]
        assert found.status == "fail"
        assert "1 running, and makes no progress: 3 records of steps wait" in found.text
        ends = [
            member.get_watermark_offsets(TopicPartition(steps, p))[1]
            for p in range(settings.partitions)
        ]
        member.commit(
            offsets=[TopicPartition(steps, p, end) for p, end in enumerate(ends)],
            asynchronous=False,
        )
        # Committed by hand: the member is frozen and would not do it.
        assert checks(settings)["sink"].text == "1 running, up to date"
    assert "one ran earlier" in checks(settings)["sink"].text


@contextmanager
def frozen_member(settings: Settings, group: str, name: str) -> Iterator[Consumer]:
    """A member of a group that owns all partitions of a topic and never commits; it stays alive."""
    member = consumer(settings, group)
    member.subscribe([name])
    deadline = time.monotonic() + 60
    while len(member.assignment()) < settings.partitions:
        assert time.monotonic() < deadline
        member.poll(0.2)
    member.pause(member.assignment())
    member.commit(
        offsets=[TopicPartition(name, p, 0) for p in range(settings.partitions)], asynchronous=False
    )
    try:
        yield member
    finally:
        member.close()


def test_problems_in_the_topics_are_found(settings: Settings) -> None:
    """Another partitioner, fresh dead letters, an outdated setting, a foreign document."""
    create_topics(settings)
    client = producer(settings)
    key = "ab" * 16
    right = partition_for(key, settings.partitions)
    client.produce(f"{settings.topic_prefix}.steps", key=key, value=b"{}", partition=right)
    client.produce(
        f"{settings.topic_prefix}.steps",
        key=key,
        value=b"{}",
        partition=(right + 1) % settings.partitions,
    )
    client.produce(f"{settings.topic_prefix}.deadletter", key=key, value=b"{}")
    client.produce(
        f"{settings.topic_prefix}.config",
        key="policy/x",
        value=b'{"kind": "Policy", "name": "x", "future": 1}',
    )
    assert client.flush(10) == 0
    found = checks(settings.model_copy(update={"partitions": 8}))
    assert found["partitioner"].status == "warn"
    assert found["partitioner"].text.startswith("1 of the newest 2 steps are not on the partition")
    assert found["dead letter"].text == "1 record, 1 in the last 24 hours"
    assert (found["topics"].status, "the setting partitions is 8" in found["topics"].text) == (
        "warn",
        True,
    )
    assert list(documents.in_force(settings)) == ["policy/x"]


def test_unreachable_servers_fail_and_the_rest_is_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, every check in the answer."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", os.devnull)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(tmp_path))
    arguments = [
        "doctor",
        "--kafka-brokers",
        "127.0.0.1:1",
        "--clickhouse-url",
        "http://127.0.0.1:1",
        "--format",
        "json",
    ]
    assert run(arguments) == 1
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert (found["kafka"]["status"], found["clickhouse"]["status"]) == ("fail", "fail")
    assert found["disk"]["status"] == "ok"
    assert all(check["todo"] for check in found.values() if check["status"] != "ok")
