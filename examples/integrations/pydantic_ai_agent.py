"""Pydantic AI, which traces with OpenTelemetry: one span processor.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install 'stepstream[otel]' pydantic-ai-slim`; its test model needs no key.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

import stepstream.otel

provider = TracerProvider()
provider.add_span_processor(stepstream.otel.SpanProcessor())
trace.set_tracer_provider(provider)
Agent.instrument_all()

agent = Agent(TestModel(custom_output_text="Hello there."), name="support")


@agent.tool_plain
def look_up(order: int) -> str:
    """The state of an order."""
    return "shipped"


if __name__ == "__main__":
    print(agent.run_sync("Where is order 7?").output)
