"""Property-based fuzzing of the logic, without processes: contents through all detectors, records
through all readers."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from stepstream.schemas.accept import accept
from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.documents import Subscription
from stepstream.schemas.misfits import delivery_misfit
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.sinks.batching.records import Record as SinkRecord
from stepstream.sinks.batching.records import Source
from stepstream.sinks.clickhouse.plain_rows import build_alerts, build_deliveries
from stepstream.sinks.clickhouse.run_rows import build_runs
from stepstream.sinks.clickhouse.task_rows import build_tasks
from stepstream.sinks.notify.delivery import PartitionDelivery
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state, encode_state
from stepstream.stream.baselines.learner import Learner
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.records import apply_baselines
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.shell.loader import read_alert
from stepstream.stream.usage.fleet_records import FleetRecords
from stepstream.stream.usage.partition import WindowPartition
from tests.support.hostile import Hostile, hostile_records

START_US = 1_790_000_000_000_000
SUBSCRIPTION = Subscription.model_validate(
    {"name": "ops", "to": {"webhook": {"url": "https://example.org"}}}
)
RUN_STEPS = 12
MAX_PROBLEMS = 20
TICK_US = 20_000


@dataclass
class Rec:
    """A consumed record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Any = RECORD_HEADERS


@dataclass
class Read:
    """A record as librdkafka gives it."""

    _key: bytes | None
    _value: bytes | None

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value


class Contents:
    """Valid steps with hostile contents, through the assemble stage with the built-in rules."""

    def __init__(self, seed: int) -> None:
        self._hostile = Hostile(seed)
        self._stage = AssemblePartition(
            0, 1, rules=RuleBook((), make_detector), prices=PriceBook(), log_text=self._log_text
        )
        self._offset = 0
        self._raised: Counter[str] = Counter()
        self._logged: list[str] = []
        self.steps = 0
        self.findings = 0

    def _log_text(self, text: str) -> None:
        self._logged.append(text)

    def play(self, steps: int) -> None:
        """Process that many records, in batches of twelve."""
        while self.steps < steps:
            self._run()
        for second in range(1, 60):
            self._stage.tick(START_US + self._offset * TICK_US + second * 1_000_000)
            self._settle()

    def problems(self) -> list[str]:
        """What raised anywhere, and what did not close."""
        counters = self._stage.counters
        found = [
            f"raised {count} times: {what}"
            for what, count in self._raised.most_common(MAX_PROBLEMS)
        ]
        found += [
            f"detector {name} raised {count} times"
            for name, count in counters.detector_errors.items()
        ]
        found += [f"{counters.runs_given_up} runs were given up"] if counters.runs_given_up else []
        found += [f"refused as {reason}: {count}" for reason, count in counters.rejected.items()]
        found += [f"{len(self._stage.runs)} runs did not close"] if self._stage.runs else []
        return found + self._logged[:MAX_PROBLEMS]

    def counts(self) -> dict[str, int]:
        """What was done."""
        return {
            "steps": self.steps,
            "findings": self.findings,
            "runs": self._stage.counters.runs_closed,
        }

    def _run(self) -> None:
        rng = self._hostile.random
        trace_id = f"{rng.getrandbits(128) | 1:032x}"
        while partition_for(trace_id, 1) != 0:
            trace_id = f"{rng.getrandbits(128) | 1:032x}"
        root = f"{rng.getrandbits(64) | 1:016x}"
        at_us = START_US + self._offset * TICK_US
        common = {"trace_id": trace_id, "name": "n", "agent": "hostile", "start_time": at_us}
        self._process({**common, "step_id": root, "phase": "start", "kind": "agent"})
        for number in range(RUN_STEPS):
            step = {
                **common,
                "step_id": f"{number + 1:016x}",
                "parent_step_id": root,
                "end_time": at_us + number,
            }
            self._process(step | self._hostile.contents())
        self._process({**common, "step_id": root, "kind": "agent", "end_time": at_us + 10_000})
        self._settle()

    def _process(self, step: dict[str, Any]) -> None:
        self.steps += 1
        value = msgspec.json.encode(step)
        record = Rec(
            self._offset,
            (START_US + self._offset * TICK_US) // 1000,
            step["trace_id"].encode(),
            value,
        )
        self._offset += 1
        self._attempt(lambda: self._stage.process(record))

    def _settle(self) -> None:
        self._attempt(self._stage.flush)
        while outputs := self._stage.take_outputs():
            for output in outputs:
                self.findings += output.topic == "findings"
                self._stage.acknowledged(output)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._raised[traceback.format_exc()[-1_500:]] += 1


class Records:
    """Hostile records of every topic, through whatever reads them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._raised: Counter[str] = Counter()
        self.records = 0

    def play(self, each: int) -> None:
        """So many of each topic."""
        for name, read in self._readers().items():
            for offset, (key, value) in enumerate(
                hostile_records(self._seed, name, each, START_US)
            ):
                self.records += 1
                try:
                    read(Rec(offset, START_US // 1000, key, value))
                except Exception:
                    self._raised[
                        f"{name}: {traceback.format_exc()[-1_500:]} for {value[:300]!r}"
                    ] += 1

    def problems(self) -> list[str]:
        """What raised."""
        return [
            f"raised {count} times: {what}"
            for what, count in self._raised.most_common(MAX_PROBLEMS)
        ]

    def counts(self) -> dict[str, int]:
        """What was done."""
        return {"records": self.records}

    def _readers(  # noqa: C901 one small function for each topic
        self,
    ) -> dict[str, Callable[[Rec], None]]:
        usage, fleet, notify = (
            WindowPartition(0, 1, learner=Learner()),
            AlertPartition(0),
            PartitionDelivery(0, {}),
        )
        stage = AssemblePartition(0, 1, rules=RuleBook((), make_detector), prices=PriceBook())
        documents, baselines = DocumentSet(), Baselines()

        def steps(record: Rec) -> None:
            accept(
                record.value,
                key=record.key,
                partition=0,
                partitions=1,
                timestamp_us=START_US,
                headers=record.headers,
            )
            stage.process(record)
            _pump(stage)

        def stored(build: Any) -> Callable[[Rec], None]:
            def read(record: Rec) -> None:
                build(
                    [SinkRecord(record.offset, record.timestamp, record.key, record.value, None)],
                    Source("topic", 0),
                )

            return read

        def alerts(record: Rec) -> None:
            stored(build_alerts)(record)
            notify.read(record.offset, record.value, START_US, START_US)
            notify.due(START_US)
            try:
                alert = read_alert(record.value or b"")
            except Exception:
                return  # it is dead-lettered
            fresh = AlertPartition(0)
            fresh.restore([alert], 0)
            _pump(fresh)

        def deliveries(record: Rec) -> None:
            stored(build_deliveries)(record)
            try:
                delivery = msgspec.json.decode(record.value or b"", type=DeliveryStruct)
            except Exception:
                return  # it is skipped
            if not delivery_misfit(delivery):
                fresh = PartitionDelivery(0, {"ops": SUBSCRIPTION})
                fresh.restore([(0, delivery)], 0, START_US)
                fresh.due(START_US + 1)

        def config(record: Rec) -> None:
            try:
                documents.apply(record.key, record.value)
            except UnreadableDocument:
                return
            documents.price_book()

        def windows(record: Rec) -> None:
            apply_baselines(baselines, [Read(record.key, record.value)])
            found = FleetRecords()
            try:
                found.take(record.key or b"", record.value or b"")
            except Exception:
                return  # it is dead-lettered; what was taken must be of use
            restored = WindowPartition(0, 1, learner=Learner())
            restored.restore(
                found.windows,
                max(found.checkpoints, key=_through, default=None),
                0,
                found.days,
                found.baselines,
            )

        def state(record: Rec) -> None:
            try:
                taken = decode_state(record.value or b"")
            except Exception:
                return
            fresh = AssemblePartition(0, 1, rules=RuleBook((), make_detector), prices=PriceBook())
            fresh.restore([taken], 0)
            _pump(fresh)

        return {
            "steps": steps,
            "usage": lambda record: _fed(usage, record),
            "findings": lambda record: _fed(fleet, record),
            "alerts": alerts,
            "trajectories": stored(build_runs),
            "taskstate": stored(build_tasks),
            "deliveries": deliveries,
            "config": config,
            "fleet": windows,
            "state": state,
        }


def _through(checkpoint: Any) -> int:
    through: int = checkpoint.through
    return through


def _fed(stage: Any, record: Rec) -> None:
    stage.process(record)
    _pump(stage)


def _pump(stage: Any) -> None:
    stage.tick(START_US + 3_600_000_000)
    stage.flush()
    while outputs := stage.take_outputs():
        for output in outputs:
            stage.acknowledged(output)


def hostile_states(seed: int, count: int) -> list[bytes]:
    """State records of a real run, damaged."""
    hostile = Hostile(seed)
    rng = hostile.random
    stage = AssemblePartition(0, 1, rules=RuleBook((), make_detector), prices=PriceBook())
    step = {
        "trace_id": "ab" * 16,
        "step_id": "cd" * 8,
        "phase": "start",
        "kind": "agent",
        "name": "n",
        "start_time": START_US,
    }
    stage.process(Rec(0, START_US // 1000, b"ab" * 16, msgspec.json.encode(step)))
    (active,) = stage.runs.values()
    whole = encode_state(active.run, 0)
    found = []
    for _ in range(count):
        made = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            made[rng.randrange(len(made))] = rng.randrange(256)
        found.append(bytes(made[: rng.randrange(1, len(made) + 1)] if rng.random() < 0.3 else made))
    return found
