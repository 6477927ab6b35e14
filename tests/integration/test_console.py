"""The console over a real Kafka, a real store and a real sink."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stepstream.cli.printing import trace_text
from stepstream.cli.queries import read_trace
from stepstream.common import kafka
from stepstream.console.live.tail import Tail
from stepstream.console.reads import MAX_CONTENT_BYTES
from stepstream.producers.tracer import Tracer
from stepstream.schemas.content_limits import MAX_BYTES
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.console import Client, Page
from tests.support.console_agent import Agent, console_of, stored
from tests.support.processes import wait_until
from tests.support.sink import create_topics, small_batches
from tests.support.sink import running as sink

PARTITIONS = 3
HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\x00\ud7ff\"'&"


@pytest.fixture
def settings(
    kafka_bootstrap: str, clickhouse_url: str, topic_prefix: str, clickhouse_database: str
) -> Settings:
    settings = small_batches(kafka_bootstrap, clickhouse_url, topic_prefix, clickhouse_database)
    create_topics(settings, PARTITIONS)
    control = NewTopic(topic(settings.topic_prefix, "control"), num_partitions=PARTITIONS)
    admin = AdminClient(settings.kafka)
    admin.create_topics([control])[control.topic].result(30)
    migrate(settings)
    return settings


@pytest.mark.parametrize("buffer_bytes", [64 << 20, 20_000], ids=["roomy", "small"])
def test_no_step_is_missed_while_the_sink_stops_and_starts(
    settings: Settings, tmp_path: Path, buffer_bytes: int
) -> None:
    """Snapshot and stream together have every step, whatever the sink has stored of them.

    With the small buffer the records that the sink lacks do not fit: they are read again.
    """
    agent, other = Agent(settings), Agent(settings)
    while partition_for(other.trace_id, PARTITIONS) != partition_for(agent.trace_id, PARTITIONS):
        other = Agent(settings)
    with console_of(settings, tmp_path, buffer_bytes=buffer_bytes) as client:
        with sink(settings):
            agent.work(20)
            wait_until(lambda: stored(client, agent) == 20, 60, "twenty stored steps")
        # The sink is gone: these are in Kafka alone.
        agent.work(30)
        other.work(100)
        warm = Page(client, other.trace_id)
        warm.open()
        wait_until(lambda: warm.ended == other.sent, 60, "the other run")

        page = Page(client, agent.trace_id)
        going = threading.Event()
        worker = threading.Thread(target=keep_working, args=(agent, going))
        worker.start()
        page.open()
        wait_until(lambda: bool(page.seen("ready")), 60, "the snapshot")
        assert page.seen("ready")[0]["store_behind"] >= 60
        with sink(settings):
            wait_until(lambda: stored(client, agent) > 50, 60, "the sink's progress")
            going.set()
            worker.join()
            wait_until(lambda: page.ended == agent.sent, 60, "every step")
            wait_until(lambda: stored(client, agent) == len(agent.sent), 60, "a stored run")
        page.close()
        warm.close()
        assert len(page.ended) == len(agent.sent)
        costs = [step["cost_usd"] for (_, phase), step in page.steps.items() if phase == "end"]
        assert sum(costs) == pytest.approx(0.001 * len(agent.sent))


def keep_working(agent: Agent, stop: threading.Event) -> None:
    while not stop.wait(0.05):
        agent.work(2)


def followed(client: Client, agent: Agent) -> Page:
    """A page that has five new steps of the run from the stream."""
    agent.work(5)
    page = Page(client, agent.trace_id)
    page.open()
    wait_until(lambda: page.ended == agent.sent, 60, "five steps")
    return page


def test_a_page_that_connects_again_continues_where_it_was(
    settings: Settings, tmp_path: Path
) -> None:
    agent = Agent(settings)
    with console_of(settings, tmp_path) as client:
        page = followed(client, agent)
        page.close()
        agent.work(5)
        page.events.clear()
        before = page.repeats
        page.open()
        wait_until(lambda: page.ended == agent.sent, 60, "ten steps")
        assert page.seen("ready")[0]["resumed"]
        assert page.repeats == before
        page.close()


def test_a_page_outlives_the_console(settings: Settings, tmp_path: Path) -> None:
    """After a restart the cookie and the position are still valid."""
    agent = Agent(settings)
    with sink(settings):
        with console_of(settings, tmp_path) as client:
            page = followed(client, agent)
        page.close()
        agent.work(5)
        with console_of(settings, tmp_path) as again:
            page.client = Client(again.console, page.client.cookie)
            page.open()
            wait_until(lambda: page.ended == agent.sent, 60, "ten steps")
            page.close()


def test_contents_of_a_megabyte_are_read_in_full(settings: Settings, tmp_path: Path) -> None:
    """From the SDK through Kafka and the sink: in the page's API and in the terminal."""
    settings = settings.model_copy(update={"content_limits": "llm_call=1MB"})
    lines = [f'line {number} of "a long prompt"' for number in range(MAX_BYTES // 35)]
    text = "\n".join(lines)
    tracer = Tracer(settings)
    with tracer.run("shop") as run, tracer.llm("m", input=text) as step:
        step.set_output(text)
        with tracer.llm("m", input="word " * 2_000_000) as huge:
            pass
    assert tracer.flush(60)
    tracer.close()
    path = f"/api/v1/runs/{run.trace_id}/steps/{step.step_id}/content"
    with console_of(settings, tmp_path) as client, sink(settings):

        def whole_step() -> bool:
            got = client.get(path)
            # The start may be stored before the end, which has the output.
            return got.status == 200 and bool(got.json["output_bytes"])

        wait_until(whole_step, 60, "the stored step")
        first = client.get(path).json
        whole = client.get(f"{path}?bytes={MAX_CONTENT_BYTES}").json
        of_huge = path.replace(step.step_id, huge.step_id)
        wait_until(lambda: client.get(of_huge).status == 200, 60, "the stored step")
        most = client.get(f"{of_huge}?bytes={MAX_CONTENT_BYTES}").json
    assert 1_000_000 < len(most["input"]) <= MAX_BYTES
    assert most["input_bytes"] == pytest.approx(10_000_000, rel=0.1)
    assert (len(first["input"]), first["input_cut"]) == (65_536, True)
    assert (whole["input"], whole["output"]) == (text, text)
    assert (whole["input_bytes"], whole["output_cut"]) == (len(text), False)
    store = connect(settings, readonly=True)
    found = read_trace(store, run.trace_id, whole=True)
    now_us = time.time_ns() // 1_000
    text_of = trace_text(found, width=120, contents=True, full=True, limit=100, now_us=now_us)
    shown = text_of.plain
    assert all(shown.count(line) >= 2 for line in (lines[0], lines[-1], lines[len(lines) // 2]))


def test_hostile_text_stays_text(settings: Settings, tmp_path: Path) -> None:
    agent = Agent(settings)
    hostile = dict.fromkeys(
        ("name", "tool", "model", "error_type", "error_message", "agent", "input"), HOSTILE
    )
    with console_of(settings, tmp_path) as client, sink(settings):
        agent.work(3, **{**hostile, "status": "error", "attributes": {HOSTILE: HOSTILE}})
        wait_until(lambda: stored(client, agent) == 3, 60, "stored steps")
        steps = client.get(f"/api/v1/runs/{agent.trace_id}/steps")
        step = steps.json["columns"]["step_id"][0]
        content = client.get(f"/api/v1/runs/{agent.trace_id}/steps/{step}/content")

    assert steps.headers["content-type"] == "application/json"
    assert steps.headers["x-content-type-options"] == "nosniff"
    assert "<script>" in steps.json["columns"]["error_message"][0]
    assert content.json["input"].startswith("<script>")
    assert content.json["attributes"]


def test_wrong_ids_get_the_nearest_ones(settings: Settings, tmp_path: Path) -> None:
    agent = Agent(settings)
    with console_of(settings, tmp_path) as client, sink(settings):
        agent.work(2)
        wait_until(lambda: stored(client, agent) == 2, 60, "stored steps")
        run = f"/api/v1/runs/{agent.trace_id}"
        wrong_step = client.get(f"{run}/steps/{2:015x}3/content")
        wrong_run = client.get("/api/v1/runs/" + "f" * 32)
        beginning = client.get(f"/api/v1/runs/{agent.trace_id[:10]}/steps")
        no_id = client.get("/api/v1/runs/nonsense")

    assert wrong_step.status == 404
    assert wrong_step.json["nearest"]
    assert wrong_run.status == 404
    assert beginning.json["trace_id"] == agent.trace_id
    assert no_id.status == 404


def test_a_stop_is_recorded_with_the_user(settings: Settings, tmp_path: Path) -> None:
    agent = Agent(settings)
    with console_of(settings, tmp_path) as client, sink(settings):
        agent.work(2)
        wait_until(lambda: stored(client, agent) == 2, 60, "stored steps")
        user = client.get("/api/v1/session").json["user"]
        got = client.post(f"/api/v1/runs/{agent.trace_id}/pause", {"reason": "too expensive"})

    assert got.status == 200, got.body
    control = topic(settings.topic_prefix, "control")
    (sent,) = [json.loads(one.value() or b"") for one in kafka.read_to_end(settings, control)]
    assert (sent["command_id"], sent["trace_id"]) == (got.json["command_id"], agent.trace_id)
    assert (sent["action"], sent["by"], sent["reason"]) == ("pause", user, "too expensive")
    assert (got.json["action"], got.json["by"]) == ("pause", user)
    assert got.json["trace_id"] == agent.trace_id


def test_a_tail_without_viewers_reads_nothing(settings: Settings) -> None:
    tail = Tail(settings)
    try:
        assert not tail.is_ready
        tail.enter()
        wait_until(lambda: tail.is_ready, 60, "the buffers")
        tail.leave()
        assert tail.health.kafka_ok
    finally:
        tail.close()
