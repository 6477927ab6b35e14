"""Pydantic AI with its offline test model, exporting by its documented settings alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stepstream.schemas.settings import Settings
from tests.support.gateway import running, stored_steps

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]

PROGRAM = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
Agent.instrument_all()
agent = Agent(TestModel(), name="refunds")

@agent.tool_plain
def look_up(order: int) -> str:
    return "shipped"

agent.run_sync("where is order 7?")
provider.shutdown()
"""


def test_an_agent_with_a_tool(kafka_bootstrap: str, topic_prefix: str) -> None:
    """Kinds, tool, tokens and tree; what the run repeats is not counted."""
    pytest.importorskip("pydantic_ai")
    settings = Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix)
    with running(settings) as gateway:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": gateway.server.url}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    steps = stored_steps(settings)
    (run,) = [step for step in steps if step.kind == "agent"]
    (tool,) = [step for step in steps if step.kind == "tool_call"]
    calls = [step for step in steps if step.kind == "llm_call"]
    assert (run.agent, run.parent_step_id, run.usage) == ("refunds", "", None)
    assert (tool.tool, tool.output) == ("look_up", "shipped")
    assert len(calls) == 2
    assert all(call.usage is not None and call.usage.input_tokens for call in calls)
    chosen = [step.tool for step in steps if step.kind == "tool_selection"]
    assert chosen == ["look_up"]
