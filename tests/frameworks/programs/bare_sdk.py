"""Spans by hand, with nothing but the OpenTelemetry SDK."""

from exporting import provider
from opentelemetry import trace

tracer = trace.get_tracer("shop")
with tracer.start_as_current_span(
    "invoke_agent refunds",
    attributes={"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "refunds"},
):
    chat = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
    }
    with tracer.start_as_current_span("chat gpt-4o", attributes=chat) as span:
        span.set_attribute("gen_ai.usage.input_tokens", 120)
        span.set_attribute("gen_ai.usage.output_tokens", 8)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", 40)
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look_up"}
    try:
        with tracer.start_as_current_span("execute_tool look_up", attributes=tool):
            raise TimeoutError("the shop does not answer")
    except TimeoutError:
        pass
    query = {
        "gen_ai.operation.name": "retrieval",
        "gen_ai.retrieval.documents": '[{"id":"faq","score":0.5}]',
    }
    with tracer.start_as_current_span("retrieval faq", attributes=query):
        pass
provider.shutdown()
