"""OpenAI's Agents SDK: a trace is a run, with agents, tools and calls.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install openai-agents` and OPENAI_API_KEY.
"""

from __future__ import annotations

from agents import Agent, Runner, function_tool

import stepstream

stepstream.instrument()


@function_tool
def look_up(order: int) -> str:
    """The state of an order."""
    return "shipped"


def answer(question: str) -> str:
    """Run the agent."""
    agent = Agent(name="support", model="gpt-4o", tools=[look_up])
    return str(Runner.run_sync(agent, question).final_output)


if __name__ == "__main__":
    print(answer("Where is order 7?"))
