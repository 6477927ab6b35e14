"""The gateway's load: every body is a valid request with ids of its own."""

from __future__ import annotations

import gzip
import json
import time

import pytest

from benchmarks.otlp_load import JSON, PROTOBUF, OtlpLoad
from stepstream.producers.gateway.mapping.mapper import Origin
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.service.ingest import Batch, Ingest


def batch_of(data: bytes, form: str, now_ns: int) -> Batch:
    *_, batch = Ingest(Options()).traces(data, form, Origin("default", now_ns // 1_000))
    return batch


@pytest.mark.parametrize("form", [PROTOBUF, JSON])
@pytest.mark.parametrize("spans", [1, 40])
def test_all_spans_are_taken_and_no_id_repeats(form: str, spans: int) -> None:
    """In both formats; every span has its batch's name as session."""
    now_ns = time.time_ns()
    load = OtlpLoad(form, spans, seed=3)
    seen: set[str] = set()
    for _ in range(6):
        body = load.body(now_ns)
        batch = batch_of(gzip.decompress(body.data), form, now_ns)
        assert (batch.taken, batch.refused, body.spans) == (spans, 0, spans)
        steps = [json.loads(value) for _, value in batch.records]
        assert {step["session_id"] for step in steps} == {body.batch}
        seen |= {step["step_id"] for step in steps}
    # Bodies are copies with other ids: an id that came again would count as a duplicate.
    assert len(seen) == 6 * spans


def test_roots_elsewhere_are_marked() -> None:
    """``remote``: the spans without a parent have one in another process."""
    now_ns = time.time_ns()
    body = OtlpLoad(PROTOBUF, 16, seed=3, remote=True).body(now_ns, compressed=False)
    steps = [json.loads(value) for _, value in batch_of(body.data, PROTOBUF, now_ns).records]
    assert [step.get("parent_remote", False) for step in steps] == [True] + [False] * 15
    assert all(step["parent_step_id"] for step in steps)
