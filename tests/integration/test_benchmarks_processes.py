"""The benchmarks' helper processes over real Kafka: the counts that they report are true."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks import worker_process
from benchmarks.bench import prepared, records_in, steps_topic
from benchmarks.child import Child, ChildFailed
from benchmarks.latency import event_to_trajectory
from benchmarks.load import LoadSpec
from benchmarks.receiver import Receiver
from benchmarks.sender import Sender
from benchmarks.worker import Took, ours
from stepstream.common.kafka import read_to_end
from stepstream.schemas.step import HEADER_SCHEMA


def test_a_load_arrives_whole_and_at_its_rate(kafka_bootstrap: str, topic_prefix: str) -> None:
    """Every record arrives once, with key and headers; a paced load takes the time it should."""
    settings = prepared(kafka_bootstrap, topic_prefix)
    name = steps_topic(settings)
    with Sender(kafka_bootstrap) as sender:
        truth = sender.load(LoadSpec(runs=10, open_runs=5))
        half = truth.events // 2
        # In two parts: the second must go on where the first one ended.
        first = sender.send(name, count=half, sample_every=10)
        second = sender.send(name, rate=1_000, first=half)
        marks = sender.marks("")
    assert first["sent"] + second["sent"] == truth.events == records_in(settings, name)
    assert first["unsent"] == second["unsent"] == 0
    # Only a lower bound: a slow machine may take any time, but a load that is too fast is wrong.
    assert second["ended_s"] - second["began_s"] >= 0.9 * second["sent"] / 1_000
    assert sum(map(len, marks.values())) == second["sent"]
    messages = list(read_to_end(settings, name))
    headers: list[Any] = [m.headers() or () for m in messages]
    assert all(HEADER_SCHEMA in dict(pairs) for pairs in headers)
    places = {(m.partition(), m.offset()): m.value() or b"" for m in messages}
    assert first["samples"]
    assert all(
        b'"phase":"start"' not in places[partition, offset]
        for _, partition, offset in first["samples"]
    )


@pytest.mark.long
def test_the_gated_worker_does_all_its_work_and_a_subscriber_sees_it(
    kafka_bootstrap: str, topic_prefix: str
) -> None:
    """Nothing is read before the gate opens; then all is processed, closed and in a trajectory."""
    settings = prepared(kafka_bootstrap, topic_prefix)
    with Sender(kafka_bootstrap) as sender, Receiver(settings, "") as receiver:
        truth = sender.load(LoadSpec(runs=10, open_runs=5, start_us=int(time.time() * 1e6)))
        answer = sender.send(steps_topic(settings))
        more = sender.trickle(steps_topic(settings))
        took = ours(settings, truth.events + more.events, left_open=more.runs)
        assert isinstance(took, Took)
        assert 0 < took.events <= truth.events + more.events
        assert took.cpu_s > 0
        found = event_to_trajectory(
            sender.marks(""), receiver.arrivals(), since_s=0, until_s=answer["ended_s"]
        )
    assert found.missing == 0
    assert len(found.every) == truth.events
    assert len(found.opening) == truth.runs


def test_a_helper_that_fails_reports_why() -> None:
    """Its last output is in the error, and the caller does not wait for it."""
    with (
        Child.module("benchmarks.receiver", "no settings", "0") as child,
        pytest.raises(ChildFailed, match="Invalid JSON"),
    ):
        child.wait(60)


def test_an_empty_worker_reads_everything(kafka_bootstrap: str, topic_prefix: str) -> None:
    """What transport and framework cost is measured on the same records."""
    settings = prepared(kafka_bootstrap, topic_prefix)
    with Sender(kafka_bootstrap) as sender:
        truth = sender.load(LoadSpec(runs=5, open_runs=5))
        sender.send(steps_topic(settings))
    with worker_process.start(settings, empty=True) as child:
        child.ask(60, do="go")
        deadline = time.monotonic() + 30
        while child.ask(10, do="status")["records"] < truth.events and time.monotonic() < deadline:
            time.sleep(0.05)
        status = child.ask(10, do="status")
    assert status["records"] == truth.events
    assert status["runs_opened"] == 0
