"""A scenario: cluster, processes, a known load and a schedule of faults; then the checks.

Other processes run as crews next to the workers (``Scenario.crews``), each with faults of its own.
Verifiers (``Scenario.verifiers``) check whether all their outputs have arrived and are correct.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from stepstream.admin.topics import create_topics
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from tests.chaos import checks
from tests.chaos.crew import NATIVE_CRASHES, Crew, CrewSpec, Exit
from tests.chaos.faults import (
    BrokerMix,
    Fault,
    Mix,
    StoreMix,
    broker_faults,
    process_faults,
    store_faults,
)
from tests.chaos.load import ROOTLESS_IDLE_S, Plan, Sender, Shape, apply_policies
from tests.chaos.truth import Truth
from tests.support.collector import Collector
from tests.support.processes import worker

log = logging.getLogger("chaos")

# Time from the plan to its first record.
START_S = 3.0

# How long to wait, after everything expected has arrived, for what was not expected.
LINGER_S = 3.0


class Verifier(Protocol):
    """Checks the outputs of a crew. Created when the load has been sent, used until the end."""

    def __init__(self, settings: Settings) -> None: ...

    def is_settled(self, truth: Truth) -> bool:
        """Whether everything expected has arrived."""

    def problems(self, truth: Truth) -> list[str]:
        """Everything that is wrong; called once, after all processes have ended."""

    def counts(self) -> dict[str, int]:
        """What was compared."""


@dataclass(frozen=True)
class Scenario:
    """What is run. ``excused``: broker faults may end processes, which then start again.

    ``store``: the faults of ClickHouse; None where the scenario has none.
    """

    name: str
    shape: Shape
    mix: Mix = field(default_factory=Mix)
    brokers: BrokerMix = field(default_factory=BrokerMix)
    store: StoreMix | None = None
    nodes: int = 1
    workers: int = 2
    partitions: int = 4
    seed: int = 1
    session_s: float = 6.0
    settle_s: float = 90.0
    excused: bool = False
    crews: tuple[CrewSpec, ...] = ()
    verifiers: tuple[type[Verifier], ...] = ()
    more: dict[str, object] = field(default_factory=dict)

    def settings(self, brokers: str, prefix: str, clickhouse_url: str = "") -> Settings:
        """Settings of every process."""
        values: dict[str, object] = {
            "kafka_brokers": brokers,
            "clickhouse_url": clickhouse_url,
            "clickhouse_database": prefix,
            "topic_prefix": prefix,
            "partitions": self.partitions,
            # With three nodes one may fail and writes go on: two replicas are in sync.
            "replication_factor": min(3, self.nodes),
            "min_insync_replicas": 2 if self.nodes >= 3 else 1,
            "session_timeout": f"{self.session_s}s",
            "rootless_idle": f"{ROOTLESS_IDLE_S}s",
            # Less than the load of some seconds, so that runs are checkpointed while they are open.
            "replay_records": 1_000,
            **self.more,
        }
        return Settings.model_validate(values)

    def all_crews(self) -> tuple[CrewSpec, ...]:
        """The workers and the other crews."""
        return (CrewSpec("worker", worker, self.workers, self.mix), *self.crews)

    def faults(self) -> tuple[list[Fault], list[Fault], list[Fault]]:
        """What is done to processes, to brokers and to the store, each in order."""
        seed, seconds = f"{self.name} {self.seed} ", self.shape.seconds
        processes = [
            fault
            for crew in self.all_crews()
            for fault in process_faults(seed, crew.name, crew.mix, seconds, crew.count)
        ]
        brokers = list(broker_faults(seed, self.brokers, seconds, self.nodes))
        store = list(store_faults(seed, self.store or StoreMix(), seconds))
        return sorted(processes, key=lambda fault: fault.at_s), brokers, store


@dataclass
class Report:
    """What came of a scenario."""

    scenario: str
    seed: int
    counts: dict[str, int]
    faults: dict[str, int]
    problems: list[str]
    exits: list[Exit]
    seconds: dict[str, float]

    def __str__(self) -> str:
        facts = {
            "counts": self.counts,
            "faults": self.faults,
            "seconds": self.seconds,
            "unexpected exits": len(self.exits),
        }
        return (
            f"{self.scenario} (seed {self.seed}): {len(self.problems)} "
            f"problems\n{json.dumps(facts, indent=2)}"
        )


class Stage:
    """A scenario while it runs; what faults are done to."""

    def __init__(
        self,
        scenario: Scenario,
        settings: Settings,
        kafka: EmbeddedKafka,
        store: EmbeddedClickHouse | None,
        crews: dict[str, Crew],
    ) -> None:
        self._scenario = scenario
        self._settings = settings
        self._kafka = kafka
        self._store = store
        self._crews = crews
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._failures: list[str] = []
        self.faults: dict[str, int] = {}

    # -- what faults do --

    def kill(self, crew: str, slot: int) -> None:
        self._crews[crew].kill(slot)

    def freeze(self, crew: str, slot: int, seconds: float) -> None:
        process = self._crews[crew].freeze(slot)
        if process is not None:
            self._after(seconds, process.thaw)

    def roll(self, crew: str, slot: int) -> None:
        self._crews[crew].roll(slot)

    def remove(self, crew: str, slot: int) -> None:
        self._crews[crew].remove(slot)

    def add(self, crew: str, slot: int) -> None:
        self._crews[crew].add(slot)

    def kill_broker(self, node: int, down_s: float) -> None:
        self._kafka.kill(node)
        self._count("broker kills")
        self._pass(down_s)
        self._kafka.restart(node)

    def freeze_broker(self, node: int, seconds: float) -> None:
        self._kafka.pause(node)
        self._count("broker freezes")
        self._pass(seconds)
        self._kafka.resume(node)

    def slow_broker(self, node: int, seconds: float) -> None:
        self._count("slow brokers")
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._kafka.pause(node)
            self._pass(0.4)
            self._kafka.resume(node)
            self._pass(0.1)

    def kill_all_brokers(self, down_s: float) -> None:
        for node in range(self._scenario.nodes):
            self._kafka.kill(node)
        self._count("blackouts")
        self._pass(down_s)
        self._kafka.stop()
        self._kafka.start()

    def refuse(self, seconds: float) -> None:
        """Limit the size of records so that brokers refuse every trajectory permanently."""
        self._limit_trajectories(AlterConfigOpType.SET)
        self._count("refusals")
        self._pass(seconds)
        self._limit_trajectories(AlterConfigOpType.DELETE)

    def _limit_trajectories(self, operation: AlterConfigOpType) -> None:
        # No trajectory is so small: the broker answers, and refuses for good (MSG_SIZE_TOO_LARGE).
        entry = ConfigEntry("max.message.bytes", "64", incremental_operation=operation)
        name = topic(self._settings.topic_prefix, "trajectories")
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])
        client = AdminClient(self._settings.kafka)
        client.incremental_alter_configs([resource])[resource].result(60)

    def kill_store(self, down_s: float) -> None:
        store = self._store
        if store is None:
            return
        if store.pid is not None:
            os.kill(store.pid, signal.SIGKILL)
        store.stop()
        self._count("store kills")
        self._pass(down_s)
        store.start()

    def freeze_store(self, seconds: float) -> None:
        if self._store is None or (pid := self._store.pid) is None:
            return
        os.kill(pid, signal.SIGSTOP)
        self._count("store freezes")
        self._pass(seconds)
        os.kill(pid, signal.SIGCONT)

    # -- time --

    def play(self, began: float) -> None:
        """Do each fault at its time; what takes long with the brokers or the store holds up nothing
        else."""
        processes, *engines = self._scenario.faults()
        threads = [
            threading.Thread(
                target=self._play_safely,
                args=(faults, began),
                # Killing a broker waits for its start: in one thread it would delay the faults of
                # processes.
                name="faults of engines",
                daemon=True,
            )
            for faults in engines
        ]
        for thread in threads:
            thread.start()
        self._play(processes, began)
        for thread in threads:
            thread.join(900)
            assert not thread.is_alive(), "the faults of an engine did not come to an end"
        assert not self._failures, f"the faults of an engine failed: {self._failures}"
        while self._later:
            self._pass(0.1)

    def _play_safely(self, faults: list[Fault], began: float) -> None:
        try:
            self._play(faults, began)
        except Exception as error:
            self._failures.append(repr(error))

    def _play(self, faults: list[Fault], began: float) -> None:
        for fault in faults:
            self._pass(began + fault.at_s - time.monotonic())
            # With the time: a problem is compared with what had been done just before.
            log.info("%6.1f s  %s", time.monotonic() - began, fault.name)
            fault.do(self)

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, do))

    def _pass(self, seconds: float) -> None:
        """Let time pass, and do what was put off until then."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            for item in [item for item in self._later if item[0] <= now]:
                self._later.remove(item)
                item[1]()
            if now >= until:
                return
            time.sleep(min(0.05, until - now))

    def _count(self, name: str) -> None:
        self.faults[name] = self.faults.get(name, 0) + 1


def run(
    scenario: Scenario,
    kafka: EmbeddedKafka,
    prefix: str,
    folder: Path,
    store: EmbeddedClickHouse | None = None,
) -> Report:
    """Play a scenario on a running cluster and, where it wants one, store.

    Logs of the processes stay in ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = scenario.settings(
        kafka.bootstrap, prefix, store.writer_url if store is not None else ""
    )
    create_topics(settings)
    apply_policies(settings)
    started = time.monotonic()
    plan = Plan(
        scenario.seed,
        scenario.shape,
        time.time_ns() // 1000 + round(START_S * 1e6),
        scenario.partitions,
    )
    with _crews(scenario, settings, folder) as crews:
        began = started + START_S
        sender = Sender(settings, plan, began)
        sender.start()
        stage = Stage(scenario, settings, kafka, store, crews)
        stage.play(began)
        for crew in crews.values():
            crew.all_on()
        sender.wait(scenario.shape.seconds + 300)
        loaded = time.monotonic()
        collected, verifiers = (
            Collector(settings),
            [verifier(settings) for verifier in scenario.verifiers],
        )
        _settle(scenario, plan.truth, collected, verifiers)
        settled = time.monotonic()
        codes = {name: crew.end() for name, crew in crews.items()}
    collected.read()
    problems = checks.problems(plan.truth, collected)
    problems += [problem for verifier in verifiers for problem in verifier.problems(plan.truth)]
    problems += [
        f"{name} ended with {code} after SIGTERM"
        for name, ended in codes.items()
        for code in ended
        if code
    ]
    exits = [item for crew in crews.values() for item in crew.exits]
    problems += _exits(scenario, exits)
    collected.close()
    counts = checks.counts(plan.truth, collected)
    for verifier in verifiers:
        counts |= verifier.counts()
    faults = {
        f"{name} {what}": number
        for name, crew in crews.items()
        for what, number in crew.counts.items()
    }
    faults["refused commits"] = sum(
        log.read_text(errors="replace").count("commit refused") for log in folder.glob("*.log")
    )
    seconds = {
        "load": loaded - began,
        "settling": settled - loaded,
        "all": time.monotonic() - started,
    }
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    counts |= {f"{name} peak MB": round(crew.peak_mb) for name, crew in crews.items()}
    return Report(
        scenario.name, scenario.seed, counts, {**faults, **stage.faults}, problems, exits, seconds
    )


@contextlib.contextmanager
def _crews(scenario: Scenario, settings: Settings, folder: Path) -> Iterator[dict[str, Crew]]:
    with contextlib.ExitStack() as stack:
        yield {
            spec.name: stack.enter_context(Crew(spec, settings, folder))
            for spec in scenario.all_crews()
        }


def _settle(
    scenario: Scenario, truth: Truth, collected: Collector, verifiers: list[Verifier]
) -> None:
    deadline = time.monotonic() + scenario.settle_s
    while time.monotonic() < deadline:
        collected.read()
        if checks.is_settled(truth, collected) and all(
            verifier.is_settled(truth) for verifier in verifiers
        ):
            break
    time.sleep(LINGER_S)
    collected.read()


def _exits(scenario: Scenario, exits: list[Exit]) -> list[str]:
    # A process may end when its brokers do not answer for long, never by a crash in native code.
    unexpected = [item for item in exits if item.code in NATIVE_CRASHES or not scenario.excused]
    return [
        f"{item.crew} {item.slot} ended by itself with {item.code}:\n{item.tail}"
        for item in unexpected
    ]
