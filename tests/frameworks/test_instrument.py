"""``instrument`` with LangChain, LangGraph and OpenAI's Agents SDK, against a local provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypedDict

import pytest

from stepstream.producers.instruments.instruments import Instruments
from tests.support.provider import TEXT, Provider, provider
from tests.support.sdk import Traced, instrumented, traced

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture
def served() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture
def made() -> Iterator[Traced]:
    with instrumented() as made:
        yield made


def _model(served: Provider) -> Any:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    return chat(model="gpt-4o", api_key="k", base_url=f"{served.url}/v1", max_retries=0)


def counts(made: Traced) -> list[tuple[str, int]]:
    """Kind and input tokens of every step that has usage."""
    return [
        (step.kind, step.usage.input_tokens)
        for step in made.events
        if step.phase == "end" and step.usage is not None
    ]


@pytest.mark.parametrize("how", ["plain", "streamed", "asynchronous", "asynchronously streamed"])
async def test_langchain_model(how: str, served: Provider, made: Traced) -> None:
    """One step a call, although the client below is instrumented as well."""
    model = _model(served)
    if how == "plain":
        assert model.invoke("hi").content == TEXT
    elif how == "streamed":
        assert "".join(str(piece.content) for piece in model.stream("hi")) == TEXT
    elif how == "asynchronous":
        assert (await model.ainvoke("hi")).content == TEXT
    else:
        pieces = [str(piece.content) async for piece in model.astream("hi")]
        assert "".join(pieces) == TEXT
    (step,) = [event for event in made.events if event.phase == "end"]
    assert (step.kind, step.output) == ("llm_call", TEXT)
    assert counts(made) == [("llm_call", 9)]
    if "streamed" in how:
        assert step.first_token_time is not None


@pytest.mark.parametrize("is_async", [False, True])
async def test_langgraph(is_async: bool, served: Provider, made: Traced) -> None:
    """A graph is a run, its nodes are steps in it, with model calls and tools below them."""
    graphs = pytest.importorskip("langgraph.graph")
    tool = pytest.importorskip("langchain_core.tools").tool

    class State(TypedDict):
        text: str

    @tool  # type: ignore[untyped-decorator]
    def look_up(order: int) -> str:
        """The state of an order."""
        with made.tracer.retrieval("inside the tool"):
            return "shipped"

    model = _model(served)

    def answer(state: State) -> dict[str, str]:
        return {"text": model.invoke(state["text"]).content + look_up.invoke({"order": 7})}

    async def aanswer(state: State) -> dict[str, str]:
        answered = await model.ainvoke(state["text"])
        return {"text": answered.content + await look_up.ainvoke({"order": 7})}

    builder = graphs.StateGraph(State)
    builder.add_node("answer", aanswer if is_async else answer)
    builder.add_edge(graphs.START, "answer")
    builder.add_edge("answer", graphs.END)
    graph = builder.compile(name="support")
    result = await graph.ainvoke({"text": "hi"}) if is_async else graph.invoke({"text": "hi"})
    assert result == {"text": f"{TEXT}shipped"}
    parents = made.parents()
    kinds = {name: step.kind for name, step in made.ended.items()}
    assert kinds["support"] == "agent"
    assert kinds["answer"] == "state_update"
    assert kinds["look_up"] == "tool_call"
    assert parents["ChatOpenAI"] == parents["look_up"] == "answer"
    assert parents["answer"] == "support"
    assert parents["inside the tool"] == "look_up"
    assert counts(made) == [("llm_call", 9)]


def test_langchain_errors(served: Provider, made: Traced) -> None:
    """They are the client's, and the step has failed with them."""
    openai = pytest.importorskip("openai")
    served.status = 400
    with pytest.raises(openai.BadRequestError):
        _model(served).invoke("hi")
    (step,) = made.ended.values()
    assert step.status == "error"


@pytest.mark.parametrize("how", ["plain", "asynchronous", "streamed"])
async def test_openai_agents(how: str, served: Provider, made: Traced) -> None:
    """A trace is a run with agents, tools and model calls; nothing counts twice."""
    agents = pytest.importorskip("agents")
    openai = pytest.importorskip("openai")
    served.tool = "look_up"

    @agents.function_tool  # type: ignore[untyped-decorator]
    def look_up(order: int) -> str:
        """The state of an order."""
        return "shipped"

    async with openai.AsyncOpenAI(api_key="k", base_url=f"{served.url}/v1") as client:
        agent = agents.Agent(
            name="support",
            tools=[look_up],
            model=agents.OpenAIResponsesModel("gpt-4o", openai_client=client),
        )
        if how == "streamed":
            streamed = agents.Runner.run_streamed(agent, "hi")
            _ = [event async for event in streamed.stream_events()]
            final = streamed.final_output
        else:
            final = (await agents.Runner.run(agent, "hi")).final_output
    assert final == TEXT
    ended = [event for event in made.events if event.phase == "end"]
    by_name = {event.name: event for event in ended}
    (root,) = [event for event in ended if not event.parent_step_id]
    assert root.kind == "agent"
    assert len({event.trace_id for event in ended}) == 1
    assert by_name["look_up"].output == "shipped"
    assert '"order"' in by_name["look_up"].input
    assert by_name["support"].kind == "agent"
    # Client and framework both see each call; it counts once.
    assert counts(made) == [("llm_call", 9), ("llm_call", 9)]
    assert {event.model for event in ended if event.kind == "llm_call"} == {"gpt-4o"}


def test_uninstrument_removes_the_callbacks(served: Provider) -> None:
    tracing = pytest.importorskip("agents.tracing")
    context = pytest.importorskip("langchain_core.tracers.context")
    hooks = list(context._configure_hooks)
    multi = tracing.get_trace_provider()._multi_processor
    processors = list(multi._processors)
    with traced() as made:
        instruments = Instruments(made.tracer)
        instruments.on(("langchain", "openai_agents"))
        assert len(context._configure_hooks) == len(hooks) + 1
        assert len(multi._processors) == len(processors) + 1
        instruments.off()
        assert context._configure_hooks == hooks
        assert list(multi._processors) == processors
        _model(served).invoke("hi")
        assert made.events == []
