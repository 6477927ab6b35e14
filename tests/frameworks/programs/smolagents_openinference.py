"""A tool-calling agent of smolagents, instrumented by OpenInference."""

import os

from exporting import provider
from openinference.instrumentation.smolagents import SmolagentsInstrumentor
from smolagents import OpenAIModel, ToolCallingAgent, tool

SmolagentsInstrumentor().instrument(tracer_provider=provider)


@tool
def look_up(order: int) -> str:
    """Return the state of an order.

    Args:
        order: Its number.
    """
    return "shipped"


model = OpenAIModel("gpt-4o", api_base=os.environ["OPENAI_BASE_URL"])
ToolCallingAgent([look_up], model, name="refunds", description="Answers.").run("where is order 7?")
provider.shutdown()
