"""An agent with OpenTelemetry's own SDK and its batch processor, in a process of its own; for
measuring which of its spans arrive when Kafka does not answer for a while.
"""

from __future__ import annotations

import logging
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from benchmarks.child import Answer, serve

# The queue of the batch processor, by default: what does not fit is dropped.
QUEUE_SPANS = 2_048


def emit(url: str, seconds: float, spans_per_s: float, timeout_s: float) -> Answer:
    """Emit spans at a rate, then flush; returns the ids of all of them."""
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    provider = TracerProvider(resource=Resource({"service.name": "outage"}))
    exporter = OTLPSpanExporter(f"{url}/v1/traces", timeout=timeout_s)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS))
    tracer = provider.get_tracer("agent")
    began, ids = time.monotonic(), list[str]()
    while (elapsed := time.monotonic() - began) < seconds:
        while len(ids) < elapsed * spans_per_s:
            with tracer.start_as_current_span(
                "chat gpt-4o", attributes={"gen_ai.operation.name": "chat"}
            ) as span:
                ids.append(f"{span.get_span_context().span_id:016x}")
        time.sleep(0.01)
    provider.force_flush(60_000)
    provider.shutdown()
    return {"ids": ids}


if __name__ == "__main__":
    serve({"emit": emit})
