"""The loop closes:

a policy, or a person, stops a running agent over real Kafka, a real worker and the real SDK.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stepstream.admin.commands import (
    AcknowledgementReader,
    Target,
    send_records,
    send_to_run,
    send_to_scope,
)
from stepstream.admin.documents import apply, read_documents, withdraw
from stepstream.cli.app import run as cli
from stepstream.common.kafka import read_to_end
from stepstream.producers.exceptions import StepRefused
from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.tracer import Tracer
from stepstream.schemas.control import control_step_id
from stepstream.schemas.schedule import Schedule
from tests.support.paths import ROOT
from tests.support.processes import Process, wait_until
from tests.support.worker_world import World, trace


@pytest.fixture(scope="module")
def world(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(kafka_bootstrap, tmp_path_factory.mktemp("control"))
    made.start()
    made.put_in_force(
        {
            "kind": "Policy",
            "name": "strict",
            "match": {"agent": "spender*"},
            "mode": "enforce",
            "rules": [
                {"alert": "too-expensive", "rule": "run_cost", "limit_usd": 0.5, "action": "stop"}
            ],
        }
    )
    yield made
    made.collected.close()
    made.process.kill()


class Agent:
    """A process of the SDK's."""

    def __init__(self, world: World, name: str, price: str, steps: int = 400) -> None:
        settings = world.settings.model_copy(update={"agent": name, "project": "shop"})
        self.log = world.folder / f"{name}.log"
        self.process = Process(
            "tests.integration.control_agent", settings, self.log, price, str(steps)
        )
        wait_until(lambda: bool(self.printed("run")), 20, "a run")
        self.trace_id = self.printed("run")[0][0]

    def printed(self, word: str) -> list[list[str]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(f"{word} ")]


def standstill(agent: Agent) -> int:
    """The step that a paused run stands at: ten of its steps' times without a step."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        before = len(agent.printed("step"))
        time.sleep(0.5)
        if len(agent.printed("step")) == before and agent.process.running:
            return before
    raise AssertionError("it goes on while it is paused")


@pytest.fixture
def start(world: World) -> Iterator[Start]:
    """Starts agents, and ends those that a failed test leaves behind."""
    started: list[Agent] = []

    def begin(name: str, price: str, steps: int = 400) -> Agent:
        started.append(Agent(world, name, price, steps))
        return started[-1]

    yield begin
    for agent in started:
        agent.process.kill()


def root_of(world: World, trace_id: str) -> str:
    """The root step of a run that is going on, from its own events."""

    def root() -> str:
        for message in read_to_end(world.settings, f"{world.settings.topic_prefix}.steps"):
            step = msgspec.json.decode(message.value() or b"{}")
            if step["trace_id"] == trace_id and not step.get("parent_step_id"):
                return str(step["step_id"])
        return ""

    return wait_until(root, 30, "the run's root")


Start = Callable[..., Agent]


def records(world: World, name: str, trace_id: str) -> list[dict[str, Any]]:
    world.collected.read(0.05)
    return [
        record.value
        for record in world.collected.records[name]
        if record.value.get("trace_id") == trace_id
    ]


def test_a_policy_stops_a_running_agent(world: World, start: Start) -> None:
    """After the step that was too expensive; the sender and the reason are recorded as a step of
    the run.
    """
    agent = start("spender", "0.02")
    assert agent.process.wait(30) == 3
    (stopped,) = agent.printed("stopped")
    assert stopped[1] == "policy:strict"
    # Steps cost $0.02 and the limit is 0.50: the 26th is the first above it.
    assert "too-expensive: cost $0.52" in " ".join(stopped)
    too_expensive = next(float(at) for number, at in agent.printed("step") if int(number) == 26)
    assert float(stopped[0]) >= too_expensive, agent.log.read_text()[-2_000:]
    final = world.final(agent.trace_id)
    assert (final["status"], final["steps"]) == ("stopped", len(agent.printed("step")) + 2)
    (command,) = {c["command_id"]: c for c in records(world, "control", agent.trace_id)}.values()
    path = {
        step["step_id"]: (step["kind"], step["name"], step.get("status", "ok"))
        for step in final["path"]
    }
    assert path[control_step_id(agent.trace_id, command["command_id"])] == ("control", "stop", "ok")


def test_a_worker_that_dies_in_between_loses_no_command(world: World, start: Start) -> None:
    """Killed while agents overspend:

    the next worker gives the same order, under the same id, and each agent stops.
    """
    agents = [start(f"spender-{n}", "0.1", 600) for n in range(3)]
    world.process.kill()
    time.sleep(0.5)
    world.start()
    for agent in agents:
        assert agent.process.wait(40) == 3, world.process.tail()
        assert {c["action"] for c in records(world, "control", agent.trace_id)} == {"stop"}
        assert len({c["command_id"] for c in records(world, "control", agent.trace_id)}) == 1


def test_people_pause_approve_and_stop(world: World, start: Start) -> None:
    """A paused run waits, goes on after an approval, and stops on a stop; its steps record that."""
    agent = start("patient", "0.01", 2_000)
    wait_until(lambda: len(agent.printed("step")) > 2, 20, "steps")
    target = Target(agent.trace_id, root_of(world, agent.trace_id), "shop", "", "patient")
    watch = AcknowledgementReader(world.settings, agent.trace_id)
    pause = send_to_run(
        world.settings,
        target,
        "pause",
        by="ada",
        reason="check first",
        now_us=time.time_ns() // 1_000,
    )
    paused = watch.wait(pause, 10)
    assert paused is not None
    assert (paused["name"], paused["phase"]) == ("pause", "start")
    # The step that ran when the pause arrived may still end.
    paused_at = standstill(agent)
    approval = send_to_run(
        world.settings, target, "resume", by="bob", budget_usd="5", now_us=time.time_ns() // 1_000
    )
    answer = watch.wait(approval, 10)
    assert answer is not None
    assert (answer["name"], answer["attributes"]["by"]) == ("approve $5", "bob")
    wait_until(lambda: len(agent.printed("step")) > paused_at + 2, 10, "steps after the approval")
    stop = send_to_run(
        world.settings, target, "stop", by="ada", reason="enough", now_us=time.time_ns() // 1_000
    )
    assert watch.wait(stop, 10) is not None
    watch.close()
    assert agent.process.wait(10) == 3
    assert agent.printed("stopped")[0][1:] == ["ada", "enough"]
    final = world.final(agent.trace_id)
    recorded = [
        (step["name"], step.get("status", "ok"))
        for step in final["path"]
        if step["kind"] == "control"
    ]
    assert (final["status"], recorded) == (
        "stopped",
        [("pause", "ok"), ("approve $5", "ok"), ("stop", "ok")],
    )


def test_an_order_to_an_agent_binds_a_process_that_starts_afterwards(
    world: World, start: Start
) -> None:
    """It reads what was ordered before it began, and other agents are left alone."""
    send_to_scope(
        world.settings,
        "stop",
        project="shop",
        agent="late",
        by="ada",
        reason="broken",
        now_us=time.time_ns() // 1_000,
        lasts_us=60_000_000,
    )
    late, other = start("late", "0.001"), start("other", "0.001", 30)
    assert late.process.wait(20) == 3
    assert late.printed("stopped")[0][1:] == ["ada", "broken"]
    assert other.process.wait(20) == 0


def test_the_command_line_sends_commands_and_waits(
    world: World, start: Start, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``stepstream stop ID`` prints the acknowledgement; a whole agent needs an answer or
    ``--yes``.
    """
    monkeypatch.setenv("STEPSTREAM_TOPIC_PREFIX", world.settings.topic_prefix)
    monkeypatch.setenv("STEPSTREAM_KAFKA_BROKERS", world.settings.kafka_brokers)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(world.folder / "no state"))
    agent = start("typed", "0.001", 2_000)
    assert cli(["stop", agent.trace_id, "--reason", "seen enough", "--by", "ada"]) == 0
    assert "acknowledged after" in capsys.readouterr().out
    assert agent.process.wait(10) == 3
    # A command to all runs of an agent is valid for ten minutes at most.
    assert cli(["stop", "--agent", "typed", "--project", "shop", "--for", "2h", "--yes"]) == 2
    assert "10 m" in capsys.readouterr().err
    assert cli(["stop"]) == 2
    assert cli(["approve", agent.trace_id]) == 2
    assert cli(["resume", "--agent", "typed", "--project", "shop", "--yes"]) == 0


def test_people_acknowledge_silence_and_resolve(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Acknowledgements and notes go through the log, and comes back as the alert's next record."""
    monkeypatch.setenv("STEPSTREAM_TOPIC_PREFIX", world.settings.topic_prefix)
    monkeypatch.setenv("STEPSTREAM_KAFKA_BROKERS", world.settings.kafka_brokers)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(world.folder / "no state"))
    found = {
        "finding_id": "a finding",
        "time": time.time_ns() // 1_000,
        "project": "shop",
        "alert": "silent",
        "rule": "silence",
    }
    send_records(world.settings, [("findings", b"shop", msgspec.json.encode(found), [])])
    opened = world.wait_for("alerts", lambda value: value["alert"] == "silent")
    prefix = opened["alert_id"][:13]
    commands = (
        (("ack",), "acknowledged"),
        (("silence", "--for", "2h"), r"silenced until [-0-9]+ [:0-9]+"),
        (("resolve",), "resolved"),
    )
    for words, expected in commands:
        assert cli(["alerts", words[0], prefix, *words[1:], "--by", "ada"]) == 0, (
            capsys.readouterr().err
        )
        assert re.search(f"{expected} by ada", capsys.readouterr().out)
    last = world.wait_for("alerts", lambda value: value["alert"] == "silent" and value["seq"] == 4)
    assert (last["state"], last["acknowledged_by"], last["change"], last["by"]) == (
        "resolved",
        "ada",
        "resolved",
        "ada",
    )
    assert last["silenced_until"] > opened["opened_at"]
    assert cli(["alerts", "ack", prefix]) == 1
    assert "is resolved already" in capsys.readouterr().err
    # A mark is for alerts of any age, resolved ones too.
    assert cli(["alerts", "mark", prefix, "false", "--note", "a holiday", "--by", "ada"]) == 0
    assert "marked false by ada" in capsys.readouterr().out
    mark = world.wait_for("findings", lambda value: value.get("state") == "marked")
    assert (mark["alert_id"], mark["value"], mark["message"], mark["severity"]) == (
        opened["alert_id"],
        0.0,
        "a holiday",
        "note",
    )
    assert cli(["alerts", "mark", prefix, "flase"]) == 2
    assert "did you mean false?" in capsys.readouterr().err


def test_the_documented_contract_works_as_it_stands(world: World) -> None:
    """The example of ``docs/control.md`` for other languages gets the commands that it should, and
    no more.
    """
    text = (ROOT / "docs" / "control.md").read_text()
    code = text.rpartition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(code, "docs/control.md", "exec"), names)
    now = time.time_ns() // 1_000
    target = Target(trace(), project="docs", agent="bot")
    run = {
        "trace_id": target.trace_id,
        "project": "docs",
        "agent": "bot",
        "environment": "",
        "started_us": now,
    }
    sent = [
        send_to_run(world.settings, target, "pause", by="ada", now_us=now),
        send_to_scope(
            world.settings,
            "warn",
            project="docs",
            agent="other",
            by="ada",
            now_us=now,
            lasts_us=10**8,
        ),
        send_to_run(world.settings, target, "resume", by="ada", budget_usd="5", now_us=now + 2),
        send_to_run(world.settings, target, "stop", by="ada", now_us=now + 1),
        send_to_run(world.settings, Target(trace()), "stop", by="ada", now_us=now + 3),
        send_to_run(world.settings, target, "stop", by="ada", now_us=now + 4),
    ]
    heard = [
        c["command_id"]
        for c in names["commands"](
            world.settings.kafka_brokers, world.settings.topic_prefix, run, 2
        )
    ]
    assert heard == [sent[0].command_id, sent[2].command_id, sent[5].command_id]
    assert names["control_step_id"](target.trace_id, heard[0]) == control_step_id(
        target.trace_id, heard[0]
    )


def test_guardrails_reach_a_running_agent(world: World, tmp_path: Path) -> None:
    """Within seconds, without a restart; the decision is a step and a finding. An agent that starts
    later begins with those on disk, and a policy that is withdrawn refuses nothing any more."""
    settings = world.settings.model_copy(
        update={"agent": "guarded", "project": "shop", "quiet": True, "state_dir": str(tmp_path)}
    )
    file = guarded_by(tmp_path, "guarded", "name: no-deletes, check: forbidden, tools: [delete_*]")
    tracer, later = Tracer(settings), Tracer(settings)

    def is_refused(run: Any) -> bool:
        try:
            with run.tool("delete_order"):
                return False
        except StepRefused:
            return True

    with tracer.run() as run:
        assert not is_refused(run)
        apply(settings, read_documents(file))
        wait_until(lambda: is_refused(run), 30, "the guardrail is in force")
        wait_until(lambda: any(tmp_path.rglob("*.jsonl")), 30, "they are on disk")
        with later.run() as other:
            assert is_refused(other)
        found = wait_until(lambda: guardrail_findings(world, run.trace_id), 60, "a finding")
        assert found[0]["subject"] == "guarded/no-deletes"
        assert found[0]["quoted"] == "delete_order: the tool is forbidden"
        withdraw(settings, "policy/guarded")
        wait_until(lambda: not is_refused(run), 30, "the guardrail is withdrawn")
    assert tracer.close(30)
    assert later.close(30)
    guarding.is_on = False


def guardrail_findings(world: World, trace_id: str) -> list[dict[str, Any]]:
    return [one for one in records(world, "findings", trace_id) if one["rule"] == "guardrail"]


def guarded_by(folder: Path, agent: str, guardrail: str) -> Path:
    """A file with the policy of an agent that has this guardrail."""
    file = folder / f"{agent}.yaml"
    match = f"match: {{agent: {agent}}}"
    file.write_text(
        f"kind: Policy\nname: {agent}\nmode: enforce\n{match}\nguardrails: [{{{guardrail}}}]\n"
    )
    return file


def test_a_person_approves_a_suspended_call(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same command as for a paused run."""
    settings = world.settings.model_copy(
        update={
            "agent": "waiter",
            "project": "shop",
            "quiet": True,
            "state_dir": str(tmp_path),
            "guardrail_wait": 30_000_000,
        }
    )
    large = "name: person, check: approval, tools: [refund], when: args.usd > 100"
    apply(settings, read_documents(guarded_by(tmp_path, "waiter", large)))
    monkeypatch.setenv("STEPSTREAM_KAFKA_BROKERS", world.settings.kafka_brokers)
    monkeypatch.setenv("STEPSTREAM_TOPIC_PREFIX", world.settings.topic_prefix)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", str(tmp_path))
    tracer = Tracer(settings)
    made: list[float] = []
    started: list[str] = []

    @tracer.tool
    def refund(usd: float) -> None:
        made.append(usd)

    def work() -> None:
        with tracer.run() as run:
            started.append(run.trace_id)
            refund(20)
            refund(usd=150)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: bool(started), 60, "the run")

    def pauses() -> list[dict[str, Any]]:
        return [one for one in events_of(world, started[0]) if one["name"] == "pause"]

    wait_until(lambda: bool(pauses()), 60, "the call is suspended")
    assert made == [20]
    assert cli(["resume", started[0], "--reason", "it is right", "--by", "ada"]) == 0
    thread.join(60)
    assert made == [20, 150]
    assert tracer.close(30)
    assert [one.get("status", "ok") for one in pauses() if one.get("phase") != "start"] == ["ok"]
    guarding.is_on = False


def events_of(world: World, trace_id: str) -> list[dict[str, Any]]:
    """The events of a run so far."""
    name = f"{world.settings.topic_prefix}.steps"
    read = [msgspec.json.decode(one.value() or b"{}") for one in read_to_end(world.settings, name)]
    return [one for one in read if one.get("trace_id") == trace_id]


def test_the_tasks_of_a_schedule_are_requested(world: World) -> None:
    """The newest missed time, once; the scheduler of tasks takes it."""
    fields = {"name": "minutely", "agent": "report", "project": "shop", "cron": "* * * * *"}
    schedule = Schedule.model_validate({**fields, "input": {"a": 1}, "applied_us": 1})
    world._send("config", schedule.model_dump_json().encode(), b"schedule/minutely")

    def taken() -> list[dict[str, Any]]:
        name = f"{world.settings.topic_prefix}.taskstate"
        read = [msgspec.json.decode(one.value() or b"{}") for one in read_to_end(
            world.settings, name)]  # fmt: skip
        return [one for one in read if str(one.get("task_id", "")).startswith("minutely@")]

    found = wait_until(taken, 60, "a task of the schedule")
    assert found[0]["agent"] == "report"
    world._send("config", None, b"schedule/minutely")
