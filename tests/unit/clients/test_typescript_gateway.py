"""The TypeScript SDK in Node against the gateway's own application, without Kafka."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.common.web.app import create
from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.common.web.headers import Hosts
from stepstream.common.web.key_file import KeyFile
from stepstream.producers.gateway.service.callers import GatewayAccess
from stepstream.producers.gateway.service.control import Asked, ControlEndpoints, ControlHub
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.alert import Command, CommandStruct
from stepstream.schemas.settings import Settings
from tests.support.gateway_app import HOST, App
from tests.support.node import CLIENT, needs_node, run_node
from tests.support.processes import wait_until
from tests.support.receiver import serving

SECRET: Final = "sk-proj-" + "Ab1" * 16


@dataclass(frozen=True)
class Running:
    """The address of a gateway, and the records that it would have sent to Kafka."""

    url: str
    app: App

    def steps(self) -> list[Any]:
        """What the worker makes of the records; each must be accepted without a repair."""
        found = []
        for key, value in self.app.writer.records:
            verdict = accept_value(value, timestamp_us=time.time_ns() // 1_000)
            assert isinstance(verdict, Accepted), verdict
            assert verdict.clamped == ()
            assert key == verdict.step.trace_id.encode()
            found.append(verdict.step)
        return found


@contextmanager
def gateway(key_file: str = "") -> Iterator[Running]:
    """Steps and commands by their real endpoints; a command goes straight to the open streams."""
    app = App()
    hub = ControlHub(Settings(kafka_brokers="127.0.0.1:1"))

    def send(asked: Asked) -> Command:
        wait_until(lambda: hub.open > 0, 60, "the agent's stream")
        command = CommandStruct(
            command_id=str(uuid.uuid4()),
            action=asked.action,
            time=time.time_ns() // 1_000,
            project=asked.project,
            trace_id=asked.trace_id,
            reason=asked.reason,
            by=asked.by,
            budget_usd=asked.budget_usd,
        )
        hub.deliver(command)
        return command

    control = ControlEndpoints(hub, app.seen, send, project="shop", stopping=lambda: False)
    hosts = Hosts(HOST)
    routes = control.routes()
    whole = create(
        [*app.routes, *routes],
        hosts=hosts,
        access=GatewayAccess(KeyFile(key_file), hosts),
        observed=app.observer,
    )
    try:
        with serving(whole) as url:
            yield Running(url, app)
    finally:
        hub.close()


def program(at: Running, code: str, key: str = "") -> list[str]:
    """The lines that a program in Node prints, which has the SDK as ``sdk``."""
    head = f"import * as sdk from {json.dumps((CLIENT / 'src/index.ts').as_uri())};\n"
    arguments = ("--input-type=module-typescript", "--eval", head + code)
    variables = {"STEPSTREAM_ENDPOINT": at.url, "STEPSTREAM_PROJECT": "shop"}
    variables["STEPSTREAM_ENDPOINT_KEY"] = key
    return run_node(*arguments, variables=variables).splitlines()


@needs_node
def test_the_example_is_accepted_without_repairs() -> None:
    with gateway() as at:
        variables = {"STEPSTREAM_ENDPOINT": at.url, "STEPSTREAM_PROJECT": "shop"}
        printed = run_node("examples/agent.ts", variables=variables)
        steps = {step.name: step for step in at.steps() if step.phase == "end"}
    run, plan = steps["support"], steps["plan"]
    assert printed == f"run {run.trace_id}\n"
    assert len(steps) == 5
    assert (run.kind, run.agent, run.task, run.project) == (
        "agent",
        "support",
        "order_status",
        "shop",
    )
    assert (run.input, run.output) == ("Where is order 7?", "It is on its way.")
    assert (plan.model, plan.usage.input_tokens) == ("gpt-4o", 17)
    assert steps["look_up"].output == '{"state":"shipped","days":2}'
    assert [one.id for one in steps["policies"].documents] == ["p-3"]
    assert {step.parent_step_id for step in steps.values()} == {"", run.step_id}


@needs_node
def test_planted_secrets_do_not_leave_the_process() -> None:
    code = f"""
const secret = {json.dumps(SECRET)};
await sdk.run("private", {{ input: secret, attributes: {{ key: secret }} }}, async () => {{
  await sdk.retrieval("find", (step) => void step.setDocuments([{{ content: secret }}]));
  await sdk.tool("pay", {{ input: {{ headers: {{ "x-api-key": secret }} }} }}, () => {{
    throw new Error(`refused: ${{secret}}`);
  }}).catch(() => 1);
  return {{ nested: JSON.stringify({{ password: secret }}) }};
}});
"""
    with gateway() as at:
        assert program(at, code) == []
        sent = b"\n".join(value for _, value in at.app.writer.records)
        assert len(at.steps()) == 6
    assert SECRET.encode() not in sent
    assert sent.count(b"[redacted]") >= 6


@needs_node
@pytest.mark.timeout(115)
def test_stop_pause_and_approve_by_the_real_endpoints(tmp_path: Path) -> None:
    """A second client sends the commands; the agent acknowledges each by a control step."""
    code = """
const operator = new sdk.Client();
const seen = [];
try {
  await sdk.run("long", { onCommand: (one) => { seen.push(one.action); } }, async (run) => {
    const has = async (count) => {
      while (seen.length < count) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await sdk.flush();
    await operator.sendCommand(run.traceId, { action: "pause", reason: "too expensive" });
    await has(1);
    const work = sdk.tool("pay", () => 1);
    await operator.sendCommand(run.traceId, { action: "resume", budgetUsd: "5", by: "bob" });
    await work;
    await operator.sendCommand(run.traceId, { action: "stop", reason: "enough", by: "ann" });
    await has(3);
    await sdk.tool("never", () => console.log("it went on"));
  });
} catch (error) {
  if (!(error instanceof sdk.RunStopped)) throw error;
  console.log(error.by, error.reason);
}
await sdk.sendCommand("0".repeat(32), { action: "stop" }).catch((e) => console.log(e.message));
await sdk.shutdown();
"""
    entry, secret = new_credential("boss", ["ingest", "act"], ["shop"])
    file = tmp_path / "credentials.json"
    save(file, Credentials([entry]))
    with gateway(str(file)) as at:
        first, second = program(at, code, token_of("boss", secret))
        controls = {s.name: s for s in at.steps() if s.kind == "control" and s.phase == "end"}
    assert first == "ann enough"
    assert second.startswith("HTTP 404")
    assert set(controls) == {"pause", "approve $5", "stop"}
    assert {step.status for step in controls.values()} == {"ok"}
    assert controls["stop"].attributes["reason"] == "enough"
