"""A worker that takes over from another: states of an earlier version, runs that are hours old."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from stepstream.common.kafka import consumer
from stepstream.schemas.topics import topic
from tests.support.paths import GOLDEN
from tests.support.processes import wait_until
from tests.support.worker_world import World, now_us, step, trace

STATES = json.loads((GOLDEN / "state-v1.json").read_text())
OPEN, CLOSED = "a1" * 16, "c1" * 16
LONG = "1000000000s"
# After a time in which nothing was read, timers give producers ten seconds.
CATCH_UP_S = 30


@pytest.fixture
def world(kafka_bootstrap: str, tmp_path: Path) -> Iterator[World]:
    """One partition, so that everything meets; runs may be as old as they like."""
    ages = {
        "late_horizon": LONG,
        "max_run_age": LONG,
        "stuck_after": LONG,
        "steps_retention_days": 10_000,
    }
    made = World(kafka_bootstrap, tmp_path, partitions=1, **ages)
    yield made
    made.collected.close()
    if made.starts:
        made.process.kill()


def put_state(world: World, record: bytes, trace_id: str) -> None:
    """A state record as another worker wrote it."""
    world._send("state", record, trace_id.encode(), partition=0)


def commit(world: World, offset: int, metadata: str) -> None:
    """An offset as another worker committed it."""
    client = consumer(
        world.settings, f"{world.settings.topic_prefix}.{world.settings.worker_group}"
    )
    place = TopicPartition(
        topic(world.settings.topic_prefix, "steps"), 0, offset, metadata=metadata
    )
    client.commit(offsets=[place], asynchronous=False)
    client.close()


def delete_below(world: World, offset: int) -> None:
    """What retention does."""
    place = TopicPartition(topic(world.settings.topic_prefix, "steps"), 0, offset)
    client = AdminClient(world.settings.kafka)
    for future in client.delete_records([place]).values():
        future.result(10)


def old_step(trace_id: str, digit: str, phase: str, parent: str, **more: Any) -> dict[str, Any]:
    """A step of the runs in the kept records."""
    base = step(trace_id, 1, phase) | {
        "step_id": digit * 16,
        "parent_step_id": parent * 16,
        "agent": "old",
        **more,
    }
    return base | {"task": "refund", "environment": "prod", "agent_version": "1.0"}


def test_a_worker_goes_on_with_state_of_version_1(world: World) -> None:
    """The log before the committed offset is not read again: version 1's records replace it."""
    for _ in range(6):
        # Before the committed offset: a worker that read these would publish them.
        world.send(step(trace(), 1))
    # Bytes that version 1 wrote: an encoder of today would not show whether they can be read.
    put_state(world, base64.b64decode(STATES["closed"]), CLOSED)
    put_state(world, base64.b64decode(STATES["announced"]), OPEN)
    commit(world, 6, STATES["safe_offset_metadata"])
    world.start()
    world.send(
        old_step(
            OPEN,
            "3",
            "end",
            "2",
            kind="llm_call",
            start_time=1_790_000_000_000_009,
            cost_usd="0.000000009",
        ),
        old_step(OPEN, "1", "end", "", kind="agent", start_time=1_790_000_000_000_000),
        old_step(CLOSED, "4", "end", "1", kind="llm_call", cost_usd="0.5"),
    )
    late = world.wait_for("trajectories", lambda value: value["trace_id"] == CLOSED)
    whole = world.wait_for(
        "trajectories", lambda v: v["trace_id"] == OPEN and v.get("closed", False), CATCH_UP_S
    )
    assert (whole["steps"], whole["cost_usd"], whole["revision"], whole["status"]) == (
        3,
        "0.50000001",
        11,
        "ok",
    )
    assert (late["steps"], late["cost_usd"], late["late_steps"], late["revision"]) == (
        3,
        "0.750000003",
        1,
        7,
    )
    assert late["closed"]
    world.wait_for(
        "alerts", lambda value: value["alert"] == "run-duration" and value["trace_id"] == OPEN
    )
    assert {received.value["trace_id"] for received in world.collected.records["trajectories"]} == {
        OPEN,
        CLOSED,
    }


@pytest.mark.long
def test_an_open_run_hours_old_neither_pins_the_committed_offset_nor_loses_its_steps(
    world: World,
) -> None:
    """After retention deleted what is before the committed offset, the run's state restores it."""
    run = trace()
    world.start()
    hour_us = 3_600_000_000
    world.send(step(run, 1, "start", start_time=now_us() - 5 * hour_us))
    for number in range(2, 6):
        world.send(
            step(
                run,
                number,
                start_time=now_us() - 4 * hour_us,
                end_time=now_us() - 3 * hour_us,
                cost_usd="0.1",
            )
        )
        for _ in range(25):
            world.send(step(trace(), 1))
        wait_until(
            lambda: world.committed()["steps", 0][0] >= world.committed()["steps", 0][1] - 25,
            20,
            "a committed offset that moves on",
        )
        world.process.kill()
        delete_below(world, world.committed()["steps", 0][0])
        world.start()
    world.send(step(run, 1, start_time=now_us() - 5 * hour_us))
    got = world.wait_for(
        "trajectories",
        lambda value: value["trace_id"] == run and value.get("closed", False),
        CATCH_UP_S,
    )
    assert (got["steps"], got["cost_usd"], got["revision"], got.get("late_steps", 0)) == (
        5,
        "0.4",
        13,
        0,
    )


@pytest.mark.long
def test_closed_runs_stay_closed_through_kills(world: World) -> None:
    """A late step after each restart makes the next revision of the whole run, never a fragment."""
    run = trace()
    world.start()
    world.send(step(run, 1, cost_usd="0.5"), step(run, 2, cost_usd="0.25"))
    world.final(run)
    for number in range(3, 5):
        time.sleep(0.5)
        world.process.kill()
        world.send(step(run, number, cost_usd="0.125"))
        world.start()
        late = world.wait_for(
            "trajectories",
            lambda value, number=number: value.get("steps") == number,  # type: ignore[misc]
        )
        assert (late["closed"], late["revision"], late["late_steps"]) == (
            True,
            2 * number + 1,
            number - 2,
        )
    world.collected.read(1)
    revisions = [
        received.value["revision"]
        for received in world.collected.records["trajectories"]
        if received.value["trace_id"] == run
    ]
    assert max(revisions) == 9
    assert sorted(set(revisions)) == sorted({*revisions} & {2, 4, 5, 7, 9})
