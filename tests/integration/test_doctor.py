"""What doctor finds on real engines: nothing where all is well, and each trouble by its name with what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stepstream import documents
from stepstream.cli.app import run
from stepstream.doctor import Check, examine
from stepstream.kafka import producer
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.settings import Resolved
from stepstream.sinks.clickhouse import migrate
from stepstream.topics import create_topics


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str, tmp_path: Path
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


def test_an_installation_that_was_never_prepared_is_told_how(settings: Settings) -> None:
    """Topics and schema are missing: the commands that make them are named."""
    found = checks(settings)
    assert (found["kafka"].status, found["clickhouse"].status) == ("ok", "ok")
    assert (found["topics"].status, found["topics"].todo) == ("fail", "stepstream topics create")
    assert (found["schema"].status, found["schema"].todo) == ("fail", "stepstream store migrate")


def test_a_prepared_installation_lacks_only_its_processes(settings: Settings) -> None:
    """No worker, sink or notifier is worth a warning, not a failure: they may run elsewhere soon."""
    create_topics(settings)
    migrate(settings)
    found = checks(settings)
    assert {name for name, check in found.items() if check.status != "ok"} == {"worker", "sink", "notify"}
    assert found["worker"].todo == "start `stepstream worker` or `stepstream up`"


def test_troubles_in_the_topics_are_found(settings: Settings) -> None:
    """A producer with another partitioner, fresh dead letters, a setting that no longer fits, a document from elsewhere."""
    create_topics(settings)
    client = producer(settings)
    key = "ab" * 16
    right = partition_for(key, settings.partitions)
    client.produce(f"{settings.topic_prefix}.steps", key=key, value=b"{}", partition=right)
    client.produce(f"{settings.topic_prefix}.steps", key=key, value=b"{}", partition=(right + 1) % settings.partitions)
    client.produce(f"{settings.topic_prefix}.deadletter", key=key, value=b"{}")
    client.produce(f"{settings.topic_prefix}.config", key="policy/x", value=b'{"kind": "Policy", "name": "x", "future": 1}')
    assert client.flush(10) == 0
    found = checks(settings.model_copy(update={"partitions": 8}))
    assert found["partitioner"].status == "warn"
    assert found["partitioner"].text.startswith("1 of the newest 2 steps lie on another partition")
    assert found["dead letter"].text == "1 record, 1 in the last 24 hours"
    assert (found["topics"].status, "the setting partitions is 8" in found["topics"].text) == ("warn", True)
    assert list(documents.in_force(settings)) == ["policy/x"]


def test_unreachable_servers_fail_and_the_rest_is_still_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, every check in the answer."""
    monkeypatch.setenv("STEPSTREAM_SETTINGS", os.devnull)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(tmp_path))
    arguments = ["doctor", "--kafka-brokers", "127.0.0.1:1", "--clickhouse-url", "http://127.0.0.1:1", "--format", "json"]
    assert run(arguments) == 1
    found = {check["what"]: check for check in json.loads(capsys.readouterr().out)}
    assert (found["kafka"]["status"], found["clickhouse"]["status"]) == ("fail", "fail")
    assert found["disk"]["status"] == "ok"
    assert all(check["todo"] for check in found.values() if check["status"] != "ok")
