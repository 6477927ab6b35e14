"""The assemble stage alone: microseconds per event, and where they go. No Kafka, no faust: a tool
for profiling.

Records are fed to one partition in chunks as the worker does, and what it wants sent is
acknowledged a chunk later.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import resource
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks import harness
from benchmarks.harness import Goal, Report
from benchmarks.load import Load, LoadSpec, make_load
from benchmarks.stopwatch import Place, Stopwatch
from stepstream.schemas.prices import PriceBook
from stepstream.stream.assemble import closed_runs as closed
from stepstream.stream.assemble import partition
from stepstream.stream.assemble.checkpoint_writer import CheckpointWriter
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.publish_schedule import PublishSchedule
from stepstream.stream.assemble.run_closer import RunCloser
from stepstream.stream.assemble.timers import Timers
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.records import LogRecord
from stepstream.stream.detectors import budgets, loop, make_detector, time_limits, unpriced_model
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import Run
from stepstream.stream.shell.gc_tuning import relax_collector

CHUNK: Final = 500
APPEND_RATE: Final = 40_000
# Seconds of the log that are played before it counts: until then no run has closed.
WARM_S: Final = 2.5
GOAL_US: Final = 12.0

_DETECTORS: Final = [
    value
    for module in (budgets, loop, time_limits, unpriced_model)
    for name, value in vars(module).items()
    if isinstance(value, type) and name.endswith("Detector") and value.__module__ == module.__name__
]


def _of_detectors(method: str) -> list[Place]:
    return [(kind, method) for kind in _DETECTORS]


SECTIONS: Final[dict[str, list[Place]]] = {
    "decode and accept": [(partition, "accept")],
    "price": [(PriceBook, "cost")],
    "merge": [(Run, "merge")],
    "detectors, per record": _of_detectors("on_step"),
    "detectors, timers and the close": _of_detectors("on_timer") + _of_detectors("on_close"),
    "publish trajectories and usage": [(PublishSchedule, "publish_if_due")],
    "state records": [(CheckpointWriter, "_write")],
    "scheduling and timers": [
        (Timers, "schedule"),
        (AssemblePartition, "_fire_timers"),
    ],
    "bounds, closed runs": [
        (CheckpointWriter, "request_overdue"),
        (RunCloser, "excess"),
        (closed.ClosedRuns, "expire"),
        (closed.ClosedRuns, "put"),
    ],
    "acknowledgements": [(AssemblePartition, "acknowledged")],
}


@dataclass(slots=True)
class Played:
    """What it took to play a log."""

    seconds: float
    wall_s: float
    events: int
    outputs: int
    output_bytes: int
    open_runs: int


class Log:
    """The load as one partition's log, appended ``rate`` records a second."""

    def __init__(self, load: Load, start_us: int, rate: float) -> None:
        self._load = load
        self._start_ms = start_us / 1000
        self._ms_each = 1000 / rate

    def __len__(self) -> int:
        return len(self._load.keys)

    def read(self, first: int, last: int) -> list[LogRecord]:
        """Records as a consumer has just made them: objects of their own, fresh in memory."""
        keys, values = self._load.keys, self._load.values
        return [
            LogRecord(
                number,
                int(self._start_ms + number * self._ms_each),
                keys[number],
                # A copy: values that are in the processor's cache would flatter the decoder.
                bytes(memoryview(values[number])),
            )
            for number in range(first, min(last, len(self)))
        ]


def make_stage(*, contents: bool = False, **limits: Any) -> AssemblePartition:
    """A partition with the default rules; those that read contents only with ``contents``."""
    all_limits = AssembleLimits(content_detectors=contents, **limits)
    return AssemblePartition(
        0, 1, rules=RuleBook((), make_detector), prices=PriceBook(), limits=all_limits
    )


def play(stage: AssemblePartition, log: Log, first: int = 0, last: int = 0) -> Played:
    """Process a part of the log. The time to make its records is not counted."""
    count = size = most_open = 0
    seconds = wall_s = 0.0
    last = last or len(log)
    under_way: list[Output] = []
    for start in range(first, last, CHUNK):
        records = log.read(start, min(last, start + CHUNK))
        began, began_wall = time.process_time(), time.perf_counter()
        for record in records:
            stage.process(record)
        stage.flush()
        out = stage.take_outputs()
        # A chunk later, as Kafka acknowledges while the next records are processed.
        for output in under_way:
            stage.acknowledged(output)
        stage.offsets.safe  # noqa: B018  (the shell asks for it after each chunk)
        seconds += time.process_time() - began
        wall_s += time.perf_counter() - began_wall
        most_open = max(most_open, len(stage.runs))
        count += len(out)
        size += sum(len(output.value or b"") for output in out)
        under_way = out
    return Played(seconds, wall_s, last - first, count, size, most_open)


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Play the log as it is, with the detectors that read contents, and with timers."""
    events = arguments.events or (40_000 if report.quick else 400_000)
    spec = LoadSpec(
        open_runs=arguments.open_runs,
        events_per_s=APPEND_RATE,
        start_us=int(time.time() * 1e6),
        seed=arguments.seed,
        under_way=True,
    )
    opening = arguments.open_runs + int(WARM_S * arguments.append_rate)
    spec = replace(spec, events=opening + events)
    log = Log(make_load(spec), spec.start_us, arguments.append_rate)
    gc.collect()
    gc.freeze()
    if arguments.profile:
        _profile(log, opening, arguments.profile, contents=arguments.contents)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Without timers: each of them costs a share of what it measures.
    plain, stage = _warm_and_play(log, opening)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    total_us = plain.seconds * 1e6 / events
    del stage
    _compare_contents(report, log, opening, total_us)
    _compare_collector(report, log, opening, total_us)
    watch = Stopwatch()
    with watch.watching(SECTIONS):
        watched, _ = _warm_and_play(log, opening, watch)
    # Its timers ran on the wall's clock: what others took of the core meanwhile is taken off.
    _report(report, watch, watched.seconds / watched.wall_s / events, total_us, plain)
    report.figures["rss_growth_mb"] = grown_mb
    report.figures["open_runs"] = plain.open_runs


def _warm_and_play(
    log: Log, opening: int, watch: Stopwatch | None = None, *, contents: bool = False
) -> tuple[Played, AssemblePartition]:
    """The opening first, not counted; then the rest."""
    stage = make_stage(contents=contents)
    play(stage, log, 0, opening)
    if watch is not None:
        watch.reset()
    return play(stage, log, opening), stage


def _compare_contents(report: Report, log: Log, opening: int, without_us: float) -> None:
    """The same log with the detectors that read contents, as a worker has them by default."""
    played, _ = _warm_and_play(log, opening, contents=True)
    with_us = played.seconds * 1e6 / played.events
    rows = [
        ("without detectors that read contents", without_us, 100.0),
        ("all default rules", with_us, 100 * with_us / without_us),
    ]
    report.table("detectors that read contents", ("rules", "us/event", "%"), rows)
    report.figures["us_per_event_all_default_rules"] = with_us


def _compare_collector(report: Report, log: Log, opening: int, default_us: float) -> None:
    """The same log with the collector's thresholds as the worker sets them, compared with Python's
    own.
    """
    thresholds = gc.get_threshold()
    relax_collector()
    try:
        relaxed, _ = _warm_and_play(log, opening)
    finally:
        gc.set_threshold(*thresholds)
    relaxed_us = relaxed.seconds * 1e6 / relaxed.events
    rows = [
        ("Python's thresholds", default_us, 100.0),
        ("the worker's", relaxed_us, 100 * relaxed_us / default_us),
    ]
    report.table("collector", ("thresholds", "us/event", "%"), rows)
    report.figures["us_per_event_relaxed_collector"] = relaxed_us


def _profile(log: Log, opening: int, lines: int, *, contents: bool) -> None:
    stage = make_stage(contents=contents)
    play(stage, log, 0, opening)
    profile = cProfile.Profile()
    profile.enable()
    play(stage, log, opening)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(lines)


def _report(report: Report, watch: Stopwatch, share: float, total_us: float, plain: Played) -> None:
    """``share`` makes microseconds an event of a section's microseconds."""
    rows: list[tuple[str, float, float, float | None]] = []
    for section in (*SECTIONS, "garbage collection"):
        spent = watch.spent_us(section) * share
        rows.append(
            (section, spent, 100 * spent / total_us, watch.calls.get(section, 0) / plain.events)
        )
        report.figures[f"{section.replace(',', '').replace(' ', '_')}_us_per_event"] = spent
    rest = total_us - sum(row[1] for row in rows)
    rows += [("the rest", rest, 100 * rest / total_us, None), ("all", total_us, 100.0, None)]
    title = (
        f"assemble, {plain.events:,} events, {plain.open_runs:,} runs open at once, default rules "
        "but for those that read contents"
    )
    report.table(title, ("part", "us/event", "% of all", "calls/event"), rows)
    report.figures["us_per_event"] = total_us
    report.figures["events_per_s"] = 1e6 / total_us
    report.figures["outputs_per_event"] = plain.outputs / plain.events
    report.figures["output_bytes_per_event"] = plain.output_bytes / plain.events
    print(
        f"{plain.outputs / plain.events:.3f} outputs and {plain.output_bytes / plain.events:.0f} "
        "bytes of them an event"
    )
    report.goals.append(
        Goal(
            "the whole worker's CPU an event; this is its logic without content detectors",
            total_us,
            GOAL_US,
            "us",
        )
    )


def flags() -> argparse.ArgumentParser:
    """Its own flags and the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument("--events", type=int, default=0, help="records to measure")
    made.add_argument(
        "--open-runs", type=int, default=3_000, help="runs open at once (default %(default)s)"
    )
    made.add_argument(
        "--append-rate",
        type=float,
        default=APPEND_RATE,
        help="records a second in the log (default %(default)s)",
    )
    made.add_argument(
        "--profile", type=int, default=0, metavar="LINES", help="print cProfile's first lines too"
    )
    made.add_argument("--contents", action="store_true", help="the profile is of all default rules")
    return made


if __name__ == "__main__":
    harness.run("logic", measure, flags())
