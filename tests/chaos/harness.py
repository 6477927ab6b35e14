"""A scenario: cluster, processes, a known load and a schedule of faults; then the checks.

Other processes join as crews beside the workers (``Scenario.crews``), each with faults of its own, and with judges that say
whether what they leave behind has settled and what is wrong with it (``Scenario.judges``).
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stepstream.embedded.kafka import EmbeddedKafka
from stepstream.schemas.settings import Settings
from stepstream.topics import create_topics
from tests.chaos import checks
from tests.chaos.collector import Collector
from tests.chaos.crew import NATIVE_CRASHES, Crew, CrewSpec, Exit
from tests.chaos.faults import BrokerMix, Fault, Mix, broker_faults, process_faults
from tests.chaos.load import ROOTLESS_IDLE_S, Plan, Sender, Shape, apply_policies
from tests.chaos.truth import Truth
from tests.processes import worker

log = logging.getLogger("chaos")

START_S = 3.0
"""From the making of the plan to its first record."""

LINGER_S = 3.0
"""After everything has come, this long for what would be too much."""


class Judge(Protocol):
    """What a crew beside the workers is judged by. Made when the load has been sent, used until the end."""

    def __init__(self, settings: Settings) -> None: ...

    def is_settled(self, truth: Truth) -> bool:
        """Whether everything expected has come."""

    def problems(self, truth: Truth) -> list[str]:
        """Everything that is wrong; called once, after all processes have ended."""

    def counts(self) -> dict[str, int]:
        """What was compared."""


@dataclass(frozen=True)
class Scenario:
    """What is run. ``excused``: broker faults may end processes, which then start again."""

    name: str
    shape: Shape
    mix: Mix = field(default_factory=Mix)
    brokers: BrokerMix = field(default_factory=BrokerMix)
    nodes: int = 1
    workers: int = 2
    partitions: int = 4
    seed: int = 1
    session_s: float = 6.0
    settle_s: float = 90.0
    excused: bool = False
    crews: tuple[CrewSpec, ...] = ()
    judges: tuple[type[Judge], ...] = ()
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
        return Settings.model_validate(values)

    def all_crews(self) -> tuple[CrewSpec, ...]:
        """The workers and whoever stands beside them."""
        return (CrewSpec("worker", worker, self.workers, self.mix), *self.crews)

    def faults(self) -> tuple[list[Fault], list[Fault]]:
        """What is done to processes and what is done to brokers, each in order."""
        seed, seconds = f"{self.name} {self.seed} ", self.shape.seconds
        processes = [
            fault for crew in self.all_crews() for fault in process_faults(seed, crew.name, crew.mix, seconds, crew.count)
        ]
        brokers = list(broker_faults(seed, self.brokers, seconds, self.nodes))
        return sorted(processes, key=lambda fault: fault.at_s), brokers


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

    def __init__(self, scenario: Scenario, kafka: EmbeddedKafka, crews: dict[str, Crew]) -> None:
        self._scenario = scenario
        self._kafka = kafka
        self._crews = crews
        self._later: list[tuple[float, Callable[[], None]]] = []
        self.faults: dict[str, int] = {}

    # -- what faults do ------------------------------------------------------------------------------------------------

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

    # -- time ----------------------------------------------------------------------------------------------------------

    def play(self, began: float) -> None:
        """Do each fault at its time; what takes long with the brokers holds up nothing else."""
        processes, brokers = self._scenario.faults()
        thread = threading.Thread(target=self._play, args=(brokers, began), name="broker faults", daemon=True)
        thread.start()
        self._play(processes, began)
        thread.join(900)
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
    with _crews(scenario, settings, folder) as crews:
        began = started + START_S
        sender = Sender(settings, plan, began)
        sender.start()
        stage = Stage(scenario, kafka, crews)
        stage.play(began)
        for crew in crews.values():
            crew.all_on()
        sender.wait(scenario.shape.seconds + 300)
        loaded = time.monotonic()
        collected, judges = Collector(settings), [judge(settings) for judge in scenario.judges]
        _settle(scenario, plan.truth, collected, judges)
        settled = time.monotonic()
        codes = {name: crew.end() for name, crew in crews.items()}
    collected.read()
    problems = checks.problems(plan.truth, collected)
    problems += [problem for judge in judges for problem in judge.problems(plan.truth)]
    problems += [f"{name} ended with {code} after SIGTERM" for name, ended in codes.items() for code in ended if code]
    exits = [item for crew in crews.values() for item in crew.exits]
    problems += _exits(scenario, exits)
    collected.close()
    counts = checks.counts(plan.truth, collected)
    for judge in judges:
        counts |= judge.counts()
    faults = {f"{name} {what}": number for name, crew in crews.items() for what, number in crew.counts.items()}
    seconds = {"load": loaded - began, "settling": settled - loaded, "all": time.monotonic() - started}
    seconds = {name: round(value, 1) for name, value in seconds.items()}
    return Report(scenario.name, scenario.seed, counts, {**faults, **stage.faults}, problems, exits, seconds)


@contextlib.contextmanager
def _crews(scenario: Scenario, settings: Settings, folder: Path) -> Iterator[dict[str, Crew]]:
    with contextlib.ExitStack() as stack:
        yield {spec.name: stack.enter_context(Crew(spec, settings, folder)) for spec in scenario.all_crews()}


def _settle(scenario: Scenario, truth: Truth, collected: Collector, judges: list[Judge]) -> None:
    deadline = time.monotonic() + scenario.settle_s
    while time.monotonic() < deadline:
        collected.read()
        if checks.is_settled(truth, collected) and all(judge.is_settled(truth) for judge in judges):
            break
    time.sleep(LINGER_S)
    collected.read()


def _exits(scenario: Scenario, exits: list[Exit]) -> list[str]:
    grave = [item for item in exits if item.code in NATIVE_CRASHES or not scenario.excused]
    return [f"{item.crew} {item.slot} ended by itself with {item.code}:\n{item.tail}" for item in grave]
