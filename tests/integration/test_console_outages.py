"""Kafka or ClickHouse stops and starts again: the API names it, the stream heals by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepstream.admin.topics import create_topics
from stepstream.common import kafka
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.console import Page
from tests.support.console_agent import Agent, console_of, stored
from tests.support.gate import Gate
from tests.support.processes import wait_until
from tests.support.sink import running as sink
from tests.support.sink import small_batches


@pytest.fixture
def settings(kafka_bootstrap: str, clickhouse_url: str) -> Iterator[Settings]:
    name = f"outage_{uuid.uuid4().hex[:8]}"
    made = small_batches(kafka_bootstrap, clickhouse_url, name, name)
    made = made.model_copy(update={"partitions": 2})
    migrate(made)
    yield made
    with connect(made) as client:
        client.command(f"DROP DATABASE {name}")


def state(page: Page) -> dict[str, Any]:
    """The newest state that the page was sent."""
    found = page.seen("state")
    return found[-1] if found else {}


def test_clickhouse_goes_away_and_comes_back(settings: Settings, tmp_path: Path) -> None:
    """Runs go on to be shown from Kafka and can be stopped meanwhile."""
    create_topics(settings)
    agent = Agent(settings)
    with Gate(settings.clickhouse_url) as gate, sink(settings):
        behind = settings.model_copy(update={"clickhouse_url": gate.url})
        with console_of(behind, tmp_path, console_query_timeout="5s") as client:
            agent.work(5)
            wait_until(lambda: stored(client, agent) == 5, 60, "five stored steps")
            page = Page(client, agent.trace_id)
            page.open()
            wait_until(lambda: page.ended == agent.sent, 60, "five steps")

            gate.shut()
            away = wait_until(
                lambda: (got := client.get("/api/v1/runs")).status == 503 and got, 60, "the outage"
            )
            assert away.json["code"] == "store_unavailable"
            assert away.headers["retry-after"]
            assert client.get("/healthz").status == 200
            wait_until(lambda: state(page).get("store", {}).get("ok") is False, 60, "its state")
            assert state(page)["store"]["since"] <= state(page)["server_time"]
            assert state(page)["kafka"]["ok"]
            agent.work(5)
            wait_until(lambda: page.ended == agent.sent, 60, "the steps of the outage")
            wait_until(lambda: state(page)["data_as_of"] > 0, 60, "the time of the data")
            stopped = client.post(f"/api/v1/runs/{agent.trace_id}/stop", {"reason": "now"})
            assert stopped.status == 200, stopped.body

            gate.open()
            wait_until(lambda: state(page)["store"]["ok"], 60, "the state afterwards")
            wait_until(lambda: stored(client, agent) >= 10, 60, "ten stored steps")
            page.close()


def test_kafka_goes_away_and_comes_back(
    settings: Settings, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What is stored is read meanwhile; afterwards the same stream has every step, once."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker") / "kafka", heap_mb=256) as broker:
        own = settings.model_copy(update={"kafka_brokers": broker.bootstrap})
        create_topics(own)
        agent = Agent(own)
        with sink(own), console_of(own, tmp_path) as client:
            agent.work(5)
            wait_until(lambda: stored(client, agent) == 5, 60, "five stored steps")
            page = Page(client, agent.trace_id)
            page.open()
            wait_until(lambda: page.ended == agent.sent, 60, "five steps")
            before_us = state(page)["data_as_of"]

            broker.kill(0)
            wait_until(lambda: not state(page)["kafka"]["ok"], 60, "the outage")
            away = state(page)
            assert away["kafka"]["since"] > before_us
            # The age of the data is that of the last moment at which everything was read.
            assert away["data_as_of"] <= away["kafka"]["since"]
            run = client.get(f"/api/v1/runs/{agent.trace_id}/steps")
            assert len(run.json["columns"]["step_id"]) == 5
            stop = client.post(f"/api/v1/runs/{agent.trace_id}/stop", {"reason": "now"})
            assert (stop.status, stop.json["code"]) == (503, "kafka_unavailable")
            assert stop.headers["retry-after"]

            broker.restart(0)
            wait_until(lambda: state(page)["kafka"]["ok"], 120, "the state afterwards")
            agent.work(5)
            wait_until(lambda: page.ended == agent.sent, 120, "the steps afterwards")
            # A state comes every five seconds while nothing else of it changes.
            as_of = away["data_as_of"]
            wait_until(lambda: state(page)["data_as_of"] > as_of, 60, "data that is newer")
            wait_until(lambda: stored(client, agent) == 10, 120, "ten stored steps")
            page.close()
            control = topic(own.topic_prefix, "control")
            assert not list(kafka.read_to_end(own, control))


def test_a_deep_run_with_circles_is_read(settings: Settings, tmp_path: Path) -> None:
    """1,400 levels, a circle of parents, an orphan, two roots: every step, and every question."""
    create_topics(settings)
    agent = Agent(settings)
    with console_of(settings, tmp_path) as client, sink(settings):
        chain = ["", *(f"{level:016x}" for level in range(1, 1_400))]
        circle = [f"{1_402:016x}", f"{1_401:016x}"]
        agent.work_below([*chain, *circle, "f" * 16, ""])
        wait_until(lambda: stored(client, agent) == 1_404, 120, "stored steps")
        run = f"/api/v1/runs/{agent.trace_id}"
        for path in ("", "/steps", "/suspects", "/band"):
            got = client.get(f"{run}{path}")
            assert got.status in (200, 404), got.body  # no worker has made the run's own row
        for question in ("critical-path", "run-cost", "slowest"):
            got = client.get(f"/api/v1/ask/{question}?run={agent.trace_id}")
            assert got.status in (200, 400), (question, got.body)
        same = client.get(f"/api/v1/compare?a={agent.trace_id}&b={agent.trace_id}").json
        assert len(same["rows"]) == 1_404
        assert {row[0] for row in same["rows"]} == {"both"}
