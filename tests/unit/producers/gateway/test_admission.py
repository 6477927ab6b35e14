"""What is read and what is refused before it is read."""

from __future__ import annotations

import json
import time

import pytest

from stepstream.producers.gateway.service import ingest
from stepstream.producers.gateway.service.admission import LEAST_BYTES, Admission
from stepstream.producers.gateway.service.control import SeenTraces
from stepstream.producers.gateway.service.kafka_writer import WAIT_S, retry_after_s
from tests.support.gateway_app import App
from tests.support.otlp import TRACE, json_request, span

MIB = 1 << 20
JSON = {"Content-Type": "application/json"}


def test_more_bytes_than_the_limit_are_refused_and_a_lone_request_never_is() -> None:
    """With a Retry-After; the largest body must be possible."""
    admission = Admission(8 * MIB)
    # More than the limit, but alone: otherwise such a body could never be sent.
    assert admission.enter(20 * MIB, "a", 0.0) is None
    refusal = admission.enter(1, "a", 0.0)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (503, 1)
    admission.leave(20 * MIB, 0.0, 0.1, counts=True)
    assert admission.enter(1, "a", 0.1) is None


def test_the_limit_falls_while_requests_take_long_and_rises_again() -> None:
    """So that latency stays below what exporters wait for."""
    admission = Admission(8 * MIB)
    first = admission.limit_bytes
    now = 0.0
    for _ in range(30):
        assert admission.enter(MIB // 8, "a", now) is None
        admission.leave(MIB // 8, now, now + 2.0, counts=True)
        now += 2.0
    assert admission.limit_bytes == LEAST_BYTES
    for _ in range(2_000):
        sizes = [LEAST_BYTES // 2] * 2
        while sizes and admission.enter(sizes[-1], "a", now) is None:
            sizes.pop()
        for _ in range(2 - len(sizes)):
            admission.leave(LEAST_BYTES // 2, now, now + 0.05, counts=True)
        now += 0.05
    assert LEAST_BYTES < admission.limit_bytes <= first


def test_many_slow_requests_of_one_moment_lower_the_limit_once() -> None:
    """They were all admitted under the old one."""
    admission = Admission(64 * MIB)
    before = admission.limit_bytes
    for _ in range(20):
        admission.enter(1_000, "a", 0.0)
    for _ in range(20):
        admission.leave(1_000, 0.0, 5.0, counts=True)
    assert admission.limit_bytes == before * 0.7


def test_a_slow_client_does_not_lower_the_limit() -> None:
    """What counts is the time after its body has arrived."""
    admission = Admission(64 * MIB)
    before = admission.limit_bytes
    admission.enter(1_000, "a", 0.0)
    admission.leave(1_000, 0.0, 30.0, counts=True, waited_s=29.9)
    assert admission.limit_bytes == before


def test_six_attempts_of_an_exporter_outlast_an_outage_of_half_a_minute() -> None:
    """Each is answered with the time to wait: the first after three seconds, later ones at once."""
    at_s = WAIT_S
    for _ in range(5):
        at_s += retry_after_s(at_s)
    # A stock exporter tries six times; an outage of 30 s must not cost its spans.
    assert at_s > 30
    assert retry_after_s(0.0) == retry_after_s(1.0) == 2
    assert retry_after_s(3_600.0) == 15


def test_each_project_has_its_own_rate() -> None:
    """What was sent beyond it is made up for by waiting."""
    admission = Admission(8 * MIB, spans_per_s=100)
    assert admission.enter(1, "a", 0.0) is None
    admission.spent("a", 500, 0.0)
    refusal = admission.enter(1, "a", 0.0)
    assert refusal is not None
    assert (refusal.status, refusal.retry_after_s) == (429, 4)
    assert admission.enter(1, "b", 0.0) is None
    assert admission.enter(1, "a", 3.2) is None


def test_refusals_come_before_the_body_is_read() -> None:
    """Too large, Kafka away, too much in flight, too fast: the client's bytes are not taken."""
    body = json.dumps(json_request([span()])).encode()
    app = App(max_body_bytes=10)
    assert app.request("/v1/traces", body, JSON, read=False)[0] == 413
    app = App()
    # So long has Kafka not acknowledged anything.
    app.writer.stuck_s = 5.0
    status, _, headers = app.request("/v1/traces", body, JSON, read=False)
    assert (status, headers["retry-after"]) == (503, "2")
    app = App()
    app.writer.is_probing, app.writer.retry_after_s = True, 9
    status, _, headers = app.request("/v1/traces", body, JSON, read=False)
    assert (status, headers["retry-after"]) == (503, "9")
    app = App()
    app.admission.enter(64 << 20, "shop", time.monotonic())
    status, _, headers = app.request("/v1/traces", body, JSON, read=False)
    assert (status, headers["retry-after"]) == (503, "1")
    assert app.admission.in_flight == 1


def test_what_kafka_did_not_take_is_not_acknowledged() -> None:
    """503 with Retry-After, and the room in flight is given back."""
    now = time.time_ns()
    body = json.dumps(json_request([span(start_ns=now, end_ns=now)])).encode()
    app = App()
    app.writer.fails = "no leader"
    status, data, headers = app.request("/v1/traces", body, JSON)
    assert status == 503
    assert b"no leader" in data
    assert "retry-after" in headers
    assert app.admission.in_flight == 0


def test_a_request_of_too_many_items_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """413, and nothing of it is written: each item would become a record in memory."""
    # The default of 100,000 items would only make the test slow.
    monkeypatch.setattr(ingest, "MAX_ITEMS", 300)
    now = time.time_ns()
    many = [span(n, start_ns=now, end_ns=now) for n in range(1, 400)]
    app = App(max_body_bytes=8 << 20)
    status, data, _ = app.request("/v1/traces", json.dumps(json_request(many)).encode(), JSON)
    assert status == 413
    assert b"send smaller ones" in data
    steps = json.dumps([{"trace_id": "x"}] * 400).encode()
    assert app.request("/v1/steps", steps, JSON)[0] == 413
    assert app.writer.records == []
    assert app.admission.in_flight == 0


def test_the_project_of_a_run_is_the_first_one_seen() -> None:
    """A span with the trace id of another project's run gives no right to command that run."""
    seen = SeenTraces()
    seen.add([(TRACE, "shop")])
    seen.add([(TRACE, "attacker")])
    assert seen.project_of(TRACE) == "shop"
