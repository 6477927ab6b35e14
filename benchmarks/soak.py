"""Whether memory grows: a backlog first, then a steady load for minutes, with the memory of every
process.

Everything as ``stepstream up`` runs it. Closed runs are kept for a minute instead of an hour, so
that what the design keeps for a time is full before the measured time begins.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks import harness
from benchmarks.bench import scratch_folder, steps_topic
from benchmarks.harness import Goal, Report
from benchmarks.load import LoadSpec
from benchmarks.sender import Sender
from benchmarks.stored import STEPS, wait_reached
from stepstream.common.settings import load
from stepstream.local.supervisor import Pipeline
from stepstream.sinks.clickhouse import connect

WATCHED: Final = ("worker", "sink")
SAMPLE_S: Final = 10.0
# Of the steady time: until then caches and what is kept for a minute fill up.
WARM_UP_SHARE: Final = 0.25
GOAL_GROWTH: Final = 0.05
BACKLOG: Final = 400_000
QUICK_BACKLOG: Final = 20_000


class Memory:
    """Resident memory of named processes, sampled by a thread; MB by process, and when."""

    def __init__(self, pipeline: Pipeline, every_s: float) -> None:
        self._pipeline = pipeline
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._began = time.monotonic()
        self.seen: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            for name, pids in self._pipeline.pids().items():
                self.seen[name].append((time.monotonic() - self._began, sum(map(rss_mb, pids))))

    def values(self, name: str, since_s: float = 0.0, until_s: float = float("inf")) -> list[float]:
        """What was seen of a process in a time."""
        return [value for at_s, value in self.seen[name] if since_s <= at_s <= until_s]


def rss_mb(pid: int) -> float:
    """Resident memory of a process; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """The backlog, then the steady load."""
    with scratch_folder() as folder:
        # An hour of late steps would be growth for an hour.
        more = {"state_dir": str(folder), "data_dir": str(folder / "data"), "late_horizon": "60s"}
        settings = load(environ={}, file=Path(os.devnull), **more)
        with Pipeline(settings) as pipeline, Sender(pipeline.settings.kafka_brokers) as sender:
            _backlog(report, pipeline, sender)
            seconds = 30.0 if report.quick else arguments.seconds
            _steady(report, pipeline, sender, seconds, arguments.rate)


def _backlog(report: Report, pipeline: Pipeline, sender: Sender) -> None:
    """All at once, as after an outage: the highest memory, and how long it takes to be through."""
    events = QUICK_BACKLOG if report.quick else BACKLOG
    truth = sender.load(LoadSpec(events=events, start_us=int(time.time() * 1e6)).at_rate(20_000))
    began = time.monotonic()
    with Memory(pipeline, 0.5) as memory:
        sender.send(steps_topic(pipeline.settings))
        with connect(pipeline.settings) as client:
            wait_reached(client, STEPS, truth.steps)
    took_s = time.monotonic() - began
    report.figures["backlog_events_per_s"] = truth.events / took_s
    rows = []
    for name in WATCHED:
        most = max(memory.values(name), default=0.0)
        report.figures[f"backlog_{name}_rss_mb"] = most
        rows.append((name, most))
    report.table(
        f"a backlog of {truth.events:,} events, stored in {took_s:.0f} s",
        ("process", "highest RSS MB"),
        rows,
    )


def _steady(
    report: Report, pipeline: Pipeline, sender: Sender, seconds: float, rate: float
) -> None:
    """A load that is far from the limit, for long; memory of its last quarter compared with that
    after the warm-up.
    """
    sender.load(
        LoadSpec(events=int(rate * seconds), start_us=int(time.time() * 1e6), seed=2).at_rate(rate)
    )
    every_s = 1.0 if report.quick else SAMPLE_S
    with Memory(pipeline, every_s) as memory:
        sender.send(steps_topic(pipeline.settings), rate=rate)
    times = [f"{at_s:.0f}" for at_s, _ in memory.seen[WATCHED[0]]]
    lines = list(
        zip(
            times,
            *([value for _, value in memory.seen[name]] for name in memory.seen),
            strict=False,
        )
    )
    report.table(f"resident memory at {rate:.0f} events/s, MB", ("s", *memory.seen), lines)
    quarter_s = seconds * WARM_UP_SHARE
    rows = []
    for name in WATCHED:
        # Medians: a sample in the middle of a garbage collection is no trend.
        early = median(memory.values(name, quarter_s, 2 * quarter_s) or [0.0])
        late = median(memory.values(name, 3 * quarter_s) or [0.0])
        growth = late / early - 1 if early else 0.0
        report.figures |= {f"steady_{name}_rss_mb": late, f"steady_{name}_growth": growth}
        report.goals.append(
            Goal(
                f"growth of the {name} from its second quarter to its last", growth, GOAL_GROWTH, ""
            )
        )
        rows.append((name, early, late, 100 * growth))
    report.table(
        f"{seconds:.0f} s of steady load",
        ("process", "2nd quarter MB", "last quarter MB", "growth %"),
        rows,
    )


if __name__ == "__main__":
    flags = harness.parser(__doc__ or "")
    flags.add_argument("--seconds", type=float, default=600, help="how long the steady load lasts")
    flags.add_argument("--rate", type=float, default=1_000, help="its events a second")
    harness.run("soak", measure, flags)
