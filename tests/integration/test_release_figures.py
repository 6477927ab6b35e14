"""Figures of releases over a real broker and a real store: differences, drift, the pages' API."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stepstream.admin.topics import create_topics
from stepstream.cli.app import run
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.schemas.release import Release
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RELEASE_ATTRIBUTE
from stepstream.sinks.clickhouse import migrate
from stepstream.sinks.clickhouse.client import url_for_clients
from tests.support.console import Client, running
from tests.support.question_data import KnownRun, store_runs
from tests.support.release_folder import built
from tests.support.release_labels import labelled

NOW = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    """Topics and a database of this test's own."""
    settings = Settings(
        kafka_brokers=kafka_bootstrap,
        topic_prefix=topic_prefix,
        partitions=1,
        fleet_partitions=1,
        clickhouse_url=clickhouse_url,
        clickhouse_database=clickhouse_database,
    )
    create_topics(settings)
    migrate(settings)
    return settings


def a_run(
    number: int, version: str, release: str, *, failed: bool = False, **more: Any
) -> KnownRun:
    """A run of the agent, with the cost 1 or, of v2, 2 dollars."""
    made = KnownRun(
        number,
        NOW - timedelta(minutes=number),
        status="error" if failed else "ok",
        about={"agent_version": version, "attributes": {RELEASE_ATTRIBUTE: release}},
    )
    made.add("llm_call", "plan", f"{1 if version == 'v1' else 2}.{number:02}", model="gpt-4o")
    made.add("tool_call", more.get("tool", "lookup_order"))
    return made


def place(settings: Settings) -> list[str]:
    """Flags that lead a command to this test's topics and store."""
    return [
        *("--kafka-brokers", settings.kafka_brokers),
        *("--topic-prefix", settings.topic_prefix),
        *("--clickhouse-url", url_for_clients(settings, writer=True)),
        *("--clickhouse-database", settings.clickhouse_database),
    ]


def with_runs(settings: Settings, tmp_path: Path) -> tuple[Release, Release]:
    """Two promoted releases; ten runs of each, and four under another configuration."""
    first, second = built(tmp_path / "a", "v1"), built(tmp_path / "b", "v2")
    with labelled(settings) as promote:
        promote(first, 0)
        promote(second, 1)
    runs = [a_run(n, "v1", first.hash) for n in range(10)]
    # Every second run fails and costs twice as much: differences that ten runs can show.
    runs += [a_run(n, "v2", second.hash, failed=n % 2 == 0) for n in range(10, 20)]
    runs += [
        # No release, one that was never published, another version than the release's, another
        # tool.
        a_run(20, "v2", ""),
        a_run(21, "v2", "f" * 64),
        a_run(22, "v3", second.hash),
        a_run(23, "v2", second.hash, tool="refund"),
    ]
    store_runs(settings, runs)
    return first, second


def test_the_runs_of_two_releases_are_compared(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By the commands and by the console: the text, success, cost and time with their sizes and
    intervals, and the drift.
    """
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    first, second = with_runs(settings, tmp_path)
    assert run(["diff", "support@v1", "support@v2", *place(settings)]) == 0
    shown, remarks = capfd.readouterr()
    assert "no figures" not in remarks
    assert "prompt tone: changed" in shown
    assert "-Be kind (v1)." in shown
    assert "With 10 and 13 runs these differ: error rate by +0.385" in shown
    assert "cost in dollars by +" in shown
    drift = ["releases", "support", "--drift", "--format", "json", *place(settings)]
    assert run(drift) == 0
    found = json.loads(capfd.readouterr().out)
    assert sorted((one["config_drift"], one["agent_version"], one["runs"]) for one in found) == [
        ("none", "v2", 1),
        ("tools", "v2", 1),
        ("unknown", "v2", 1),
        ("version", "v3", 1),
    ]
    given = settings.model_dump(include={"kafka_brokers", "topic_prefix", "clickhouse_database"})
    file = tmp_path / "credentials.json"
    entry, secret = new_credential("shop", ["read"], ["shop"])
    save(file, Credentials([entry]))
    given |= {
        "clickhouse_url": url_for_clients(settings, writer=True),
        "credentials_file": str(file),
    }
    with running(tmp_path / "console", **given) as client:
        check_pages(client, first, second)
        stranger = Client(client.console)
        got = stranger.get("/api/v1/releases/support/v1", x_api_key=token_of("shop", secret))
        assert (got.status, "belong to no project" in got.json["error"]) == (403, True)
        assert stranger.get("/api/v1/releases").status == 401


def check_pages(client: Client, first: Release, second: Release) -> None:
    """The endpoints of the pages."""
    (agent,) = client.get("/api/v1/releases").json["agents"]
    assert (agent["agent"], agent["releases"]) == ("support", 2)
    assert agent["labels"]["production"]["version"] == "v2"
    page = client.get("/api/v1/releases/support").json
    assert [one["version"] for one in page["releases"]] == ["v2", "v1"]
    assert [one["to"] for one in page["decisions"]] == ["v2", "v1"]
    assert {one["kind"] for one in page["drift"]} == {"none", "unknown", "version", "tools"}
    got = client.get("/api/v1/releases/support/production").json["release"]
    assert got == second.model_dump(mode="json")
    compared = client.get(f"/api/v1/releases/support/{first.hash[:8]}/v2").json
    assert [one["part"] for one in compared["differences"]] == ["prompt tone"]
    errors = compared["figures"][0]
    assert (errors["measure"], errors["old_runs"], errors["new_runs"]) == ("error rate", 10, 13)
    missing = client.get("/api/v1/releases/suport")
    assert (missing.status, "did you mean support?" in missing.json["error"]) == (404, True)
    assert client.get("/api/v1/releases/support?since=nonsense").status == 400
