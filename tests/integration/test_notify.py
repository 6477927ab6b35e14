"""Notifiers over real Kafka: alerts reach a real receiver, whatever is killed in between."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from stepstream.cli import app
from stepstream.common import kafka
from stepstream.common.settings import to_environment
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.sinks.notify.channels.webhook import verify
from stepstream.sinks.notify.latest_records import list_deliveries
from tests.support.notifier import Publisher, admin_access, notifier, prepared, subscribe
from tests.support.processes import Process, wait_until
from tests.support.receiver import Call, Receiver, receiver


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    return prepared(kafka_bootstrap, topic_prefix)


@pytest.fixture
def publisher(settings: Settings) -> Iterator[Publisher]:
    found = Publisher(settings)
    yield found
    found.close()


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Processes that do not outlive the test."""
    found: list[Process] = []
    yield found
    for process in found:
        if process.running:
            process.kill()


def admin(process: Process) -> str:
    """The address of a notifier's admin API, from its log."""
    wait_until(lambda: "alert stream at " in process.log.read_text(), 30, "the admin API")
    return process.log.read_text().split("alert stream at ")[1].split()[0]


def ask(url: str, method: str = "GET", data: Any = None, **headers: str) -> tuple[int, Any]:
    body = json.dumps(data).encode() if data is not None else None
    request = urllib.request.Request(
        url,
        body,
        {"Content-Type": "application/json", **admin_access()[1], **headers},
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_webhook_gets_alerts_and_their_end_signed_and_live(
    settings: Settings,
    publisher: Publisher,
    processes: list[Process],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A subscription added while the notifier runs is in force at once; each notification has its
    key and signature; a failing webhook delays no other; a restarted notifier repeats nothing."""
    monkeypatch.setenv("STEPSTREAM_NOTIFY_SECRET_HOOK", "a-very-secret-key")
    with receiver() as hook, receiver(status=lambda _call: 503) as dead:
        subscribe(settings, "dead", dead.url)
        processes.append(notifier(settings, tmp_path / "1.log"))
        url = admin(processes[0])
        document = {
            "name": "oncall",
            "to": {"webhook": {"url": hook.url, "secret": "env:STEPSTREAM_NOTIFY_SECRET_HOOK"}},
        }
        assert ask(f"{url}/subscriptions", "POST", document) == (
            200,
            {"name": "oncall", "what": "created"},
        )
        wait_until(
            lambda: len(ask(f"{url}/subscriptions")[1]) == 2, 10, "the subscription in force"
        )
        publisher.send("a")
        publisher.send("b", partition=1)
        publisher.flush()
        wait_until(lambda: len(hook.taken) == 2, 20, "both alerts")
        publisher.send("a", 2, state="resolved")
        publisher.flush()
        wait_until(lambda: len(hook.taken) == 3, 20, "the end")
        assert sorted(hook.alerts_taken()) == [("a", 1), ("a", 2), ("b", 1)]
        for call in hook.taken:
            assert verify(
                "a-very-secret-key", call.headers["Stepstream-Signature"], call.body, time.time()
            )
            assert call.headers["Idempotency-Key"] == call.data["id"]
            assert call.data["schema"] == "stepstream.notification/1"
        wait_until(
            lambda: len(list_deliveries(settings, subscription="dead", state="failed")) == 2,
            10,
            "failures on the topic",
        )
        assert processes[0].terminate() == 0
        processes.append(notifier(settings, tmp_path / "2.log"))
        admin(processes[1])
        publisher.send("c")
        publisher.flush()
        wait_until(lambda: ("c", 1) in hook.alerts_taken(), 20, "what came after the restart")
        assert len(hook.taken) == 4
        log = "".join(process.log.read_text() for process in processes)
        assert "a-very-secret-key" not in log
        assert "503" in log


def test_nothing_is_lost_when_notifiers_are_killed(
    settings: Settings, publisher: Publisher, processes: list[Process], tmp_path: Path
) -> None:
    """Two notifiers share the alerts and are killed at random while a receiver fails now and then:
    every change is taken, in order for each alert, and what is taken twice has the same key."""
    # A seed: a failure can be repeated with the same refusals.
    dice = random.Random(7)
    keys: dict[str, set[bytes]] = {}

    def status(call: Call) -> int:
        keys.setdefault(call.headers["Idempotency-Key"], set()).add(call.body)
        # The body is noted before the answer: a refused attempt has the same key as its repetition.
        return 500 if dice.random() < 0.1 else 200

    total = 120
    with receiver(status=status) as hook:
        subscribe(settings, "all", f"{hook.url}/all", send_updates=True)
        subscribe(settings, "bad", f"{hook.url}/bad", match={"severity": ["critical"]})
        processes += [notifier(settings, tmp_path / f"{n}.log") for n in range(2)]
        for process in processes:
            admin(process)
        began = time.monotonic()
        kills = 0
        for n in range(total):
            publisher.send(
                f"a{n}", 1, partition=n % 2, severity="critical" if n % 4 == 0 else "warning"
            )
            if n >= 20:
                publisher.send(f"a{n - 20}", 2, partition=n % 2, state="resolved")
            # Not a multiple of the partitions or severities, so that kills meet all of them.
            if n % 29 == 28:
                publisher.flush()
                victim = kills % 2
                kills += 1
                processes[victim].signal(signal.SIGKILL)
                processes[victim].wait(60)
                processes[victim] = notifier(settings, tmp_path / f"again{kills}.log")
            time.sleep(0.03)
        publisher.flush()
        expected = {(f"a{n}", 1) for n in range(total)} | {(f"a{n}", 2) for n in range(total - 20)}

        def final() -> set[tuple[str, int]]:
            return {
                pair for call in list(hook.taken) if call.path == "/all" for pair in call.alerts
            }

        # An alert that was not sent before its end is sent as resolved.
        ends = {(f"a{n}", 2 if n < total - 20 else 1) for n in range(total)}
        wait_until(
            lambda: ends <= final(),
            60,
            f"every alert's newest state ({kills} kills, {time.monotonic() - began:.0f} s)",
        )
        assert final() <= expected
        critical = {f"a{n}" for n in range(0, total, 4)}

        def bad() -> set[str]:
            return {
                pair[0] for call in list(hook.taken) if call.path == "/bad" for pair in call.alerts
            }

        wait_until(lambda: critical <= bad(), 30, "every critical alert")
        assert bad() == critical
        for path in ("/all", "/bad"):
            last: dict[str, int] = {}
            for call in [call for call in hook.taken if call.path == path]:
                for alert_id, seq in call.alerts:
                    assert seq >= last.get(alert_id, 0), f"{alert_id}: {seq} after {last[alert_id]}"
                    last[alert_id] = seq
        assert all(len(contents) == 1 for contents in keys.values())
        twice = Counter(call.headers["Idempotency-Key"] for call in hook.taken)
        # A killed notifier may repeat what it sent in its last half second, and no more.
        assert sum(count - 1 for count in twice.values()) <= 40 * kills
        assert kills >= 4


def test_the_stream_goes_on_where_it_left_off(
    settings: Settings, publisher: Publisher, processes: list[Process], tmp_path: Path
) -> None:
    """Server-sent events: from now on, filtered, and after Last-Event-ID without a gap or a
    repeat."""
    processes.append(notifier(settings, tmp_path / "1.log"))
    url = admin(processes[0])

    def events(count: int, last: str = "", query: str = "") -> Iterator[tuple[str, str]]:
        request = urllib.request.Request(
            f"{url}/alerts/stream{query}",
            headers=admin_access()[1] | ({"Last-Event-ID": last} if last else {}),
        )
        event_id = ""
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "retry":
                    yield "", ""
                elif name == "id":
                    event_id = value
                elif name == "data":
                    yield json.loads(value)["alert_id"], event_id
                    count -= 1
                    if not count:
                        return

    stream = events(2)
    next(stream)
    for name in ("a", "b"):
        publisher.send(name)
        publisher.flush()
    first, second = next(stream), next(stream)
    assert [first[0], second[0]] == ["a", "b"]
    with urllib.request.urlopen(
        processes[0].log.read_text().split("metrics at ")[1].split()[0], timeout=10
    ) as answer:
        assert b"stepstream_notify_streams 1.0" in answer.read()
    publisher.send("c", partition=1, severity="critical")
    publisher.flush()
    assert [name for name, _ in events(2, first[1])] == ["", "b", "c"]
    assert [name for name, _ in events(1, first[1], "?severity=critical")] == ["", "c"]
    assert ask(f"{url}/alerts/stream?colour=red")[0] == 400
    assert [one["alert_id"] for one in ask(f"{url}/alerts?severity=critical&state=firing")[1]] == [
        "c"
    ]
    assert ask(f"{url}/alerts/unknown/acknowledge", "POST", {"by": "ada"})[0] == 404
    assert ask(f"{url}/alerts/c/acknowledge", "POST", {})[1]["error"].startswith(
        "the person is missing"
    )
    assert ask(f"{url}/subscriptions", Host="evil.example")[0] == 403
    assert ask(f"{url}/subscriptions", Origin="https://evil.example")[0] == 403


def test_subscriptions_on_the_command_line(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Added, listed, tested, removed; a secret that is written out is refused."""
    for name, value in {**to_environment(settings), "STEPSTREAM_STATE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = app.run(["subscriptions", *arguments])
        text = capsys.readouterr()
        return code, text.out, text.err

    with receiver(answer=b"got it") as hook:
        added = run(
            "add",
            "ops",
            "webhook",
            f"url={hook.url}",
            "--severity",
            "critical",
            "--match",
            "agent=bot-*",
        )
        assert added == (0, "subscription/ops created\n", "")
        listed = json.loads(run("list", "--format", "json")[1])
        assert [(one["name"], one["match"]) for one in listed] == [
            ("ops", "severity=critical, agent=bot-*")
        ]
        assert run("test", "ops") == (0, "webhook took it (this process): got it\n", "")
        assert [call.data["alerts"][0]["alert"] for call in hook.taken] == ["test"]
    code, _, error = run("test", "ops")
    assert (code, "webhook did not take it" in error) == (1, True)
    assert (
        "a secret is not written"
        in run("add", "x", "webhook", "url=https://h.example", "secret=hunter2")[2]
    )
    assert json.loads(run("deliveries", "--format", "json")[1]) == []
    assert run("remove", "ops")[1] == "subscription/ops deleted\n"
    assert "there is no subscription ops" in run("remove", "ops")[2]


def test_a_stalled_pipeline_is_reported_by_the_notifier_itself(
    settings: Settings, processes: list[Process], tmp_path: Path
) -> None:
    """No worker runs: the subscriber gets the alert and its end although no worker makes alerts."""
    steps, group = (
        topic(settings.topic_prefix, "steps"),
        f"{settings.topic_prefix}.{settings.worker_group}",
    )

    def join() -> Consumer:
        # The least that brokers allow: the group notices sooner that its member has left.
        client = kafka.consumer(settings, group, **{"session.timeout.ms": 6000})
        client.subscribe([steps])
        wait_until(
            lambda: client.poll(0.1) is not None or bool(client.assignment()), 30, "partitions"
        )
        return client

    worker = join()
    # A group that has never committed counts as not installed, not as stalled.
    worker.commit(offsets=[TopicPartition(steps, 0, 0)], asynchronous=False)
    worker.close()
    with receiver() as hook:
        subscribe(settings, "ops", hook.url)
        processes.append(
            notifier(settings.model_copy(update={"watch_after": 1_000_000}), tmp_path / "1.log")
        )
        wait_until(lambda: len(hook.taken) == 1, 40, "the alert")
        (sent,) = hook.taken[0].data["alerts"]
        assert (sent["alert"], sent["subject"], sent["state"]) == (
            "pipeline-stalled",
            "worker",
            "firing",
        )
        assert sent["message"].startswith("no worker runs")
        processes[0].kill()
        processes.append(
            notifier(settings.model_copy(update={"watch_after": 1_000_000}), tmp_path / "2.log")
        )
        worker = join()
        try:
            wait_until(lambda: len(hook.taken) == 2 or worker.poll(0.1) is not None, 40, "the end")
        finally:
            worker.close()
        (over,) = hook.taken[1].data["alerts"]
        assert (over["alert_id"], over["state"]) == (sent["alert_id"], "resolved")
    found = [
        json.loads(m.value() or b"")
        for m in kafka.read_to_end(settings, topic(settings.topic_prefix, "findings"))
    ]
    assert [(one["alert"], one.get("state", "firing")) for one in found] == [
        ("pipeline-stalled", "firing"),
        ("pipeline-stalled", "resolved"),
    ]


def test_a_synthetic_run_that_does_not_come_through_is_an_alert(
    settings: Settings, processes: list[Process], tmp_path: Path
) -> None:
    """A missing alert of a synthetic run is reported, and its end; the run's own alert is not
    sent."""
    watching = settings.model_copy(update={"watch_after": 4_000_000, "synthetic_runs": True})

    def text(hook: Receiver) -> list[tuple[str, str]]:
        alerts = [one for call in list(hook.taken) for one in call.data["alerts"]]
        assert all(one["alert"] == "pipeline-stalled" for one in alerts)
        return [(one["subject"], one["state"]) for one in alerts]

    with receiver() as hook:
        subscribe(settings, "ops", hook.url)
        processes.append(notifier(watching, tmp_path / "notify.log"))
        wait_until(lambda: ("end-to-end", "firing") in text(hook), 40, "that nothing comes out")
        processes.append(Process("stepstream", settings, tmp_path / "worker.log", "worker"))
        wait_until(lambda: ("end-to-end", "resolved") in text(hook), 60, "that all is well again")
