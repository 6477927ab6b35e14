"""A program that traces with OpenTelemetry already: one span processor more.

Start `stepstream up` in another terminal, run this program, then `stepstream trace --last`.
Needs `pip install 'stepstream[otel]'`.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

import stepstream.otel

tracer = trace.get_tracer("examples")


def answer(question: str) -> str:
    """Stands for an agent whose framework makes spans with OpenTelemetry's conventions."""
    with tracer.start_as_current_span("invoke_agent support") as run:
        run.set_attribute("gen_ai.operation.name", "invoke_agent")
        run.set_attribute("gen_ai.agent.name", "support")
        with tracer.start_as_current_span("chat gpt-4o") as call:
            call.set_attribute("gen_ai.operation.name", "chat")
            call.set_attribute("gen_ai.provider.name", "openai")
            call.set_attribute("gen_ai.request.model", "gpt-4o")
            call.set_attribute("gen_ai.input.messages", question)
            call.set_attribute("gen_ai.usage.input_tokens", 900)
            call.set_attribute("gen_ai.usage.output_tokens", 40)
        print(f"run {run.get_span_context().trace_id:032x}")
    return "Your order is shipped."


def main() -> None:
    """Set tracing up as the program did before, with one line more, and run the agent."""
    # The program's own exporters keep a sample of one trace in ten; Stepstream sees all of them.
    provider = TracerProvider(sampler=stepstream.otel.sampler(TraceIdRatioBased(0.1)))
    provider.add_span_processor(stepstream.otel.SpanProcessor())
    trace.set_tracer_provider(provider)
    print(answer("Where is my order?"))


if __name__ == "__main__":
    main()
