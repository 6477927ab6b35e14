"""The tasks stage in a real worker: tasks run once each, through kills of the worker, and what
cannot be used goes to the dead letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstream.common.kafka import read_to_end
from stepstream.schemas.task_common import AgentSpecStruct, json_value
from stepstream.schemas.task_state import FINAL
from stepstream.schemas.topics import topic
from tests.support.processes import wait_until
from tests.support.task_executor import SmallExecutor, TaskClient
from tests.support.worker_world import World


@pytest.fixture(scope="module")
def world(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("task-stage")
    made = World(kafka_bootstrap, folder, partitions=1)
    made.start()
    yield made
    made.collected.close()
    made.process.kill()


@pytest.fixture
def client(world: World) -> Iterator[TaskClient]:
    made = TaskClient(world.settings)
    yield made
    made.close()


def test_tasks_run_once_each_through_kills_of_the_worker(world: World, client: TaskClient) -> None:
    """Each task ends ok after one attempt; one that waits for an executor reports that."""
    names = [f"kill-{number}" for number in range(40)]
    client.submit(*names[:20], input={"order": 7})
    wait_until(
        lambda: len(client.read()) >= 20, 30, "the waiting tasks", instead=world.process.tail
    )
    first = client.newest[names[0]]
    assert (first.state, first.waiting_for) == ("waiting", "executor")
    executors = [
        SmallExecutor(world.settings, f"ex-{number}", AgentSpecStruct(name="refund")).start()
        for number in (1, 2)
    ]
    wait_until(
        lambda: sum(task.state == "ok" for task in client.read().values()) >= 3,
        30,
        "ended tasks",
        instead=world.process.tail,
    )
    world.process.kill()
    client.submit(*names[20:])
    world.start()
    wait_until(
        lambda: (
            all(task.state in FINAL for task in client.read().values())
            and len(client.newest) == len(names)
        ),
        60,
        "the end of every task",
        instead=lambda: Counter(task.state for task in client.newest.values()),
    )
    for executor in executors:
        executor.stop()
    assert Counter(task.state for task in client.newest.values()) == {"ok": len(names)}
    assert json_value(client.newest[names[30]].result) == names[30]
    runs = Counter(run.task_id for executor in executors for run in executor.runs)
    assert runs == dict.fromkeys(names, 1)


def test_what_cannot_be_used_is_dead_lettered(world: World, client: TaskClient) -> None:
    """Records by hand: the reason is in the letter, and tasks go on."""
    world._send("tasks", b'{"kind": "dance", "project": "shop"}', b"shop")
    world._send("tasks", b"not json", b"shop")
    client.submit("after-letters", agent="none")
    wait_until(lambda: "after-letters" in client.read(), 30, "the next task")

    def reasons() -> Counter[str]:
        return Counter(
            str(dict(message.headers() or ())["stepstream-reason"], "ascii")  # type: ignore[arg-type]
            for message in read_to_end(
                world.settings, topic(world.settings.topic_prefix, "deadletter")
            )
        )

    wait_until(
        lambda: reasons() == {"invalid_field": 1, "malformed_json": 1},
        30,
        "two letters",
        instead=reasons,
    )
