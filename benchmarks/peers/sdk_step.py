"""One tracing SDK, a process of its own: what a step costs in the agent's thread, and CPU of all
threads until everything is exported over HTTP.

``python sdk_step.py SDK URL BURST PACED``: steps as fast as possible, then at 1,000 a second.
Prints a line of JSON. The environment of the SDK runs it, so it imports nothing else of this
project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

ARGUMENTS: Final = {"order": "A-1001", "limit": 10, "filters": {"country": "DE", "paid": True}}
ANSWER: Final = {"rows": [{"id": number, "name": f"name {number}"} for number in range(3)]}
WARM_UP: Final = 500
RATE: Final = 1_000.0

Step = Callable[[], None]
Flush = Callable[[], object]
Made = tuple[Step, Flush, Callable[[], dict[str, int]]]


def _nothing() -> dict[str, int]:
    return {}


def stepstream_sdk(url: str) -> Made:
    """To a gateway at the URL, without a run's control."""
    from stepstream.producers.tracer import Tracer
    from stepstream.schemas.settings import Settings

    tracer = Tracer(Settings(endpoint=url, agent="agent", quiet=True, control=False, spool_bytes=0))
    run = tracer.run("run")
    run.__enter__()

    def step() -> None:
        with run.tool("search", input=ARGUMENTS) as one:
            one.set_output(ANSWER)

    def counts() -> dict[str, int]:
        return {"dropped_events": tracer.counts.dropped, "failed_events": tracer.counts.failed}

    return step, lambda: tracer.flush(120), counts


def opentelemetry_sdk(url: str) -> Made:
    """By the batch processor and the exporter for OTLP over HTTP, as its documentation has it."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("benchmark")

    def step() -> None:
        with tracer.start_as_current_span("search") as span:
            span.set_attribute("gen_ai.operation.name", "execute_tool")
            span.set_attribute("gen_ai.tool.name", "search")
            span.set_attribute("gen_ai.agent.name", "agent")
            span.set_attribute("input.value", json.dumps(ARGUMENTS))
            span.set_attribute("output.value", json.dumps(ANSWER))

    return step, lambda: provider.force_flush(120_000), _nothing


def langfuse_sdk(url: str) -> Made:
    """A tool observation with input and output."""
    from langfuse import Langfuse

    client = Langfuse(public_key="pk-lf-1", secret_key="sk-lf-1", base_url=url)

    def step() -> None:
        with client.start_as_current_observation(
            as_type="tool", name="search", input=ARGUMENTS
        ) as one:
            one.update(output=ANSWER)

    return step, client.flush, _nothing


def logfire_sdk(url: str) -> Made:
    """A span with the arguments, and the answer as an attribute."""
    import logfire

    logfire.configure(
        token="pylf_v1_local_token",
        console=False,
        advanced=logfire.AdvancedOptions(base_url=url),
    )

    def step() -> None:
        with logfire.span("search", arguments=ARGUMENTS) as one:
            one.set_attribute("answer", ANSWER)

    return step, lambda: logfire.force_flush(120_000), _nothing


SDKS: Final[dict[str, Callable[[str], Made]]] = {
    "stepstream": stepstream_sdk,
    "OpenTelemetry": opentelemetry_sdk,
    "Langfuse": langfuse_sdk,
    "Logfire": logfire_sdk,
}


def measured(step: Step, flush: Flush, count: int, rate: float) -> dict[str, Any]:
    """Microseconds of each call by share, and CPU of the process until all is exported."""
    took: list[float] = []
    began_cpu, began = time.process_time(), time.perf_counter()
    for number in range(count):
        if rate:
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
        before = time.perf_counter()
        step()
        took.append((time.perf_counter() - before) * 1e6)
    passed = time.perf_counter() - began
    flush()
    cpu_s = time.process_time() - began_cpu
    took.sort()
    return {
        "steps": count,
        "p50_us": took[count // 2],
        "p99_us": took[count * 99 // 100],
        "max_us": took[-1],
        "cpu_us": cpu_s / count * 1e6,
        "steps_per_s": count / passed,
    }


def main(name: str, url: str, burst: int, paced: int) -> None:
    """Measure and print."""
    step, flush, counts = SDKS[name](url)
    for _ in range(WARM_UP):
        step()
    flush()
    result = {
        "burst": measured(step, flush, burst, 0.0),
        "1,000/s": measured(step, flush, paced, RATE),
        "sent": WARM_UP + burst + paced,
        **counts(),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
