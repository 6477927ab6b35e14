"""What an agent loses when it is killed: events that its calls had recorded, and that are neither
in Kafka nor in the spool. Over a real broker, and with the broker frozen.

The loss of a kill is the age of the oldest lost event at that moment, 0 if none is lost.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.harness import Goal, Report, percentile
from benchmarks.killed_agent import recorded
from stepstream.admin.topics import create_topics
from stepstream.common.kafka import read_to_end
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.producers.transport.drain import drain
from stepstream.producers.transport.kafka import KafkaTransport
from stepstream.producers.transport.spool import Spool
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step
from stepstream.schemas.topics import topic
from tests.support import spool_agent
from tests.support.paths import ROOT
from tests.support.processes import wait_until

REACHABLE_P99_MS: Final = 100.0
FROZEN_MS: Final = 250.0
# Events that an agent has recorded before it may be killed.
LEAST_EVENTS: Final = 100
BEGIN_S: Final = 60.0


@dataclass(frozen=True)
class _Killed:
    name: str
    at_ns: int
    recorded: list[int]
    is_frozen: bool


class _Agents:
    """Starts agents and kills each of them once."""

    def __init__(self, kafka: EmbeddedKafka, settings: Settings, folder: Path) -> None:
        self._kafka = kafka
        self._folder = folder
        self._chance = random.Random(1)
        self._number = 0
        self._environment = {
            **{name: text for name, text in os.environ.items() if "STEPSTREAM" not in name},
            "STEPSTREAM_ENDPOINT": f"kafka://{settings.kafka_brokers}",
            "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
            "STEPSTREAM_STATE_DIR": str(folder),
            "STEPSTREAM_CONTROL": "false",
            "STEPSTREAM_QUIET": "true",
            "PYTHONPATH": str(ROOT),
        }

    def kill_one(self, *, is_frozen: bool) -> _Killed:
        """Start an agent; kill it after some time, during which the broker is frozen or not."""
        self._number += 1
        name = f"agent{self._number}"
        file = self._folder / f"{name}.times"
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.killed_agent", name, str(file)],
            env=self._environment,
        )
        try:
            wait_until(lambda: len(recorded(file)) > LEAST_EVENTS, BEGIN_S, f"{name} records")
            if is_frozen:
                self._kafka.pause(0)
            time.sleep(self._chance.uniform(0.3, 1.5))
            at_ns = time.monotonic_ns()
            process.send_signal(signal.SIGKILL)
            process.wait(60)
        finally:
            process.kill()
            if is_frozen:
                self._kafka.resume(0)
        return _Killed(name, at_ns, recorded(file), is_frozen)


def kills(report: Report, rounds: int) -> None:
    """The table and the goals."""
    count = 10 if report.quick else 150
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        settings = Settings(kafka_brokers=kafka.bootstrap, state_dir=folder, partitions=4)
        create_topics(settings)
        agents = _Agents(kafka, settings, Path(folder))
        killed = [
            agents.kill_one(is_frozen=is_frozen)
            for is_frozen in (False, True)
            for _ in range(count)
        ]
        _drain(settings, Path(folder) / "spool" / "events.db")
        kept = _in_kafka(settings)
    rows = []
    for is_frozen, where in ((False, "reachable"), (True, "frozen")):
        losses = [_loss(one, kept) for one in killed if one.is_frozen == is_frozen]
        ages = [age_ms for age_ms, _ in losses]
        events = [lost for _, lost in losses]
        p99 = percentile(ages, 0.99)
        rows.append((where, len(ages), percentile(ages, 0.5), p99, max(ages), sum(events)))
        report.figures |= {
            f"lost_{where}_p50_ms": percentile(ages, 0.5),
            f"lost_{where}_p99_ms": p99,
            f"lost_{where}_maximum_ms": max(ages),
        }
        reached, goal = (max(ages), FROZEN_MS) if is_frozen else (p99, REACHABLE_P99_MS)
        share = "at most" if is_frozen else "p99"
        report.goals.append(Goal(f"lost by a kill, broker {where}, {share}", reached, goal, "ms"))
    columns = ("broker", "kills", "p50 ms", "p99 ms", "maximum ms", "events lost")
    report.table("Age of the oldest event that a SIGKILL loses", columns, rows)


def _loss(one: _Killed, kept: set[tuple[str, str]]) -> tuple[float, int]:
    """Age of the oldest lost event in milliseconds, and how many are lost."""
    events = spool_agent.recorded(one.name, len(one.recorded))
    lost = [at for event, at in zip(events, one.recorded, strict=False) if event not in kept]
    return (one.at_ns - min(lost, default=one.at_ns)) / 1e6, len(lost)


def _drain(settings: Settings, place: Path) -> None:
    spool, transport = Spool(place), KafkaTransport(settings)
    try:
        drain(spool, transport, 60)
    finally:
        transport.close()
        spool.close()


def _in_kafka(settings: Settings) -> set[tuple[str, str]]:
    found = set()
    for message in read_to_end(settings, topic(settings.topic_prefix, "steps")):
        step = msgspec.json.decode(message.value() or b"", type=Step)
        found.add((step.name, step.phase))
    return found
