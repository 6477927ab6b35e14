"""Secrets, user ids and contents that are not captured, planted in every field by every way in:
found nowhere in Kafka, the spool, ClickHouse, logs, alerts, messages and the console.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Status, StatusCode
from pydantic import SecretStr

from stepstream.admin.imports import Import
from stepstream.common.kafka import read_to_end
from stepstream.local import supervisor
from stepstream.local.supervisor import Pipeline
from stepstream.producers.instruments.instruments import Instruments
from stepstream.producers.otel.processor import SpanProcessor
from stepstream.producers.sdk_log import LOGGER
from stepstream.producers.tracer import Tracer
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import TOPIC_NAMES, topic
from stepstream.sinks.clickhouse import connect
from tests.support import console, openai_stand_in
from tests.support.gateway import JSON, post
from tests.support.processes import wait_until
from tests.support.receiver import Receiver, receiver

SECRET = f"sk-proj-{uuid.uuid4().hex}{uuid.uuid4().hex[:16]}"
USER = "jane.roe.4711@example.com"
# In the contents of model calls, which the settings leave out.
PRIVATE = "zebra-harvest-moonlight"
PLANTED = (SECRET, SECRET[:24], USER, PRIVATE)
WAYS = ("kafka", "http", "processor", "instrument", "otlp", "steps", "import")


def text(way: str) -> str:
    """A text with the secret, and a word by which a test knows that it came through."""
    return f"seen-{way} use {SECRET} now"


def private(way: str) -> str:
    return f"{PRIVATE} {text(way)}"


SUBSCRIPTION = """
kind: Subscription
name: all
content: full
to: {{webhook: {{url: "{url}"}}}}
"""


@dataclass
class World:
    """The pipeline, what its processes and the SDK logged, and what a subscriber received."""

    settings: Settings
    received: Receiver
    lines: list[str] = field(default_factory=list)

    @property
    def gateway(self) -> str:
        return f"http://{self.settings.gateway_host}:{self.settings.gateway_port}"

    def sdk(self, **settings: Any) -> Tracer:
        return Tracer(self.settings.model_copy(update={"agent": "planter", **settings}))


@pytest.fixture(scope="module")
def world(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Everything that ``stepstream up`` runs, over the shared engines."""
    name = f"planted_{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("planted")
    documents = folder / "documents"
    documents.mkdir()
    lines: list[str] = []
    with receiver() as received, pytest.MonkeyPatch.context() as patch:
        (documents / "all.yaml").write_text(SUBSCRIPTION.format(url=received.url))
        given = Settings(
            kafka_brokers=kafka_bootstrap,
            clickhouse_url=clickhouse_url,
            topic_prefix=name,
            clickhouse_database=name,
            state_dir=str(folder / "state"),
            documents_dir=str(documents),
            notify_allow_private=True,
            log_level="debug",
            # The test reads with a console of its own.
            console_port=-1,
            capture="llm_call=off",
            user_id_key=SecretStr("the key of this test"),
            close_after="500ms",
            quiet=True,
        )  # fmt: skip
        # A loaded machine may take longer to start everything than a user would wait.
        patch.setattr(supervisor, "READY_S", 300.0)
        with Pipeline(given, report=lambda who, line: lines.append(f"{who} {line}")) as pipeline:
            yield World(pipeline.settings, received, lines)


def by_sdk(tracer: Tracer, way: str) -> None:
    """A run with a failed tool that is ignored, which raises an alert; secrets in every field."""
    phrase = text(way)
    with tracer.run(
        f"agent {phrase}", task=phrase, input=phrase, agent_version=phrase, session_id=phrase,
        user_id=USER, attributes={phrase: phrase, "owner": USER},
    ) as run:  # fmt: skip
        with run.llm(phrase, model=phrase, provider=phrase, input=private(way)) as step:
            step.set_output(private(way))
            step.set_cost(phrase)
        with run.tool(f"look_up_{way}", input={"a": [phrase]}, tool_schema=phrase) as step:
            step.set_error(RuntimeError(f"cannot connect: {phrase}"), error_type=phrase)
        with run.retrieval(phrase, input=phrase) as step:
            step.set_documents([{"id": phrase, "content": phrase}])
        with run.step(f"kind {phrase}", phrase, attempt=phrase):  # type: ignore[call-overload]
            pass
        run.set_output(f"all is well {phrase}")
    assert tracer.close(60)


def spans(provider: TracerProvider, way: str) -> None:
    phrase = text(way)
    otel = provider.get_tracer(f"scope {phrase}")
    names = {"gen_ai.conversation.id": phrase, "enduser.id": USER, "user.id": USER, "note": phrase}
    attributes = {"gen_ai.operation.name": "invoke_agent", "input.value": phrase, **names}
    with otel.start_as_current_span(f"agent {phrase}", attributes=attributes):
        chat = {
            "gen_ai.operation.name": "chat", "gen_ai.request.model": phrase, phrase: phrase,
            "gen_ai.input.messages": private(way), "gen_ai.output.messages": private(way), **names,
        }  # fmt: skip
        with otel.start_as_current_span(phrase, attributes=chat):
            pass
        tool = {
            "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "find",
            "gen_ai.tool.call.arguments": f'{{"token": "{phrase}"}}', "api_key": SECRET, **names,
        }  # fmt: skip
        with otel.start_as_current_span(phrase, attributes=tool) as span:
            span.record_exception(ValueError(phrase))
            span.set_status(Status(StatusCode.ERROR, phrase))


def provider_of(way: str) -> TracerProvider:
    return TracerProvider(
        resource=Resource({"service.name": text(way), "service.version": text(way)}),
        shutdown_on_exit=False,
    )


def by_processor(world: World) -> None:
    tracer = world.sdk()
    provider = provider_of("processor")
    provider.add_span_processor(SpanProcessor(tracer))
    spans(provider, "processor")
    provider.shutdown()
    assert tracer.close(60)


def by_otlp(world: World) -> None:
    provider = provider_of("otlp")
    exporter = OTLPSpanExporter(f"{world.gateway}/v1/traces", timeout=60)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans(provider, "otlp")
    provider.shutdown()


def by_instrument(world: World) -> None:
    tracer = world.sdk()
    instruments = Instruments(tracer)
    phrase = text("instrument")
    with openai_stand_in.running() as url:
        instruments.on(("openai",))
        try:
            with tracer.run(phrase, user_id=USER), OpenAI(base_url=url, api_key=SECRET) as client:
                client.chat.completions.create(
                    model="gpt-4o",
                    messages=[{"role": "user", "content": private("instrument")}],
                    user=USER,
                )
        finally:
            instruments.off()
    assert tracer.close(60)


def event(way: str, number: int, **fields: Any) -> dict[str, Any]:
    now_us = time.time_ns() // 1_000
    phrase = text(way)
    return {
        "trace_id": uuid.uuid4().hex, "step_id": f"{number:016x}", "kind": "tool_call",
        "name": phrase, "tool": phrase, "agent": phrase, "session_id": phrase, "user_id": USER,
        "start_time": now_us - 1_000, "end_time": now_us, "input": phrase, "output": phrase,
        "status": "error", "error_message": phrase, "error_type": phrase,
        "attributes": {phrase: phrase}, "documents": [{"id": phrase, "content": phrase}], **fields,
    }  # fmt: skip


def by_steps(world: World) -> None:
    model_call = event("steps", 2, kind="llm_call", input=private("steps"), output=PRIVATE)
    refused = event("steps", 3, step_id="no id")
    answer = post(world.gateway, "/v1/steps", [event("steps", 1), model_call, refused], JSON)
    assert answer.json["accepted"] == 2
    assert SECRET.encode() not in answer.body


def by_import(world: World, folder: Path) -> None:
    now_ns = time.time_ns()
    phrase = text("import")

    def attribute(name: str, value: str) -> dict[str, Any]:
        return {"key": name, "value": {"stringValue": value}}

    attributes = [
        attribute("gen_ai.operation.name", "execute_tool"), attribute("user.id", USER),
        attribute("input.value", phrase), attribute(phrase, phrase),
    ]  # fmt: skip
    span = {
        "traceId": uuid.uuid4().hex, "spanId": "1" * 16, "name": phrase, "attributes": attributes,
        "startTimeUnixNano": str(now_ns - 10_000_000), "endTimeUnixNano": str(now_ns - 5_000_000),
    }  # fmt: skip
    file = folder / "spans.json"
    resource = {"attributes": [attribute("service.name", phrase)]}
    scope = {"scope": {"name": phrase}, "spans": [span]}
    file.write_text(json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}))
    job = Import(world.settings, file, project="shop", now_us=now_ns // 1_000)
    assert job.send(job.plan(), lambda _done: None) == 1


def around(text: str, found: str) -> str:
    """The first place of a text that must not be there."""
    place = text.index(found)
    return text[max(0, place - 300) : place + len(found) + 100]


def in_kafka(settings: Settings) -> str:
    """Keys, values and headers of every record of every topic."""
    found: list[str] = []
    for name in sorted(TOPIC_NAMES):
        for record in read_to_end(settings, topic(settings.topic_prefix, name)):
            found += map(str, (record.key(), record.value(), record.headers()))
    return "\n".join(found)


def in_store(settings: Settings) -> str:
    """Every row of every table of the database."""
    client = connect(settings)
    try:
        query = (
            "SELECT name FROM system.tables WHERE database = currentDatabase() "
            "AND engine LIKE '%MergeTree'"
        )
        tables = [row[0] for row in client.query(query).result_rows]
        found = [client.raw_query(f"SELECT * FROM `{one}` FORMAT JSONEachRow") for one in tables]
        return b"\n".join(found).decode()
    finally:
        client.close()


def in_console(settings: Settings, folder: Path) -> str:
    """What the console answers about runs, steps, alerts and the system, and its page."""
    given = settings.model_dump(exclude_defaults=True) | {"console_port": 0}
    given.pop("state_dir", None)
    with console.running(folder, **given) as client:
        runs = client.get("/api/v1/runs").json["runs"]
        paths = ["/", "/api/v1/runs", "/api/v1/alerts", "/api/v1/system", "/api/v1/now"]
        for run in runs:
            trace_id = run["trace_id"]
            paths += [f"/runs/{trace_id}", f"/api/v1/runs/{trace_id}"]
            paths += [f"/api/v1/runs/{trace_id}/steps"]
        answers = [client.get(path) for path in paths]
        return "\n".join(answer.body.decode("utf-8", "replace") for answer in answers)


# Long: it starts every process of ``stepstream up``, with settings that no other test has.
@pytest.mark.long
@pytest.mark.timeout(900)
def test_what_is_planted_is_found_nowhere(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By every way in, in everything that Stepstream writes, sends and shows."""
    settings = world.settings
    with caplog.at_level(logging.DEBUG), pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOGGER, "propagate", True)
        by_sdk(world.sdk(), "kafka")
        by_sdk(world.sdk(kafka_brokers="", endpoint=world.gateway), "http")
        by_processor(world)
        by_otlp(world)
        by_instrument(world)
        by_steps(world)
        by_import(world, tmp_path)
        wait_until(
            lambda: all(f"seen-{way}" in in_store(settings) for way in WAYS), 240, "all is stored"
        )
        wait_until(
            lambda: sum(b"quoted" in call.body for call in world.received.taken) >= 2,
            240,
            "alerts of failed tools are sent",
        )
        found = {
            "Kafka": in_kafka(settings),
            "ClickHouse": in_store(settings),
            "console": in_console(settings, tmp_path / "console"),
            "messages": "\n".join(call.body.decode() for call in world.received.taken),
            "logs": "\n".join([*world.lines, caplog.text]),
        }
    for place in ("Kafka", "ClickHouse", "console"):
        assert [way for way in WAYS if f"seen-{way}" not in found[place]] == [], place
    assert "seen-kafka" in found["messages"], "the alert quotes the step"
    assert "set_cost" in found["logs"], "the SDK has logged a wrong call with its value"
    hits = [
        (place, around(all_of, one))
        for place, all_of in found.items()
        for one in PLANTED
        if one in all_of
    ]
    assert hits == []


def test_the_spool_has_no_more_than_what_would_be_sent(tmp_path: Path) -> None:
    """The files as they are on disk, with the log of the database."""
    tracer = Tracer(
        Settings(
            endpoint="kafka://127.0.0.1:1", spool_dir=str(tmp_path), control=False, quiet=True,
            capture="llm_call=off", user_id_key=SecretStr("key"),
        )
    )  # fmt: skip
    with tracer.run("first"):
        pass
    wait_until(lambda: tracer.counts.spooled, 30, "the endpoint is away")
    phrase = text("spool")
    with tracer.run(phrase, input=phrase, user_id=USER, attributes={phrase: USER}) as run:
        with run.llm(phrase, input=private("spool")) as step:
            step.set_output(private("spool"))
        with run.tool(phrase) as step:
            step.set_error(ValueError(phrase))
    wait_until(lambda: tracer.counts.spooled == 8, 30, "all is in the spool")
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"seen-spool" in on_disk
    assert [one for one in PLANTED if one.encode() in on_disk] == []
    tracer.close(0.1)
    on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert [one for one in PLANTED if one.encode() in on_disk] == []
