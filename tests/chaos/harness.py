"""A scenario: cluster, processes, a known load and a schedule of faults; then the checks.

Other processes join by being part of the crews: a scenario says which it starts and what it checks besides.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stepstream.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.topics import create_topics
from tests.chaos import checks
from tests.chaos.collector import Collector
from tests.chaos.crew import Crew, Exit
from tests.chaos.faults import Fault, Mix, schedule
from tests.chaos.load import ROOTLESS_IDLE_S, Plan, Sender, Shape, apply_policies
from tests.processes import worker

log = logging.getLogger("chaos")

START_S = 3.0
"""From the making of the plan to its first record."""


@dataclass(frozen=True)
class Scenario:
    """What is run. ``excused``: broker faults may end workers, which then start again."""

    name: str
    shape: Shape
    mix: Mix
    nodes: int = 1
    workers: int = 2
    partitions: int = 4
    seed: int = 1
    session_s: float = 6.0
    settle_s: float = 90.0
    excused: bool = False
    more: dict[str, object] = field(default_factory=dict)

    def settings(self, brokers: str, prefix: str) -> Settings:
        """Settings of every process."""
        values: dict[str, object] = {
            "kafka_brokers": brokers,
            "topic_prefix": prefix,
            "partitions": self.partitions,
            "replication_factor": min(3, self.nodes),
            "min_insync_replicas": 2 if self.nodes >= 3 else 1,
            "session_timeout": f"{self.session_s}s",
            "rootless_idle": f"{ROOTLESS_IDLE_S}s",
            "replay_records": 1_000,
            **self.more,
        }
        return Settings.model_validate({name: value for name, value in values.items() if name in Settings.model_fields})


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
        facts = {"counts": self.counts, "faults": self.faults, "seconds": self.seconds, "unexpected exits": len(self.exits)}
        return f"{self.scenario} (seed {self.seed}): {len(self.problems)} problems\n{json.dumps(facts, indent=2)}"


class Stage:
    """A scenario while it runs; what faults are done to."""

    def __init__(self, scenario: Scenario, kafka: EmbeddedKafka, crew: Crew) -> None:
        self._scenario = scenario
        self._kafka = kafka
        self._crew = crew
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.faults: dict[str, int] = {}

    # -- what faults do ------------------------------------------------------------------------------------------------

    def kill_worker(self, slot: int) -> None:
        self._crew.kill(slot)

    def freeze_worker(self, slot: int, seconds: float) -> None:
        process = self._crew.freeze(slot)
        if process is not None:
            self._after(seconds, process.thaw)

    def roll_worker(self, slot: int) -> None:
        self._crew.roll(slot)

    def remove_worker(self, slot: int) -> None:
        self._crew.remove(slot)

    def add_worker(self, slot: int) -> None:
        self._crew.add(slot)

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

    # -- time ----------------------------------------------------------------------------------------------------------

    def play(self, faults: list[Fault], began: float) -> None:
        """Do each fault at its time, or right after a broker fault before it is over."""
        brokers = [fault for fault in faults if "broker" in fault.name]
        others = [fault for fault in faults if "broker" not in fault.name]
        thread = threading.Thread(target=self._play, args=(brokers, began), name="broker faults", daemon=True)
        thread.start()
        self._play(others, began)
        thread.join(600)
        assert not thread.is_alive(), "the broker faults did not come to an end"
        while self._later:
            self._pass(0.1)

    def _play(self, faults: list[Fault], began: float) -> None:
        for fault in faults:
            self._pass(began + fault.at_s - time.monotonic())
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


def run(scenario: Scenario, kafka: EmbeddedKafka, prefix: str, folder: Path) -> Report:
    """Play a scenario on a running cluster. Logs of the processes stay in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = scenario.settings(kafka.bootstrap, prefix)
    create_topics(settings)
    apply_policies(settings)
    started = time.monotonic()
    plan = Plan(scenario.seed, scenario.shape, time.time_ns() // 1000 + round(START_S * 1e6), scenario.partitions)
    faults = schedule(scenario.seed, scenario.mix, scenario.shape.seconds, scenario.workers, scenario.nodes)
    with Crew(lambda path: worker(settings, path), scenario.workers, folder) as crew:
        began = started + START_S
        sender = Sender(settings, plan, began)
        sender.start()
        stage = Stage(scenario, kafka, crew)
        stage.play(faults, began)
        crew.all_on()
        sender.wait(scenario.shape.seconds + scenario.mix.blackout_s + 120)
        loaded = time.monotonic()
        collected = _settle(scenario, settings, plan, folder)
        settled = time.monotonic()
        codes = crew.end()
    collected.read()
    problems = checks.problems(plan.truth, collected)
    problems += [f"a worker ended with {code} after SIGTERM" for code in codes if code]
    problems += _exits(scenario, crew.exits)
    collected.close()
    seconds = {"load": loaded - began, "settling": settled - loaded, "all": time.monotonic() - started}
    return Report(
        scenario.name,
        scenario.seed,
        checks.counts(plan.truth, collected),
        {**crew.counts, **stage.faults},
        problems,
        crew.exits,
        {name: round(value, 1) for name, value in seconds.items()},
    )


def _settle(scenario: Scenario, settings: Settings, plan: Plan, folder: Path) -> Collector:
    collected = Collector(settings)
    deadline = time.monotonic() + scenario.settle_s
    while time.monotonic() < deadline:
        collected.read()
        if checks.is_settled(plan.truth, collected):
            break
    time.sleep(3)  # what comes now is too much
    collected.read()
    return collected


def _exits(scenario: Scenario, exits: list[Exit]) -> list[str]:
    from tests.chaos.crew import NATIVE_CRASHES

    grave = [item for item in exits if item.code in NATIVE_CRASHES or not scenario.excused]
    return [f"worker {item.slot} ended by itself with {item.code}:\n{item.tail}" for item in grave]
