"""The TypeScript SDK from an agent in Node to SQL, through a real pipeline."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from stepstream.common.web.credentials import Credentials, new_credential, save, token_of
from stepstream.local import supervisor
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.support.node import CLIENT, NODE, needs_node
from tests.support.processes import wait_until

pytestmark = needs_node
SECRET: Final = "sk-proj-" + "Ab1" * 16
_HEAD: Final = f"import * as sdk from {json.dumps((CLIENT / 'src/index.ts').as_uri())};\n"


@pytest.fixture(scope="module")
def pipeline(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pipeline]:
    """A gateway, a worker and a sink of this module's own."""
    name = f"typescript_{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("typescript")
    operator, secret = new_credential("operator", ["act"], ["shop"])
    save(folder / "credentials.json", Credentials([operator]))
    (folder / "operator.key").write_text(token_of("operator", secret))
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(folder),
        credentials_file=str(folder / "credentials.json"),
        partitions=2,
        quiet=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        # A loaded machine may take longer to start everything than a user would wait.
        patch.setattr(supervisor, "READY_S", 300.0)
        with Pipeline(given) as started:
            yield started


class Program:
    """A program in Node that has the SDK as ``sdk``; each line that it prints is kept."""

    def __init__(self, pipeline: Pipeline, *arguments: str, key: str = "") -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")
        }
        self._process = subprocess.Popen(
            [*NODE, *arguments],
            cwd=CLIENT,
            env={
                **environment,
                "STEPSTREAM_ENDPOINT": pipeline.gateway_url,
                "STEPSTREAM_ENDPOINT_KEY": key,
                "STEPSTREAM_PROJECT": "shop",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @classmethod
    def of(cls, pipeline: Pipeline, code: str, key: str = "") -> Program:
        return cls(pipeline, "--input-type=module-typescript", "--eval", _HEAD + code, key=key)

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def rest(self) -> str:
        """What it prints until it ends; it must end well."""
        printed, _ = self._process.communicate(timeout=240)
        assert self._process.returncode == 0, printed
        return printed

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


def query(pipeline: Pipeline, sql: str) -> list[dict[str, Any]]:
    client = connect(pipeline.settings)
    try:
        return list(client.query(sql).named_results())
    finally:
        client.close()


def stored(pipeline: Pipeline, trace_id: str, done: Callable[[list[Any]], bool]) -> list[Any]:
    """The steps of a run in ClickHouse, by start, once they are as expected."""
    sql = f"SELECT * FROM steps WHERE trace_id = '{trace_id}' ORDER BY start_time, step_id"
    found: list[Any] = []

    def complete() -> bool:
        found[:] = query(pipeline, sql)
        return bool(found) and done(found)

    wait_until(complete, 120, "the run's steps", instead=lambda: [one["name"] for one in found])
    return found


def command(pipeline: Pipeline, trace_id: str, **fields: str) -> None:
    """Send a command with the SDK itself, as a program of an operator."""
    asked = json.dumps(fields)
    key = (Path(pipeline.settings.state_dir) / "operator.key").read_text()
    code = f'await sdk.sendCommand("{trace_id}", {asked}); console.log("sent");'
    assert Program.of(pipeline, code, key).rest() == "sent\n"


def test_the_example(pipeline: Pipeline) -> None:
    """Its run in SQL: steps, parents, usage and cost, and the closed run."""
    program = Program(pipeline, "examples/agent.ts")
    trace_id = program.line().removeprefix("run ")
    assert program.rest() == ""
    steps = stored(pipeline, trace_id, lambda found: len(found) == 5)
    by_name = {step["name"]: step for step in steps}
    run, plan = by_name["support"], by_name["plan"]
    assert (run["kind"], run["task"], run["status"]) == ("agent", "order_status", "ok")
    assert (run["input"], run["output"]) == ("Where is order 7?", "It is on its way.")
    assert (plan["kind"], plan["model"], plan["input_tokens"]) == ("llm_call", "gpt-4o", 17)
    assert plan["cost_usd"] > 0
    assert by_name["look_up"]["output"] == '{"state":"shipped","days":2}'
    assert [one["id"] for one in by_name["policies"]["documents"]] == ["p-3"]
    assert {step["parent_step_id"] for step in steps} == {"", run["step_id"]}
    runs = f"SELECT agent, steps, cost_usd FROM runs WHERE trace_id = '{trace_id}' AND closed"
    wait_until(lambda: bool(query(pipeline, runs)), 120, "the closed run")
    closed = query(pipeline, runs)[0]
    assert (closed["agent"], closed["steps"]) == ("support", 5)
    assert closed["cost_usd"] == plan["cost_usd"] + by_name["answer"]["cost_usd"]


def test_stop_pause_and_approve_reach_the_agent(pipeline: Pipeline) -> None:
    """It acknowledges each by its control steps, which SQL finds."""
    program = Program.of(
        pipeline,
        """
try {
  await sdk.run("long", { onCommand: (one) => console.log(one.action) }, async (run) => {
    console.log(run.traceId);
    for (;;) await sdk.tool("work", () => new Promise((resolve) => setTimeout(resolve, 20)));
  });
} catch (error) {
  if (!(error instanceof sdk.RunStopped)) throw error;
  console.log(error.by, error.reason);
}
""",
    )
    try:
        trace_id = program.line()
        stored(pipeline, trace_id, lambda found: len(found) > 2)
        command(pipeline, trace_id, action="pause", reason="too expensive", by="ann")
        # A step is stored once it ends, that of a pause with the resume.
        assert program.line() == "pause"
        command(pipeline, trace_id, action="resume", budgetUsd="5", by="bob")
        assert program.line() == "resume"
        command(pipeline, trace_id, action="stop", reason="enough", by="ann")
        assert program.rest().endswith("ann enough\n")
        ended = {"long", "stop"}
        steps = stored(pipeline, trace_id, lambda found: ended <= {one["name"] for one in found})
        controls = {step["name"]: step for step in steps if step["kind"] == "control"}
        assert set(controls) == {"pause", "approve $5", "stop"}
        assert {step["status"] for step in controls.values()} == {"ok"}
        assert controls["stop"]["attributes"]["reason"] == "enough"
        assert steps[0]["error_type"] == "RunStopped"
    finally:
        program.kill()


def has_at_least(number: int, steps: list[Any]) -> bool:
    return len(steps) >= number


def test_nothing_is_lost_while_gateways_are_killed(pipeline: Pipeline) -> None:
    """Every event that the SDK has counted as delivered is stored, each once."""
    program = Program.of(
        pipeline,
        """
await sdk.run("through", async (run) => {
  console.log(run.traceId);
  for (let i = 0; i < 600; i += 1) {
    await sdk.tool(`step ${i}`, () => new Promise((resolve) => setTimeout(resolve, 10)));
  }
});
const isSent = await sdk.flush(120_000);
console.log(JSON.stringify({ isSent, ...sdk.counts() }));
""",
    )
    try:
        trace_id = program.line()
        for steps in (50, 200):
            stored(pipeline, trace_id, partial(has_at_least, steps))
            pipeline.kill("gateway")
        printed = program.rest().splitlines()
        counts = json.loads(printed[-1])
        assert counts["isSent"], printed
        assert (counts["delivered"], counts["dropped"], counts["failed"]) == (1_202, 0, 0)
        found = stored(pipeline, trace_id, lambda steps: len(steps) == 601)
        stored(pipeline, trace_id, lambda steps: all(one["end_time"] for one in steps))
        assert {f"step {number}" for number in range(600)} < {step["name"] for step in found}
    finally:
        program.kill()


def test_one_run_of_node_and_python(pipeline: Pipeline, tmp_path: Path) -> None:
    """The trace context of a step in Python is the parent of a run in Node."""
    from stepstream.producers.tracer import Tracer

    tracer = Tracer(
        Settings(endpoint=pipeline.gateway_url, project="shop", quiet=True, state_dir=str(tmp_path))
    )
    with tracer.run("planner") as run:
        headers = json.dumps(tracer.trace_headers())
        code = f'await sdk.continueRun({headers}, () => sdk.run("researcher", () => 1));'
        assert Program.of(pipeline, code).rest() == ""
    assert tracer.close(60)
    outer, inner = stored(pipeline, run.trace_id, lambda found: len(found) == 2)
    assert (outer["name"], inner["name"]) == ("planner", "researcher")
    assert inner["parent_step_id"] == outer["step_id"]


def test_planted_secrets_are_not_stored(pipeline: Pipeline) -> None:
    """In inputs, outputs, errors, attributes and documents: nowhere in the store."""
    program = Program.of(
        pipeline,
        f"""
const secret = {json.dumps(SECRET)};
await sdk.run("private", {{ input: secret, attributes: {{ key: secret }} }}, async (run) => {{
  console.log(run.traceId);
  await sdk.retrieval("find", (step) => void step.setDocuments([{{ content: secret }}]));
  await sdk.tool("pay", {{ input: {{ headers: {{ "x-api-key": secret }} }} }}, () => {{
    throw new Error(`refused: ${{secret}}`);
  }}).catch(() => 1);
  return {{ nested: JSON.stringify({{ password: secret }}) }};
}});
""",
    )
    trace_id = program.line()
    assert program.rest() == ""
    steps = stored(pipeline, trace_id, lambda found: len(found) == 3)
    assert SECRET not in repr(steps)
    assert repr(steps).count("[redacted]") >= 6
