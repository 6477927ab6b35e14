"""What the SDK costs in the agent's thread: ``hostile`` is a step with values that would hurt it,
compared with an ordinary one; ``steps`` is an ordinary step and one of other tracing SDKs,
``burst`` one at full speed without an endpoint, ``rate`` 8,000 steps a second over a real Kafka,
``spool`` an event that is written to disk, ``kills`` what an agent loses that is killed.

Each value is the input and the output of a tool's step, many times; measured is the step alone,
with the sender at work at the same time. The first step of a process is measured in processes of
its own, from before the run is opened until its first step has ended, against an address where no
broker answers.
"""

from __future__ import annotations

import argparse
import array
import base64
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import AsyncMock, MagicMock

from benchmarks import harness
from benchmarks.harness import Goal, Report, percentile
from benchmarks.peers.sdk_step import ANSWER, ARGUMENTS
from benchmarks.sdk_kills import kills
from benchmarks.sdk_peers import compare_with_others, install
from stepstream.admin.topics import create_topics
from stepstream.local.embedded.kafka import EmbeddedKafka
from stepstream.producers.steps import Step
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.base import Record
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.producers.transport.spool import Spool
from stepstream.schemas.settings import Settings

GOAL_P99_MS: Final = 1.0
GOAL_MAXIMUM_MS: Final = 20.0
GOAL_FIRST_MS: Final = 30.0
_LONG: Final = 50_000_000
_FIRST: Final = """
import time
import stepstream
stepstream.configure(endpoint="kafka://127.0.0.1:1", quiet=True)
began = time.perf_counter()
with stepstream.run("r") as run:
    with run.tool("t", input={"a": 1}) as step:
        step.set_output({"b": 2})
    print(time.perf_counter() - began, flush=True)
import os
os._exit(0)
"""

# What was called of the values, which is nothing when all is well.
called: Final[list[str]] = []


class Blocks:
    """Everything of it takes two seconds."""

    def __repr__(self) -> str:
        called.append("repr")
        time.sleep(2)
        return "late"

    __str__ = __repr__

    def model_dump(self) -> dict[str, int]:
        called.append("model_dump")
        time.sleep(2)
        return {}


class Locked:
    """Everything of it needs a lock that another thread holds."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __repr__(self) -> str:
        called.append("repr")
        with self._lock:
            return "locked"

    def __iter__(self) -> Iterator[int]:
        called.append("iter")
        with self._lock:
            return iter(())


class Proxy:
    """Answers to every name, as clients of remote objects do."""

    def __getattr__(self, name: str) -> Any:
        called.append(name)
        return lambda *_args, **_kwargs: {}


class Leaves:
    """Ends the program when it is shown."""

    def __repr__(self) -> str:
        called.append("repr")
        raise SystemExit("shown")


def ordinary_values() -> dict[str, Any]:
    """What most steps carry."""
    talk = [
        {
            "role": "user" if n % 2 else "assistant",
            "content": "Something was written about an order, " * 5,
        }
        for n in range(10)
    ]
    return {
        "arguments of a tool": {
            "order": "A-1001",
            "limit": 10,
            "filters": {"country": "DE", "paid": True},
        },
        "ten rows": {"rows": [{"id": n, "name": f"name {n}", "total": n * 1.5} for n in range(10)]},
        "a conversation": talk,
        "a text": "some words of an answer " * 50,
    }


def hostile_values() -> dict[str, Any]:
    """What has hurt an agent: by what it does, by its size, by its text."""
    lock = threading.Lock()
    lock.acquire()
    image = base64.b64encode(random.Random(1).randbytes(3_300_000)).decode()
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return {
        "mock": MagicMock(),
        "mock in a dictionary": {"client": MagicMock(), "other": AsyncMock()},
        "remote proxy": Proxy(),
        "blocks for 2 s": Blocks(),
        "needs a locked lock": [Locked(lock)],
        "ends the program": {"x": Leaves()},
        "circle": circle,
        "100,000 levels": deep,
        "text of 50 MB": "x" * _LONG,
        "text of 50 MB in a list": ["y" * _LONG],
        "wide text of 20 MB": ["é" * 10_000_000],
        "20 texts of 10 MB": ["z" * 10_000_000] * 20,
        "bytes of 50 MB": b"\x00\xff" * (_LONG // 2),
        "deque of a million": deque(range(1_000_000)),
        "array of a million": array.array("d", bytes(8_000_000)),
        "dictionary of a million": dict.fromkeys(range(1_000_000), 1),
        "list of a million": [1] * 1_000_000,
        "set of a million": set(range(1_000_000)),
        "tree of a hundred million": [[[[1] * 100] * 100] * 100] * 100,
        "number of 3 million bits": 7**1_000_000,
        "key of 10 MB": {"k" * 10_000_000: 1},
        "image before the question": [
            {"image_url": {"url": f"data:image/png;base64,{image}"}},
            {"text": "What is it?"},
        ],
        "answer of a page: -eyJ": "-eyJ" * 5_000,
        "answer of a page: token=": "token=" * 3_000,
        "answer of a page: half pairs": ["\ud800" * 5_000],
    }


def steps(tracer: Tracer, value: Any, rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds in the agent's thread of each of this many steps with the value: as they passed,
    and of its CPU."""
    took: list[float] = []
    worked: list[float] = []
    with tracer.run("run") as run:
        for _ in range(rounds):
            worked_before, began = time.thread_time(), time.perf_counter()
            with run.tool("tool", input=value) as step:
                step.set_output(value)
            took.append((time.perf_counter() - began) * 1e3)
            worked.append((time.thread_time() - worked_before) * 1e3)
            time.sleep(0.0005)  # as an agent, which does something between its steps
    return took, worked


def first_steps(count: int) -> list[float]:
    """Milliseconds that the first run and its step took, in processes of their own."""
    command = [sys.executable, "-c", _FIRST]
    return [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1e3
        for _ in range(count)
    ]


def _row(name: str, took: list[float], worked: list[float]) -> tuple[float | str | None, ...]:
    passed = (percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3, max(took) * 1e3)
    return (name, len(took), *passed, percentile(worked, 0.99) * 1e3 if worked else None)


def hostile(report: Report, rounds: int) -> None:
    """The table of values, and the goals."""
    transport = MemoryTransport()
    tracer = Tracer(Settings(project="benchmark", agent="agent", quiet=True), transport=transport)
    columns = ("value", "steps", "p50 us", "p99 us", "maximum us", "CPU p99 us")
    # What is imported when a step is first seen is not counted.
    steps(tracer, ordinary_values(), 50)
    plain = {name: steps(tracer, value, rounds) for name, value in ordinary_values().items()}
    report.table("Ordinary values", columns, [_row(name, *took) for name, took in plain.items()])
    rows: dict[str, tuple[list[float], list[float]]] = {}
    for name, value in hostile_values().items():
        rows[name] = steps(tracer, value, rounds)
        transport.records.clear()
    report.table("Hostile values", columns, [_row(name, *took) for name, took in rows.items()])
    tracer.close(60)
    first = first_steps(3 if report.quick else 15)
    report.table("The first step of a process", columns, [_row("run and tool", first, [])])
    everything = [one for took, _ in rows.values() for one in took]
    usual = [one for took, _ in plain.values() for one in took]
    report.figures |= {
        "ordinary_p50_us": percentile(usual, 0.5) * 1e3,
        "ordinary_p99_us": percentile(usual, 0.99) * 1e3,
        "hostile_p50_us": percentile(everything, 0.5) * 1e3,
        "hostile_p99_us": percentile(everything, 0.99) * 1e3,
        "hostile_cpu_p99_us": percentile(
            [one for _, worked in rows.values() for one in worked], 0.99
        )
        * 1e3,
        "hostile_maximum_us": max(everything) * 1e3,
        "first_p50_ms": percentile(first, 0.5),
        "first_maximum_ms": max(first),
    }
    report.goals += [
        Goal("hostile step, p99", percentile(everything, 0.99), GOAL_P99_MS, "ms"),
        Goal("hostile step, maximum", max(everything), GOAL_MAXIMUM_MS, "ms"),
        Goal("first step of a process, median", percentile(first, 0.5), GOAL_FIRST_MS, "ms"),
    ]
    if called:
        report.wrong.append(f"methods of values were called: {sorted(set(called))}")
    counts = tracer.counts
    if counts.failed or counts.dropped:
        report.wrong.append(f"{counts.failed} events failed, {counts.dropped} dropped")


def _paced(rate: float, count: int, step: Callable[[int], None]) -> tuple[list[float], float]:
    """Microseconds of each of this many calls, and CPU seconds of the process for all of them.

    ``rate`` is calls a second; 0 is without a pause.
    """
    took: list[float] = []
    began_cpu, began = time.process_time(), time.perf_counter()
    for number in range(count):
        if rate:
            due = began + number / rate
            while (left := due - time.perf_counter()) > 0:
                time.sleep(left)
        before = time.perf_counter()
        step(number)
        took.append((time.perf_counter() - before) * 1e6)
    return took, time.process_time() - began_cpu


def rate_over_kafka(report: Report, rounds: int) -> None:
    """8,000 steps a second for a minute, over a broker of its own: nothing may be dropped."""
    seconds = 5 if report.quick else 60
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "kafka") as kafka:
        settings = Settings(
            kafka_brokers=kafka.bootstrap, state_dir=folder, quiet=True, control=False
        )
        create_topics(settings)
        tracer = Tracer(settings)
        with tracer.run("run") as run:

            def step(_number: int) -> None:
                with run.tool("search", input=ARGUMENTS) as one:
                    one.set_output(ANSWER)

            _paced(100, 100, step)
            began = time.perf_counter()
            took, cpu_s = _paced(8_000, 8_000 * seconds, step)
            reached = len(took) / (time.perf_counter() - began)
        is_flushed = tracer.flush(120)
        counts = tracer.counts
        tracer.close(60)
    report.figures |= {
        "rate_steps_per_s": reached,
        "rate_p99_us": percentile(took, 0.99),
        "rate_cpu_us_per_step": cpu_s / len(took) * 1e6,
        "rate_dropped_events": counts.dropped,
    }
    report.goals += [
        Goal("rate", reached, 7_900, "steps/s", at_most=False),
        Goal("events dropped at that rate", counts.dropped, 0, "events"),
    ]
    if not is_flushed or counts.failed:
        report.wrong.append(f"not everything was delivered: {counts}")


def _step(run: Step, value: object, _number: int) -> None:
    with run.tool("search", input=value) as step:
        step.set_output(value)


def bursts(report: Report, rounds: int) -> None:
    """A full-speed burst, with short and with long contents, while nothing answers at the endpoint:
    all of it must be in the spool.
    """
    steps = 5_000 if report.quick else 20_000
    rows = []
    for name, text in (("short", "words"), ("3 KB", "some words of an answer, " * 120)):
        with tempfile.TemporaryDirectory() as folder:
            tracer = Tracer(
                Settings(
                    endpoint="kafka://127.0.0.1:1", spool_dir=folder, quiet=True, control=False
                )
            )
            with tracer.run("run") as run:
                took, cpu_s = _paced(0, steps, partial(_step, run, {"text": text}))
            tracer.close(120)
            counts = tracer.counts
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
        rows.append(
            (name, steps, percentile(took, 0.5), percentile(took, 0.99), max(took) / 1e3,
             cpu_s / steps * 1e6, counts.dropped + counts.failed, peak)
        )  # fmt: skip
        report.goals.append(
            Goal(f"events lost, {name}", counts.dropped + counts.failed, 0, "events")
        )
    columns = ("contents", "steps", "p50 us", "p99 us", "maximum ms", "CPU us a step", "lost", "MB")
    report.table("A burst at full speed without an endpoint", columns, rows)


def spooling(report: Report, rounds: int) -> None:
    """An event of 800 bytes that is written to the spool, and one that is read and deleted."""
    count = 64 * rounds
    value = json.dumps({"phase": "end", "input": "x" * 700}).encode()
    records = [Record(b"%032x" % (number // 20), value) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "events.db")
        began, began_cpu = time.perf_counter(), time.process_time()
        for start in range(0, count, 64):
            spool.put(records[start : start + 64])
        put_s, put_cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
        began = time.perf_counter()
        while rows := spool.read(256):
            spool.delete([row.id for row in rows])
        taken_s = time.perf_counter() - began
        spool.close()
    columns = ("", "events", "us an event", "CPU us an event")
    rows_shown = [
        ("written in batches of 64", count, put_s / count * 1e6, put_cpu_s / count * 1e6),
        ("read and deleted", count, taken_s / count * 1e6, None),
    ]
    report.table("The spool", columns, rows_shown)
    report.figures |= {
        "spool_put_us": put_s / count * 1e6,
        "spool_put_cpu_us": put_cpu_s / count * 1e6,
        "spool_take_us": taken_s / count * 1e6,
    }
    report.goals += [
        Goal("an event written to the spool", put_s / count * 1e6, 6, "us"),
        Goal("events written a second", count / put_s, 10_000, "events/s", at_most=False),
    ]


PARTS: Final[dict[str, Callable[[Report, int], None]]] = {
    "hostile": hostile,
    "steps": compare_with_others,
    "burst": bursts,
    "rate": rate_over_kafka,
    "spool": spooling,
    "kills": kills,
}


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """The part that was asked for."""
    if arguments.install_peers:
        install()
    PARTS[arguments.part](report, arguments.rounds or (20 if report.quick else 400))


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument("part", choices=list(PARTS), help="what to measure")
    flags.add_argument(
        "--install-peers",
        action="store_true",
        help="install other SDKs, each into an environment of its own",
    )
    flags.add_argument("--rounds", type=int, default=0, help="steps with each value")
    harness.run("sdk", measure, flags)
