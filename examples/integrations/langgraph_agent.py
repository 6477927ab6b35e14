"""LangGraph: a graph is a run, its nodes and calls are steps.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install 'langgraph langchain-openai'` and OPENAI_API_KEY.
"""

from __future__ import annotations

from typing import TypedDict

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph

import stepstream

stepstream.instrument()


class State(TypedDict):
    """What the nodes of the graph read and write."""

    text: str


def support(state: State) -> State:
    """The only node."""
    return {"text": str(ChatOpenAI(model="gpt-4o").invoke(state["text"]).content)}


def answer(question: str) -> str:
    """Run the graph."""
    builder = StateGraph(State)
    builder.add_node("support", support)
    builder.add_edge(START, "support")
    builder.add_edge("support", END)
    return str(builder.compile(name="order_status").invoke({"text": question})["text"])


if __name__ == "__main__":
    print(answer("Where is order 7?"))
