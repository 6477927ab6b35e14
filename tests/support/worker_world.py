"""An installation with one real worker: send records and read what comes out."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import TopicPartition

from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.common.kafka import consumer, producer
from stepstream.schemas.documents import document_key
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import STEP_RECORD_BYTES, topic
from tests.support.collector import CollectedRecord, Collector
from tests.support.processes import PATIENCE, Process, wait_until, worker

PARTITIONS = 3
_numbers = itertools.count(1)


Item = dict[str, Any]


class World:
    """An installation with one worker: send records, read what comes out."""

    process: Process

    def __init__(self, brokers: str, folder: Path, **more: Any) -> None:
        self.settings = Settings.model_validate(
            {
                "kafka_brokers": brokers,
                "topic_prefix": f"w{os.getpid()}_{uuid.uuid4().hex[:6]}",
                "partitions": PARTITIONS,
                # Times of production, such as 5 s to close a run, would be most of a test's length.
                "close_after": "400ms",
                "rootless_idle": "3s",
                "revision_interval": "100ms",
                "usage_interval": "100ms",
                "session_timeout": "6s",
                # So small that tests reach the checkpoint of open runs.
                "replay_records": 20,
                **more,
            }
        )
        create_topics(self.settings, timeout=TIMEOUT_S * PATIENCE)
        self.collected = Collector(self.settings)
        self.folder = folder
        self.starts = 0
        self._producer = producer(
            self.settings, **{"linger.ms": 0, "message.max.bytes": STEP_RECORD_BYTES}
        )

    def start(self) -> Process:
        """Start a worker and wait until it has its partitions."""
        self.starts += 1
        self.process = process = worker(self.settings, self.folder / f"worker-{self.starts}.log")
        wait_until(
            lambda: (
                # Steps have `partitions`, usage, findings and tasks two each.
                process.tail(200).count("ready: ") >= self.settings.partitions + 6
                or not process.running
            ),
            120,
            "a ready worker",
        )
        assert process.running, process.tail()
        return process

    def apply(self, document: Item) -> None:
        """Put a policy on the config topic."""
        policy = Policy.model_validate(document)
        self._send("config", policy.model_dump_json().encode(), document_key(policy).encode())

    def put_in_force(self, document: Item) -> None:
        """Put a policy on the config topic, and wait until the worker evaluates runs by it.

        A second policy follows it on the topic's only partition: once runs are evaluated by that
        one, the first is in force as well.
        """
        self.apply(document)
        agent = f"probe{next(_numbers)}"
        rules = [{"rule": "run_steps", "alert": agent, "limit": 1}]
        self.apply({"name": agent, "match": {"agent": agent}, "rules": rules})

        def evaluated() -> bool:
            run = trace()
            # Each try is a new run: rules are pinned when a run begins.
            self.send(step(run, 1, "start", agent=agent), step(run, 2, agent=agent))
            self.send(step(run, 1, agent=agent))
            self.collected.read(0.3)
            return any(one.value["alert"] == agent for one in self.collected.records["findings"])

        wait_until(evaluated, 30, f"policy {document['name']} in force")

    def send(self, *items: Item, **more: Any) -> None:
        """Send step events and wait until Kafka has them."""
        for item in items:
            self._send(
                "steps",
                msgspec.json.encode(item),
                item["trace_id"].encode(),
                headers=list(RECORD_HEADERS),
                **more,
            )

    def raw(
        self, value: bytes | None, key: bytes | None, headers: Any = None, partition: int = 0
    ) -> None:
        """Send a record of any kind to the steps topic."""
        self._send("steps", value, key, headers=headers or [], partition=partition)

    def _send(self, name: str, value: bytes | None, key: bytes | None, **more: Any) -> None:
        errors: list[Any] = []
        full = topic(self.settings.topic_prefix, name)
        self._producer.produce(
            full, value, key, on_delivery=lambda error, _: errors.append(error), **more
        )
        assert self._producer.flush(10) == 0
        assert errors == [None]

    def wait_for(self, name: str, wanted: Callable[[Item], bool], timeout_s: float = 60) -> Item:
        """The first record of an output topic that is wanted; an error when none comes."""
        found = self.wait_for_record(name, lambda record: wanted(record.value), timeout_s)
        return found.value  # type: ignore[no-any-return]

    def wait_for_record(
        self, name: str, wanted: Callable[[CollectedRecord], bool], timeout_s: float = 60
    ) -> CollectedRecord:
        """The first record of an output topic that is wanted, with its key and headers."""

        def find() -> CollectedRecord | None:
            self.collected.read(0.05)
            return next((record for record in self.collected.records[name] if wanted(record)), None)

        return wait_until(find, timeout_s, f"the record on {name}", instead=self.process.tail)

    def final(self, trace_id: str) -> Item:
        """The closed trajectory of a run."""
        self.wait_for(
            "trajectories",
            lambda value: value["trace_id"] == trace_id and value.get("closed", False),
        )
        return self.collected.final()[trace_id]

    def end_of(self, full: str) -> int:
        """The end of a topic's first partition."""
        client = consumer(self.settings, "reading")
        end = client.get_watermark_offsets(TopicPartition(full, 0), timeout=10)[1]
        client.close()
        return int(end)

    def committed(self) -> dict[tuple[str, int], tuple[int, int]]:
        """What the worker's group has committed, and the end of each partition."""
        client = consumer(
            self.settings, f"{self.settings.topic_prefix}.{self.settings.worker_group}"
        )
        found = {}
        for name in ("steps", "findings"):
            for partition in range(self.settings.partitions if name == "steps" else 2):
                asked = TopicPartition(topic(self.settings.topic_prefix, name), partition)
                end = client.get_watermark_offsets(asked, timeout=10)[1]
                found[name, partition] = (
                    max(0, client.committed([asked], timeout=10)[0].offset),
                    end,
                )
        client.close()
        return found


def now_us() -> int:
    return time.time_ns() // 1_000


def trace(partition: int | None = None) -> str:
    """A new trace id, on a partition of one's choice."""
    while True:
        trace_id = uuid.uuid4().hex
        # Random ids until one falls on the partition: three tries on average.
        if partition is None or partition_for(trace_id, PARTITIONS) == partition:
            return trace_id


def step(
    trace_id: str, number: int, phase: str = "end", *, parent: int | None = 1, **more: Any
) -> Item:
    """A step by its number; step 1 is the root."""
    at = now_us()
    base: Item = {
        "trace_id": trace_id,
        "step_id": f"{number:016x}",
        "parent_step_id": "" if number == 1 or parent is None else f"{parent:016x}",
        "phase": phase,
        "kind": "agent" if number == 1 else "llm_call",
        "name": f"step {number}",
        "agent": "tester",
        "project": "shop",
        "start_time": at - 1_000,
    }
    return base | ({"end_time": at} if phase == "end" else {}) | more
