"""``stepstream.otel.SpanProcessor`` with real instrumentations, against a local provider."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from stepstream.otel import SpanProcessor
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent
from tests.support.provider import TEXT, Provider, provider

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),
]


@dataclass
class World:
    """A provider of spans with our processor, and what was sent."""

    spans: TracerProvider
    processor: SpanProcessor
    tracer: Tracer
    transport: MemoryTransport

    def calls(self) -> list[StepEvent]:
        assert self.tracer.flush(20)
        return [event for event in self.transport.ended if event.kind == "llm_call"]


@pytest.fixture
def world() -> Iterator[World]:
    transport = MemoryTransport()
    tracer = Tracer(Settings(quiet=True), transport=transport)
    spans = TracerProvider(shutdown_on_exit=False)
    processor = SpanProcessor(tracer=tracer)
    spans.add_span_processor(processor)
    yield World(spans, processor, tracer, transport)
    tracer.close(5)


@pytest.fixture
def served() -> Iterator[Provider]:
    with provider() as made:
        yield made


def _ask(served: Provider) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(api_key="k", base_url=f"{served.url}/v1") as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        client.chat.completions.create(model="gpt-4o", messages=asked)


def check(call: StepEvent) -> None:
    assert call.model == "gpt-4o"
    assert TEXT in call.output
    assert call.usage is not None
    assert (call.usage.input_tokens, call.usage.output_tokens) == (9, 3)


def test_pydantic_ai(world: World) -> None:
    """A run with a tool: kinds, tree and tokens."""
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.test")
    settings = pytest.importorskip("pydantic_ai.models.instrumented").InstrumentationSettings(
        tracer_provider=world.spans
    )
    agent = pydantic_ai.Agent(models.TestModel(), name="refunds")

    @agent.tool_plain  # type: ignore[untyped-decorator]
    def look_up(order: int) -> str:
        return "shipped"

    pydantic_ai.Agent.instrument_all(settings)
    try:
        # run_sync leaves an event loop open, which pytest reports as an error at its end.
        asyncio.run(agent.run("where is order 7?"))
    finally:
        # It is set for the whole process, and other tests run in it as well.
        pydantic_ai.Agent.instrument_all(False)
    calls = world.calls()
    (run,) = [event for event in world.transport.ended if event.kind == "agent"]
    (tool,) = [event for event in world.transport.ended if event.kind == "tool_call"]
    assert (run.agent, run.parent_step_id, tool.tool) == ("refunds", "", "look_up")
    assert len(calls) == 2
    assert len({event.trace_id for event in world.transport.ended}) == 1


@pytest.mark.parametrize(
    "module",
    ["openinference.instrumentation.openai", "opentelemetry.instrumentation.openai"],
    ids=["openinference", "openllmetry"],
)
def test_instrumentations_of_openai(module: str, world: World, served: Provider) -> None:
    instrumentor = pytest.importorskip(module).OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=world.spans)
    try:
        _ask(served)
    finally:
        instrumentor.uninstrument()
    (call,) = world.calls()
    check(call)


def test_logfire(world: World, served: Provider) -> None:
    """As an additional span processor of Logfire, which sends nothing itself here."""
    logfire = pytest.importorskip("logfire")
    openai = pytest.importorskip("openai")
    local = logfire.configure(
        local=True,
        send_to_logfire=False,
        console=False,
        additional_span_processors=[world.processor],
    )
    with openai.OpenAI(api_key="k", base_url=f"{served.url}/v1") as client:
        asked: Any = [{"role": "user", "content": "hi"}]
        with local.instrument_openai(client), local.span("support"):
            client.chat.completions.create(model="gpt-4o", messages=asked)
    (call,) = world.calls()
    assert call.model == "gpt-4o"
    assert call.usage is not None
    assert call.usage.input_tokens == 9
    assert call.parent_step_id
    local.shutdown()


def test_langfuse(world: World) -> None:
    """On the provider that Langfuse writes to; nothing answers at the address of Langfuse."""
    langfuse = pytest.importorskip("langfuse")
    client = langfuse.Langfuse(
        public_key="pk-lf-1",
        secret_key="sk-lf-1",
        base_url="http://127.0.0.1:9",
        tracer_provider=world.spans,
    )
    with client.start_as_current_observation(as_type="agent", name="support"):
        with client.start_as_current_observation(
            as_type="generation", name="plan", model="gpt-4o"
        ) as plan:
            plan.update(output=TEXT, usage_details={"input": 9, "output": 3})
        with client.start_as_current_observation(as_type="tool", name="search"):
            pass
    (call,) = world.calls()
    check(call)
    kinds = {event.name: event.kind for event in world.transport.ended}
    assert kinds == {"plan": "llm_call", "search": "tool_call", "support": "agent"}
    assert len({event.trace_id for event in world.transport.ended}) == 1
