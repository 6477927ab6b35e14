"""Tasks and executors: from records of taskstate over the store to the commands that read them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaException

from stepstream.cli.app import run as command
from stepstream.common import kafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_common import task_trace_id
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect, migrate
from tests.support.console import Client as Page
from tests.support.console_agent import console_of
from tests.support.processes import wait_until
from tests.support.sink import SinkThread, create_topics, encoded, lag, send, small_batches
from tests.support.task_states import (
    SECOND,
    Story,
    executor_state,
    refusal,
    send_states,
)

View = Callable[..., str]
FIRST_RUN = task_trace_id("shop", "order-7-refund", 1)


def retried() -> Story:
    """A task that lost its executor, failed, and was done by its fallback."""
    story = Story("order-7-refund", user_id="u-9", priority=5, submitted_by="shop", age_s=300)
    story.bind("ex-1")
    story.end_attempt(
        "lease_lost", "retrying", state="waiting", waiting_for="retry", detail="lost_lease",
        why="no heartbeat of ex-1 for 45 s",
    )  # fmt: skip
    story.bind("ex-2", detail="")
    story.end_attempt(
        "failed", "fallback", state="waiting", waiting_for="slot", target="refund-lite",
        fallbacks=["refund"], detail="exception: fallback to refund-lite",
        error_type="Timeout", error_message="no answer in 30 s",
    )  # fmt: skip
    story.bind("ex-2", run_agent="refund-lite", run_version="v2", detail="")
    return story.end("ok", "ok", result={"refunded": True}, error_type="", error_message="")


def trajectory(trace_id: str, attempt: int) -> dict[str, Any]:
    now = int(time.time() * SECOND)
    return {
        "trace_id": trace_id, "revision": 9, "status": "error", "closed": True, "project": "shop",
        "agent": "refund", "start_time": now - SECOND, "end_time": now, "duration_us": SECOND,
        "first_append_time": now, "last_append_time": now, "steps": 12, "cost_usd": "0.25",
        "findings": 1, "task_id": "order-7-refund", "attempt": attempt,
    }  # fmt: skip


def finding(trace_id: str) -> dict[str, Any]:
    return {
        "finding_id": "f-1", "state": "firing", "time": int(time.time() * SECOND),
        "severity": "error", "alert": "loop", "rule": "loop", "project": "shop",
        "agent": "refund", "trace_id": trace_id, "message": "4 times the same call of lookup",
    }  # fmt: skip


@pytest.fixture(scope="module")
def settings(kafka_bootstrap: str, clickhouse_url: str) -> Settings:
    """A store with everything that the topics have."""
    name = f"tasks_{uuid.uuid4().hex[:8]}"
    settings = small_batches(kafka_bootstrap, clickhouse_url, name, name)
    migrate(settings)
    create_topics(settings)
    story = retried()
    left = executor_state("ex-1", 1, state="lost", reason="no heartbeat", event="lost")
    waiting = Story("order-8-refund", waiting_for="slot", priority=2, age_s=90)
    delayed = Story("sheet-1", "bulk-edit", age_s=30)
    delayed.change("waiting", waiting_for="executor", detail="no executor offers bulk-edit@v8")
    running = Story("order-9-exchange", "exchange", age_s=20).bind("ex-2")
    # A worker that was replaced goes on for a moment, and its successor writes the state again.
    zombie = {**story.records[3], "revision": 99, "state": "dead", "reason": "lease_lost"}
    taken_over = {**story.records[-1], "epoch": 2, "event": "rewritten"}
    taken_over["revision"] = len(story.records)
    send_states(
        settings,
        executor_state("ex-1"),
        executor_state("ex-2", runs=["refund", "refund-lite", "exchange"]),
        *story.records, taken_over, zombie, *story.records[:3],
        refusal("order-7-refund", "submit", "other_input", detail="input differs"),
        left, *waiting.records, *delayed.records, *running.records,
        {"kind": "task"},
    )  # fmt: skip
    send(settings, [(FIRST_RUN, encoded(trajectory(FIRST_RUN, 1)))], "trajectories")
    send(settings, [("shop", encoded(finding(FIRST_RUN)))], "findings")
    with SinkThread(settings):
        for sent in ("taskstate", "trajectories", "findings"):
            wait_until(partial(is_stored, settings, sent), 180, f"{sent} stored")
    return settings


def is_stored(settings: Settings, name: str) -> bool:
    try:
        return lag(settings, name) == 0
    except KafkaException:
        return False  # a client that has just started may not know the topic yet


@pytest.fixture
def store(settings: Settings) -> Iterator[Client]:
    client = connect(settings)
    yield client
    client.close()


@pytest.fixture
def view(settings: Settings, capsys: pytest.CaptureFixture[str]) -> View:
    """Run a command and return what it printed; ``fails`` is the exit code that is expected."""
    flags = [
        f"--clickhouse-url={settings.clickhouse_url}",
        f"--clickhouse-password={settings.clickhouse_password.get_secret_value()}",
        f"--clickhouse-database={settings.clickhouse_database}",
    ]

    def run(*arguments: str, fails: int = 0) -> str:
        code = command([*arguments, *flags])
        printed = capsys.readouterr()
        assert code == fails, printed.err
        return printed.err if fails else printed.out

    return run


@pytest.fixture(scope="module")
def console(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with console_of(settings, tmp_path_factory.mktemp("console")) as client:
        yield client


def commands(settings: Settings) -> list[dict[str, Any]]:
    """What was sent to the scheduler."""
    found = kafka.read_to_end(settings, topic(settings.topic_prefix, "tasks"))
    return [json.loads(message.value() or b"") for message in found]


def rows(client: Client, sql: str) -> list[dict[str, Any]]:
    return list(client.query(sql).named_results())


def test_each_change_counts_once(store: Client) -> None:
    """Records that came twice, and those of a worker that had been replaced, change nothing."""
    (task,) = rows(store, "SELECT * FROM tasks WHERE task_id = 'order-7-refund'")
    assert (task["state"], task["result"], task["attempt"]) == ("ok", '{"refunded": true}', 3)
    assert [one["status"] for one in task["attempts"]] == ["lease_lost", "failed", "ok"]
    assert (task["input"], task["user_id"], task["epoch"]) == ('{"order": 7}', "u-9", 2)
    events = rows(
        store, "SELECT event FROM task_events WHERE task_id = 'order-7-refund' ORDER BY revision"
    )
    assert [row["event"] for row in events] == [
        *("submitted", "bound", "started", "retrying", "bound", "started", "fallback"),
        *("bound", "started", "ended", "rewritten"),
    ]
    (executor,) = rows(store, "SELECT * FROM executors WHERE executor_id = 'ex-1'")
    assert (executor["state"], executor["reason"]) == ("lost", "no heartbeat")
    assert rows(store, "SELECT count() AS n FROM executor_events") == [{"n": 3}]


def test_a_run_of_a_task_names_it(store: Client) -> None:
    found = rows(store, "SELECT task_id, attempt FROM runs")
    assert found == [{"task_id": "order-7-refund", "attempt": 1}]


def test_what_is_no_state_goes_to_the_dead_letter(settings: Settings) -> None:
    letters = list(kafka.read_to_end(settings, topic(settings.topic_prefix, "deadletter")))
    assert [json.loads(letter.value() or b"") for letter in letters] == [{"kind": "task"}]
    headers = dict(letters[0].headers() or [])
    assert headers["stepstream-reason"] == b"invalid_field"


def test_tasks_are_listed_with_the_reason_for_which_they_wait(view: View) -> None:
    lines = view("tasks").splitlines()
    assert [line.split()[0] for line in lines[1:]] == [
        *("order-9-exchange", "sheet-1", "order-8-refund", "order-7-refund")
    ]
    assert "for an executor that offers its agent: no executor offers bulk-edit@v8" in lines[2]
    assert "for a free slot" in lines[3]
    assert view("tasks", "--state", "running").splitlines()[1].startswith("order-9-exchange")
    assert "sheet-1" not in view("tasks", "--waiting-for", "slot")
    (found,) = json.loads(view("tasks", "--agent", "exch*", "--format", "json"))
    assert (found["executor_id"], found["attempt"]) == ("ex-2", 1)
    assert "did you mean waiting" in view("tasks", "--state", "waitin", fails=2)


def test_the_story_of_a_task_spans_its_attempts(view: View) -> None:
    """By the beginning of its id: what was requested, every change, runs with findings, result."""
    text = view("task", "order-7")
    for expected in (
        "task order-7-refund  refund · shop",
        "state      ok after",
        "3 attempts",
        "by shop, for user u-9",
        "priority 5",
        "for the pause before the next attempt",
        "cost       $0.25 in 1 run",
        "given up   refund",
        'result     {"refunded": true}',
        "attempt 1 of refund@v13 to ex-1",
        "lease lost on ex-1 after 1 s; no heartbeat of ex-1 for 45 s",
        f"run {FIRST_RUN[:8]} error · 12 steps",
        "error loop: 4 times the same call of lookup",
        "Timeout: no answer in 30 s",
        "to refund-lite; waits for a free slot: exception: fallback to refund-lite",
        "other_input: input differs",
    ):
        assert expected in text, text
    assert text.index("attempt 1 of") < text.index("error loop") < text.index("attempt 2 of")
    found = json.loads(view("task", "order-7-refund", "--format", "json"))[0]
    assert [event["event"] for event in found["events"]][:2] == ["submitted", "bound"]
    assert view("task", "order-7-refund", "--format", "csv").startswith("revision,changed_at")


def test_a_task_is_named_exactly_or_by_a_unique_beginning(view: View) -> None:
    assert "several tasks" in view("task", "order", fails=2)
    assert "no task nothing-like-it" in view("task", "nothing-like-it", fails=1)
    assert "order-8-refund" in view("task", "order-8-refund", "--project", "shop")


def test_executors_are_listed_with_their_slots(view: View) -> None:
    lines = view("executors").splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["ex-2", "ex-1"]
    assert "1 of 4" in lines[1]
    assert "exchange@v13" in lines[1]
    assert "lost: no heartbeat" in lines[2]


def test_queues_state_who_could_run_what_waits(view: View) -> None:
    found = {row["agent"]: row for row in json.loads(view("queues", "--format", "json"))}
    refund, sheet, lite = (found[name] for name in ("refund", "bulk-edit", "refund-lite"))
    assert (refund["waiting"], refund["waiting_for"], refund["ok_1h"]) == (1, ["slot"], 1)
    assert (refund["executors"], refund["slots"], refund["versions"]) == (1, 4, ["v13"])
    assert (sheet["waiting"], sheet["executors"]) == (1, 0)
    # An agent that executors offer and that was never requested.
    assert (lite["project"], lite["waiting"], lite["executors"]) == ("shop", 0, 1)
    assert found["exchange"]["running"] == 1
    assert view("queues").splitlines()[0].split()[:3] == ["AGENT", "WAITING", "OLDEST"]


def test_figures_of_the_last_hour(store: Client) -> None:
    from stepstream.queries import ask

    (figures,) = ask(store, "task-figures").records()
    assert (figures["waiting"], figures["running"], figures["ended"]) == (2, 1, 1)
    assert (figures["attempts"], figures["attempted"], figures["ok"]) == (3, 1, 1)
    assert figures["start_us"][0] > 0


def test_the_console_shows_queues_executors_and_what_waits(console: Page) -> None:
    found = console.get("/api/v1/tasks").json
    assert {row["agent"]: row["waiting"] for row in found["queues"]}["bulk-edit"] == 1
    assert [row["executor_id"] for row in found["executors"]] == ["ex-2", "ex-1"]
    assert [row["task_id"] for row in found["waiting"]] == ["order-8-refund", "sheet-1"]
    assert [row["state"] for row in found["recent"]] == ["running", "ok"]
    assert found["figures"]["waiting"] == 2
    assert console.get("/api/v1/tasks?project=other").json["waiting"] == []


def test_the_console_shows_the_story_of_a_task(console: Page) -> None:
    found = console.get("/api/v1/tasks/order-7-refund").json
    assert (found["task"]["state"], len(found["events"])) == ("ok", 11)
    assert [row["trace_id"] for row in found["runs"]] == [FIRST_RUN]
    assert [row["alert"] for row in found["findings"]] == ["loop"]
    unknown = console.get("/api/v1/tasks/order")
    assert (unknown.status, unknown.json["code"]) == (404, "not_found")
    assert len(unknown.json["nearest"]) == 3


def test_commands_of_the_console_go_to_the_scheduler(settings: Settings, console: Page) -> None:
    """With the name of the user; what has ended already is refused."""
    cancelled = console.post("/api/v1/tasks/sheet-1/cancel", {"reason": "not needed"})
    assert cancelled.status == 200
    assert console.post("/api/v1/executors/ex-2/drain", {"deadline": "90s"}).status == 200
    cancel, drain = commands(settings)
    assert (cancel["kind"], cancel["project"], cancel["task_id"]) == ("cancel", "shop", "sheet-1")
    assert (cancel["reason"], cancel["by"]) == ("not needed", cancelled.json["by"])
    assert (drain["kind"], drain["executor_id"], drain["deadline_us"]) == (
        *("drain", "ex-2"), 90 * SECOND
    )  # fmt: skip
    for path, status in (
        ("tasks/order-7-refund/cancel", 409),
        ("tasks/order-7-refund/retry", 409),
        ("tasks/nothing/cancel", 404),
        ("executors/ex-1/drain", 409),
        ("executors/ex-9/drain", 404),
    ):
        assert console.post(f"/api/v1/{path}", {}).status == status
    assert console.post("/api/v1/executors/ex-2/drain", {"deadline": "soon"}).status == 400
    foreign = {"Content-Type": "application/json"}
    assert console.send("POST", "/api/v1/tasks/sheet-1/cancel", b"{}", foreign).status == 403
    assert len(commands(settings)) == 2
