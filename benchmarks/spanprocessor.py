"""``stepstream.otel.SpanProcessor``: microseconds a span in the agent's thread, time until a start
is sent, runs seen under a sampler that drops. Compared in the same run with OpenTelemetry without
a processor and with its batch processor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from benchmarks import harness
from benchmarks.harness import Goal, Report, percentile
from stepstream.otel import SpanProcessor, sampler
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent

WARM_UP: Final = 200
GOAL_SPAN_US: Final = 6.0
GOAL_START_MS: Final = 200.0
ATTRIBUTES: Final[dict[str, Any]] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.provider.name": "openai",
    "gen_ai.usage.input_tokens": 900,
    "gen_ai.usage.output_tokens": 40,
    "gen_ai.input.messages": "x" * 200,
    "gen_ai.output.messages": "y" * 200,
}


class Arrivals(MemoryTransport):
    """Records when each record was given to the transport."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ns: list[int] = []

    def send(self, record: Any, done: Any) -> bool:
        self.at_ns.append(time.time_ns())
        return super().send(record, done)


@dataclass
class Subject:
    """A provider to measure, and how to end it.

    ``close`` gets the number of ended spans and returns how many of them were lost; None without a
    processor.
    """

    name: str
    provider: TracerProvider
    close: Callable[[int], int | None]
    burst_us: list[float] = field(default_factory=list)
    steady_us: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)


def _settings() -> Settings:
    return Settings(quiet=True, queue_events=200_000, queue_bytes=1 << 30)


def _none() -> Subject:
    return Subject("no processor", TracerProvider(shutdown_on_exit=False), lambda _ended: None)


def _batch() -> Subject:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))

    def close(ended: int) -> int:
        provider.shutdown()
        return ended - len(exporter.get_finished_spans())

    return Subject("BatchSpanProcessor", provider, close)


def _ours() -> Subject:
    tracer = Tracer(_settings(), transport=MemoryTransport())
    provider = TracerProvider(shutdown_on_exit=False)
    processor = SpanProcessor(tracer=tracer)
    provider.add_span_processor(processor)

    def close(_ended: int) -> int:
        tracer.close(60)
        counts = tracer.counts
        return processor.dropped + counts.dropped + counts.failed

    return Subject("SpanProcessor", provider, close)


def _spans_us(provider: TracerProvider, count: int, pause_s: float) -> list[float]:
    """Microseconds of each of ``count`` spans in this thread, below one more."""
    tracer = provider.get_tracer("benchmark")
    taken: list[float] = []
    with tracer.start_as_current_span("run"):
        for _ in range(count):
            began = time.perf_counter_ns()
            with tracer.start_as_current_span("chat") as span:
                for name, value in ATTRIBUTES.items():
                    span.set_attribute(name, value)
            taken.append((time.perf_counter_ns() - began) / 1e3)
            if pause_s:
                time.sleep(pause_s)
    return taken


def _compared(report: Report, quick: bool) -> None:
    rounds, burst, steady = (1, 500, 100) if quick else (5, 5_000, 2_000)
    made: dict[str, Subject] = {}
    lost: dict[str, int | None] = {}
    ended = sum(count + 1 for count in (WARM_UP, burst, steady))
    # Interleaved, because what else the machine does changes over time.
    for number in range(rounds):
        report.progress(f"round {number + 1} of {rounds}")
        for make in (_none, _batch, _ours):
            subject = make()
            kept = made.setdefault(subject.name, subject)
            _spans_us(subject.provider, WARM_UP, 0)
            cpu = time.process_time()
            kept.burst_us += _spans_us(subject.provider, burst, 0)
            kept.steady_us += _spans_us(subject.provider, steady, 0.001)
            missing = subject.close(ended)
            lost[subject.name] = (
                None if missing is None else missing + (lost.get(subject.name) or 0)
            )
            kept.cpu_us.append((time.process_time() - cpu) / (burst + steady) * 1e6)
    rows = [
        (
            s.name,
            median(s.burst_us),
            percentile(s.burst_us, 0.99),
            median(s.steady_us),
            percentile(s.steady_us, 0.99),
            min(s.cpu_us),
            lost[s.name],
        )
        for s in made.values()
    ]
    report.table(
        "microseconds a span with seven attributes",
        ("subject", "burst p50", "burst p99", "1,000/s p50", "1,000/s p99", "CPU, all", "lost"),
        rows,
    )
    ours, none = rows[2], rows[0]
    added = ours[1] - none[1]
    report.figures |= {"added_burst_p50_us": added, "added_steady_p50_us": ours[3] - none[3]}
    report.goals.append(
        Goal("added to a span in the agent's thread, p50", added, GOAL_SPAN_US, "µs")
    )
    if lost["SpanProcessor"]:
        report.wrong.append(f"{lost['SpanProcessor']} events were lost")


def _start_delay(report: Report, quick: bool) -> None:
    """From a span's start to its start event at the transport."""
    transport = Arrivals()
    tracer = Tracer(_settings(), transport=transport)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer=tracer))
    spans = []
    for _ in range(20 if quick else 100):
        spans.append(provider.get_tracer("benchmark").start_span("hangs"))
        time.sleep(0.02)
    time.sleep(0.5)
    waits_ms = [
        (at_ns / 1e3 - StepEvent.model_validate_json(record.value).start_time) / 1e3
        for at_ns, record in zip(transport.at_ns, transport.records, strict=True)
    ]
    if len(waits_ms) != len(spans):
        report.wrong.append(f"{len(waits_ms)} of {len(spans)} starts were sent")
    for span in spans:
        span.end()
    tracer.close(10)
    report.figures["start_p99_ms"] = percentile(waits_ms, 0.99)
    report.goals.append(
        Goal("start of a span to its event at the transport, p99", report.figures["start_p99_ms"],
             GOAL_START_MS, "ms")
    )  # fmt: skip


def _sampled(report: Report, quick: bool) -> None:
    """Runs that are seen while one in a hundred is sampled."""
    transport, exporter = MemoryTransport(), InMemorySpanExporter()
    tracer = Tracer(_settings(), transport=transport)
    provider = TracerProvider(sampler=sampler(TraceIdRatioBased(0.01)), shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer=tracer))
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=100_000))
    runs = 200 if quick else 5_000
    for _ in range(runs):
        provider.get_tracer("benchmark").start_span("run").end()
    tracer.close(60)
    provider.shutdown()
    seen = len({event.trace_id for event in transport.ended})
    others = len(exporter.get_finished_spans())
    report.notes.append(f"sampler of 1 %: {seen} of {runs} runs seen, {others} by the exporter")
    share = 100 * seen / runs
    report.goals.append(Goal("runs seen under a sampler of 1 %", share, 100.0, "%", at_most=False))


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """All three parts."""
    _compared(report, arguments.quick)
    _start_delay(report, arguments.quick)
    _sampled(report, arguments.quick)


if __name__ == "__main__":
    harness.run("spanprocessor", measure, harness.parser(__doc__ or ""))
