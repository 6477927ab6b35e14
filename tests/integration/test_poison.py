"""Records on which processing fails: a real worker with a bug, restarted as by a supervisor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import pytest
from confluent_kafka import Message

from stepstream.admin import deadletter
from stepstream.admin.topics import create_topics
from stepstream.cli.app import run
from stepstream.common.kafka import producer, read_to_end
from stepstream.common.settings import load
from stepstream.schemas.ids import new_step_id, new_trace_id
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from tests.support.processes import wait_until


@pytest.fixture
def settings(kafka_bootstrap: str, topic_prefix: str) -> Settings:
    made = load(
        kafka_brokers=kafka_bootstrap,
        topic_prefix=topic_prefix,
        partitions=1,
        fleet_partitions=1,
        metrics_port=-1,
    )
    create_topics(made)
    return made


class Supervisor:
    """Starts the failing worker, or a corrected one, again whenever it ends."""

    def __init__(self, settings: Settings, module: str) -> None:
        self._module = module
        self._environ = os.environ | {
            "STEPSTREAM_KAFKA_BROKERS": settings.kafka_brokers,
            "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
            "STEPSTREAM_METRICS_PORT": "-1",
            "STEPSTREAM_SESSION_TIMEOUT": "6s",
        }
        self.exits: list[int] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", self._module], env=self._environ, stderr=subprocess.DEVNULL
        )

    def until(self, done: Callable[[], bool], timeout_s: float = 60) -> None:
        """Keep it running until ``done``."""

        def done_while_running() -> bool:
            code = self.process.poll()
            if code is not None:
                self.exits.append(code)
                self.process = self._start()
            return done()

        wait_until(
            done_while_running,
            timeout_s,
            "the worker to get past the record",
            every_s=0.2,
            instead=lambda: f"exits {self.exits}",
        )


@contextmanager
def supervised(
    settings: Settings, module: str = "tests.integration.failing_worker"
) -> Iterator[Supervisor]:
    supervisor = Supervisor(settings, module)
    try:
        yield supervisor
    finally:
        supervisor.process.terminate()
        supervisor.process.wait(30)


def send(settings: Settings, names: list[str]) -> list[str]:
    """One ended root step for each name; returns the trace ids."""
    client, traces, now_us = producer(settings), [], time.time_ns() // 1000
    for name in names:
        trace_id = new_trace_id()
        event = {
            "trace_id": trace_id, "step_id": new_step_id(), "kind": "agent", "name": name,
            "start_time": now_us, "end_time": now_us,
        }  # fmt: skip
        client.produce(
            topic(settings.topic_prefix, "steps"),
            key=trace_id,
            value=msgspec.json.encode(event),
            headers=list(RECORD_HEADERS),
        )
        traces.append(trace_id)
    assert client.flush(20) == 0
    return traces


def messages(settings: Settings, name: str) -> list[Message]:
    return list(read_to_end(settings, topic(settings.topic_prefix, name)))


def values(settings: Settings, name: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(m.value() or b"") for m in messages(settings, name)]


@pytest.mark.timeout(600)
def test_poison_is_tried_three_times_then_dead_lettered_and_a_flood_of_it_halts(
    settings: Settings,
) -> None:
    """A bad record costs three restarts and a dead letter; a bug that fails on many halts."""
    traces = send(settings, ["before", "poison", "after"])
    with supervised(settings) as supervisor:
        supervisor.until(
            lambda: (
                {t["trace_id"] for t in values(settings, "trajectories")} >= {traces[0], traces[2]}
            )
        )
        # The failure may be one of the moment: three processes try the record.
        assert supervisor.exits == [1, 1, 1]
        (dead,) = messages(settings, "deadletter")
        headers: dict[str, Any] = dict(cast(Any, dead.headers()))
        assert headers["stepstream-reason"] == b"poison"
        assert b"ZeroDivisionError: cannot digest poison" in headers["stepstream-detail"]
        assert dead.key() == traces[1].encode()
    # The tries are noted already, as if the restarts had happened: five more records to skip.
    for _ in range(5):
        note_tries(settings, send_poison_offset(settings), tries=3)
    traces = send(settings, ["fine"])
    with supervised(settings) as supervisor:
        supervisor.until(
            lambda: any(a["alert"] == "partition-halted" for a in values(settings, "alerts"))
        )
        (halt,) = [a for a in values(settings, "alerts") if a["alert"] == "partition-halted"]
        assert (halt["severity"], halt["subject"], halt["state"]) == (
            "critical",
            "steps/0",
            "firing",
        )
        skipped = [
            dict(cast(Any, m.headers()))["stepstream-offset"]
            for m in messages(settings, "deadletter")
        ]
        assert sorted(set(skipped)) == [b"1", b"3", b"4", b"5", b"6"], (
            "the sixth stays in the topic"
        )
        assert traces[0] not in {t["trace_id"] for t in values(settings, "trajectories")}
    with supervised(settings, "stepstream.stream.shell.worker") as supervisor:
        supervisor.until(
            lambda: traces[0] in closed(settings) and last_alert(settings)["state"] == "resolved"
        )
    assert dead_letters(settings) == {b"1", b"3", b"4", b"5", b"6"}, (
        "corrected, it processes what it halted at"
    )
    sent, foreign = deadletter.replay(settings, deadletter.read(settings, reason="poison"))
    assert (sent, foreign) == (len(messages(settings, "deadletter")), [])
    with supervised(settings, "stepstream.stream.shell.worker") as supervisor:
        supervisor.until(lambda: len(closed(settings)) == 9)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_people_can_let_a_halted_partition_skip_more(settings: Settings) -> None:
    """`deadletter resume` sends the halted record and as many more to the dead letter."""
    for _ in range(7):
        note_tries(settings, send_poison_offset(settings), tries=3)
    (trace_id,) = send(settings, ["fine"])
    with supervised(settings) as supervisor:
        supervisor.until(
            lambda: any(a["alert"] == "partition-halted" for a in values(settings, "alerts"))
        )
    assert len(dead_letters(settings)) == 5
    place = ["--kafka-brokers", settings.kafka_brokers, "--topic-prefix", settings.topic_prefix]
    assert run(["deadletter", "resume", "trajectories/0", *place]) == 2
    assert run(["deadletter", "resume", "steps/0", *place]) == 0
    with supervised(settings) as supervisor:
        supervisor.until(
            lambda: trace_id in closed(settings) and last_alert(settings)["state"] == "resolved"
        )
    assert len(dead_letters(settings)) == 7


@pytest.mark.long
@pytest.mark.timeout(600)
def test_being_killed_is_not_poison(settings: Settings) -> None:
    """However often a worker is killed while it has a record, the record is not dropped."""
    (trace_id,) = send(settings, ["deadly"])
    with supervised(settings) as supervisor:
        supervisor.until(lambda: len(supervisor.exits) >= 4)
    assert supervisor.exits == [-9] * 4
    with supervised(settings, "stepstream.stream.shell.worker") as supervisor:
        supervisor.until(lambda: trace_id in closed(settings))
    assert dead_letters(settings) == set()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_worker_that_hangs_notices_and_ends(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its loop hangs on a record it reports which, exits by itself, and loses no record."""
    monkeypatch.setenv("STEPSTREAM_WATCHDOG", "2s")
    (trace_id,) = send(settings, ["endless"])
    with supervised(settings) as supervisor:
        supervisor.until(lambda: len(supervisor.exits) >= 2)
    assert supervisor.exits == [1, 1]
    with supervised(settings, "stepstream.stream.shell.worker") as supervisor:
        supervisor.until(lambda: trace_id in closed(settings))
    assert dead_letters(settings) == set()


@pytest.mark.long
@pytest.mark.parametrize(("name", "ends"), [("endless", 3), ("backtracking", 4)])
@pytest.mark.timeout(600)
def test_a_record_that_hangs_is_skipped_after_its_tries(
    name: str, ends: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With threads the watchdog notes the record; without them the markers identify it."""
    monkeypatch.setenv("STEPSTREAM_WATCHDOG", "2s")
    traces = send(settings, ["before", name, "after"])
    with supervised(settings) as supervisor:
        supervisor.until(lambda: closed(settings) >= {traces[0], traces[2]}, 150)
    # A hang ends the process, because a thread cannot be killed.
    assert supervisor.exits == [1] * ends
    (dead,) = messages(settings, "deadletter")
    assert dead.key() == traces[1].encode()


def closed(settings: Settings) -> set[str]:
    """Runs with a closed trajectory."""
    return {t["trace_id"] for t in values(settings, "trajectories") if t.get("closed")}


def last_alert(settings: Settings) -> dict[str, Any]:
    """The newest record of the alert about a halt."""
    return next(a for a in reversed(values(settings, "alerts")) if a["alert"] == "partition-halted")


def dead_letters(settings: Settings) -> set[bytes]:
    """Offsets of the records that were dead-lettered."""
    return {
        dict(cast(Any, m.headers()))["stepstream-offset"] for m in messages(settings, "deadletter")
    }


def send_poison_offset(settings: Settings) -> int:
    """Send one more poisonous step; returns its offset."""
    send(settings, ["poison"])
    return max(m.offset() or 0 for m in messages(settings, "steps"))


def note_tries(settings: Settings, offset: int, tries: int) -> None:
    """Write the note that a worker writes as it fails."""
    from stepstream.stream.core.poison import PoisonLedger

    ledger = PoisonLedger("steps", 0, "state")
    for _ in range(tries):
        note = ledger.failed(offset, time.time_ns() // 1000, "Traceback: ZeroDivisionError")
    client = producer(settings)
    client.produce(
        topic(settings.topic_prefix, "state"), key=note.key, value=note.value, partition=0
    )
    assert client.flush(20) == 0
