"""A stop ordered in the console reaches a real agent, over Kafka and over https, and is shown."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stepstream.admin.topics import create_topics
from stepstream.schemas.control import control_step_id
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.console import Client, Page
from tests.support.console import running as console
from tests.support.gate import Gate, certificate_in
from tests.support.gateway import running as gateway
from tests.support.processes import Process, wait_until, worker
from tests.support.sink import running as sink
from tests.support.sink import small_batches

REASON = "too expensive"


@dataclass
class World:
    """An installation with a console; agents are processes."""

    settings: Settings
    console: Client
    folder: Path

    @contextmanager
    def agent(self, name: str, **changes: Any) -> Iterator[Process]:
        given = {"agent": name, "project": "shop", "state_dir": str(self.folder / name), **changes}
        settings = self.settings.model_copy(update=given)
        log = self.folder / f"{name}.log"
        process = Process("tests.integration.control_agent", settings, log, "0.01", "4000")
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def world(
    kafka_bootstrap: str,
    clickhouse_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("stop")
    name = f"stop_{uuid.uuid4().hex[:8]}"
    settings = small_batches(kafka_bootstrap, clickhouse_url, name, name)
    settings = settings.model_copy(update={"partitions": 2, "fleet_partitions": 2})
    create_topics(settings)
    migrate(settings)
    given = settings.model_dump(
        include={"kafka_brokers", "topic_prefix", "clickhouse_url", "clickhouse_database"}
    )
    password = settings.clickhouse_password.get_secret_value()
    given |= {"clickhouse_user": settings.clickhouse_user, "clickhouse_password": password}
    working = worker(settings, folder / "worker.log")
    try:
        with sink(settings), console(folder, console_query_timeout="60s", **given) as client:
            yield World(settings, client, folder)
    finally:
        working.kill()
        with connect(settings) as client:
            client.command(f"DROP DATABASE {name}")


def printed(process: Process, word: str) -> list[str]:
    """What the agent printed after the first line that begins with this word."""
    lines = process.log.read_text().splitlines() if process.log.exists() else []
    return next((line.split()[1:] for line in lines if line.startswith(f"{word} ")), [])


def stop_and_check(world: World, agent: Process) -> None:
    (trace_id,) = wait_until(lambda: printed(agent, "run"), 60, "a run")
    run = f"/api/v1/runs/{trace_id}"
    wait_until(lambda: world.console.get(run).status == 200, 60, "the run in the store")
    page = Page(world.console, trace_id)
    page.open()
    wait_until(lambda: bool(page.ended), 60, "steps on the page")

    got = world.console.post(f"{run}/stop", {"reason": REASON})

    assert got.status == 200, got.body
    user, command = got.json["by"], got.json["command_id"]
    wait_until(lambda: not agent.running, 60, "the end of the agent")
    assert agent.exit_code == 3
    assert printed(agent, "stopped")[1:] == [user, *REASON.split()]
    control = control_step_id(trace_id, command)
    assert got.json["step_id"] == control
    # Live, with the agent's acknowledgement as its end; and in the store.
    wait_until(lambda: control in page.ended, 60, "the control step on the page")
    page.close()

    def stored() -> dict[str, Any]:
        columns = world.console.get(f"{run}/steps").json["columns"]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return {row["step_id"]: row for row in rows if row["end_time"] is not None}

    found = wait_until(lambda: stored().get(control), 60, "the control step in the store")
    assert (found["kind"], found["status"]) == ("control", "ok")
    content = world.console.get(f"{run}/steps/{control}/content").json
    assert user in str(content)
    assert REASON in str(content)
    wait_until(
        lambda: world.console.get(run).json["run"]["status"] in ("cancelled", "stopped"),
        60,
        "the stopped run",
    )


def test_over_kafka(world: World) -> None:
    with world.agent("kafka") as agent:
        stop_and_check(world, agent)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_over_https(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent knows the gateway's https address alone."""
    with gateway(world.settings, with_topics=False) as made:
        wait_until(lambda: made.writer.connected, 60, "the gateway has found Kafka")
        certificate, tls = certificate_in(world.folder)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with (
            Gate(made.server.url, tls) as gate,
            world.agent("https", endpoint=gate.url, kafka_brokers="", clickhouse_url="") as agent,
        ):
            stop_and_check(world, agent)
