"""Pydantic AI with its offline test model."""

from exporting import provider
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

Agent.instrument_all()
agent = Agent(TestModel(), name="refunds")


@agent.tool_plain
def look_up(order: int) -> str:
    """Return the state of an order."""
    return "shipped"


agent.run_sync("where is order 7?")
provider.shutdown()
