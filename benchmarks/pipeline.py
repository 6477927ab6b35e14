"""The whole pipeline on this machine: steps a second, loss, time from producing to SQL, and where
the CPU goes.

Kafka, worker, sink and ClickHouse as ``stepstream up`` runs them, with default settings, and the
producer at the same time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from clickhouse_connect.driver.client import Client

from benchmarks import harness
from benchmarks.bench import plain_topic, records_in, scratch_folder, steps_topic
from benchmarks.child import Child, ChildFailed
from benchmarks.harness import Goal, Report, percentile
from benchmarks.load import LoadSpec, Truth
from benchmarks.machine import CpuMeter, pss_bytes
from benchmarks.sender import Sender
from benchmarks.stored import EVENTS, STEPS, wait_reached
from benchmarks.visible import Probe, latencies
from stepstream.common.settings import load
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.topics import topic
from stepstream.sinks.clickhouse import connect

GOAL_STEPS_PER_S: Final = 20_000
LIGHT_EVENTS_PER_S: Final = 200
# How often SQL is asked. The resolution of the times; at full load every query costs the sink.
LIGHT_PROBE_S: Final = 0.02
BUSY_PROBE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    events: int
    light_s: float
    half_s: float


FULL: Final = Scale(events=800_000, light_s=30, half_s=40)
QUICK: Final = Scale(events=50_000, light_s=5, half_s=5)


@dataclass(frozen=True, slots=True)
class Stored:
    """What SQL returns.

    ``events`` comes from the runs: a trajectory's revision counts the records it contains.
    """

    steps: int
    cost_nanos: int
    runs: int
    closed: int
    run_steps: int
    run_cost_nanos: int
    events: int


class Bench:
    """One run of the benchmark."""

    def __init__(self, report: Report, pipeline: Pipeline, sender: Sender, seed: int) -> None:
        self.report = report
        self.pipeline = pipeline
        self.sender = sender
        self.seed = seed
        self.scale = QUICK if report.quick else FULL
        self.settings = pipeline.settings
        self.topic = steps_topic(self.settings)
        self.client: Client = connect(self.settings)
        self.sent = Truth()
        self._phase = 0

    def load(self, *, events: int = 0, whole: int = 0, rate: float) -> Truth:
        """A load of its own: ``events`` records of runs that need not end, or whole runs of about
        ``whole`` records."""
        # A seed for each phase: the same ids again would be duplicates.
        self._phase += 1
        spec = LoadSpec(
            events=events, seed=self.seed + self._phase, start_us=int(time.time() * 1e6)
        ).at_rate(rate)
        return self.sender.load(spec.sized(whole) if whole else spec)

    def sending(self, truth: Truth) -> None:
        """From now on this load must be in the store too."""
        self.sent += truth

    def wait_visible(self) -> tuple[float, float]:
        """When SQL had every step, and when it had every event in a run's trajectory as well."""
        wait_reached(self.client, STEPS, self.sent.steps)
        stored_s = time.monotonic()
        wait_reached(self.client, EVENTS, self.sent.events)
        return stored_s, time.monotonic()

    def wait_closed(self) -> None:
        """Until every run that ended is closed.

        A worker that had fallen behind gives producers ten seconds for that.
        """
        wait_reached(
            self.client, "SELECT countIf(closed) FROM runs", self.sent.runs - self.sent.open
        )

    def stored(self) -> Stored:
        """All that is in the store now."""
        steps, cost = self._row("SELECT count(), toString(sum(cost_usd)) FROM steps")
        runs = self._row(
            "SELECT count(), countIf(closed), sum(steps), toString(sum(cost_usd)), "
            "sum(intDiv(revision, 2)) FROM runs"
        )
        return Stored(
            steps,
            nanos_from_usd(cost or "0"),
            runs[0],
            runs[1],
            runs[2],
            nanos_from_usd(runs[3]),
            runs[4],
        )

    def _row(self, query: str) -> Sequence[Any]:
        row: Sequence[Any] = self.client.query(query).result_rows[0]
        return row

    def parts(self) -> dict[str, list[int]]:
        """Every process that works."""
        return {**self.pipeline.pids(), "producer": [self.sender.pid]}


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Start everything, then: the limits, a light load, the maximum, half of it; what is stored is
    compared at the end."""
    with scratch_folder() as folder:
        settings = load(
            environ={}, file=Path(os.devnull), state_dir=str(folder), data_dir=str(folder / "data")
        )
        began = time.monotonic()
        with Pipeline(
            settings, report=lambda who, line: report.progress(f"{who}: {line}")
        ) as pipeline:
            report.figures["first_start_s"] = time.monotonic() - began
            with Sender(pipeline.settings.kafka_brokers) as sender:
                bench = Bench(report, pipeline, sender, arguments.seed)
                _light(bench)
                rate = _maximum(bench)
                _half(bench, rate)
                _compare(bench)
                bench.client.close()


def _light(bench: Bench) -> None:
    truth = bench.load(
        events=int(LIGHT_EVENTS_PER_S * bench.scale.light_s), rate=LIGHT_EVENTS_PER_S
    )
    _visible(bench, truth, LIGHT_EVENTS_PER_S, "light", LIGHT_PROBE_S, goal_s=1.0)


def _half(bench: Bench, most: float) -> None:
    rate = most / 2
    truth = bench.load(events=int(rate * bench.scale.half_s), rate=rate)
    _visible(bench, truth, rate, "half", BUSY_PROBE_S, goal_s=2.0)


def _visible(
    bench: Bench, truth: Truth, rate: float, label: str, probe_s: float, *, goal_s: float
) -> None:
    """Send at a rate; from a record's sending to the first answer of SQL with it."""
    report = bench.report
    # Some thousands of samples, always an even number apart: a step is a start and an end.
    every = max(2, int(truth.events / 4_000) * 2)
    with (
        connect(bench.settings) as client,
        Probe(client, bench.settings.partitions, probe_s) as probe,
    ):
        bench.sending(truth)
        answer = bench.sender.send(bench.topic, rate=rate, sample_every=every)
        bench.wait_visible()
        # The last sample is seen by the probe after this one.
        time.sleep(2 * probe_s)
    took, missing = latencies(answer["samples"], probe.seen)
    if missing:
        report.wrong.append(
            f"{missing} of {len(answer['samples'])} samples never became visible at {label} load"
        )
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    values = {name: percentile(took, share) for name, share in shares.items()}
    for name, value in values.items():
        report.figures[f"produce_to_sql_{label}_{name}_ms"] = value * 1000
    columns = (
        "load",
        "events/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "samples",
        "asked every ms",
        "sender late ms",
    )
    row = (
        label,
        rate,
        *(v * 1000 for v in values.values()),
        len(took),
        probe_s * 1000,
        answer["late_s"] * 1000,
    )
    report.table("from producing to SQL", columns, [row])
    report.goals.append(Goal(f"produce to SQL at {label} load, p99", values["p99"], goal_s, "s"))


def _maximum(bench: Bench) -> float:
    """Everything at once, as fast as it is taken; the limits with the same records before that.

    Events a second.
    """
    report = bench.report
    # Whole runs: open ones would never close, and closing is a part of the work.
    truth = bench.load(whole=bench.scale.events, rate=2 * GOAL_STEPS_PER_S)
    report.progress(
        f"{truth.events:,} events of {truth.value_bytes / truth.events:.0f} bytes; "
        f"{bench.sender.source}"
    )
    rows = _limits(bench, truth)
    bench.sending(truth)
    meter = CpuMeter(bench.parts())
    answer = bench.sender.send(bench.topic)
    stored_s, visible_s = bench.wait_visible()
    busy = meter.lap()
    bench.wait_closed()
    # Closing runs costs CPU after everything is visible; it belongs to the events as well.
    closing = meter.lap()
    took_s: float = max(stored_s, visible_s) - answer["began_s"]
    rate, stored = truth.events / took_s, truth.events / (stored_s - answer["began_s"])
    rows.append(("whole pipeline, to SQL", rate, rate / 2, None))
    rows.append(("  of it: steps stored", stored, stored / 2, None))
    report.table(
        f"{truth.events:,} events at once", ("", "events/s", "steps/s", "CPU us/event"), rows
    )
    report.figures |= {
        "pipeline_events_per_s": rate,
        "pipeline_steps_per_s": rate / 2,
        "steps_stored_per_s": stored / 2,
    }
    _where(bench, busy, closing, truth.events, took_s)
    report.goals.append(
        Goal("whole pipeline, nothing lost", rate / 2, GOAL_STEPS_PER_S, "steps/s", at_most=False)
    )
    return rate


def _limits(bench: Bench, truth: Truth) -> list[tuple[str, float, float, float | None]]:
    """What producing and consuming the same records costs with nothing else going on."""
    report, name = bench.report, plain_topic(bench.settings, "plain")
    meter = CpuMeter({"producer": [bench.sender.pid]})
    answer = bench.sender.send(name)
    produced = truth.events / (answer["ended_s"] - answer["began_s"])
    cpu_us = meter.lap()["producer"] / truth.events * 1e6
    # In a process of its own, as the worker is: threads would share the interpreter's lock.
    script = Path(__file__).parent / "peers" / "plain_consumer.py"
    arguments = [bench.settings.kafka_brokers, name, "plain", str(int(0.95 * truth.events))]
    with Child([sys.executable, str(script), *arguments]) as child:
        read = child.wait(600)
    consumed = read["events"] / read["wall_s"]
    report.figures |= {
        "plain_produce_events_per_s": produced,
        "plain_consume_events_per_s": consumed,
    }
    return [
        ("producing alone (a limit)", produced, produced / 2, cpu_us),
        ("consuming alone (a limit)", consumed, consumed / 2, read["cpu_s"] / read["events"] * 1e6),
    ]


def _where(
    bench: Bench, busy: dict[str, float], closing: dict[str, float], events: int, took_s: float
) -> None:
    """CPU of all the work, the closing of runs included; cores that were busy until all was
    visible."""
    report, used = bench.report, {name: seconds + closing[name] for name, seconds in busy.items()}
    total = sum(used.values())
    rows: list[tuple[str, float, float, float, float]] = []
    for name, seconds in sorted(used.items(), key=lambda item: -item[1]):
        memory = pss_bytes(bench.parts()[name]) / 2**20
        rows.append(
            (name, seconds / events * 1e6, 100 * seconds / total, busy[name] / took_s, memory)
        )
        report.figures[f"{name}_cpu_us_per_event"] = seconds / events * 1e6
        report.figures[f"{name}_pss_mb"] = memory
    rows.append(
        (
            "all",
            total / events * 1e6,
            100.0,
            sum(busy.values()) / took_s,
            sum(row[4] for row in rows),
        )
    )
    report.figures["all_cpu_us_per_event"] = total / events * 1e6
    report.table(
        "where the CPU goes at the maximum",
        ("process", "us/event", "%", "cores", "PSS MB after"),
        rows,
    )


def _compare(bench: Bench) -> None:
    """What was sent against what is stored: to the event, the step and the nano-dollar."""
    report, sent = bench.report, bench.sent
    deadline = time.monotonic() + 30
    while (stored := bench.stored()).events < sent.events and time.monotonic() < deadline:
        time.sleep(0.5)  # the last revision of an open run is under way
    dead = records_in(bench.settings, topic(bench.settings.topic_prefix, "deadletter"))
    pairs = (
        ("events", sent.events, stored.events),
        ("steps", sent.steps, stored.steps),
        ("steps by their runs", sent.steps, stored.run_steps - _never_ended(bench)),
        ("runs", sent.runs, stored.runs),
        ("cost, nano-dollars", sent.cost_nanos, stored.cost_nanos),
        ("cost by runs, nano-dollars", sent.cost_nanos, stored.run_cost_nanos),
        ("dead letters", 0, dead),
    )
    report.table(
        "sent and stored",
        ("", "sent", "stored", "difference"),
        [(n, f"{a:,}", f"{b:,}", b - a) for n, a, b in pairs],
    )
    # A fast pipeline that loses something is no result: the exit code is then 1.
    report.wrong += [f"{name}: sent {a:,}, stored {b:,}" for name, a, b in pairs if a != b]
    report.figures["lost_events"] = sent.events - stored.events
    report.figures["lost_steps"] = sent.steps - stored.steps
    report.goals.append(Goal("events lost", abs(sent.events - stored.events), 0, ""))


def _never_ended(bench: Bench) -> int:
    """Steps that a trajectory counts and that have not ended: the load was cut off in their
    midst."""
    return int(bench.client.command("SELECT sum(steps - ended_steps) FROM runs"))  # type: ignore[arg-type]


if __name__ == "__main__":
    try:
        harness.run("pipeline", measure, harness.parser(__doc__ or ""))
    except ChildFailed as error:
        sys.exit(f"pipeline: {error}")
