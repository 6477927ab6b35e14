"""The worker compared with its peers and limits, on one broker and the same records: CPU an event,
events a second, latency.

All of our work with the default rules, against engines that do nothing with each record. Each reads
a topic that was filled before, one after the other, alone with the broker.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import harness, worker_process
from benchmarks.bench import broker, prepared, scratch_folder, steps_topic
from benchmarks.child import Answer, Child, ChildFailed
from benchmarks.harness import NOT_INSTALLED, Goal, Report
from benchmarks.latency import event_to_trajectory
from benchmarks.load import LoadSpec, Truth
from benchmarks.peers import BYTEWAX, FAUST, PEERS, QUIX
from benchmarks.receiver import Receiver
from benchmarks.sender import Sender
from stepstream.admin import groups, topics
from stepstream.schemas.settings import Settings

APPEND_RATE: Final = 40_000
# Stock faust is given this much less to read.
STOCK_SHARE: Final = 5
# Latency is measured on runs whose trace_id begins so: one in sixteen.
SAMPLED: Final = "0"
WARM_S: Final = 2.5
# An answer costs the worker a third of a millisecond.
POLL_S: Final = 0.05
# Parts of the highest rate: at the highest itself latency is the length of the queue.
LATENCY_SHARES: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class Took:
    """What reading ``events`` records took: the whole process's CPU time, and the wall time until
    the last was processed."""

    events: int
    cpu_s: float
    wall_s: float

    @property
    def us(self) -> float:
        return self.cpu_s / self.events * 1e6

    @property
    def rate(self) -> float:
        return self.events / self.wall_s


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    events: int
    few_open: int
    many_open: int
    open_events: int
    latency_s: float


FULL: Final = Scale(
    events=600_000, few_open=1_000, many_open=100_000, open_events=400_000, latency_s=20
)
QUICK: Final = Scale(events=60_000, few_open=500, many_open=10_000, open_events=40_000, latency_s=5)


class Bench:
    """One run of the benchmark."""

    def __init__(self, report: Report, sender: Sender, brokers: str, seed: int) -> None:
        self.report = report
        self.scale = QUICK if report.quick else FULL
        self.sender = sender
        self.brokers = brokers
        self.seed = seed
        self.rows: list[tuple[str, float | str | None, float | None, float | None, int | None]] = []
        self.trickled = Truth()
        self._prefixes = 0

    def fill(self, *, contents: bool = False) -> Settings:
        """A prefix of its own whose steps topic holds the load, appended at about the rate that a
        busy worker reads.

        Then the log's time goes on for a while, so that a reader of it sees the load's runs
        close.
        """
        settings = self.prefix(contents=contents)
        answer = self.sender.send(steps_topic(settings), rate=APPEND_RATE)
        if answer["unsent"]:
            raise ChildFailed(f"{answer['unsent']} records were not acknowledged")
        self.trickled = self.sender.trickle(steps_topic(settings))
        return settings

    def prefix(self, *, contents: bool = False) -> Settings:
        """Topics under a prefix of their own; ``contents``: with detectors that read contents, as
        by default.
        """
        self._prefixes += 1
        name = f"bench{self._prefixes}"
        return prepared(self.brokers, name, session_timeout="30s", content_detectors=contents)

    def spec(self, **changes: Any) -> LoadSpec:
        """A load that begins now."""
        return LoadSpec(
            start_us=int(time.time() * 1e6), seed=self.seed, events_per_s=APPEND_RATE, **changes
        )

    def row(self, name: str, took: Took | None, workers: int = 1) -> None:
        """A line of the table."""
        if took is None:
            self.rows.append((name, NOT_INSTALLED, None, None, None))
            return
        self.report.progress(f"{name}: {took.us:.2f} us an event")
        self.rows.append((name, took.us, took.rate, 1e6 / took.us, took.events))


def ours(
    settings: Settings,
    events: int,
    *,
    workers: int = 1,
    after: int = 0,
    empty: bool = False,
    left_open: int | None = 0,
) -> Took:
    """Our worker reads a filled topic: counted are the records after the first ``after``.

    CPU time is taken until all runs but ``left_open`` are closed and nothing is under way, or,
    where that is None, until the last record is processed.
    """
    with ExitStack() as stack:
        children = [
            stack.enter_context(worker_process.start(settings, empty=empty)) for _ in range(workers)
        ]
        _wait_assigned(settings, workers)
        before = [child.ask(60, do="go") for child in children]
        if after:
            before = _wait_records(children, after)
        else:
            _wait_records(children, 1)
        began = time.monotonic()
        read = _wait_records(children, events)
        done = read if left_open is None else _wait_closed(children, left_open)
        cpu_s = sum(end["cpu_s"] - start["cpu_s"] for end, start in zip(done, before, strict=True))
        counted = sum(
            end["records"] - start["records"] for end, start in zip(read, before, strict=True)
        )
        return Took(counted, cpu_s, read[0]["at_s"] - began)


def _wait_assigned(settings: Settings, workers: int) -> None:
    client, name = topics.admin(settings), groups.worker_group(settings)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        group = groups.members(client, name)
        if group.members == workers and group.holds(steps_topic(settings), settings.partitions):
            time.sleep(1)  # a member may still be on its way from an earlier generation
            return
        time.sleep(0.1)
    raise ChildFailed(f"{workers} workers did not get the partitions within 90 s")


def _statuses(children: list[Child]) -> list[Answer]:
    return [child.ask(60, do="status") for child in children]


def _wait_records(children: list[Child], wanted: int) -> list[Answer]:
    """Until this many records have been processed in all."""
    while True:
        now = _statuses(children)
        if sum(status["records"] for status in now) >= wanted:
            return now
        time.sleep(POLL_S)


def _wait_closed(children: list[Child], left_open: int) -> list[Answer]:
    """Until no more runs are open and nothing is under way."""
    quiet = 0
    deadline = time.monotonic() + 120
    while True:
        now = _statuses(children)
        still_open = sum(status["runs_opened"] - status["runs_closed"] for status in now)
        quiet = (
            quiet + 1
            if still_open <= left_open and not any(status["in_flight"] for status in now)
            else 0
        )
        if quiet >= 3:
            return now
        if time.monotonic() > deadline:
            raise ChildFailed(f"{still_open} runs do not close: {now}")
        time.sleep(0.1)


def other(command: list[str], settings: Settings, group: str, events: int) -> Took:
    """A script that reads the steps topic doing nothing."""
    arguments = [settings.kafka_brokers, steps_topic(settings), group, str(events)]
    with Child([*command, *arguments]) as child:
        answer = child.wait(900)
    return Took(answer["events"], answer["cpu_s"], answer["wall_s"])


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Everything, one after the other."""
    if arguments.install_peers:
        _install(report)
    with scratch_folder() as folder, broker(folder) as kafka, Sender(kafka.bootstrap) as sender:
        bench = Bench(report, sender, kafka.bootstrap, arguments.seed)
        wanted = set(arguments.only or ("peers", "workers", "open", "latency"))
        one = _throughput(bench, peers="peers" in wanted, two="workers" in wanted)
        if "open" in wanted:
            _open_runs(bench)
        if "latency" in wanted:
            _latency(bench, one.rate)


def _install(report: Report) -> None:
    for peer in PEERS:
        report.progress(f"installing {peer.name} into {peer.folder}")
        peer.install()


def _throughput(bench: Bench, *, peers: bool, two: bool) -> Took:
    report, events = bench.report, bench.scale.events
    truth = bench.sender.load(bench.spec(open_runs=3_000).sized(events))
    report.progress(
        f"{truth.events:,} events of {truth.value_bytes / truth.events:.0f} bytes; "
        f"{bench.sender.source}"
    )
    settings = bench.fill()
    read = truth.events + bench.trickled.events
    default = ours(bench.fill(contents=True), read, left_open=bench.trickled.runs)
    bench.row("stepstream, all defaults", default)
    one = ours(settings, read, left_open=bench.trickled.runs)
    bench.row("stepstream, without content detectors", one)
    report.figures["worker_all_defaults_cpu_us_per_event"] = default.us
    report.ratios["content_detectors_to_none_cpu_per_event"] = default.us / one.us
    bench.row("stepstream, transport alone", ours(bench.fill(), read, empty=True, left_open=None))
    if two:
        both = ours(bench.fill(), read, workers=2, left_open=bench.trickled.runs)
        bench.row("stepstream, two workers", both)
        report.ratios["two_workers_to_one_cpu_per_event"] = both.us / one.us
        report.goals.append(Goal("CPU an event, two workers to one", both.us / one.us, 1.1, ""))
    taken = _others(bench, settings, truth.events) if peers else {}
    columns = ("engine", "CPU us/event", "events/s", "events/s a core", "events")
    report.table(
        f"reading {truth.events:,} events, steps a second are half of that", columns, bench.rows
    )
    _add_goals(report, one, taken)
    return one


def _others(bench: Bench, settings: Settings, events: int) -> dict[str, Took]:
    taken: dict[str, Took] = {}
    most = int(0.95 * events)
    for peer in PEERS:
        if not peer.installed:
            bench.row(f"{peer.name}, doing nothing", None)
            continue
        share = most // STOCK_SHARE if peer is FAUST else most
        taken[peer.name] = other(peer.command(), settings, peer.script, share)
        bench.row(f"{peer.name}, doing nothing", taken[peer.name])
    folder = Path(__file__).parent / "peers"
    for name, script in (
        ("aiokafka alone", "plain_aiokafka.py"),
        ("confluent-kafka alone", "plain_consumer.py"),
    ):
        taken[name] = other([sys.executable, str(folder / script)], settings, script, most)
        bench.row(f"{name} (a limit)", taken[name])
    return taken


def _add_goals(report: Report, one: Took, taken: dict[str, Took]) -> None:
    report.figures["worker_cpu_us_per_event"] = one.us
    report.figures["worker_events_per_s"] = one.rate
    report.figures["worker_steps_per_s"] = one.rate / 2
    for name, took in taken.items():
        slug = name.lower().replace(",", "").replace(" ", "_").replace("-", "_")
        report.figures[f"{slug}_cpu_us_per_event"] = took.us
        report.figures[f"{slug}_events_per_s"] = took.rate
        report.ratios[f"worker_to_{slug}_cpu_per_event"] = one.us / took.us

    def to(name: str) -> float | None:
        return one.us / taken[name].us if name in taken else None

    report.goals += [
        Goal("CPU an event, all our work but content detectors", one.us, 12, "us"),
        Goal("CPU an event, to stock faust doing nothing", to(FAUST.name), 0.1, ""),
        Goal("CPU an event, to Quix Streams doing nothing", to(QUIX.name), 1, ""),
        Goal("CPU an event, to Bytewax doing nothing", to(BYTEWAX.name), 1, "", stretch=True),
    ]


def _open_runs(bench: Bench) -> None:
    """The same number of events with few and with many runs open; the opening of the log is not
    counted."""
    scale, report, rows = bench.scale, bench.report, []
    taken: dict[int, Took] = {}
    for count in (scale.few_open, scale.many_open):
        opening = count + int(WARM_S * APPEND_RATE)
        spec = bench.spec(
            open_runs=count,
            events=opening + scale.open_events,
            under_way=True,
            fewest_steps=10,
            median_steps=12,
        )
        bench.sender.load(spec)
        took = taken[count] = ours(
            bench.fill(), opening + scale.open_events, after=opening, left_open=None
        )
        report.progress(f"{count:,} open runs: {took.us:.2f} us an event")
        report.figures[f"open_{count}_cpu_us_per_event"] = took.us
        rows.append((f"{count:,} open runs", took.us, took.rate, took.events))
    ratio = taken[scale.many_open].us / taken[scale.few_open].us
    report.table("runs open at once", ("", "CPU us/event", "events/s", "events"), rows)
    report.ratios["many_open_runs_to_few_cpu_per_event"] = ratio
    reached = None if report.quick else ratio
    report.goals.append(Goal("CPU an event, 100,000 open runs to 1,000", reached, 1.2, ""))


def _latency(bench: Bench, most: float) -> None:
    """A worker, a sender at a share of the worker's maximum, a subscriber to trajectories."""
    report, rows = bench.report, []
    for share in LATENCY_SHARES:
        rate = share * most
        spec = bench.spec(events=int(rate * bench.scale.latency_s)).at_rate(rate)
        bench.sender.load(spec)
        settings = bench.prefix()
        with worker_process.start(settings) as worker, Receiver(settings, SAMPLED) as receiver:
            _wait_assigned(settings, 1)
            worker.ask(60, do="go")
            answer = bench.sender.send(steps_topic(settings), rate=rate)
            time.sleep(3)
            arrived = receiver.arrivals()
        sent = bench.sender.marks(SAMPLED)
        since = answer["began_s"] + WARM_S
        found = event_to_trajectory(sent, arrived, since_s=since, until_s=answer["ended_s"])
        figures = found.figures(f"latency_at_{share:g}")
        report.figures |= figures | {f"latency_at_{share:g}_events_per_s": rate}
        rows.append(
            (
                f"{share:g} of the maximum",
                rate,
                *figures.values(),
                len(found.every),
                answer["late_s"] * 1000,
            )
        )
        if found.missing:
            report.wrong.append(
                f"at {share:g} of the maximum {found.missing} records were in no trajectory 3 s "
                "after the last one"
            )
    columns = (
        "",
        "events/s",
        "opening p50 ms",
        "p99 ms",
        "every event p50 ms",
        "p99 ms",
        "events",
        "sender late ms",
    )
    report.table(
        "from an event's sending to the first trajectory with it, at a subscriber", columns, rows
    )
    report.notes.append(
        "a growing trajectory is published once a second: an event that opens no run waits for that"
    )


def flags() -> argparse.ArgumentParser:
    """Its own flags and the usual ones."""
    made = harness.parser(__doc__ or "")
    made.add_argument(
        "--install-peers", action="store_true", help="install the peers that are missing first"
    )
    made.add_argument(
        "--only",
        action="append",
        choices=("peers", "workers", "open", "latency"),
        help="these parts alone",
    )
    return made


if __name__ == "__main__":
    try:
        harness.run("worker", measure, flags())
    except (ChildFailed, subprocess.CalledProcessError) as error:
        sys.exit(f"worker: {error}")
