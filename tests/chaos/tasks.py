"""Tasks under kills and freezes of workers, executors and brokers.

An outside ledger, a file to which the agents append, shows what was really done; the topic
``taskstate`` shows what was published. Each guarantee is compared with both.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stepstream.admin.topics import TIMEOUT_S, create_topics
from stepstream.common.kafka import position_of, producer, read_to_end
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_common import json_bytes, json_value
from stepstream.schemas.task_messages import SubmitStruct, encode_message
from stepstream.schemas.task_state import FINAL, TaskState, TaskStateStruct, decode_state, is_newer
from stepstream.schemas.topics import topic
from tests.support.processes import PATIENCE, Process, wait_until, worker

PROJECT: Final = "chaos"
TARGET: Final = "tests.support.task_ledger_app:app"
AGENTS: Final = ("plain", "again", "limited")
MAX_LIMITED: Final = 2
FREEZE_S: Final = 9.0
"""Longer than the session of a worker; shorter than the lease of an executor."""
LONG_FREEZE_S: Final = 20.0
"""Longer than the lease."""


@dataclass(frozen=True)
class Scale:
    """How much is done, and by how many processes."""

    tasks: int
    faults: int
    workers: int = 2
    executors: int = 2


@dataclass
class Outcome:
    """What was done, and what is wrong."""

    tasks: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    finals: Counter[str] = field(default_factory=Counter)
    began: int = 0
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        """What must not be: an empty list if all is well."""
        found = list(self.wrong)
        if self.finals["ok"] * 2 < self.tasks:
            found.append(f"proves nothing: only {self.finals['ok']} of {self.tasks} ended ok")
        return found


class Crew:
    """Workers and executors; one that was killed is started again."""

    def __init__(self, settings: Settings, folder: Path, workers: int, executors: int) -> None:
        self._settings = settings
        self._folder = folder
        self._number = 0
        self.workers = [self.start_worker() for _ in range(workers)]
        self.executors = [self.start_executor() for _ in range(executors)]

    def _log(self, name: str) -> Path:
        self._number += 1
        return self._folder / f"{name}-{self._number}.log"

    def start_worker(self) -> Process:
        return worker(self._settings, self._log("worker"))

    def start_executor(self) -> Process:
        log = self._log("executor")
        return Process("stepstream", self._settings, log, "executor", TARGET, "--slots", "3")

    def keep_running(self) -> None:
        """Start what has ended, as a supervisor does."""
        for processes, start in (
            (self.workers, self.start_worker),
            (self.executors, self.start_executor),
        ):
            for slot, process in enumerate(processes):
                if not process.running:
                    processes[slot] = start()

    def stop(self) -> None:
        for process in (*self.executors, *self.workers):
            process.thaw()
            process.kill()


def play(
    brokers: str,
    prefix: str,
    folder: Path,
    scale: Scale,
    *,
    seed: int,
    break_broker: Callable[[random.Random], None] | None = None,
) -> Outcome:
    """Submit tasks, break something again and again meanwhile, wait for every end, and compare."""
    settings = Settings(
        kafka_brokers=brokers,
        topic_prefix=prefix,
        partitions=2,
        project=PROJECT,
        session_timeout="6s",
    )
    create_topics(settings, timeout=TIMEOUT_S * PATIENCE)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = folder / "ledger"
    os.environ["TASK_LEDGER"] = str(ledger)
    outcome, chance = Outcome(tasks=scale.tasks), random.Random(seed)
    crew = Crew(settings, folder, scale.workers, scale.executors)
    try:
        names = _submit(settings, scale.tasks, chance)
        _wait_for_ends(settings, crew, len(names), at_least=1)
        for _ in range(scale.faults):
            _break(crew, chance, outcome, break_broker)
            crew.keep_running()
        _wait_for_ends(settings, crew, len(names), at_least=len(names))
    finally:
        crew.stop()
    _compare(settings, names, ledger, outcome)
    return outcome


def _submit(settings: Settings, count: int, chance: random.Random) -> list[str]:
    client = producer(settings, **{"linger.ms": 5})
    errors: list[object] = []
    names = [f"task-{number}" for number in range(count)]
    for name in names:
        submit = SubmitStruct(
            project=PROJECT,
            task_id=name,
            agent=chance.choice(AGENTS),
            input=json_bytes(round(chance.uniform(0.0, 0.2), 3)),
            priority=chance.randrange(10),
            user_id=f"user-{chance.randrange(5)}",
        )
        client.produce(
            topic(settings.topic_prefix, "tasks"),
            encode_message(submit),
            PROJECT.encode(),
            on_delivery=lambda error, _: errors.append(error),
        )
        client.poll(0)
    assert client.flush(120) == 0
    assert errors == [None] * count, "a submit was not acknowledged"
    return names


def _break(
    crew: Crew,
    chance: random.Random,
    outcome: Outcome,
    break_broker: Callable[[random.Random], None] | None,
) -> None:
    """One fault, and a moment in which work goes on."""
    kinds = ["kill worker", "kill executor", "freeze worker", "freeze executor"]
    kinds += ["break broker"] if break_broker is not None else []
    what = chance.choice(kinds)
    outcome.faults[what] += 1
    if what == "break broker" and break_broker is not None:
        break_broker(chance)
    else:
        victim = chance.choice(crew.workers if "worker" in what else crew.executors)
        if "kill" in what:
            victim.signal(signal.SIGKILL)
            wait_until(lambda: not victim.running, 10, "its end")
        else:
            victim.freeze()
            time.sleep(chance.choice((FREEZE_S, LONG_FREEZE_S)))
            victim.thaw()
    time.sleep(chance.uniform(0.5, 4.0))


def states(settings: Settings) -> list[TaskState]:
    """Every record of a task, in the sequence of its partition."""
    found = []
    for message in read_to_end(settings, topic(settings.topic_prefix, "taskstate")):
        state = decode_state(message.value())
        if isinstance(state, TaskStateStruct):
            found.append((position_of(message), state))
    return [state for _, state in sorted(found, key=lambda one: one[0])]


def newest(records: list[TaskState]) -> dict[str, TaskState]:
    """The state of each task as readers see it."""
    found: dict[str, TaskState] = {}
    for state in records:
        if is_newer(state, found.get(state.task_id)):
            found[state.task_id] = state
    return found


def _wait_for_ends(settings: Settings, crew: Crew, count: int, *, at_least: int) -> None:
    found: Counter[str] = Counter()

    def ended() -> bool:
        crew.keep_running()
        found.clear()
        found.update(state.state for state in newest(states(settings)).values())
        return sum(number for state, number in found.items() if state in FINAL) >= at_least

    wait_until(ended, 120 + count, "the end of tasks", every_s=1.0, instead=lambda: dict(found))


def _compare(settings: Settings, names: list[str], ledger: Path, outcome: Outcome) -> None:
    records = states(settings)
    last = newest(records)
    began: dict[str, list[int]] = defaultdict(list)
    ended: set[tuple[str, int]] = set()
    for line in ledger.read_text().splitlines():
        name, fence, what = line.split()
        if what == "began":
            began[name].append(int(fence))
        else:
            ended.add((name, int(fence)))
    outcome.began = sum(map(len, began.values()))
    outcome.attempts = sum(task.attempt for task in last.values())
    outcome.finals = Counter(task.state for task in last.values())
    outcome.wrong += [f"{name}: lost" for name in names if name not in last]
    for name, task in last.items():
        outcome.wrong += [
            f"{name} ({task.agent}, {task.state} {task.reason}): {why}"
            for why in _wrong(task, began[name], ended)
        ]
    outcome.wrong += _ended_twice(records) + _over_limit(records)


def _wrong(task: TaskState, began: list[int], ended: set[tuple[str, int]]) -> list[str]:
    found = []
    if task.state not in FINAL:
        found.append("it has no final state")
    if task.state == "ok":
        result = json_value(task.result)
        if result["fence"] != task.fence or (task.task_id, task.fence) not in ended:
            found.append(f"result of {result['fence']}, fencing number {task.fence}")
    elif (task.agent, task.reason) not in (
        ("plain", "lease_lost"),
        ("again", "kills_executors"),
        ("limited", "kills_executors"),
        ("again", "retries_used"),
    ):
        found.append(f"an end for which nothing happened: {task.detail}")
    if task.agent == "plain" and len(set(began)) > 1:
        found.append(f"began {len(began)} times: {began}")
    if len(began) != len(set(began)):
        found.append("one attempt began twice")
    return found


def _ended_twice(records: list[TaskState]) -> list[str]:
    """Readers keep the highest epoch and revision: among those no final state may be left."""
    finals: dict[str, TaskState] = {}
    found = []
    seen: dict[str, TaskState] = {}
    for state in records:
        if not is_newer(state, seen.get(state.task_id)):
            continue
        seen[state.task_id] = state
        first = finals.setdefault(state.task_id, state) if state.state in FINAL else None
        known = finals.get(state.task_id)
        if known is not None and (first is None or first.state != state.state):
            found.append(f"{state.task_id}: {known.state}, then {state.state}")
    return found


def _over_limit(records: list[TaskState]) -> list[str]:
    """Attempts of ``limited`` that were bound at the same time, by the owners' own records."""
    found = []
    open_ones: set[str] = set()
    users: dict[str, str] = {}
    seen: dict[str, TaskState] = {}
    for state in records:
        if state.agent != "limited" or not is_newer(state, seen.get(state.task_id)):
            continue
        seen[state.task_id] = state
        if state.state in ("bound", "running"):
            open_ones.add(state.task_id)
            users[state.task_id] = state.user_id
        else:
            open_ones.discard(state.task_id)
        of_user = Counter(users[name] for name in open_ones)
        if len(open_ones) > MAX_LIMITED or any(number > 1 for number in of_user.values()):
            found.append(f"{state.task_id}: bound with {sorted(open_ones - {state.task_id})}")
    return found
