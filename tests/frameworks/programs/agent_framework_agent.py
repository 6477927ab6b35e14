"""An agent of Microsoft's Agent Framework, with its own instrumentation."""

import asyncio
import os

from agent_framework import Agent
from agent_framework.observability import enable_instrumentation
from agent_framework.openai import OpenAIChatCompletionClient
from exporting import provider

enable_instrumentation(enable_sensitive_data=True)


def look_up(order: int) -> str:
    """Return the state of an order."""
    return "shipped"


client = OpenAIChatCompletionClient(model="gpt-4o", base_url=os.environ["OPENAI_BASE_URL"])
asyncio.run(Agent(client, "Answer briefly.", name="refunds", tools=[look_up]).run("where is 7?"))
provider.shutdown()
