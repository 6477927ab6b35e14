"""Tasks over the whole way: submit, the stage in a real worker, executors as processes, results.

An outside ledger, a file to which agents append, shows what was really done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stepstream
from stepstream.producers.tasks.ways import KafkaWay
from tests.support.processes import PATIENCE, Process, wait_until
from tests.support.worker_world import World

TARGET = "tests.support.executor_app:app"


@pytest.fixture(scope="module")
def world(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(kafka_bootstrap, tmp_path_factory.mktemp("tasks"), partitions=1)
    made.start()
    yield made
    made.collected.close()
    made.process.kill()


class Fleet:
    """Executors of one test, and the file of what their agents did."""

    def __init__(self, world: World, folder: Path) -> None:
        self.settings = world.settings.model_copy(update={"project": "shop", "log_level": "info"})
        self._folder = folder
        self.processes: list[Process] = []

    def start(self, slots: int = 2) -> Process:
        log = self._folder / f"executor-{len(self.processes)}.log"
        process = Process(
            "stepstream", self.settings, log, "executor", TARGET, "--slots", str(slots)
        )
        self.processes.append(process)
        wait_until(
            lambda: "slots, agents" in log.read_text(), 60, "an executor", instead=process.tail
        )
        return process

    def submit(self, agent: str, input: Any = None, **more: Any) -> stepstream.TaskHandle:
        return stepstream.submit(agent, input, settings=self.settings, **more)

    def ledger(self, what: str) -> list[str]:
        """The ids of the tasks that did this, in sequence."""
        path = self._folder / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[0] for line in lines if line.endswith(f" {what}")]

    def close(self) -> None:
        for process in self.processes:
            if process.running:
                process.kill()


@pytest.fixture
def fleet(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.setenv("EXECUTOR_LEDGER", str(tmp_path / "ledger"))
    made = Fleet(world, tmp_path)
    yield made
    made.close()


def result(handle: stepstream.TaskHandle) -> Any:
    return handle.result(60 * PATIENCE)


def test_a_task_runs_once_and_its_id_is_known(world: World, fleet: Fleet) -> None:
    handle = fleet.submit("echo", {"order": 7}, id="order-7")
    wait_until(lambda: handle.status().waiting_for == "executor", 30, "it waits for an executor")
    fleet.start()
    assert result(handle) == {"order": 7}
    # The same id is the same task; with another input it is refused, and the task stays.
    assert result(fleet.submit("echo", {"order": 7}, id="order-7")) == {"order": 7}
    with pytest.raises(stepstream.TaskFailed, match="another agent or input"):
        result(fleet.submit("echo", {"order": 8}, id="order-7"))
    assert result(stepstream.task("order-7", settings=fleet.settings)) == {"order": 7}
    assert fleet.ledger("ran") == ["order-7"]


def test_failures_are_repeated_as_declared(world: World, fleet: Fleet) -> None:
    fleet.start()
    failing = fleet.submit("fails", id="failing")
    with pytest.raises(stepstream.TaskFailed, match="payment service") as caught:
        result(failing)
    assert (caught.value.status, caught.value.reason) == ("dead", "retries_used")
    assert failing.status().attempt == 2
    with pytest.raises(stepstream.TaskFailed, match="SystemExit"):
        result(fleet.submit("leaves", id="leaving"))
    late = fleet.submit("steps", id="late")
    with pytest.raises(stepstream.TaskFailed) as caught:
        result(late)
    assert (caught.value.status, caught.value.reason) == ("failed", "timed_out")


def test_a_cancel_stops_what_waits_and_what_runs(world: World, fleet: Fleet) -> None:
    waiting = fleet.submit("echo", 1, id="cancel-waiting", delay="1h")
    waiting.cancel("not needed")
    with pytest.raises(stepstream.TaskCancelled, match="not needed"):
        result(waiting)
    fleet.start()
    running = fleet.submit("waits", id="cancel-running")
    wait_until(lambda: "cancel-running" in fleet.ledger("began"), 30, "the body")
    running.cancel("enough")
    with pytest.raises(stepstream.TaskCancelled, match="enough"):
        result(running)
    # Its slot is free again.
    assert result(fleet.submit("echo", 2)) == 2


def test_a_killed_executor_repeats_only_what_may_be_repeated(world: World, fleet: Fleet) -> None:
    first = fleet.start(slots=3)
    may_repeat = fleet.submit("keeps", "die", id="kill-keeps")
    must_not = fleet.submit("works", 600, id="kill-works")
    wait_until(lambda: not first.running, 60, "the agent kills its executor")
    fleet.start()
    # The value that the attempt which was killed has kept, and no second effect.
    assert result(may_repeat) < may_repeat.status().attempt
    assert fleet.ledger("effect") == ["kill-keeps"]
    if "kill-works" in fleet.ledger("began"):
        with pytest.raises(stepstream.TaskFailed) as caught:
            result(must_not)
        assert (caught.value.status, caught.value.reason) == ("dead", "lease_lost")
    assert len(fleet.ledger("began")) <= 1


def test_tasks_survive_kills_of_worker_and_executors(world: World, fleet: Fleet) -> None:
    """Every accepted task ends in one final state, and none runs twice after it began."""
    fleet.start()
    handles = [fleet.submit("works", 0.05, id=f"chaos-{n}") for n in range(40)]
    wait_until(lambda: len(fleet.ledger("ended")) > 3, 60, "some have ended")
    world.process.kill()
    fleet.processes[0].kill()
    world.start()
    fleet.start(slots=4)
    states: Counter[str] = Counter()
    for handle in handles:
        try:
            states[result(handle)] += 1
        except stepstream.TaskFailed as failed:
            states[failed.reason] += 1
    assert states["done"] + states["lease_lost"] == len(handles), states
    # At most the two slots of the killed executor were interrupted.
    assert states["lease_lost"] <= 2
    assert max(Counter(fleet.ledger("began")).values()) == 1
    assert states["done"] <= len(fleet.ledger("ended"))


def test_a_drain_ends_an_executor_and_loses_nothing(world: World, fleet: Fleet) -> None:
    first = fleet.start(slots=1)
    handle = fleet.submit("works", 2, id="drain-works")
    wait_until(lambda: "drain-works" in fleet.ledger("began"), 30, "the body")
    waits = fleet.submit("echo", 1, id="drain-waits")
    way = KafkaWay(fleet.settings)
    way.drain("shop", handle.status().executor_id, 0)
    assert first.wait() == 0
    assert result(handle) == "done"
    assert waits.status().state == "waiting"
    fleet.start()
    assert result(waits) == 1
    way.close()
