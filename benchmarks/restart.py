"""How long a worker takes to go on after a kill: state read, records replayed, seconds until it has
caught up.

100,000 open steps in 5,000 runs are read and left open; then the worker is killed, again and again,
and started anew.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Final

from confluent_kafka import TopicPartition

from benchmarks import harness
from benchmarks.bench import broker, prepared, scratch_folder, steps_topic
from benchmarks.harness import Goal, Report
from stepstream.common.kafka import consumer, producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.topics import topic
from tests.support.processes import Process, wait_until, worker

GOAL_S: Final = 15.0
STEPS_A_RUN: Final = 20
KILLS: Final = 3


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Fill, kill, start, measure."""
    steps = 5_000 if report.quick else arguments.steps
    with scratch_folder() as folder, broker(folder / "kafka") as kafka:
        settings = prepared(kafka.bootstrap, "restart", session_timeout="6s")
        _fill(settings, steps)
        process = worker(settings, folder / "worker-0.log")
        try:
            _wait_read(settings, process)
            rows = []
            for number in range(1, KILLS + 1):
                time.sleep(2)  # offsets are committed twice a second
                process.kill()
                process = worker(settings, folder / f"worker-{number}.log")
                rows.append(
                    (number, *_restart(report, settings, process, folder / f"worker-{number}.log"))
                )
        finally:
            process.kill()
    report.table(
        f"restarts with {steps:,} open steps",
        ("restart", "records replayed", "state read s", "ready s", "caught up s"),
        rows,
    )
    slowest = max(row[-1] for row in rows)
    report.figures |= {
        "open_steps": steps,
        "replayed": max(row[1] for row in rows),
        "caught_up_s": slowest,
    }
    report.goals.append(
        Goal("from the start of the process until it has caught up", slowest, GOAL_S, "s")
    )


def _fill(settings: Settings, steps: int) -> None:
    client = producer(settings, **{"linger.ms": 20})
    name, now_us = steps_topic(settings), time.time_ns() // 1_000
    runs = max(1, steps // STEPS_A_RUN)
    for index in range(steps):
        trace_id = f"{index % runs + 1:032x}"
        number = index // runs
        parent = "" if not number else f"{1:016x}"
        value = (
            f'{{"trace_id":"{trace_id}","step_id":"{number + 1:016x}",'
            f'"parent_step_id":"{parent}","phase":"start",'
            f'"kind":"{"llm_call" if number else "agent"}","name":"step {number}",'
            f'"agent":"tester","start_time":{now_us},'
            f'"input":"{"what was asked " * 30}"}}'
        )
        client.produce(name, value.encode(), trace_id.encode(), headers=list(RECORD_HEADERS))
        client.poll(0)
    assert client.flush(60) == 0


def _wait_read(settings: Settings, process: Process) -> None:
    """Until the committed offsets are as near to the ends as the limits of replay allow."""
    wait_until(
        lambda: process.tail(400).count("ready: ") >= settings.partitions, 60, "a ready worker"
    )
    # Open runs keep offsets back by this many records each partition, and no more.
    most = settings.partitions * settings.replay_records
    wait_until(
        lambda: _behind(settings) <= most,
        120,
        "committed offsets within the limit of replay",
        every_s=0.5,
    )
    time.sleep(3)


def _behind(settings: Settings) -> int:
    """Records after the committed offsets."""
    client = consumer(settings, f"{settings.topic_prefix}.{settings.worker_group}")
    behind = 0
    for partition in range(settings.partitions):
        place = TopicPartition(topic(settings.topic_prefix, "steps"), partition)
        end = client.get_watermark_offsets(place, timeout=10)[1]
        behind += end - max(0, client.committed([place], timeout=10)[0].offset)
    client.close()
    return behind


def _restart(
    report: Report, settings: Settings, process: Process, log: Path
) -> tuple[int, float, float, float]:
    began = time.monotonic()
    replayed = _behind(settings)
    wait_until(
        lambda: process.tail(400).count("ready: ") >= settings.partitions,
        60,
        "a ready worker",
        every_s=0.02,
    )
    ready_s = time.monotonic() - began
    # Lag would be 0 before the outputs are published: a mark shows that they are.
    caught_up_s = _marks(settings, _send_marks(settings)) - began
    read = [
        float(found)
        for found in re.findall(
            r"loaded run states of partition \d+ in ([0-9.]+) s", log.read_text()
        )
    ]
    report.progress(
        f"replayed {replayed:,}, ready after {ready_s:.1f} s, caught up after {caught_up_s:.1f} s"
    )
    return replayed, max(read, default=0.0), ready_s, caught_up_s


def _send_marks(settings: Settings) -> bytes:
    """One step on each partition, behind all that is to be replayed; returns the name that they
    have."""
    client, now_us = producer(settings), time.time_ns() // 1_000
    for partition in range(settings.partitions):
        trace_id = _trace_on(settings, partition, now_us)
        value = (
            f'{{"trace_id":"{trace_id}","step_id":"{1:016x}","phase":"start","kind":"agent",'
            f'"name":"mark {now_us}","agent":"tester","start_time":{now_us}}}'
        )
        client.produce(
            steps_topic(settings), value.encode(), trace_id.encode(), headers=list(RECORD_HEADERS)
        )
    assert client.flush(20) == 0
    return f"mark {now_us}".encode()


def _trace_on(settings: Settings, partition: int, seed: int) -> str:
    from stepstream.schemas.partitioner import partition_for

    return next(
        trace_id
        for number in range(1_000)
        if partition_for(trace_id := f"{seed * 1_000 + number:032x}", settings.partitions)
        == partition
    )


def _marks(settings: Settings, mark: bytes) -> float:
    """When the worker had published what it made of the marks."""
    client = consumer(settings, "restart-marks")
    name = topic(settings.topic_prefix, "trajectories")
    places = []
    for partition in range(settings.partitions):
        end = client.get_watermark_offsets(TopicPartition(name, partition), timeout=10)[1]
        places.append(TopicPartition(name, partition, max(0, end - 2_000)))
    client.assign(places)
    seen: set[int] = set()
    deadline = time.monotonic() + 120
    while len(seen) < settings.partitions:
        assert time.monotonic() < deadline, "the marks did not come"
        for message in client.consume(1_000, timeout=0.1):
            if message.error() is None and mark in (message.value() or b""):
                seen.add(message.partition() or 0)
    client.close()
    return time.monotonic()


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument("--steps", type=int, default=100_000, help="open steps")
    harness.run("restart", measure, flags)
