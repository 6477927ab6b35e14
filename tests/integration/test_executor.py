"""Executors as processes over a real Kafka, with a small scheduler in the test."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

import stepstream
from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.cli.app import run as cli
from stepstream.common.kafka import read_to_end
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.producers.tasks import ways
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import TASK_ATTRIBUTE, AnyStep
from stepstream.schemas.task_common import task_trace_id
from stepstream.schemas.task_messages import (
    BeatStruct,
    ByeStruct,
    ClaimStruct,
    EndStruct,
    HelloStruct,
    NotReadyStruct,
    ReadyStruct,
)
from stepstream.schemas.topics import topic
from tests.support.gateway import JSON, Answer, post, running
from tests.support.processes import PATIENCE, Process, wait_until
from tests.support.scheduler import Scheduler

TARGET = "tests.support.executor_app:app"


@dataclasses.dataclass
class World:
    """Topics, a scheduler, and the executors that a test has started."""

    settings: Settings
    scheduler: Scheduler
    folder: Path
    started: list[Process] = dataclasses.field(default_factory=list)

    def executor(self, slots: int = 4, *arguments: str) -> Process:
        log = self.folder / f"executor-{len(self.started)}.log"
        before = self.hellos()
        process = Process(
            "stepstream", self.settings, log, "executor", TARGET, "--slots", str(slots), *arguments
        )
        self.started.append(process)
        wait_until(
            lambda: self.hellos() - before, 60, "a hello of another one", instead=process.tail
        )
        return process

    def hellos(self) -> set[str]:
        """The ids of all executors so far, lost ones too."""
        return {hello.executor_id for hello in self.scheduler.of(HelloStruct)}

    def submit(self, agent: str, input: Any = None, **more: Any) -> stepstream.TaskHandle:
        return stepstream.submit(agent, input, project="shop", settings=self.settings, **more)

    def ledger(self, what: str = "") -> list[list[str]]:
        path = self.folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split() for line in lines if line.endswith(what)]

    def end(self, task_id: str) -> EndStruct:
        found: EndStruct = wait_until(
            lambda: next((e for e in self.scheduler.of(EndStruct) if e.task_id == task_id), None),
            30,
            f"the end of {task_id}",
        )
        return found


@pytest.fixture(scope="module")
def broker(kafka_bootstrap: str) -> Settings:
    settings = Settings(
        kafka_brokers=kafka_bootstrap,
        topic_prefix=f"executor{os.getpid()}",
        partitions=1,
        fleet_partitions=1,
        project="shop",
        log_level="info",
    )
    create_topics(settings, timeout=TIMEOUT_S * PATIENCE)
    return settings


@pytest.fixture
def world(broker: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("EXECUTOR_LEDGER", str(tmp_path / "ledger"))
    made = World(broker, Scheduler(broker), tmp_path)
    yield made
    for process in made.started:
        if process.running:
            process.thaw()
            process.kill()
    made.scheduler.close()


def result(handle: stepstream.TaskHandle) -> Any:
    return handle.result(timeout=30 * PATIENCE)


def test_tasks_run_and_return_their_results(world: World) -> None:
    executor = world.executor()
    handles = [world.submit("echo", {"order": n}, id=f"echo-{n}") for n in range(3)]
    assert [result(one) for one in handles] == [{"order": 0}, {"order": 1}, {"order": 2}]
    assert result(world.submit("aecho", [1, 2])) == [1, 2]
    status = handles[0].status()
    assert (status.state, status.attempt, status.is_final) == ("ok", 1, True)

    # The run of the attempt has the id that the scheduler gave, and names its task.
    trace_id = task_trace_id("shop", "echo-0", 1)
    name = topic(world.settings.topic_prefix, "steps")
    decode = msgspec.json.Decoder(AnyStep).decode
    steps = [
        step
        for message in read_to_end(world.settings, name)
        if (step := decode(message.value() or b"{}")).trace_id == trace_id
    ]
    root = next(step for step in steps if not step.parent_step_id and step.phase == "end")
    assert (root.attributes[TASK_ATTRIBUTE], root.attempt) == ("echo-0", 1)
    assert (root.agent, root.agent_version, root.task, root.project) == (
        "echo", "v1", "repeat", "shop",
    )  # fmt: skip
    assert {step.name for step in steps} == {"echo", "repeat"}

    # What a body raises, and what is no JSON, is the attempt's error.
    failed = [world.submit(agent) for agent in ("fails", "odd", "leaves")]
    errors = []
    for handle in failed:
        with pytest.raises(stepstream.TaskFailed) as caught:
            result(handle)
        errors.append(caught.value.error_type)
    # The class of a Retry is reported, of which the error is a subclass.
    assert errors == ["ConnectionError", "NotJson", "SystemExit"]

    # Forks and lines on stdout are the agent's own business.
    assert result(world.submit("forks")) == "from the parent"
    assert executor.terminate() == 0
    assert world.scheduler.of(ByeStruct)[-1].executor_id == (
        world.scheduler.of(HelloStruct)[-1].executor_id
    )


def test_a_process_of_its_own_can_be_ended(world: World) -> None:
    world.executor()
    first = result(world.submit("alone", "one"))
    assert first["kept"] == 1
    # The process is kept for further attempts.
    assert result(world.submit("alone", "two"))["pid"] == first["pid"]

    with pytest.raises(stepstream.TaskFailed):
        result(world.submit("alone", "hang", id="hangs"))
    assert world.end("hangs").status == "timed_out"
    with pytest.raises(stepstream.TaskFailed, match="SIGKILL"):
        result(world.submit("alone", "die"))
    # Neither has hurt the executor.
    assert result(world.submit("echo", "well")) == "well"


def test_a_cancelled_attempt_stops(world: World) -> None:
    executor = world.executor()
    handles = [world.submit(agent, id=f"cancel-{agent}") for agent in ("waits", "steps")]
    wait_until(lambda: len(world.ledger("began")) == 2, 30, "two bodies", instead=executor.tail)
    for handle in handles:
        handle.cancel("not needed any more")
    for handle in handles:
        with pytest.raises(stepstream.TaskCancelled):
            result(handle)
    assert world.end("cancel-waits").reason == "cancel"


def test_a_time_out_stops_the_next_step(world: World) -> None:
    world.executor()
    handle = world.submit("steps", id="slow")
    with pytest.raises(stepstream.TaskFailed):
        result(handle)
    assert (world.end("slow").status, world.end("slow").error_type) == (
        "timed_out",
        "stepstream.producers.exceptions.RunStopped",
    )


def test_a_killed_executor_loses_its_attempts_at_once(world: World) -> None:
    """Another one runs them: by the heartbeat process's report, long before the lease ends."""
    first = world.executor()
    handle = world.submit("keeps", "die")
    wait_until(lambda: not first.running, 60, "the end of the executor")
    wait_until(lambda: world.scheduler.of(ByeStruct), 20, "the report of its heartbeat process")
    world.executor()
    # The second attempt gets the value that the first one kept, and does not repeat its effect.
    assert result(handle) == 1
    assert len(world.ledger("effect")) == 1
    fences = [claim.fence for claim in world.scheduler.of(ClaimStruct)]
    assert fences == sorted(set(fences))


def test_an_executor_that_is_stopped_sends_no_heartbeat_and_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process must not act after its lease: its heartbeat process ends it."""
    monkeypatch.setenv("EXECUTOR_LEASE", "6s")
    first = world.executor()
    handle = world.submit("waits", id="frozen")
    wait_until(lambda: world.ledger("began"), 30, "the body", instead=first.tail)
    first.freeze()
    seen = len(world.scheduler.of(BeatStruct))
    wait_until(lambda: not first.running, 20, "the end of the frozen executor")
    assert len(world.scheduler.of(BeatStruct)) <= seen + 2  # those that were on their way
    world.executor()
    wait_until(lambda: len(world.ledger("began")) == 2, 30, "the second attempt")
    handle.cancel()
    with pytest.raises(stepstream.TaskCancelled):
        result(handle)


def test_agents_that_hold_the_gil_delay_no_heartbeat(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the event loop nor any other thread of the executor runs for more than a lease."""
    monkeypatch.setenv("EXECUTOR_LEASE", "6s")
    world.executor()
    hello = world.scheduler.of(HelloStruct)[-1]
    assert result(world.submit("blocks", 7)) == "blocked"
    assert hello.executor_id in world.scheduler.executors


def test_a_heartbeat_process_that_ends_or_is_stopped_is_replaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXECUTOR_LEASE", "6s")
    executor = world.executor()
    beats = len(world.scheduler.of(BeatStruct))
    (heartbeat,) = heartbeats(executor.pid)
    os.kill(heartbeat, signal.SIGKILL)
    wait_until(
        lambda: heartbeats(executor.pid) not in ([], [heartbeat]), 20, "another heartbeat process"
    )
    wait_until(lambda: len(world.scheduler.of(BeatStruct)) > beats + 1, 30, "its heartbeats")
    assert result(world.submit("echo", 1)) == 1

    # Without heartbeats the executor stops its attempts by its own clock, and starts anew.
    handle = world.submit("waits", id="no-heartbeats")
    wait_until(lambda: world.ledger("began"), 30, "the body")
    before = len(world.scheduler.of(HelloStruct))
    os.kill(heartbeats(executor.pid)[0], signal.SIGSTOP)
    wait_until(lambda: len(world.scheduler.of(HelloStruct)) > before, 60, "another hello")
    assert world.end("no-heartbeats").status == "lease_lost"
    assert handle.status().state == "dead"
    assert result(world.submit("echo", 2)) == 2


def heartbeats(pid: int) -> list[int]:
    """The heartbeat processes of an executor; any of its threads may have started them."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    found = {int(one) for file in files for one in file.read_text().split()}
    return sorted(one for one in found if "executor.heartbeat" in command(one))


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_sigterm_lets_running_attempts_finish(world: World) -> None:
    executor = world.executor()
    handle = world.submit("works", 1.5)
    wait_until(lambda: world.ledger("began"), 30, "the body")
    assert executor.terminate() == 0
    assert result(handle) == "done"


def test_what_does_not_finish_in_time_is_handed_over(world: World) -> None:
    executor = world.executor(2, "--drain", "1s")
    handle = world.submit("steps", id="long", timeout="10m")
    wait_until(lambda: world.ledger("began"), 30, "the body")
    assert executor.terminate() == 0
    assert world.end("long").status == "lease_lost"
    with pytest.raises(stepstream.TaskFailed):
        result(handle)


def test_an_executor_that_is_not_ready_gets_nothing(world: World) -> None:
    flag = world.folder / "not-ready"
    flag.touch()
    world.executor()
    handle = world.submit("echo", 1)
    assert handle.status().state in ("submitted", "waiting")
    flag.unlink()
    assert result(handle) == 1
    assert world.scheduler.of(ReadyStruct)
    flag.touch()
    reason = wait_until(lambda: world.scheduler.of(NotReadyStruct), 30, "not_ready")[-1].reason
    assert reason == "is_ready returned False"


def test_no_kafka_is_an_error_of_the_caller(tmp_path: Path) -> None:
    nowhere = Settings(kafka_brokers="127.0.0.1:1", topic_prefix="none")
    original = ways.DELIVER_S
    ways.DELIVER_S = 1.0  # type: ignore[misc]
    try:
        with pytest.raises(stepstream.TaskNotSent, match=r"127\.0\.0\.1:1"):
            stepstream.submit("echo", settings=nowhere)
    finally:
        ways.DELIVER_S = original  # type: ignore[misc]


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    """A file of credentials, and the token in it that may act for the project shop."""
    entry, secret = new_credential("caller", ["act"], ["shop"])
    file = tmp_path / "keys"
    save(file, Credentials([entry]))
    return file, token_of("caller", secret)


def test_tasks_over_http(world: World, key: tuple[Path, str]) -> None:
    world.executor()
    secured = world.settings.model_copy(
        update={"gateway_port": 0, "gateway_grpc_port": -1, "credentials_file": str(key[0])}
    )
    headers = {**JSON, "x-api-key": key[1]}
    with running(secured, with_topics=False) as gateway:

        def send(body: Any, path: str = "/v1/tasks", method: str = "POST", **more: str) -> Answer:
            return post(gateway, path, body, {**headers, **more}, method)

        given = {"agent": "echo", "input": {"order": 7}}
        sent = send(given, **{"Idempotency-Key": "order/7"})
        assert (sent.status, sent.json) == (202, {"task_id": "order/7", "project": "shop"})
        path = "/v1/tasks/order%2F7"
        state = send(b"", f"{path}?wait=60", "GET").json
        assert (state["state"], state["result"]) == ("ok", {"order": 7})
        events = send(b"", f"{path}/events", "GET").body.decode()
        assert events.startswith("id: 1-")
        assert "event: result\n" in events

        # The same id with another input is refused by the scheduler.
        world.scheduler.refuses.add("order/7")
        assert send({**given, "input": 8}, **{"Idempotency-Key": "order/7"}).status == 409
        # And by Kafka the handle of that submit reports it.
        refused = world.submit("echo", 8, id="order/7")
        with pytest.raises(stepstream.TaskFailed, match="another input"):
            result(refused)
        assert stepstream.task("order/7", settings=world.settings).status().state == "ok"

        for body, status in (
            ({}, 400),
            ({"agent": "echo", "delay": "-5s"}, 400),
            ({"agent": "echo", "inputs": 1}, 400),
            ({"agent": "echo", "input": "x" * 300_000}, 400),
            ({"agent": "echo", "project": "billing"}, 403),
            (b"[", 400),
        ):
            answer = send(body)
            assert answer.status == status, answer.body
        assert post(gateway, "/v1/tasks", given).status == 403  # loopback may not act
        assert send(given, **{"Content-Type": "text/plain"}).status == 415
        assert send(b"", "/v1/tasks/none", "GET").status == 404
        assert send(b"", "/v1/tasks/none?wait=x", "GET").status == 400

        # The SDK's own way over a gateway.
        by_http = world.settings.model_copy(
            update={"endpoint": gateway.server.url, "endpoint_key": SecretStr(key[1])}
        )
        handle = stepstream.submit("waits", id="by-http", settings=by_http)
        wait_until(lambda: handle.status().state == "running", 30, "it runs")
        handle.cancel("enough")
        with pytest.raises(stepstream.TaskCancelled):
            result(handle)
        assert result(stepstream.submit("echo", [1], settings=by_http)) == [1]


def test_the_command_line_submits_waits_and_cancels(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPSTREAM_SETTINGS", "/dev/null")
    place = ["--kafka-brokers", world.settings.kafka_brokers, "--project", "shop"]
    place += ["--topic-prefix", world.settings.topic_prefix]
    world.executor()
    wait = ["--wait", f"{30 * PATIENCE}s"]
    assert cli(["submit", "echo", "--input", '{"order": 7}', *wait, *place]) == 0
    assert json.loads(capsys.readouterr().out) == {"order": 7}
    assert cli(["submit", "fails", *wait, *place]) == 1
    assert "the payment service does not answer" in capsys.readouterr().err
    assert cli(["submit", "echo", "--input", "order", *place]) == 2
    assert "--input is not JSON" in capsys.readouterr().err
    assert cli(["submit", "echo", "--delay=-5s", *place]) == 2
    assert "it cannot be negative" in capsys.readouterr().err

    assert cli(["submit", "waits", "--id", "by-hand", *place]) == 0
    assert capsys.readouterr().out.strip() == "by-hand"
    wait_until(lambda: world.ledger("began"), 30, "the body")
    assert cli(["cancel", "by-hand", "--reason", "enough", *place]) == 0
    handle = stepstream.task("by-hand", settings=world.settings)
    with pytest.raises(stepstream.TaskCancelled):
        result(handle)
    assert cli(["retry", "by-hand", *place]) == 0
    wait_until(lambda: len(world.ledger("began")) == 2, 30, "the second attempt")

    executor_id = world.scheduler.of(HelloStruct)[-1].executor_id
    assert cli(["drain", executor_id, "--deadline", "1s", *place]) == 0
    assert world.started[-1].wait() == 0
