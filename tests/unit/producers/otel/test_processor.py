"""Spans of the real OpenTelemetry SDK as steps: starts, ends, samplers, commands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepstream.otel import SpanProcessor, sampler
from stepstream.producers.exceptions import RunStopped
from stepstream.producers.otel import processor
from stepstream.producers.otel.publisher import SpanPublisher
from stepstream.producers.sdk_log import suppressed
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.alert import CommandStruct
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent
from tests.support.processes import wait_until
from tests.support.sdk import logged

# A delay that no test waits for: starts are sent by other events, or not at all.
NEVER_S = 3_600.0


@dataclass
class World:
    """A provider with our processor, and what was sent."""

    transport: MemoryTransport = field(default_factory=MemoryTransport)
    settings: dict[str, Any] = field(default_factory=dict)

    def provider(self, chosen: Any = ALWAYS_ON, **options: Any) -> TracerProvider:
        settings = Settings(project="shop", environment="prod", quiet=True, **self.settings)
        self.tracer = Tracer(settings, transport=self.transport)
        made = TracerProvider(
            sampler=chosen,
            shutdown_on_exit=False,
            resource=Resource({"service.name": "refunds", "service.version": "3"}),
        )
        self.processor = processor.SpanProcessor(self.tracer, **options)
        made.add_span_processor(self.processor)
        return made

    @property
    def events(self) -> list[StepEvent]:
        assert self.tracer.flush(10)
        return self.transport.events

    def ended(self, name: str) -> StepEvent:
        (found,) = [e for e in self.events if e.name == name and e.phase == "end"]
        return found


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tracer.close(5)


def test_a_long_span_is_published_when_it_starts_and_when_it_ends(world: World) -> None:
    """The start has the attributes that were set by then, and the ids of the span."""
    tracer = world.provider().get_tracer("pydantic-ai", "2.68")
    with tracer.start_as_current_span("chat gpt-4o") as span:
        span.set_attribute("gen_ai.operation.name", "chat")
        # Published while the span is open, by the publisher's thread.
        wait_until(lambda: world.transport.started, 5, "the start")
        span.set_attribute("gen_ai.usage.input_tokens", 12)
        span.set_attribute("gen_ai.output.messages", '[{"role":"assistant","content":"hi"}]')
    start, end = world.events
    context = span.get_span_context()
    assert (start.phase, start.kind, start.end_time) == ("start", "llm_call", None)
    assert start.trace_id == end.trace_id == f"{context.trace_id:032x}"
    assert start.step_id == end.step_id == f"{context.span_id:016x}"
    assert start.usage is None
    assert start.start_time == end.start_time
    assert end.usage is not None
    assert end.usage.input_tokens == 12
    assert '"content":"hi"' in end.output
    assert (end.project, end.environment, end.agent, end.agent_version) == (
        "shop", "prod", "refunds", "3",
    )  # fmt: skip
    assert end.attributes["otel.scope.name"] == "pydantic-ai"


def test_a_short_span_has_its_end_only(world: World) -> None:
    """A span that ends before its start is due."""
    tracer = world.provider(start_delay_s=NEVER_S).get_tracer("t")
    with tracer.start_as_current_span("run"), tracer.start_as_current_span("look up"):
        pass
    assert [(e.name, e.phase) for e in world.events] == [("look up", "end"), ("run", "end")]
    assert world.ended("look up").parent_step_id == world.ended("run").step_id


def test_errors_and_events_are_mapped(world: World) -> None:
    """As the gateway maps them: there is one mapping."""
    tracer = world.provider().get_tracer("t")

    def call() -> None:
        with tracer.start_as_current_span("tool") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.response.finish_reasons", ["stop", "length"])
            raise KeyError("order 7")

    with pytest.raises(KeyError):
        call()
    step = world.ended("tool")
    assert (step.kind, step.status, step.error_type) == ("tool_call", "error", "KeyError")
    assert step.attributes["gen_ai.response.finish_reasons"] == '["stop","length"]'


def test_a_secret_across_the_cut_is_not_half_sent(world: World) -> None:
    """Contents are truncated after the redaction, which the SDK's encoder does."""
    world.settings = {"capture": "llm_call=200"}
    tracer = world.provider().get_tracer("t")
    # The limit of 200 is in the middle of the key: cut first, the rest has no form of a key.
    text = "x" * 188 + " sk-proj-" + "a1B2" * 12 + " " + "y" * 500
    with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as span:
        span.set_attribute("input.value", text)
    step = world.ended("chat")
    assert "xxx" in step.input
    assert len(step.input) <= 200
    assert step.input_bytes
    assert "sk-proj-a1" not in step.input


def test_shutdown_publishes_the_start_of_open_spans(world: World) -> None:
    """A span that never ends is visible as an open step."""
    provider = world.provider(start_delay_s=NEVER_S)
    provider.get_tracer("t").start_span("never ends")
    provider.shutdown()
    assert [(e.name, e.phase) for e in world.transport.events] == [("never ends", "start")]


@pytest.mark.parametrize("option", ["bare", "drop"])
def test_spans_that_no_convention_knows(world: World, option: str) -> None:
    """bare keeps ids, name and times; drop leaves out calls to databases, also their starts."""
    tracer = world.provider(other_spans=option, start_delay_s=0).get_tracer("http")
    query = {"db.system": "sqlite"}
    with tracer.start_as_current_span("agent", attributes={"gen_ai.agent.name": "a"}):
        with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes=query):
            pass
        with tracer.start_as_current_span("GET") as span:
            span.set_attribute("http.request.body", "secret")
            wait_until(lambda: world.transport.started, 5, "a start")
    (get,) = [e for e in world.events if e.name == "GET" and e.phase == "end"]
    assert "http.request.body" not in get.attributes
    assert any(e.name == "SELECT" for e in world.events) == (option == "bare")
    agent = world.ended("agent")
    assert (agent.agent, get.parent_step_id) == ("a", agent.step_id)


def test_tools_in_a_model_step_of_the_program_are_published(world: World) -> None:
    """What repeats the call is not, and neither are requests by HTTP; a tool's kind may be known
    only when it ends, and the spans that surround it are kept, so that the tree is whole.
    """
    tracer = world.provider(start_delay_s=0).get_tracer("t")
    chat: Any = {"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 5}
    tool: Any = {"openinference.span.kind": "TOOL", "tool.name": "find"}
    span = tracer.start_as_current_span
    with world.tracer.run("agent"), world.tracer.llm("plan"):
        with span("graph"), span("node"):
            with span("chat gpt-4o", attributes=chat), span("POST"):
                pass
            with span("answer") as late:
                late.set_attributes(chat)
            with span("find") as late, span("SELECT"):
                late.set_attributes(tool)
            with span("look up", attributes=tool), span("agent b") as late:
                late.set_attribute("gen_ai.operation.name", "invoke_agent")
        with span("GET"):
            pass
    with span("after", attributes=chat):
        pass
    ended = {event.name: event for event in world.events if event.phase == "end"}
    below = {name: ended[name] for name in ("graph", "node", "find", "look up", "agent b")}
    assert set(ended) == {"agent", "plan", "after", *below}
    parents = {one.step_id: name for name, one in ended.items()}
    tree = {name: parents.get(one.parent_step_id, "") for name, one in below.items()}
    assert tree == {
        "graph": "",
        "node": "graph",
        "find": "node",
        "look up": "node",
        "agent b": "look up",
    }
    assert {one.trace_id for one in below.values()} == {below["graph"].trace_id}
    assert ended["find"].kind == ended["look up"].kind == "tool_call"


def test_other_spans_is_checked() -> None:
    with pytest.raises(ValueError, match="bare, keep, drop"):
        SpanProcessor(other_spans="all")


@pytest.mark.parametrize("existing", [ALWAYS_OFF, ParentBased(TraceIdRatioBased(0.0))])
def test_the_sampler_shows_every_run_and_keeps_the_sample_of_others(
    world: World, existing: Any
) -> None:
    """Spans that the existing sampler drops are recorded, and exported by nothing else."""
    exporter = InMemorySpanExporter()
    provider = world.provider(sampler(existing))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("t")
    with (
        logged() as lines,
        tracer.start_as_current_span("run"),
        tracer.start_as_current_span("child"),
    ):
        pass
    assert [e.name for e in world.events if e.phase == "end"] == ["child", "run"]
    assert exporter.get_finished_spans() == ()
    assert lines == []


def test_what_is_sampled_stays_sampled(world: World) -> None:
    exporter = InMemorySpanExporter()
    provider = world.provider(sampler(ALWAYS_ON))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("t").start_as_current_span("run"):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["run"]


def test_a_sampler_that_drops_is_logged_once(world: World) -> None:
    """It would make budgets and baselines count too little without notice."""
    # A share that drops hardly anything still drops without notice.
    tracer = world.provider(TraceIdRatioBased(0.999999)).get_tracer("t")
    with logged() as lines:
        for _ in range(3):
            tracer.start_span("run").end()
    (line,) = [record.getMessage() for record in lines]
    assert "TraceIdRatioBased{0.999999} drops spans" in line
    assert "stepstream.otel.sampler" in line


@pytest.mark.parametrize("chosen", [ALWAYS_ON, ParentBased(ALWAYS_ON), TraceIdRatioBased(1.0)])
def test_samplers_that_drop_nothing_are_not_logged(world: World, chosen: Any) -> None:
    tracer = world.provider(chosen).get_tracer("t")
    with logged() as lines:
        tracer.start_span("run").end()
    assert lines == []


@pytest.mark.parametrize("with_sampler", [True, False])
def test_a_remote_parent_of_ours_is_waited_for(world: World, with_sampler: bool) -> None:
    """The trace state travels with the trace context, so the next process knows whose parent it
    is; an unmarked remote parent may never come."""
    upstream = World()
    first = upstream.provider(sampler() if with_sampler else ALWAYS_ON).get_tracer("t")
    headers: dict[str, str] = {}
    with first.start_as_current_span("caller"), first.start_as_current_span("request"):
        TraceContextTextMapPropagator().inject(headers)
    # The mark by which the next process knows that the parent's span is recorded.
    assert headers["tracestate"] == "stepstream=1"
    second = world.provider().get_tracer("t")
    with second.start_as_current_span("ours", TraceContextTextMapPropagator().extract(headers)):
        pass
    del headers["tracestate"]
    with second.start_as_current_span("theirs", TraceContextTextMapPropagator().extract(headers)):
        pass
    assert not world.ended("ours").parent_remote
    assert world.ended("theirs").parent_remote
    assert world.ended("ours").parent_step_id == upstream.ended("request").step_id
    upstream.tracer.close(5)


def test_the_sdk_s_own_work_is_not_recorded(world: World) -> None:
    """Instrumented HTTP clients make spans in the sender's thread too."""
    tracer = world.provider().get_tracer("t")

    def work() -> None:
        suppressed.set(True)
        tracer.start_span("POST").end()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert world.events == []


def test_a_full_queue_drops_and_counts(world: World) -> None:
    """Starts before ends; nothing blocks."""
    world.settings = {"queue_events": 10}
    tracer = world.provider(start_delay_s=NEVER_S).get_tracer("t")
    publisher: SpanPublisher = world.processor._publisher
    # Under this lock the publisher's thread takes nothing, so the queue stays full.
    with publisher._mapping:
        spans = [tracer.start_span(str(number)) for number in range(20)]
        for span in spans:
            span.end()
    assert publisher.dropped == 11 + 10
    wait_until(lambda: len(world.transport.ended) == 10, 5, "the ends that fitted")


def test_a_burst_waits_for_the_publisher(world: World) -> None:
    """A program that ends spans faster than one thread maps them loses none of them."""
    world.settings = {"queue_events": 50}
    tracer = world.provider(start_delay_s=NEVER_S).get_tracer("t")
    for number in range(1_000):
        tracer.start_span(str(number)).end()
    assert world.processor.force_flush(30_000)
    assert len(world.transport.ended) == 1_000
    assert world.processor.dropped == 0


def test_large_spans_are_bounded_in_bytes(world: World) -> None:
    world.settings = {"queue_bytes": 1_000_000, "max_content_bytes": 100}
    tracer = world.provider(start_delay_s=NEVER_S).get_tracer("t")
    publisher: SpanPublisher = world.processor._publisher
    with publisher._mapping:
        for _ in range(100):
            tracer.start_span("large", attributes={"gen_ai.input.messages": "x" * 100_000}).end()
    assert publisher.dropped > 20
    world.tracer.flush(10)
    with publisher._mapping:
        assert publisher._bytes == 0


def stop(world: World, run: trace.Span, reason: str) -> None:
    """Deliver a stop, as the listener does."""
    engine = world.tracer.engine()
    assert engine is not None
    trace_id = f"{run.get_span_context().trace_id:032x}"
    command = CommandStruct(
        command_id="c1", action="stop", time=1, project="shop", trace_id=trace_id, reason=reason,
        by="ops",
    )  # fmt: skip
    # The number of open runs that it reached.
    assert engine.commands.deliver(command) == 1


def test_a_stop_acts_on_the_next_span(world: World) -> None:
    """Opt-in: the start of a span raises, and the run's control step is recorded."""
    tracer = world.provider(stop=True).get_tracer("t")

    def agent() -> None:
        with tracer.start_as_current_span("run") as run:
            stop(world, run, "too expensive")
            with tracer.start_as_current_span("tool"):
                raise AssertionError("the tool must not run")

    with pytest.raises(RunStopped, match="too expensive"):
        agent()
    names = [(e.kind, e.phase) for e in world.events if e.kind == "control"]
    assert names == [("control", "start"), ("control", "end")]
    assert world.ended("run").status == "error"
    # The stop was of one run: later ones are not affected.
    with tracer.start_as_current_span("another run"):
        world.processor.checkpoint()


def test_checkpoint_raises_where_instrumentation_ignores_exceptions(world: World) -> None:
    tracer = world.provider(stop=True).get_tracer("t")
    with tracer.start_as_current_span("run") as run:
        stop(world, run, "r")
        with pytest.raises(RunStopped):
            world.processor.checkpoint()


def test_without_stop_commands_do_nothing(world: World) -> None:
    tracer = world.provider().get_tracer("t")
    with tracer.start_as_current_span("run"):
        engine = world.tracer.engine()
        assert engine is not None
        assert not engine.commands._open
        world.processor.checkpoint()


def test_recording_off_records_nothing(world: World) -> None:
    world.settings = {"enabled": False}
    tracer = world.provider().get_tracer("t")
    tracer.start_span("run").end()
    assert world.processor.force_flush()
    assert world.transport.records == []


def test_the_processor_never_raises(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own errors are logged."""
    tracer = world.provider().get_tracer("t")

    def broken(self: object, span: ReadableSpan, engine: object) -> None:
        raise OSError("x")

    monkeypatch.setattr(SpanPublisher, "started", broken)
    monkeypatch.setattr(SpanPublisher, "ended", broken)
    with logged() as lines, trace.use_span(tracer.start_span("run"), end_on_exit=True):
        pass
    # The processor of an earlier test may log here what it has dropped.
    errors = [line for line in lines if "internal error" in line.getMessage()]
    assert len(errors) == 2
