"""Hostile records on every topic, valid runs among them: those are stored once, nothing restarts,
all else is accounted for.

In the end worker, sink and notifier are killed and started again: they read all of it anew.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from confluent_kafka import Producer

from stepstream.admin.topics import create_topics
from stepstream.common.kafka import position_of, producer, read_to_end
from stepstream.common.letters import letter_source
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.releases.topic import (
    Undecided,
    await_decision,
    publish,
    read_log,
    send_promotion,
)
from stepstream.schemas.accept import Rejected, accept
from stepstream.schemas.deadletter import OURS, Source
from stepstream.schemas.promotion import Promotion
from stepstream.schemas.release_log import ReleaseLog, UnreadableRelease
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import DEADLETTER_REASON, topic
from stepstream.sinks.batching.records import Record as SinkRecord
from stepstream.sinks.batching.records import Source as SinkSource
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.plain_rows import build_alerts, build_deliveries
from stepstream.sinks.clickhouse.run_rows import build_runs
from stepstream.sinks.clickhouse.task_rows import build_tasks
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.usage.partition import WindowPartition
from tests.chaos.harness import Report
from tests.chaos.notify import notifier
from tests.chaos.store import sink
from tests.support.fuzz import Rec
from tests.support.hostile import hostile_records
from tests.support.processes import Process, wait_until, worker
from tests.support.release_folder import built

TOPICS = (
    "steps", "usage", "findings", "alerts", "trajectories", "deliveries", "control", "config",
    "fleet", "state", "deadletter", "releases", "taskstate", "guardrails",
)  # fmt: skip
ONE_PARTITION = ("config", "deadletter", "releases", "guardrails")
PARTITIONS = 2
SETTLE_S = 240


class Sent(NamedTuple):
    """A hostile record as the broker has it."""

    key: bytes | None
    value: bytes
    time_ms: int


@dataclass(frozen=True)
class HostileTopics:
    """The scenario: ``each`` hostile records of every topic, and ``runs`` valid ones among the
    steps."""

    name: str = "hostile"
    each: int = 3_000
    runs: int = 200
    seed: int = 12


class Play:
    """A scenario while it runs."""

    def __init__(self, scenario: HostileTopics, settings: Settings, folder: Path) -> None:
        self._scenario = scenario
        self._settings = settings
        self._folder = folder
        self._random = random.Random(scenario.seed)
        self._producer: Producer = producer(
            settings, **{"linger.ms": 5, "message.max.bytes": 900_000}
        )
        self.sent: dict[Source, Sent] = {}
        self.refused_by_broker: Counter[str] = Counter()
        self.traces: list[str] = []
        self._processes: list[Process] = []
        self.problems: list[str] = []

    # -- processes --

    def start(self) -> None:
        """Worker, sink and notifier."""
        number = len(self._processes)
        kinds: dict[str, Callable[[Settings, Path], Process]] = {
            "worker": worker,
            "sink": sink,
            "notify": notifier,
        }
        self._processes = [
            start(self._settings, self._folder / f"{name}-{number}.log")
            for name, start in kinds.items()
        ]

    def note_ended(self) -> None:
        """Report processes that ended by themselves as problems."""
        for process in self._processes:
            if not process.running:
                self.problems.append(
                    f"a process ended by itself with {process.exit_code}:\n{process.tail()}"
                )
        self._processes = [process for process in self._processes if process.running]

    def kill(self) -> None:
        """SIGKILL to all."""
        self.note_ended()
        for process in self._processes:
            process.kill()

    # -- load --

    def send(self, each: int, runs: int) -> None:
        """Hostile records of all topics, and valid runs between them."""
        now_us = time.time_ns() // 1_000
        hostile = {
            name: hostile_records(self._scenario.seed, name, each, now_us) for name in TOPICS
        }
        for number in range(each):
            for name, records in hostile.items():
                self._send_hostile(name, *next(records))
            if number % max(1, each // runs) == 0 and len(self.traces) < runs:
                self.send_run()
        assert self._producer.flush(60) == 0

    def send_run(self) -> None:
        """A root with one child."""
        trace_id, now_us = f"{self._random.getrandbits(128) | 1:032x}", time.time_ns() // 1_000
        self.traces.append(trace_id)
        common = {
            "trace_id": trace_id,
            "name": "n",
            "agent": "valid",
            "project": "valid",
            "start_time": now_us,
        }
        root = {**common, "step_id": "a" * 16, "kind": "agent"}
        child = {
            **common,
            "step_id": "b" * 16,
            "parent_step_id": "a" * 16,
            "kind": "tool_call",
            "end_time": now_us + 5,
        }
        for item in (
            root | {"phase": "start"},
            child | {"cost_usd": "0.001"},
            root | {"end_time": now_us + 10},
        ):
            self._producer.produce(
                topic(self._settings.topic_prefix, "steps"), msgspec.json.encode(item), trace_id
            )
        self._producer.poll(0)

    def _send_hostile(self, name: str, key: bytes | None, value: bytes) -> None:
        def delivered(error: Any, message: Any) -> None:
            if error is None:
                partition, offset = position_of(message)
                self.sent[name, partition, offset] = Sent(key, value, message.timestamp()[1])
            else:
                self.refused_by_broker[name] += 1

        partition = 0 if name in ONE_PARTITION else self._random.randrange(PARTITIONS)
        full = topic(self._settings.topic_prefix, name)
        self._producer.produce(full, value, key, partition=partition, on_delivery=delivered)
        self._producer.poll(0)

    def promote(self, version: str) -> None:
        """Publish a release among the hostile records, and give it the label ``production``."""
        release = built(self._folder / version, version, agent="valid")
        publish(self._settings, release)
        head = read_log(self._settings).label("valid", "production")
        promotion = Promotion(
            id=f"{self._random.getrandbits(128):032x}",
            action="promote",
            agent="valid",
            label="production",
            release=release.hash,
            expected=0 if head is None else head.change,
            by="ann",
            at=time.time_ns() // 1_000,
        )
        send_promotion(self._settings, promotion)
        try:
            decision = await_decision(self._settings, promotion, SETTLE_S)
        except Undecided as error:
            self.problems.append(str(error))
            return
        if (decision.outcome, decision.version) != ("accepted", version):
            self.problems.append(f"{version} was not promoted: {decision}")

    # -- what must come --

    def wait(self) -> None:
        """Until every valid run is closed and stored."""
        client = connect(self._settings)
        wanted = len(self.traces)

        def is_there() -> bool:
            self.note_ended()
            names = {"project": "valid"}
            closed = client.command(
                "SELECT count() FROM runs WHERE project = {project:String} AND closed", names
            )
            stored = client.command(
                "SELECT count() FROM steps WHERE project = {project:String}", names
            )
            return bool(self.problems) or (int(closed), int(stored)) == (wanted, 2 * wanted)  # type: ignore[arg-type]

        try:
            wait_until(is_there, SETTLE_S, f"{wanted} valid runs closed and stored", every_s=0.5)
        except AssertionError as error:
            self.problems.append(str(error))
        rows = client.command(
            "SELECT count() FROM steps_raw WHERE project = 'valid' AND trace_id != ''"
        )
        if int(rows) != 2 * wanted:  # type: ignore[arg-type]
            self.problems.append(f"{rows} rows of valid steps, wanted {2 * wanted}")
        client.close()
        self._wait_for_letters()

    def _wait_for_letters(self) -> None:
        """Until those of the topic of releases are there, which one worker writes."""
        wanted = {source for source, _ in self._expected() if source[0] == "releases"}

        def is_refused() -> bool:
            self.note_ended()
            return bool(self.problems) or wanted <= self.letters().keys()

        try:
            wait_until(is_refused, SETTLE_S, f"{len(wanted)} records of releases", every_s=2)
        except AssertionError as error:
            self.problems.append(str(error))

    def letters(self) -> dict[Source, list[str]]:
        """The reasons by where each letter came from."""
        found: dict[Source, list[str]] = {}
        for message in read_to_end(
            self._settings, topic(self._settings.topic_prefix, "deadletter")
        ):
            source = letter_source(message)
            headers: Any = message.headers() or ()
            if source is not None:
                ours = {name: value.decode() for name, value in headers if name in OURS}
                found.setdefault(source, []).append(ours[DEADLETTER_REASON])
        return found

    def check(self) -> dict[str, int]:
        """Compare the letters with what had to be refused; returns counts by topic and reason."""
        letters = self.letters()
        for source, reasons in letters.items():
            if len(reasons) > 1:
                self.problems.append(
                    f"{source} is in the dead letter {len(reasons)} times: {reasons}"
                )
            if source not in self.sent:
                self.problems.append(f"{source}, which is valid, was refused: {reasons}")
        for source, reason in self._expected():
            if source not in letters:
                self.problems.append(
                    f"{source} had to be refused as {reason} and was not: "
                    f"{self.sent[source].value[:200]!r}"
                )
            elif reason and reason != letters[source][0]:
                self.problems.append(
                    f"{source} was refused as {letters[source][0]}, not as {reason}"
                )
        expected = dict(self._expected())
        for name in (
            *("steps", "usage", "findings", "alerts", "trajectories", "deliveries", "taskstate"),
        ):
            wrong = [
                source
                for source, reasons in letters.items()
                if source[0] == name and source not in expected and reasons != ["store_refused"]
            ]
            self.problems += [
                f"{source} could be read and was refused: {letters[source]}" for source in wrong[:5]
            ]
        for name in ("state", "fleet", "config", "releases"):
            if not any(source[0] == name for source in letters):
                self.problems.append(f"nothing of {name} was refused")
        return Counter(
            f"{source[0]} refused as {reasons[0]}" for source, reasons in letters.items()
        )

    def _expected(self) -> Iterator[tuple[Source, str]]:
        limits = record_limits(self._settings)
        for source, sent in self.sent.items():
            name, partition, offset = source
            if name == "steps":
                where = {
                    "partition": partition,
                    "partitions": PARTITIONS,
                    "timestamp_us": sent.time_ms * 1_000,
                }
                verdict = accept(sent.value, key=sent.key, headers=[], limits=limits, **where)
                if isinstance(verdict, Rejected):
                    yield source, verdict.reason
            elif name in ("usage", "findings"):
                stage: Any = WindowPartition(0, 1) if name == "usage" else AlertPartition(0)
                stage.process(Rec(offset, sent.time_ms, sent.key, sent.value, ()))
                if any(output.topic == "deadletter" for output in stage.take_outputs()):
                    yield source, "malformed_json"
            elif name == "releases":
                try:
                    ReleaseLog().apply((sent.key or b"").decode(errors="replace"), sent.value, 0)
                except UnreadableRelease:
                    yield source, "unreadable"
            elif name in _BUILD and sent.value:
                record = SinkRecord(offset, sent.time_ms, sent.key, sent.value, None)
                if _BUILD[name]([record], SinkSource("topic", 0)).refused:
                    yield source, ""


_BUILD: dict[str, Any] = {
    "alerts": build_alerts,
    "trajectories": build_runs,
    "deliveries": build_deliveries,
    "taskstate": build_tasks,
}


def run(
    scenario: HostileTopics, kafka: EmbeddedKafka, store: EmbeddedClickHouse, folder: Path
) -> Report:
    """Play it on a running cluster and store."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings.model_validate(
        {
            "kafka_brokers": kafka.bootstrap,
            "clickhouse_url": store.writer_url,
            "clickhouse_database": "hostile",
            "topic_prefix": "hostile",
            "partitions": PARTITIONS,
            "fleet_partitions": PARTITIONS,
            "session_timeout": "6s",
            "sink_batch_interval": "50ms",
            "notify_port": 0,
        }
    )
    create_topics(settings)
    migrate(settings)
    started = time.monotonic()
    play = Play(scenario, settings, folder)
    play.start()
    play.send(scenario.each, scenario.runs)
    play.promote("v1")
    loaded = time.monotonic()
    play.wait()
    play.kill()
    play.start()
    for _ in range(5):
        play.send_run()
    play.promote("v2")
    play.wait()
    settled = time.monotonic()
    play.note_ended()
    counts = play.check()
    play.kill()
    counts |= {"hostile records": len(play.sent), "valid runs": len(play.traces)}
    counts |= {
        f"{name} refused by the broker": count for name, count in play.refused_by_broker.items()
    }
    seconds = {"load": round(loaded - started, 1), "settling": round(settled - loaded, 1)}
    return Report(scenario.name, scenario.seed, counts, {"kills": 3}, play.problems, [], seconds)
