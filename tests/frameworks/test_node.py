"""Programs in Node: a producer by the Kafka contract alone, and the plain OpenTelemetry SDK."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stepstream.admin.topics import create_topics
from stepstream.schemas.accept import Accepted, accept
from stepstream.schemas.settings import Settings
from tests.frameworks.programs_run import npm_install, run_node
from tests.support.gateway import running, stored_records, stored_steps
from tests.support.paths import ROOT

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]
EXAMPLES = ROOT / "examples" / "node"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples with their packages, installed by npm; skipped where that cannot be done."""
    found = tmp_path_factory.mktemp("node")
    for name in ("package.json", "producer.mjs", "opentelemetry.mjs"):
        shutil.copy(EXAMPLES / name, found)
    npm_install(found)
    return found


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    made = Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix)
    create_topics(made)
    return made


def node(folder: Path, program: str, **variables: str) -> str:
    """What the program prints."""
    return run_node(folder, program, variables).strip().splitlines()[-1]


def test_a_producer_by_the_contract_alone(folder: Path, settings: Settings) -> None:
    """Key, partition, headers and values are what the worker accepts."""
    trace_id = node(
        folder,
        "producer.mjs",
        KAFKA_BROKERS=settings.kafka_brokers,
        TOPIC_PREFIX=settings.topic_prefix,
    )
    records = stored_records(settings)
    assert len(records) == 3
    for record in records:
        verdict = accept(
            record.value,
            key=record.key,
            partition=record.partition,
            partitions=settings.partitions,
            timestamp_us=record.timestamp_ms * 1_000,
            headers=record.headers,
        )
        assert isinstance(verdict, Accepted), verdict
        assert verdict.clamped == ()
        assert verdict.step.trace_id == trace_id


def test_the_plain_opentelemetry_sdk(folder: Path, settings: Settings) -> None:
    """Nothing but the variable that every exporter reads."""
    with running(settings) as gateway:
        trace_id = node(folder, "opentelemetry.mjs", OTEL_EXPORTER_OTLP_ENDPOINT=gateway.server.url)
    steps = {step.kind: step for step in stored_steps(settings)}
    run, call = steps["agent"], steps["llm_call"]
    assert {run.trace_id, call.trace_id} == {trace_id}
    assert (run.agent, call.model, call.provider) == ("node-agent", "gpt-4o", "openai")
    assert call.parent_step_id == run.step_id
    assert call.usage is not None
    assert (call.usage.input_tokens, call.usage.output_tokens) == (1_200, 80)
