"""The SDK over a real gateway: events, outages and commands as over Kafka."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import stepstream
from stepstream.admin.documents import apply, read_documents
from stepstream.admin.topics import create_topics
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.producers.exceptions import RunStopped
from stepstream.producers.guardrails.switch import guarding
from stepstream.producers.tracer import Tracer
from stepstream.schemas.settings import Settings
from tests.support.gate import Gate, certificate_in
from tests.support.gateway import running, stored_steps
from tests.support.processes import Process, wait_until
from tests.support.receiver import serving
from tests.support.sdk import logged


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Settings:
    return Settings(
        kafka_brokers=kafka_bootstrap,
        topic_prefix=topic_prefix,
        state_dir=str(tmp_path / "gateway"),
        partitions=3,
    )


def agent(url: str, tmp_path: Path, **changes: Any) -> Tracer:
    values = {
        "endpoint": url,
        "project": "shop",
        "agent": "support",
        "quiet": True,
        "state_dir": str(tmp_path),
        **changes,
    }
    return Tracer(Settings(**values))


def test_events_arrive_over_http(settings: Settings, tmp_path: Path) -> None:
    """All of them, once, as over Kafka; ``flush`` returns when Kafka has them."""
    with running(settings) as gateway:
        tracer = agent(gateway.server.url, tmp_path)
        for number in range(300):
            # A character of two bytes: lengths in characters and bytes differ.
            with tracer.run(f"run{number}") as run, run.tool("find", input="é" * 100):
                pass
        assert tracer.flush(60)
        counts = tracer.counts
        assert (counts.delivered, counts.dropped, counts.failed) == (1_200, 0, 0)
        steps = stored_steps(settings)
        ids = {(step.step_id, step.phase) for step in steps}
        assert len(ids) == 1_200
        assert {step.project for step in steps} == {"shop"}
        assert tracer.close(30)


def test_a_gateway_that_is_away_for_a_while(settings: Settings, tmp_path: Path) -> None:
    """The events of the outage are in the spool and arrive, in order, when it is back."""
    with running(settings) as gateway:
        port = gateway.server.port
        tracer = agent(gateway.server.url, tmp_path)
        with tracer.tool("before"):
            pass
        assert tracer.flush(60)
    with logged():
        with tracer.run("outage") as run:
            for number in range(100):
                with run.tool(f"tool{number}"):
                    pass
        wait_until(lambda: tracer.counts.spooled == 202, 30, "the events are in the spool")
        with running(settings.model_copy(update={"gateway_port": port}), with_topics=False):
            assert tracer.flush(120)
            ended = [step for step in stored_steps(settings) if step.phase == "end"]
    assert tracer.close(30)
    # The step before the outage is a run of its own, so it may be on another partition.
    names = [step.name for step in ended if step.trace_id == run.trace_id]
    assert names == [*(f"tool{number}" for number in range(100)), "outage"]
    assert [step.name for step in ended if step.trace_id != run.trace_id] == ["before"]


def test_an_agent_that_ends_without_a_gateway(settings: Settings, tmp_path: Path) -> None:
    """Its events are sent by ``spool drain`` over HTTP, and the summary counts them."""
    code = """
import stepstream
with stepstream.run("early") as run, run.tool("find"):
    pass
"""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")},
        "STEPSTREAM_STATE_DIR": str(tmp_path),
        "PYTHONPATH": os.getcwd(),
    }

    def program(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env=environment | {"STEPSTREAM_ENDPOINT": url},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    done = program("-c", code, url="http://127.0.0.1:9")
    assert done.returncode == 0
    assert "4 events kept on disk" in done.stderr
    with running(settings) as gateway:
        drained = program("-m", "stepstream", "spool", "drain", "--all", url=gateway.server.url)
        assert drained.returncode == 0, drained.stderr
        assert "4 events sent" in drained.stdout
        assert len(stored_steps(settings)) == 4


def test_commands_reach_a_run_over_http(settings: Settings, tmp_path: Path) -> None:
    """Sent by the command line and from Python, received by the gateway's stream."""
    entry, secret = new_credential("boss", ["ingest", "act"], ["shop"])
    file = tmp_path / "credentials.json"
    save(file, Credentials([entry]))
    received: list[str] = []

    def work_until_stopped(url: str, tracer: Tracer) -> None:
        key = token_of("boss", secret)
        sender = Settings(endpoint=url, endpoint_key=SecretStr(key))
        with tracer.run("run", on_command=lambda one: received.append(one.action)) as run:
            # Until the gateway has received a step of the run, a key may not command it.
            with pytest.raises(stepstream.CommandNotSent, match="no run of this key's projects"):
                stepstream.send_command("0" * 32, "stop", settings=sender)
            assert tracer.flush(60)
            sent = stepstream.send_command(
                run.trace_id, "resume", budget_usd="1.00", settings=sender
            )
            assert (sent.action, sent.trace_id) == ("resume", run.trace_id)
            done = subprocess.run(
                [sys.executable, "-m", "stepstream", "stop", run.trace_id, "--reason", "enough"],
                env={"STEPSTREAM_ENDPOINT": url, "STEPSTREAM_ENDPOINT_KEY": key,
                     "STEPSTREAM_STATE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert f"sent stop to run {run.trace_id[:8]} by {url}" in done.stdout
            until = time.monotonic() + 60
            while time.monotonic() < until:
                with run.tool("more"):
                    time.sleep(0.01)

    # On every address, so that keys are asked for.
    guarded = settings.model_copy(update={"credentials_file": str(file), "gateway_host": "0.0.0.0"})
    with running(guarded) as gateway:
        url = f"http://127.0.0.1:{gateway.server.port}"
        tracer = agent(url, tmp_path, endpoint_key=token_of("boss", secret))
        with pytest.raises(RunStopped, match="enough"):
            work_until_stopped(url, tracer)
        wait_until(lambda: len(received) == 2, 30, "both commands are received")
        assert tracer.close(60)
        controls = {step.name for step in stored_steps(settings) if step.kind == "control"}
    assert set(received) == {"resume", "stop"}
    assert controls


def test_guardrails_reach_an_agent_through_a_gateway(settings: Settings, tmp_path: Path) -> None:
    """On the stream of commands, those that exist and every change."""
    create_topics(settings)
    file = tmp_path / "guarded.yaml"
    text = (
        "kind: Policy\nname: guarded\nmode: enforce\n"
        "guardrails: [{name: never, check: forbidden, tools: [TOOL]}]\n"
    )
    file.write_text(text.replace("TOOL", "delete"))
    apply(settings, read_documents(file))

    def is_refused(run: Any, tool: str) -> bool:
        try:
            with run.tool(tool):
                return False
        except stepstream.StepRefused:
            return True

    with running(settings) as gateway:
        url = f"http://127.0.0.1:{gateway.server.port}"
        tracer = agent(url, tmp_path, guardrail_wait="60s")
        with tracer.run() as run:
            assert is_refused(run, "delete")
            assert not is_refused(run, "drop")
            file.write_text(text.replace("TOOL", "drop"))
            apply(settings, read_documents(file))
            wait_until(lambda: is_refused(run, "drop"), 30, "the change")
            assert not is_refused(run, "delete")
        assert tracer.guardrails().policies == ("guarded@2",)
        assert tracer.close(60)
    guarding.is_on = False


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_process_is_paused_approved_and_stopped_over_https(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole agent that knows the gateway's https address alone, and the command line too."""
    certificate, tls = certificate_in(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    entry, secret = new_credential("boss", ["ingest", "act"], ["shop"])
    file = tmp_path / "credentials.json"
    save(file, Credentials([entry]))
    monkeypatch.setenv("STEPSTREAM_ENDPOINT_KEY", token_of("boss", secret))
    guarded = settings.model_copy(update={"credentials_file": str(file)})
    log = tmp_path / "agent.log"

    def printed(word: str) -> list[list[str]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split()[1:] for line in lines if line.startswith(f"{word} ")]

    def stands_still() -> int:
        """The number of steps, if none is added in the time of ten."""
        before = len(printed("step"))
        time.sleep(0.5)
        return before if len(printed("step")) == before else 0

    def controls() -> list[tuple[str, str]]:
        steps = stored_steps(settings)
        return [(step.name, step.phase) for step in steps if step.kind == "control"]

    with running(guarded) as gateway, Gate(gateway.server.url, tls) as gate:
        process = Process(
            "tests.integration.control_agent",
            Settings(endpoint=gate.url, agent="patient", project="shop", state_dir=str(tmp_path)),
            log,
            "0.01",
            "4000",
        )

        def command(*words: str) -> None:
            named = [] if "--agent" in words else [trace_id]
            done = subprocess.run(
                [sys.executable, "-m", "stepstream", *words, *named, "--by", "ada"],
                env={**os.environ, "STEPSTREAM_ENDPOINT": gate.url,
                     "STEPSTREAM_STATE_DIR": str(tmp_path), "PYTHONPATH": os.getcwd()},
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr

        try:
            ((trace_id,),) = wait_until(lambda: printed("run"), 60, "a run")
            wait_until(lambda: stored_steps(settings), 60, "the gateway has a step of the run")
            command("pause", "--reason", "check first")
            wait_until(lambda: ("pause", "start") in controls(), 60, "the run has paused")
            # The step that ran when the pause arrived may still end.
            paused_at = wait_until(stands_still, 60, "no further steps")
            command("approve", "--budget", "5")
            wait_until(lambda: len(printed("step")) > paused_at + 2, 60, "steps after the approval")
            command("stop", "--agent", "patient", "--project", "shop", "--yes")
            assert process.wait(60) == 3
        finally:
            process.kill()
        assert printed("stopped")[0][1] == "ada"
        ended = [name for name, phase in controls() if phase == "end"]
    assert ended == ["pause", "approve $5", "stop"]


def test_the_key(settings: Settings, tmp_path: Path) -> None:
    """With a wrong key events are kept, the reason is logged; with the right one they arrive."""
    entry, secret = new_credential("shop", ["ingest"], ["shop"])
    file = tmp_path / "credentials.json"
    save(file, Credentials([entry]))
    # Not on loopback, where no key is asked for.
    guarded = settings.model_copy(update={"credentials_file": str(file), "gateway_host": "0.0.0.0"})
    with running(guarded) as gateway:
        url = f"http://127.0.0.1:{gateway.server.port}"
        with logged() as messages:
            wrong = agent(url, tmp_path, endpoint_key="stepstream_shop.wrong", control=False)
            with wrong.tool("kept"):
                pass
            assert not wrong.flush(1)
            wait_until(lambda: wrong.counts.spooled == 2, 30, "the events are in the spool")
            wrong.close(0.1)
        texts = [message.getMessage() for message in messages]
        assert any("refuses events: HTTP 401" in text for text in texts), texts
        right = agent(url, tmp_path, endpoint_key=token_of("shop", secret), control=False)
        with right.tool("sent"):
            pass
        wait_until(lambda: len(stored_steps(guarded)) == 4, 60, "all events are sent")
        assert right.close(30)


class StandIn:
    """Refuses with the statuses that it was given, then accepts all but events named ``bad``."""

    def __init__(self, *refusals: tuple[int, dict[str, str]]) -> None:
        self._refusals = [*refusals]
        self.accepted: list[dict[str, Any]] = []
        self.url = ""
        self.page = b"{}"

    async def respond(self, request: Request) -> Response:
        """Answer a request as ``/v1/steps`` does."""
        events = [json.loads(line) for line in (await request.body()).splitlines()]
        if self._refusals:
            status, headers = self._refusals.pop(0)
            return Response(self.page, status, headers)
        good = [event for event in events if event["name"] != "bad"]
        self.accepted += good
        answer = {"accepted": len(good), "rejected": len(events) - len(good), "error": "bad"}
        return Response(json.dumps(answer), 200 if good else 400)


@contextmanager
def answering(*refusals: tuple[int, dict[str, str]]) -> Iterator[StandIn]:
    """A stand-in for a gateway that first refuses."""
    stand_in = StandIn(*refusals)
    app = Starlette(routes=[Route("/v1/steps", stand_in.respond, methods=["POST"])])
    with serving(app) as stand_in.url:
        yield stand_in


def test_refused_requests_are_repeated(tmp_path: Path) -> None:
    """After the time that the answer gives, or soon."""
    refusals: list[tuple[int, dict[str, str]]] = [(429, {"Retry-After": "1"}), (503, {}), (502, {})]
    with answering(*refusals) as stand_in, logged():
        tracer = agent(stand_in.url, tmp_path, control=False)
        with tracer.tool("find"):
            pass
        assert tracer.flush(60)
        assert tracer.counts.delivered == 2
        assert [event["name"] for event in stand_in.accepted] == ["find"] * 2
        assert tracer.close(10)


@pytest.mark.parametrize("page", [b"<html>Sign in</html>", b"{}", b""])
def test_a_page_is_no_acknowledgement(tmp_path: Path, page: bytes) -> None:
    """A proxy that answers 200 does not have the events: they are sent until the gateway does."""
    with answering((200, {})) as stand_in, logged() as messages:
        stand_in.page = page
        tracer = agent(stand_in.url, tmp_path, control=False)
        with tracer.tool("find"):
            pass
        assert tracer.flush(60)
        assert tracer.counts.delivered == 2
        assert [event["name"] for event in stand_in.accepted] == ["find"] * 2
        assert tracer.close(10)
        assert any("does not answer as a gateway" in one.getMessage() for one in messages)


def test_a_refused_event_costs_itself(tmp_path: Path) -> None:
    """Those in the same request arrive, and it is counted as failed."""
    with answering((503, {"Retry-After": "1"})) as stand_in, logged():
        tracer = agent(stand_in.url, tmp_path, control=False)
        for name in ["good", "bad", "good", "good"]:
            with tracer.tool(name):
                pass
        assert tracer.flush(60)
        assert (tracer.counts.delivered, tracer.counts.failed) == (6, 2)
        assert {event["name"] for event in stand_in.accepted} == {"good"}
        assert tracer.close(10)
