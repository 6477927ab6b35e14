"""Agents that share one spool, killed at any moment while the broker stops and starts again.

What an agent has seen acknowledged or written to the spool must be in Kafka in the end.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from stepstream.admin.topics import create_topics
from stepstream.common.kafka import read_to_end
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.producers.transport.spool import Spool
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step
from stepstream.schemas.topics import topic
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.spool_agent import recorded

# Kills between two changes of the broker; more where there are many, because each start of the
# broker takes 5 s, and on a busy machine 30.
KILLS_OF_A_PHASE: Final = 5
PHASES: Final = 50
LASTS_S: Final = 3_600.0
# Steps of all agents in a second: many agents at full speed would leave no CPU for the start of
# those that replace the killed ones.
STEPS_PER_S: Final = 1_500
# Fewer kills within the time prove too little.
FEWEST_KILLS: Final = 0.3


@dataclass
class Outcome:
    """``safe`` events were acknowledged or on disk when their agents were killed."""

    kills: int = 0
    wanted_kills: int = 0
    seconds: float = 0.0
    outages: int = 0
    safe: int = 0
    dropped: int = 0
    # Events in the spool at the end of the last outage.
    spooled: int = 0
    stored: int = 0
    missing: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What must not be: an empty list if all is well."""
        found = [f"missing: {one}" for one in self.missing]
        found += [f"out of order: {one}" for one in self.out_of_order]
        if self.dropped:
            found.append(f"{self.dropped} events dropped")
        if self.kills < self.wanted_kills * FEWEST_KILLS:
            found.append(
                f"proves too little: {self.kills} of {self.wanted_kills} kills in "
                f"{self.seconds:.0f} s"
            )
        if self.outages < 1 or self.safe <= 100:
            found.append(f"proves nothing: {self.outages} outages, {self.safe} safe events")
        return found


@dataclass
class _Agent:
    name: str
    pid: int
    path: Path

    def progress(self) -> list[int]:
        """Step, safe events, dropped events: its last line of them; empty before the first."""
        # What the SDK logs is in the same file.
        if not self.path.exists():
            return []
        lines = [line for line in self.path.read_bytes().split(b"\n")[:-1] if line[:1].isdigit()]
        return [int(one) for one in lines[-1].split()] if lines else []

    def has_ended(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


class Agents:
    """A crew of agents; one that was killed is replaced by another with a new name."""

    def __init__(self, settings: Settings, folder: Path, count: int, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        environment = {
            **{name: text for name, text in os.environ.items() if "STEPSTREAM" not in name},
            "STEPSTREAM_ENDPOINT": f"kafka://{settings.kafka_brokers}",
            "STEPSTREAM_TOPIC_PREFIX": settings.topic_prefix,
            "STEPSTREAM_STATE_DIR": str(folder),
            "STEPSTREAM_QUIET": "true",
            "PYTHONPATH": str(ROOT),
        }
        self._starter = subprocess.Popen(
            [sys.executable, "-m", "tests.support.spool_agent", "serve"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._step_s = count / STEPS_PER_S
        self._number = 0
        self._running = [self.start(LASTS_S) for _ in range(count)]
        self.progress: dict[str, list[int]] = {}

    def start(self, seconds: float) -> _Agent:
        """Start one more agent."""
        self._number += 1
        name = f"agent{self._number}"
        path = self._folder / f"{name}.out"
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write(f"{seconds} {name} {self._step_s} {path}\n")
        self._starter.stdin.flush()
        return _Agent(name, int(self._starter.stdout.readline()), path)

    def kill_one(self) -> None:
        """SIGKILL for an agent that has begun, at random."""
        begun = wait_until(self._begun, 120, "an agent records steps")
        position = self._chance.choice(begun)
        victim = self._running[position]
        self._end(victim, signal.SIGKILL)
        self._running[position] = self.start(LASTS_S)

    def _begun(self) -> list[int]:
        return [place for place, agent in enumerate(self._running) if agent.progress()]

    def run_one(self) -> None:
        """An agent of a second, from beginning to end."""
        wait_until(self.start(1).has_ended, 120, "an agent of a second ends")

    def stop(self) -> None:
        """SIGTERM for all."""
        for agent in self._running:
            self._end(agent, signal.SIGTERM)
        self._running = []

    def close(self) -> None:
        """Start no more agents."""
        self._starter.communicate(timeout=60)

    def _end(self, agent: _Agent, number: int) -> None:
        os.kill(agent.pid, number)
        wait_until(agent.has_ended, 60, f"{agent.name} ends")
        self.progress[agent.name] = agent.progress()


def play(
    kafka: EmbeddedKafka,
    prefix: str,
    folder: Path,
    *,
    agents: int,
    kills: int,
    seed: int,
    most_s: float,
) -> Outcome:
    """Kill agents, for ``most_s`` at most, and change the broker every few kills; then let
    everything arrive and count.
    """
    settings = Settings(kafka_brokers=kafka.bootstrap, topic_prefix=prefix, partitions=4)
    create_topics(settings)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / "spool" / "events.db"
    outcome = Outcome(wanted_kills=kills)
    chance = random.Random(seed)
    began = time.monotonic()
    crew = Agents(settings, folder, agents, seed)
    is_up = True
    while outcome.kills < kills and time.monotonic() < began + most_s:
        for _ in range(max(KILLS_OF_A_PHASE, kills // PHASES)):
            time.sleep(chance.uniform(0.05, 0.5))
            crew.kill_one()
            outcome.kills += 1
        if is_up:
            kafka.kill(0)
            outcome.outages += 1
        else:
            outcome.spooled = _in_spool(place)
            kafka.restart(0)
        is_up = not is_up
    outcome.seconds = time.monotonic() - began
    crew.stop()
    if not is_up:
        outcome.spooled = _in_spool(place)
        kafka.restart(0)

    def is_empty() -> bool:
        crew.run_one()
        return _in_spool(place) == 0

    wait_until(is_empty, 300, "later programs have sent what is in the spool")
    crew.close()
    _count(settings, crew, outcome)
    return outcome


def _in_spool(place: Path) -> int:
    spool = Spool(place)
    try:
        return spool.status().events
    finally:
        spool.close()


def _count(settings: Settings, crew: Agents, outcome: Outcome) -> None:
    # By agent, in the order of the first record of each event: an event may be sent twice.
    stored: dict[str, dict[tuple[str, str], None]] = defaultdict(dict)
    for message in read_to_end(settings, topic(settings.topic_prefix, "steps")):
        step = msgspec.json.decode(message.value() or b"", type=Step)
        stored[step.name.partition("-")[0]][step.name, step.phase] = None
    outcome.stored = sum(map(len, stored.values()))
    for name, progress in crew.progress.items():
        if not progress:
            continue
        steps, safe, dropped = progress
        outcome.safe += safe
        outcome.dropped += dropped
        expected = recorded(name, steps + 1)[:safe]
        outcome.missing += [
            f"{one} {phase}" for one, phase in expected if (one, phase) not in stored[name]
        ]
        place = {one: number for number, one in enumerate(recorded(name, steps + 2))}
        numbers = [place[one] for one in stored[name] if one in place]
        outcome.out_of_order += [
            f"{name}: event {later} before {earlier}"
            for later, earlier in pairwise(numbers)
            if later > earlier
        ]
