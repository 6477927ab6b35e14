"""The gateway over real Kafka: what it acknowledges is there, what it refuses is accounted for."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from stepstream.cli.app import run
from stepstream.common.kafka import client_config, producer
from stepstream.common.web.credentials import (
    Credential,
    Credentials,
    new_credential,
    save,
    token_of,
)
from stepstream.producers.gateway.mapping.spans import Span
from stepstream.producers.gateway.service.process import Gateway
from stepstream.schemas.settings import Settings
from tests.support.gateway import (
    JSON,
    PROTOBUF,
    Answer,
    post,
    running,
    stored_letters,
    stored_steps,
)
from tests.support.otlp import any_value, json_request, json_span, pairs, request_of, span
from tests.support.processes import wait_until

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}


def recent(number: int = 1, parent: int | str = 0, /, **fields: Any) -> Span:
    """A span of a second ago."""
    now = time.time_ns()
    return span(number, parent, start_ns=now - 2_000_000, end_ns=now - 1_000_000, **fields)


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    return Settings(kafka_brokers=kafka_bootstrap, topic_prefix=topic_prefix, project="shop")


@pytest.fixture
def gateway(settings: Settings) -> Iterator[Gateway]:
    with running(settings) as made:
        yield made


def test_an_exporter_of_opentelemetry_needs_nothing_but_the_address(
    gateway: Gateway, settings: Settings
) -> None:
    """Its own SDK, gzip and all: the steps are in Kafka when it has returned."""
    provider = TracerProvider(resource=SdkResource({"service.name": "refunds"}))
    exporter = OTLPSpanExporter(f"{gateway.server.url}/v1/traces")
    # Sends in the thread of the span's end: what has returned must be in Kafka.
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("my.agent")
    with (
        tracer.start_as_current_span(
            "refund", attributes={"gen_ai.operation.name": "invoke_agent"}
        ),
        tracer.start_as_current_span("chat gpt-4o", attributes=CHAT) as call,
    ):
        call.set_attribute("gen_ai.usage.input_tokens", 12)
    provider.shutdown()
    steps = {step.name: step for step in stored_steps(settings)}
    chat, run = steps["chat gpt-4o"], steps["refund"]
    assert (chat.kind, chat.parent_step_id, chat.model) == ("llm_call", run.step_id, "gpt-4o")
    assert (run.kind, run.agent, run.project, run.parent_step_id) == (
        "agent",
        "refunds",
        "shop",
        "",
    )
    assert chat.usage is not None
    assert chat.usage.input_tokens == 12


@pytest.mark.parametrize("coding", ["", "gzip", "deflate", "zstd"])
@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_every_form_and_compression(
    gateway: Gateway, settings: Settings, form: str, coding: str
) -> None:
    """All give the same step."""
    one = recent(attributes=CHAT)
    plain = (
        request_of([one]).SerializeToString()
        if form == "protobuf"
        else json.dumps(json_request([one])).encode()
    )
    compress: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "zstd": zstandard.compress,
    }
    body = compress[coding](plain)
    headers = {**(PROTOBUF if form == "protobuf" else JSON)}
    if coding:
        headers["Content-Encoding"] = coding
    answer = post(gateway, "/v1/traces", body, headers)
    assert (answer.status, answer.body) == (200, b"" if form == "protobuf" else b"{}")
    assert answer.headers["content-type"] == headers["Content-Type"]
    (step,) = stored_steps(settings)
    assert (step.kind, step.model, step.step_id) == ("llm_call", "gpt-4o", one.span_id)


def test_bad_items_cost_themselves_and_are_accounted_for(
    gateway: Gateway, settings: Settings
) -> None:
    """Partial success has count and reason; each is in the dead letter, once however often it
    is sent.
    """
    old = recent(3)
    # Steps are kept for 30 days: this span would vanish as soon as it was stored.
    old.start_ns = old.end_ns = time.time_ns() - 60 * 86_400_000_000_000
    items: list[Any] = [
        recent(1, attributes=CHAT),
        json_span(recent(2)) | {"traceId": "abc"},
        old,
        json_span(recent(4)) | {"attributes": {"a": 1}},
        recent(5),
    ]
    for _ in range(2):
        answer = post(gateway, "/v1/traces", json_request(items))
        assert answer.status == 200
        partial = answer.json["partialSuccess"]
        assert partial["rejectedSpans"] == "3"
        assert "trace id" in partial["errorMessage"]
        assert "2 more" in partial["errorMessage"]
    assert len(stored_steps(settings)) == 4
    letters = stored_letters(settings)
    assert Counter(letter["stepstream-reason"] for letter in letters) == {
        "invalid_field": 4,
        "time_out_of_range": 2,
    }
    # The offset is derived from the item: an exporter that retries makes no further letters.
    assert len({letter["stepstream-offset"] for letter in letters}) == 3
    partial = ExportTraceServiceResponse.FromString(
        post(
            gateway,
            "/v1/traces",
            request_of([recent(1, trace_id="0" * 32)]).SerializeToString(),
            PROTOBUF,
        ).body
    )
    assert partial.partial_success.rejected_spans == 1
    assert "all zero" in partial.partial_success.error_message


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "sentence"),
    [
        ("/v1/traces", b"\xff\xff", PROTOBUF, 400, "not an OTLP request"),
        ("/v1/traces", b'{"a": 1}', PROTOBUF, 400, "application/json"),
        ("/v1/traces", b"{", JSON, 400, "not valid JSON"),
        ("/v1/traces", b"[]", JSON, 400, "not a JSON object"),
        ("/v1/traces", b"{}", {"Content-Type": "text/plain"}, 415, "Content-Type"),
        ("/v1/traces", b"{}", {**JSON, "Content-Encoding": "compress"}, 415, "gzip"),
        ("/v1/traces", b"{}", {**JSON, "Content-Encoding": "gzip"}, 400, "gzip"),
        ("/v1/steps", b"{", JSON, 400, "not valid JSON"),
        ("/v1/steps", b"{}", {"Content-Type": "text/plain"}, 415, "ndjson"),
        ("/elsewhere", b"{}", JSON, 404, "nothing at this path"),
    ],
)
def test_requests_that_cannot_be_used_are_refused_with_the_reason(
    gateway: Gateway, path: str, body: bytes, headers: dict[str, str], status: int, sentence: str
) -> None:
    """With the status that makes exporters give up rather than repeat."""
    answer = post(gateway, path, body, headers)
    assert answer.status == status
    assert sentence in answer.body.decode("utf-8", "replace")


def test_bodies_beyond_the_limits_are_refused(settings: Settings) -> None:
    """On the wire, and when they are decompressed: a few bytes may stand for gigabytes."""
    small = settings.model_copy(update={"gateway_max_body_bytes": 100_000})
    with running(small) as gateway:
        answer = post(gateway, "/v1/traces", b"\x0a" + bytes(200_000), PROTOBUF)
        assert answer.status == 413
        for coding, bomb in (
            # 70 MiB of zeros are 70 KB: the bound has to hold while they are decompressed.
            ("gzip", gzip.compress(bytes(70 << 20))),
            ("zstd", zstandard.compress(bytes(70 << 20))),
        ):
            headers = {**PROTOBUF, "Content-Encoding": coding}
            assert len(bomb) < 100_000
            assert post(gateway, "/v1/traces", bomb, headers).status == 413


def test_paths_with_and_without_prefix(gateway: Gateway, settings: Settings) -> None:
    """Exporters append ``/v1/traces`` or not; users give an address with a path or not."""
    for path in (
        "/v1/traces",
        "/v1/traces/",
        "/",
        # Langfuse's path: programs that are moved from there keep their settings.
        "/api/public/otel/v1/traces",
        "/api/public/otel",
        "/v1/traces/v1/traces",
        "/otlp/v1/traces",
    ):
        assert post(gateway, path, json_request([recent()])).status == 200, path
    assert len(stored_steps(settings)) == 7


def test_metrics_are_answered_and_dropped(gateway: Gateway, settings: Settings) -> None:
    """One setting of the SDKs sends all three signals: an error would fill the user's log."""
    assert post(gateway, "/v1/metrics", b"\x0a\x00", PROTOBUF).status == 200
    assert post(gateway, "/v1/metrics", {}).json == {}
    assert stored_steps(settings) == []


def test_logs_of_content_and_of_evaluations_are_steps(gateway: Gateway, settings: Settings) -> None:
    """Below the span that they were logged in; other log records are not counted as lost."""
    now = time.time_ns()
    ids = {"trace_id": bytes(range(16)), "span_id": bytes(range(1, 9)), "time_unix_nano": now}
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.log_records.add(
        **ids,
        event_name="gen_ai.evaluation.result",
        attributes=pairs(
            {
                "gen_ai.evaluation.name": "faithfulness",
                "gen_ai.evaluation.score.value": 0.75,
                "gen_ai.evaluation.score.label": "pass",
                "gen_ai.evaluation.explanation": "all claims are supported",
            }
        ),
    )
    message = scope.log_records.add(**ids, attributes=pairs({"event.name": "gen_ai.user.message"}))
    message.body.CopyFrom(any_value({"content": "where is my order?"}))
    # A line of an ordinary log: the program's logger is exported as well.
    scope.log_records.add(**ids, body=any_value("GET /health 200"))
    # Without a trace: there is no run that it could be a step of.
    scope.log_records.add(time_unix_nano=now, event_name="gen_ai.choice")
    answer = post(gateway, "/v1/logs", request.SerializeToString(), PROTOBUF)
    assert answer.status == 200
    assert b"belongs to no run" in answer.body
    steps = {step.name: step for step in stored_steps(settings)}
    result = steps["faithfulness"]
    assert (result.kind, result.output, result.parent_step_id) == (
        "evaluation",
        "pass",
        "0102030405060708",
    )
    assert result.attributes["score"] == "0.75"
    assert result.attributes["explanation"] == "all claims are supported"
    content = steps["gen_ai.user.message"]
    assert json.loads(content.input) == {"role": "user", "content": "where is my order?"}
    assert len(steps) == 2


def test_logs_that_were_sent_as_traces_are_recognised(gateway: Gateway) -> None:
    """The messages share their numbers, so it decodes: the error states what is meant."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(
        time_unix_nano=time.time_ns(), body=any_value("hello")
    )
    answer = post(gateway, "/v1/traces", request.SerializeToString(), PROTOBUF)
    assert b"/v1/logs" in answer.body


def step_event(number: int = 1, **fields: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000
    return {
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "step_id": f"{number:016x}",
        "kind": "tool_call",
        "name": "read",
        "start_time": now - 1_000,
        "end_time": now,
        **fields,
    }


def test_steps_as_json_lists_and_lines(gateway: Gateway, settings: Settings) -> None:
    """From any language: an object, a list, or one object a line; each is handled as the worker
    would.
    """
    assert post(gateway, "/v1/steps", step_event(1)).json == {"accepted": 1, "rejected": 0}
    assert post(gateway, "/v1/steps", [step_event(2), step_event(3)]).json["accepted"] == 2
    lines = [json.dumps(step_event(4)), "no json", json.dumps(step_event(5, project="other"))]
    headers = {"Content-Type": "application/x-ndjson"}
    answer = post(gateway, "/v1/steps", "\n".join(lines).encode(), headers)
    assert (answer.status, answer.json["accepted"], answer.json["rejected"]) == (200, 2, 1)
    assert answer.json["rejections"][0]["reason"] == "malformed_json"
    # Alone in its request: then the status is that of the one event.
    wrong = post(gateway, "/v1/steps", step_event(6, step_id="short"))
    assert wrong.status == 400
    assert "step_id" in wrong.json["error"]
    steps = {step.step_id[-1]: step for step in stored_steps(settings)}
    assert {key: step.project for key, step in steps.items()} == {
        "1": "shop",
        "2": "shop",
        "3": "shop",
        "4": "shop",
        "5": "other",
    }
    assert len(stored_letters(settings)) == 2


def test_a_browser_s_requests_are_refused(gateway: Gateway, settings: Settings) -> None:
    """No key is asked for on loopback, so a page of any site could send: it names itself, and is
    refused.
    """
    for headers in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        # DNS rebinding: the browser takes the gateway for a server of its own site.
        {"Host": "evil.example"},
    ):
        answer = post(gateway, "/v1/traces", json_request([recent()]), {**JSON, **headers})
        assert answer.status == 403
    assert stored_steps(settings) == []


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Tokens by name, and their file."""
    table = Credentials()
    tokens = {"file": str(tmp_path / "credentials.json")}
    for name, scopes, projects in (
        ("shop", ["ingest"], ["shop"]),
        ("billing", ["ingest"], ["billing"]),
        ("both", ["ingest"], ["shop", "billing"]),
        ("operator", ["act"], ["shop", "billing"]),
        ("all", ["ingest"], []),
        ("reader", ["read"], []),
    ):
        entry, secret = new_credential(name, scopes, projects)  # type: ignore[arg-type]
        assert isinstance(entry, Credential)
        table = table.with_entry(entry)
        tokens[name] = token_of(name, secret)
    save(tmp_path / "credentials.json", table)
    return tokens


def test_keys_in_every_form(settings: Settings, keys: dict[str, str]) -> None:
    """Bearer, x-api-key, Basic with the key's name, Basic with a project and the whole token,
    percent-encoded.
    """
    secured = settings.model_copy(update={"credentials_file": keys["file"]})
    token = keys["shop"]
    secret = token.partition(".")[2]

    def basic(text: str) -> str:
        return f"Basic {base64.b64encode(text.encode()).decode()}"

    with running(secured) as gateway:
        for headers in (
            {"Authorization": f"Bearer {token}"},
            {"x-api-key": token},
            {"Authorization": basic(f"shop:{secret}")},
            {"Authorization": basic(f"anything:{token}")},
            {"Authorization": basic(f"anything:{token}").replace(" ", "%20")},
            {"Authorization": f"Bearer%20{token}"},
        ):
            answer = post(gateway, "/v1/traces", json_request([recent()]), {**JSON, **headers})
            assert answer.status == 200, headers
        for headers, sentence in (
            ({"Authorization": f"Bearer {token}x"}, "stepstream keys"),
            ({"Authorization": "Bearer pk-lf-1"}, "stepstream_"),
            ({"Authorization": basic("shop:wrong")}, "wrong"),
        ):
            answer = post(gateway, "/v1/traces", json_request([recent()]), {**JSON, **headers})
            assert answer.status == 401
            assert sentence in answer.json["error"]


def test_a_key_writes_to_its_projects_alone(settings: Settings, keys: dict[str, str]) -> None:
    """By header, by attribute and in steps; and only where its scope is ``ingest``."""
    secured = settings.model_copy(update={"credentials_file": keys["file"], "project": "usual"})
    with running(secured) as gateway:

        def send(key: str, project: str = "", attribute: str = "") -> tuple[int, str]:
            headers = {**JSON, "x-api-key": keys[key]}
            if project:
                headers["x-stepstream-project"] = project
            own = {"stepstream.project": attribute} if attribute else {}
            answer = post(gateway, "/v1/traces", json_request([recent(attributes=own)]), headers)
            return answer.status, answer.body.decode()

        assert send("reader")[0] == 403
        assert send("shop", "billing")[0] == 403
        assert "may not send" in send("shop", attribute="billing")[1]
        for key, project, attribute in (
            ("shop", "", ""),
            ("both", "", ""),
            ("both", "shop", ""),
            ("both", "", "shop"),
            ("all", "", ""),
            ("all", "new", ""),
        ):
            assert send(key, project, attribute) == (200, "{}")
        assert Counter(step.project for step in stored_steps(secured)) == {
            "shop": 3,
            "billing": 1,
            "usual": 1,
            "new": 1,
        }
        answer = post(
            gateway,
            "/v1/steps",
            step_event(1, project="billing"),
            {**JSON, "x-api-key": keys["shop"]},
        )
        assert answer.status == 400
        assert "billing" in answer.json["error"]


def test_a_project_beyond_its_rate_gets_a_retry_time(settings: Settings) -> None:
    """429 with Retry-After; other projects go on."""
    # Bursts of one request are allowed, so the second one is refused.
    limited = settings.model_copy(update={"gateway_rate_limit": 10})
    with running(limited) as gateway:
        many = json_request([recent(number) for number in range(1, 41)])
        assert post(gateway, "/v1/traces", many).status == 200
        refused = post(gateway, "/v1/traces", many)
        assert refused.status == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        other = {**JSON, "x-stepstream-project": "other"}
        assert post(gateway, "/v1/traces", many, other).status == 200


def test_without_kafka_the_answer_comes_in_time_and_is_503() -> None:
    """Exporters give up after 5 to 10 s; the next requests are refused at once, before they are
    read.
    """
    # Port 1 refuses connections; nothing listens there.
    nowhere = Settings(kafka_brokers="127.0.0.1:1", topic_prefix="nowhere")
    with running(nowhere, with_topics=False) as gateway:
        body = json_request([recent()])
        first: list[Any] = []
        thread = threading.Thread(target=lambda: first.append(post(gateway, "/v1/traces", body)))
        thread.start()
        thread.join(20)
        assert first[0].status == 503
        assert "retry-after" in first[0].headers
        assert post(gateway, "/readyz", b"", method="GET").status == 503
        assert post(gateway, "/healthz", b"", method="GET").status == 200


def test_metrics_count_what_was_taken_and_refused(gateway: Gateway) -> None:
    """By signal, outcome and reason."""
    bad = json_span(recent(2)) | {"traceId": "abc"}
    post(gateway, "/v1/traces", json_request([recent(1, attributes=CHAT), bad]))
    text = post(gateway, "/metrics", b"", method="GET").body.decode()
    for line in (
        'stepstream_gateway_items_total{outcome="accepted",signal="traces"} 1.0',
        'stepstream_gateway_items_total{outcome="rejected",signal="traces"} 1.0',
        'stepstream_gateway_rejected_total{reason="invalid_field"} 1.0',
        'stepstream_gateway_requests_total{signal="traces",status="200"} 1.0',
    ):
        assert line in text


def test_a_new_key_counts_without_a_restart(settings: Settings, keys: dict[str, str]) -> None:
    """And a removed one does not any more: the file is read again when it has changed."""
    secured = settings.model_copy(update={"credentials_file": keys["file"]})
    with running(secured) as gateway:

        def status(token: str) -> int:
            headers = {**JSON, "x-api-key": token}
            return post(gateway, "/v1/traces", json_request([recent()]), headers).status

        assert status(keys["shop"]) == 200
        entry, secret = new_credential("fresh", ["ingest"])
        # The file is replaced as a whole: the other keys are gone with it.
        save(Path(keys["file"]), Credentials([entry]))
        wait_until(lambda: status(token_of("fresh", secret)) == 200, 20, "the new key is taken")
        assert status(keys["shop"]) == 401


def test_gateway_check_sends_a_span_and_prints_the_variables(
    gateway: Gateway, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """And reports what is wrong where it cannot."""
    assert run(["gateway", "check", "--gateway-url", gateway.server.url]) == 0
    out = capsys.readouterr().out
    assert f"OTEL_EXPORTER_OTLP_ENDPOINT={gateway.server.url}" in out
    (step,) = stored_steps(settings)
    assert step.trace_id in out
    assert run(["gateway", "check", "--gateway-url", gateway.server.url, "--key", "x"]) == 1
    assert "stepstream keys create" in capsys.readouterr().err
    assert run(["gateway", "check", "--gateway-url", "http://127.0.0.1:1"]) == 1
    assert "running" in capsys.readouterr().err


def events_of(stream: http.client.HTTPResponse, count: int) -> list[dict[str, Any]]:
    """The next events of a stream."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
    return found


@contextmanager
def control_stream(
    gateway: Gateway, query: str = "", headers: dict[str, str] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """An open control stream."""
    connection = http.client.HTTPConnection(gateway.server.url.partition("//")[2], timeout=30)
    connection.request("GET", f"/v1/control{query}", headers=headers or {})
    try:
        yield connection.getresponse()
    finally:
        connection.close()


def test_commands_reach_agents_without_a_route_to_kafka(
    settings: Settings, keys: dict[str, str]
) -> None:
    """Posted by one with the scope ``act``, streamed to those whose projects they are meant for."""
    secured = settings.model_copy(update={"credentials_file": keys["file"]})
    trace_id = recent().trace_id
    path = f"/v1/runs/{trace_id}/control"
    with running(secured) as gateway:

        def command(key: str, **fields: Any) -> Answer:
            return post(gateway, path, fields, {**JSON, "x-api-key": keys[key]})

        assert command("operator", action="stop").status == 404  # nothing of that run was seen
        post(gateway, "/v1/traces", json_request([recent()]), {**JSON, "x-api-key": keys["shop"]})
        own = {"x-api-key": keys["shop"]}
        with (
            control_stream(gateway, headers=own) as mine,
            control_stream(gateway, headers={"x-api-key": keys["billing"]}) as other,
        ):
            assert (mine.status, mine.headers["content-type"]) == (200, "text/event-stream")
            assert command("shop", action="stop").status == 403
            assert command("billing", action="stop").status == 404
            assert command("operator", action="explode").status == 400
            # Half a surrogate pair, which cannot be written as UTF-8.
            assert command("operator", action="stop", reason="\ud83d").status == 400
            assert command("operator", action="stop", budget_usd="5").status == 400
            assert command("operator", action="resume", budget_usd="x").status == 400
            wait_until(lambda: gateway.hub.follows, 30, "the topic is followed")
            sent = command("operator", action="stop", reason="too expensive")
            assert sent.status == 202
            (got,) = events_of(mine, 1)
            assert got == sent.json
            assert (got["action"], got["trace_id"], got["by"], got["reason"], got["project"]) == (
                "stop",
                trace_id,
                "key operator",
                "too expensive",
                "shop",
            )
            post(
                gateway,
                "/v1/traces",
                json_request([recent(trace_id="1" * 32)]),
                {**JSON, "x-api-key": keys["billing"]},
            )
            billing = post(
                gateway,
                f"/v1/runs/{'1' * 32}/control",
                {"action": "pause"},
                {**JSON, "x-api-key": keys["operator"]},
            )
            assert billing.status == 202
            assert events_of(other, 1)[0]["action"] == "pause"  # and nothing of the shop's before
        with control_stream(gateway, headers={**own, "Last-Event-ID": got["command_id"]}) as again:
            assert command("operator", action="resume", budget_usd="2.5").status == 202
            (later,) = events_of(again, 1)  # what it had seen is not repeated
            assert (later["action"], later["budget_usd"]) == ("resume", "2.5")
        with control_stream(gateway, "?project=billing", own) as refused:
            assert refused.status == 403


def test_a_command_to_all_runs_of_an_agent(settings: Settings, keys: dict[str, str]) -> None:
    """It is streamed to the agents of the project, and valid for runs that start soon after."""
    secured = settings.model_copy(update={"credentials_file": keys["file"]})
    with running(secured) as gateway:

        def command(key: str, **fields: Any) -> Answer:
            return post(gateway, "/v1/control", fields, {**JSON, "x-api-key": keys[key]})

        given = {"action": "stop", "project": "shop", "agent": "support"}
        assert command("shop", **given).status == 403
        assert command("operator", **given, budget_usd="5").status == 400
        assert command("operator", **given, **{"for": "soon"}).status == 400
        assert command("operator", **given, **{"for": "2h"}).status == 400
        with (
            control_stream(gateway, headers={"x-api-key": keys["shop"]}) as mine,
            control_stream(gateway, headers={"x-api-key": keys["billing"]}) as other,
        ):
            wait_until(lambda: gateway.hub.follows, 30, "the topic is followed")
            sent = command("operator", **given, **{"for": "1m"})
            assert sent.status == 202
            (got,) = events_of(mine, 1)
            assert got == sent.json
            assert (got["agent"], got.get("trace_id", "")) == ("support", "")
            assert got["expires"] - got["time"] == 60_000_000
            assert command("operator", action="pause", project="billing").status == 202
            assert events_of(other, 1)[0]["action"] == "pause"


EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def call_grpc(port: int, body: bytes, *metadata: tuple[str, str], method: str = EXPORT) -> bytes:
    """One call, with bytes as they are."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(method)
        return bytes(call(body, timeout=20, metadata=metadata, compression=grpc.Compression.Gzip))


def test_otlp_over_grpc(settings: Settings, keys: dict[str, str]) -> None:
    """The same mapping, keys and partial success."""
    served = settings.model_copy(update={"gateway_grpc_port": 0, "credentials_file": keys["file"]})
    with running(served) as gateway:
        assert gateway.grpc is not None
        port = gateway.grpc.port
        good = request_of([recent(attributes=CHAT)]).SerializeToString()
        key = ("x-api-key", keys["shop"])
        assert call_grpc(port, good, key) == b""
        assert call_grpc(port, good) == b""  # from this machine no key is needed
        bad = request_of([recent(trace_id="0" * 32)]).SerializeToString()
        answer = ExportTraceServiceResponse.FromString(call_grpc(port, bad, key))
        assert answer.partial_success.rejected_spans == 1
        metrics = EXPORT.replace("trace", "metrics").replace("Trace", "Metrics")
        assert call_grpc(port, b"", key, method=metrics) == b""
        for body, metadata, code in (
            (b"\xff\xff", key, grpc.StatusCode.INVALID_ARGUMENT),
            (good, ("x-api-key", "stepstream_shop.wrong"), grpc.StatusCode.UNAUTHENTICATED),
            (good, ("x-api-key", keys["reader"]), grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call_grpc(port, body, metadata)
            assert error.value.code() == code
        steps = stored_steps(served)
        assert [(step.kind, step.model) for step in steps] == [("llm_call", "gpt-4o")] * 2


def test_what_a_collector_wrote_to_kafka_is_read(settings: Settings) -> None:
    """Protobuf and JSON, many traces in one record; what is none goes to the dead letter; a
    restart repeats nothing.
    """
    source = f"{settings.topic_prefix}.otlp"
    own = settings.model_copy(update={"gateway_from_kafka": source})
    admin = AdminClient(client_config(settings))
    admin.create_topics([NewTopic(source, 2, 1)])[source].result(30)
    traces = [recent(number, trace_id=f"{number:032x}") for number in range(1, 6)]
    records = [
        request_of(traces[:3]).SerializeToString(),
        json.dumps(json_request(traces[3:])).encode(),
        b"\xff\xffno request",
    ]
    client = producer(settings)
    for record in records:
        client.produce(source, record)
    client.flush(30)
    with running(own) as gateway:
        reader = gateway.collector
        assert reader is not None
        wait_until(lambda: reader.records == 3, 90, "all records are done")
    assert {step.trace_id for step in stored_steps(own)} == {one.trace_id for one in traces}
    assert len(stored_letters(own)) == 1
    # While no gateway runs: the next one must read this record and no other.
    client.produce(source, request_of([recent(7, trace_id="7" * 32)]).SerializeToString())
    client.flush(30)
    with running(own) as gateway:
        again = gateway.collector
        assert again is not None
        wait_until(lambda: again.records == 1, 90, "the next record is done")
    assert len(stored_steps(own)) == 6


def test_a_body_that_arrives_too_slowly_is_refused(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """408: a byte now and then would otherwise take up the room of others for hours."""
    monkeypatch.setattr("stepstream.producers.gateway.service.http.BODY_S", 1.0)
    host, _, port = gateway.server.url.partition("//")[2].partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: " + host.encode() + b"\r\n"
            b"Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
        )
        connection.settimeout(0.1)
        answer = b""
        deadline = time.monotonic() + 60
        while not answer and time.monotonic() < deadline:
            # JSON may begin with spaces, so the body is valid so far.
            connection.sendall(b" ")
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(4_096)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"within 1 s" in answer
    wait_until(lambda: gateway.admission.in_flight == 0, 20, "its room is given back")
