"""What the sink's tests share: steps with known costs, sinks as processes that may die on the way,
and counting."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from stepstream.common import kafka
from stepstream.common.settings import to_environment
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from stepstream.sinks.batching.sink import Sink
from stepstream.sinks.batching.stats import SinkStats
from stepstream.sinks.clickhouse import connect, migrate
from stepstream.sinks.clickhouse.writer import ClickHouseWriter
from tests.support.processes import wait_until

TOPICS = (
    *("steps", "trajectories", "alerts", "deliveries", "findings", "taskstate", "tasks", "config"),
    "deadletter",
)


def small_batches(
    kafka_brokers: str,
    clickhouse_url: str,
    topic_prefix: str,
    clickhouse_database: str,
    **more: Any,
) -> Settings:
    """Settings of a sink that makes many small batches, in the shortest session that the broker
    grants."""
    return Settings(
        kafka_brokers=kafka_brokers,
        clickhouse_url=clickhouse_url,
        topic_prefix=topic_prefix,
        clickhouse_database=clickhouse_database,
        session_timeout="6s",
        # Many small batches: each is a chance for a crash between two points of the protocol.
        sink_batch_interval="50ms",
        **more,
    )


def set_apart(settings: Settings, what: str) -> Settings:
    """The same with topics and a database of its own, named after what it is for."""
    name = what.replace(" ", "_")
    return settings.model_copy(
        update={
            "topic_prefix": f"{settings.topic_prefix}.{name}",
            "clickhouse_database": f"{settings.clickhouse_database}_{name}",
        }
    )


def create_topics(settings: Settings, partitions: int = 1) -> None:
    """The sink's topics, those of the records with as many partitions."""
    admin = AdminClient(settings.kafka)
    log_append = {"message.timestamp.type": "LogAppendTime"}
    wanted = [
        NewTopic(
            topic(settings.topic_prefix, name),
            num_partitions=1 if name in ("config", "deadletter") else partitions,
            config=log_append if name == "steps" else {},
        )
        for name in TOPICS
    ]
    for future in admin.create_topics(wanted).values():
        future.result(30)


@dataclass
class Sent:
    """Steps that were sent: what the store must have in the end."""

    steps: int = 0
    cost_usd: Decimal = Decimal(0)
    keys: set[tuple[str, str]] = field(default_factory=set)


@dataclass
class Steps:
    """Makes steps, each with a cost of its own that no binary fraction holds, and remembers what it
    made."""

    seed: int = 7
    sent: Sent = field(default_factory=Sent)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.now_us = time.time_ns() // 1_000

    def run(self, steps: int = 10, **fields: Any) -> list[tuple[str, bytes]]:
        """The records of one run: a start and an end of each step; more ``fields`` go into the
        ends."""
        trace_id = f"{self.random.getrandbits(128):032x}"
        records = []
        for number in range(steps):
            start: dict[str, Any] = {
                "trace_id": trace_id,
                "step_id": f"{self.random.getrandbits(64):016x}",
                "kind": self.random.choice(["llm_call", "tool_call", "plan"]),
                "name": f"step {number}",
                "project": "shop",
                "agent": f"agent-{self.random.randrange(3)}",
                "start_time": self.now_us - self.random.randrange(7_200_000_000),
                "input": "what was asked " * self.random.randrange(20),
            }
            # Nine digits after the point: a sum in floats would differ in the last one.
            cost = Decimal(self.random.randrange(1, 10**9)).scaleb(-9)
            end = (
                start
                | {
                    "end_time": start["start_time"] + self.random.randrange(5_000_000),
                    "cost_usd": str(cost),
                }
                | fields
            )
            records.append((trace_id, encoded(start | {"phase": "start"})))
            records.append((trace_id, encoded(end | {"phase": "end"})))
            self.sent.steps += 1
            self.sent.cost_usd += cost
            self.sent.keys.add((trace_id, str(start["step_id"])))
        return records


def encoded(value: dict[str, Any]) -> bytes:
    """A record's value."""
    return msgspec.json.encode(value)


def send(settings: Settings, records: Iterable[tuple[str, bytes]], name: str = "steps") -> None:
    """Produce records, acknowledged when it returns."""
    client = kafka.producer(settings)
    headers: list[tuple[str, str | bytes | None]] = list(RECORD_HEADERS)
    for key, value in records:
        client.produce(topic(settings.topic_prefix, name), value, key, headers=headers)
        client.poll(0)
    assert client.flush(60) == 0


class SinkProcess:
    """A sink in a process of its own.

    ``crash`` names a point of the protocol and how often it is passed unharmed.
    """

    def __init__(
        self, settings: Settings, crash: str = "", passes: int = 0, freeze: str = ""
    ) -> None:
        self.name = settings.topic_prefix
        # The process writes to it until it ends; `end` closes and removes it.
        self.log = tempfile.NamedTemporaryFile(  # noqa: SIM115
            "w+", prefix="sink-", suffix=".log", delete=False
        )
        environment = {
            **os.environ,
            **to_environment(settings),
            "SINK_CRASH": f"{crash}|{passes}",
            "SINK_FREEZE": freeze,
        }
        command = [sys.executable, "-m", "tests.integration.sink_process"]
        self.process = subprocess.Popen(command, env=environment, stderr=self.log, stdout=self.log)

    def wait(self, timeout: float = 240) -> int:
        """The exit code; negative when it was killed."""
        return self.process.wait(timeout)

    def is_frozen(self) -> bool:
        """Whether it has stopped itself."""
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "T"

    def stop(self) -> int:
        """End it as an operator would."""
        if self.process.poll() is None:
            # A frozen process gets SIGTERM only when it goes on.
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(160)
        finally:
            self.end()

    def end(self) -> None:
        """Kill it if it still runs, and drop its log."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.log.closed:
            return
        print(f"--- sink of {self.name}", self.output(), sep="\n")  # shown where a test fails
        self.log.close()
        Path(self.log.name).unlink(missing_ok=True)

    def output(self) -> str:
        """Its output so far."""
        return Path(self.log.name).read_text()


@contextmanager
def running(settings: Settings, **options: Any) -> Iterator[SinkProcess]:
    """A sink for the time of a block."""
    process = SinkProcess(settings, **options)
    try:
        yield process
    finally:
        process.end()


class SinkThread:
    """A sink in a thread of this process, for the time of a block; stopped as SIGTERM would."""

    def __init__(self, settings: Settings) -> None:
        self.sink = Sink(settings, ClickHouseWriter(settings))
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.sink.run(self._stop)
        except Exception as error:
            self._failure = error

    def __enter__(self) -> SinkStats:
        self._thread.start()
        return self.sink.stats

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._failure is not None:
            raise self._failure


@dataclass(frozen=True)
class Stored:
    """The counts of steps in the views and in the rollups."""

    rows: int
    distinct: int
    cost_usd: Decimal
    by_minute: tuple[int, Decimal]
    by_hour: tuple[int, Decimal]


def stored(client: Client) -> Stored:
    """Count."""
    rows, distinct, cost = client.query(
        "SELECT count(), uniqExact(trace_id, step_id), sum(cost_usd) FROM steps"
    ).result_rows[0]
    minutes, hours = (
        client.query(f"SELECT sum(steps), sum(cost_usd) FROM {view}").result_rows[0]
        for view in ("metrics_1m", "metrics_1h")
    )
    return Stored(
        rows, distinct, cost or Decimal(0), (minutes[0], minutes[1]), (hours[0], hours[1])
    )


def exactly(sent: Sent) -> Stored:
    """What must be stored of what was sent."""
    total = (sent.steps, sent.cost_usd)
    return Stored(sent.steps, sent.steps, sent.cost_usd, total, total)


def wait_stored(settings: Settings, sent: Sent, timeout: float = 180) -> None:
    """Wait until the store contains what the test expects.

    Rows are seen a moment before the rollups made from them.
    """
    migrate(settings)
    client = connect(settings)
    try:
        wait_until(
            lambda: stored(client) == exactly(sent),
            timeout,
            f"{exactly(sent)} stored",
            instead=lambda: f"but {stored(client)}",
        )
    finally:
        client.close()


def assert_stored(settings: Settings, sent: Sent) -> None:
    """Hold the store to every count, now that nothing writes any more."""
    client = connect(settings)
    try:
        now, wanted = stored(client), exactly(sent)
        assert now == wanted, f"{now} instead of {wanted}"
    finally:
        client.close()


def lag(settings: Settings, name: str = "steps", partitions: int = 1) -> int:
    """Records of a topic that the sink's group has not committed."""
    from confluent_kafka import TopicPartition

    client = kafka.consumer(settings, f"{settings.topic_prefix}.{settings.sink_group}")
    try:
        places = [
            TopicPartition(topic(settings.topic_prefix, name), number)
            for number in range(partitions)
        ]
        behind = 0
        for place in client.committed(places, timeout=30):
            high = client.get_watermark_offsets(place, timeout=30)[1]
            behind += high - max(place.offset, 0)
        return behind
    finally:
        client.close()


def dump(settings: Settings) -> dict[str, str]:
    """Every table and view of the database as the server would make it, without its name."""
    client = connect(settings)
    rows = client.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()"
    ).result_rows
    comments = client.query(
        "SELECT table, name, comment FROM system.columns WHERE database = currentDatabase() ORDER "
        "BY table, position"
    ).result_rows
    client.close()
    made = {name: sql.replace(settings.clickhouse_database, "db") for name, sql in rows}
    return made | {f"{table}.{name}": comment for table, name, comment in comments}
