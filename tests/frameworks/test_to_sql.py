"""Real frameworks, exporting by their documented settings alone, from the exporter to SQL.

Each program sends spans to a gateway over real Kafka; a worker and a sink store them in ClickHouse,
and what SQL finds is compared with what the program did.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stepstream.local import supervisor
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.frameworks.programs_run import PROGRAMS, npm_install, run_node, run_python
from tests.support import openai_stand_in
from tests.support.openai_stand_in import FINAL, FIRST, MODEL, SECOND
from tests.support.processes import wait_until

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(1_200)]


class Program(NamedTuple):
    """What a program does."""

    # Input, output and cached tokens of each model call.
    calls: tuple[tuple[int, int, int], ...]
    tools: tuple[str, ...] = ("look_up",)
    agents: int = 1
    model: str = MODEL
    # The tools that the model's answers chose.
    chosen: tuple[str, ...] = ("look_up",)


BOTH = (FIRST, SECOND)
# Some instrumentations do not report cached tokens.
BOTH_UNCACHED = ((*FIRST[:2], 0), SECOND)
PROGRAMS_IN_PYTHON = {
    "langgraph_openinference": Program(BOTH),
    "langgraph_openllmetry": Program(BOTH, agents=2),
    "openai_agents": Program(BOTH, agents=2),
    "openai_openinference": Program((FIRST,), (), 0),
    "openai_openllmetry": Program((FIRST,), (), 0),
    "agent_framework_agent": Program(BOTH),
    "smolagents_openinference": Program(
        BOTH_UNCACHED, ("look_up", FINAL), model="gpt-4o", chosen=("look_up", FINAL)
    ),
    "bare_sdk": Program((FIRST,), model="gpt-4o", chosen=()),
}


@pytest.fixture(scope="module")
def settings(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A worker and a sink of this module's own."""
    name = f"frameworks_{uuid.uuid4().hex[:8]}"
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(tmp_path_factory.mktemp("frameworks")),
        partitions=2,
        quiet=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        # A loaded machine may take longer to start everything than a user would wait.
        patch.setattr(supervisor, "READY_S", 300.0)
        with Pipeline(given) as pipeline:
            yield pipeline.settings


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> str:
    """The address of the pipeline's gateway."""
    return f"http://{settings.gateway_host}:{settings.gateway_port}"


@pytest.fixture(scope="module")
def openai() -> Iterator[str]:
    """The base address of the stand-in for OpenAI's API."""
    with openai_stand_in.running() as url:
        yield url


@pytest.fixture(scope="module")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs in Node with their packages."""
    found = tmp_path_factory.mktemp("node")
    for name in ("package.json", "vercel.mjs"):
        shutil.copy(PROGRAMS / name, found)
    npm_install(found)
    return found


def variables(gateway: str, openai: str, program: str) -> dict[str, str]:
    """What the documentation of the frameworks has one set, and nothing else."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": gateway,
        "OTEL_SERVICE_NAME": program,
        "OPENAI_BASE_URL": openai,
        "OPENAI_API_KEY": "none",
    }


CONTENTS = {"OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true"}
STEPS = """
SELECT step_id, parent_step_id, kind, agent, tool, input, output, model, provider, status,
    error_type, cost_usd, (input_tokens, output_tokens, cached_input_tokens) AS tokens,
    documents.id AS document_ids
FROM steps WHERE trace_id IN (SELECT trace_id FROM runs WHERE {where}) ORDER BY start_time
"""


class Found:
    """The steps and the run of a program, by SQL."""

    def __init__(self, settings: Settings, where: str) -> None:
        client = connect(settings)
        try:
            self.steps = list(client.query(STEPS.format(where=where)).named_results())
            runs = f"SELECT * FROM runs WHERE {where}"
            self.runs = list(client.query(runs).named_results())
        finally:
            client.close()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Steps of a kind."""
        return [step for step in self.steps if step["kind"] == kind]


def stored(settings: Settings, where: str) -> Found:
    """Wait for the closed run."""
    wait_until(lambda: bool(Found(settings, f"{where} AND closed").runs), 240, "the run is closed")
    wait_until(
        lambda: len((found := Found(settings, where)).steps) == found.runs[0]["steps"],
        240,
        "its steps are stored",
    )
    return Found(settings, where)


def check(found: Found, expected: Program) -> None:
    """Tree, kinds, tools, models, tokens and cost are what the program did; nothing twice."""
    (run,) = found.runs
    ids = {step["step_id"] for step in found.steps}
    roots = [step for step in found.steps if not step["parent_step_id"]]
    assert len(roots) == 1
    assert {step["parent_step_id"] for step in found.steps} - {""} <= ids
    calls = [step for step in found.of("llm_call") if sum(step["tokens"])]
    assert [step["tokens"] for step in calls] == list(expected.calls)
    assert {(step["model"], step["provider"]) for step in calls} == {(expected.model, "openai")}
    assert [step["tool"] for step in found.of("tool_call")] == list(expected.tools)
    assert len(found.of("agent")) == expected.agents
    assert (run["input_tokens"], run["output_tokens"]) == (
        sum(given for given, _, _ in expected.calls),
        sum(taken for _, taken, _ in expected.calls),
    )
    assert run["cost_usd"] == sum(step["cost_usd"] for step in calls) > 0
    assert run["unpriced_steps"] == run["orphan_steps"] == 0


@pytest.mark.parametrize("program", sorted(PROGRAMS_IN_PYTHON))
def test_a_program_in_python(program: str, gateway: str, openai: str, settings: Settings) -> None:
    """LangGraph, the OpenAI Agents SDK, Microsoft's Agent Framework, smolagents, OpenAI's client
    and the OpenTelemetry SDK alone.
    """
    run_python(program, variables(gateway, openai, program))
    # An agent that names itself goes before the service.
    expected = PROGRAMS_IN_PYTHON[program]
    trace = _newest_trace(settings)
    found = stored(settings, f"trace_id = '{trace}'")
    check(found, expected)
    if program == "bare_sdk":
        (tool,) = found.of("tool_call")
        assert (tool["status"], tool["error_type"]) == ("error", "TimeoutError")
        (retrieval,) = found.of("retrieval")
        assert retrieval["document_ids"] == ["faq"]
    assert sorted(step["tool"] for step in found.of("tool_selection")) == sorted(expected.chosen)


def test_contents_that_are_logged_after_their_span(
    gateway: str, openai: str, settings: Settings
) -> None:
    """OpenTelemetry's instrumentation of OpenAI's client, whose contents are log records."""
    run_python("openai_opentelemetry", variables(gateway, openai, "logged") | CONTENTS)
    where = f"trace_id = '{_newest_trace(settings)}'"
    wait_until(
        lambda: bool(Found(settings, where).of("tool_selection")), 240, "the call has contents"
    )
    found = stored(settings, where)
    check(found, Program(BOTH_UNCACHED[:1], (), 0))
    (call,) = found.of("llm_call")
    assert "where is order 7?" in call["input"]
    assert "look_up" in call["output"]


def test_pydantic_ai(gateway: str, openai: str, settings: Settings) -> None:
    """With its offline test model, which has no price."""
    run_python("pydantic_ai_agent", variables(gateway, openai, "pydantic_ai_agent"))
    found = stored(settings, f"trace_id = '{_newest_trace(settings)}'")
    (run,) = found.runs
    assert (run["agent"], run["tools"], run["llm_calls"]) == ("refunds", ["look_up"], 2)
    (agent,), (tool,), calls = found.of("agent"), found.of("tool_call"), found.of("llm_call")
    # What the agent's span repeats of its calls is not counted.
    assert (agent["agent"], agent["parent_step_id"], agent["tokens"]) == ("refunds", "", (0, 0, 0))
    assert (tool["tool"], tool["output"]) == ("look_up", "shipped")
    assert len(calls) == 2
    assert all(call["tokens"][0] for call in calls)
    assert [step["tool"] for step in found.of("tool_selection")] == ["look_up"]
    totals = [sum(step["tokens"][index] for step in calls) for index in (0, 1)]
    assert [run["input_tokens"], run["output_tokens"]] == totals
    assert min(totals) > 0


def test_the_vercel_ai_sdk(
    node_folder: Path, gateway: str, openai: str, settings: Settings
) -> None:
    """Its outer span repeats the tokens of the calls below."""
    run_node(node_folder, "vercel.mjs", variables(gateway, openai, "vercel"))
    found = stored(settings, f"trace_id = '{_newest_trace(settings)}'")
    check(found, Program(BOTH))
    assert found.runs[0]["agent"] == "refunds"


_seen: set[str] = set()


def _newest_trace(settings: Settings) -> str:
    """The trace that the last program sent."""

    def new() -> set[str]:
        client = connect(settings)
        try:
            rows = client.query("SELECT trace_id FROM runs").result_rows
        finally:
            client.close()
        return {str(row[0]) for row in rows} - _seen

    wait_until(lambda: bool(new()), 240, "the program's run is stored")
    (trace,) = new()
    _seen.add(trace)
    return trace
