"""OpenAI's client alone, instrumented by OpenInference."""

from exporting import provider
from openai import OpenAI
from openinference.instrumentation.openai import OpenAIInstrumentor

OpenAIInstrumentor().instrument(tracer_provider=provider)
tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
OpenAI().chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "where is order 7?"}], tools=tools
)
provider.shutdown()
