"""Agents of real frameworks with offline models, whose model and tool calls can be recorded.

Each calls the tool ``look_up`` once and answers with its result. The recorded boundaries are the
tool and, where a program has one of its own, the function that asks the model.
"""

from __future__ import annotations

import importlib
from typing import Any, TypedDict

import stepstream

STATE = ["shipped"]
"""What the tool finds. A replay must not read it."""


@stepstream.tool
def look_up(order: int) -> str:
    """Return the state of an order."""
    return STATE[0]


def pydantic_ai(question: str) -> str:
    """Pydantic AI with its test model, which calls every tool once."""
    ai = importlib.import_module("pydantic_ai")
    models = importlib.import_module("pydantic_ai.models.test")
    agent = ai.Agent(models.TestModel(), name="refunds")

    @agent.tool_plain  # type: ignore[untyped-decorator]
    def state_of(order: int) -> str:
        """Return the state of an order."""
        return look_up(order)

    with stepstream.run("refunds", agent="pydantic-ai", input=question) as run:
        answer = str(agent.run_sync(question).output)
        run.set_output(answer)
    return answer


def langgraph(question: str) -> str:
    """A graph of LangGraph: a fake chat model of LangChain, then the tool."""
    graphs = importlib.import_module("langgraph.graph")
    fakes = importlib.import_module("langchain_core.language_models.fake_chat_models")
    model = fakes.FakeListChatModel(responses=["order 7"])

    class State(TypedDict, total=False):
        question: str
        plan: str
        answer: str

    @stepstream.llm
    def ask(prompt: str) -> str:
        return str(model.invoke(prompt).content)

    def plan(state: State) -> State:
        return {"plan": ask(state["question"])}

    def act(state: State) -> State:
        return {"answer": f"It is {look_up(int(state['plan'].split()[-1]))}."}

    graph = graphs.StateGraph(State)
    graph.add_node("planner", plan)
    graph.add_node("actor", act)
    graph.add_edge(graphs.START, "planner")
    graph.add_edge("planner", "actor")
    graph.add_edge("actor", graphs.END)
    with stepstream.run("refunds", agent="langgraph", input=question) as run:
        answer = str(graph.compile().invoke({"question": question})["answer"])
        run.set_output(answer)
    return answer


def openai_agents(question: str) -> str:
    """OpenAI's Agents SDK with a model of its own interface that needs no network."""
    agents = importlib.import_module("agents")
    usage = importlib.import_module("agents.usage")
    responses = importlib.import_module("openai.types.responses")

    class Offline(agents.Model):  # type: ignore[misc,name-defined]
        """Calls the tool, then answers with what it returned."""

        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            given = kwargs.get("input", args[1] if len(args) > 1 else "")
            found = [one for one in given if one.get("type") == "function_call_output"]
            output = [self._answer(str(found[-1]["output"]))] if found else [self._call()]
            return agents.ModelResponse(output=output, usage=usage.Usage(), response_id=None)

        def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        def _call(self) -> Any:
            return responses.ResponseFunctionToolCall(
                arguments='{"order": 7}', call_id="c1", name="state_of", type="function_call"
            )

        def _answer(self, state: str) -> Any:
            text = responses.ResponseOutputText(
                annotations=[], text=f"It is {state}.", type="output_text"
            )
            return responses.ResponseOutputMessage(
                id="m1", content=[text], role="assistant", status="completed", type="message"
            )

    @agents.function_tool  # type: ignore[untyped-decorator]
    def state_of(order: int) -> str:
        """Return the state of an order."""
        return look_up(order)

    agents.set_tracing_disabled(True)
    agent = agents.Agent(name="refunds", model=Offline(), tools=[state_of])
    with stepstream.run("refunds", agent="openai-agents", input=question) as run:
        answer = str(agents.Runner.run_sync(agent, question).final_output)
        run.set_output(answer)
    return answer
