"""The OpenAI Agents SDK, instrumented by OpenInference."""

from agents import Agent, Runner, function_tool
from exporting import provider
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

OpenAIAgentsInstrumentor().instrument(tracer_provider=provider)


@function_tool
def look_up(order: int) -> str:
    """Return the state of an order."""
    return "shipped"


Runner.run_sync(Agent(name="refunds", model="gpt-4o", tools=[look_up]), "where is order 7?")
provider.shutdown()
