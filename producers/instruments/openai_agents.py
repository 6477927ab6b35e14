"""OpenAI's Agents SDK by a tracing processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import agents
from agents.tracing import TracingProcessor, get_trace_provider

from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.instruments.calls import Switch
from stepstream.producers.instruments.frames import OpenSteps
from stepstream.producers.steps import Step


class Processor(TracingProcessor):
    """Records traces as runs, and their spans as steps.

    The Agents SDK logs exceptions of processors and goes on, so a stop acts in the client of the
    model (``instrument`` wraps it too) and in the program's own steps. Guardrails refuse calls of
    the model's client, and only report the tools of the SDK.
    """

    def __init__(self, switch: Switch) -> None:
        self._steps = OpenSteps(switch, stops_calls=False)

    def on_trace_start(self, trace: Any) -> None:
        group = trace.group_id if type(getattr(trace, "group_id", None)) is str else None
        self._begin(
            trace.trace_id,
            None,
            lambda parent: parent.run(
                trace.name, session_id=group, attributes={"openai.trace_id": trace.trace_id}
            ),
        )

    def on_trace_end(self, trace: Any) -> None:
        self._steps.end(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        data = span.span_data
        self._begin(
            span.span_id, span.parent_id or span.trace_id, lambda parent: _opened(parent, data)
        )

    def on_span_end(self, span: Any) -> None:
        def record(step: Step) -> None:
            _record(step, span.span_data)
            if span.error:
                step.set_error(str(span.error.get("message", "")), "error")

        self._steps.end(span.span_id, record)

    def shutdown(self) -> None:
        """Nothing to do: the SDK flushes at the end of the program."""

    def force_flush(self) -> None:
        """Nothing to do, as ``shutdown``."""

    def _begin(self, number: str, parent: str | None, make: Callable[[Any], Step]) -> None:
        try:
            self._steps.begin(number, parent, make)
        except (RunStopped, BudgetExceeded):
            return  # the next call of the model raises it


def _opened(parent: Any, data: Any) -> Any:
    kind, name = data.type, getattr(data, "name", "") or data.type
    match kind:
        case "agent":
            return parent.agent(name)
        case "function":
            return parent.tool(name, input=data.input)
        case "generation" | "response":
            model = getattr(data, "model", None)
            return parent.llm(kind, model=model or "", input=data.input)
        case "guardrail":
            return parent.step("guardrail", name)
        case "handoff":
            return parent.step("plan", "handoff")
        case _:
            return parent.step("other", name)


def _record(step: Step, data: Any) -> None:
    match data.type:
        case "function":
            if data.input is not None:
                step.set_input(data.input)
            step.set_output(data.output)
        case "response":
            if data.input is not None:
                step.set_input(data.input)
            if data.response is not None:
                step.record_response(data.response)
        case "generation":
            _record_generation(step, data)
        case "handoff":
            step.set_output(f"{data.from_agent} -> {data.to_agent}")
        case "guardrail":
            step.set_attribute("triggered", data.triggered)


def _record_generation(step: Step, data: Any) -> None:
    if data.input is not None:
        step.set_input(data.input)
    if data.model:
        step.set_model(data.model)
    if data.output is not None:
        step.set_output(data.output)
    used = data.usage or {}
    if used.get("input_tokens") is not None:
        cached = (used.get("input_tokens_details") or {}).get("cached_tokens") or 0
        reasoning = (used.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
        step.set_usage(
            input_tokens=used["input_tokens"],
            output_tokens=used.get("output_tokens") or 0,
            cached_input_tokens=cached,
            reasoning_tokens=reasoning,
        )


def add_processor(switch: Switch) -> Callable[[], None]:
    """Add the processor to those of the Agents SDK. Returns what removes it."""
    processor = Processor(switch)
    agents.add_trace_processor(processor)

    def remove() -> None:
        # There is no public way to remove one processor and to keep the others.
        multi = getattr(get_trace_provider(), "_multi_processor", None)
        kept = getattr(multi, "_processors", None)
        if multi is not None and kept is not None:
            multi.set_processors([one for one in kept if one is not processor])

    return remove
