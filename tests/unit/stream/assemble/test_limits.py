"""A worker's memory is bounded: each limit is a setting, is kept, and shows in the metrics."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any, cast

import pytest
from faust.types import TP

from stepstream.common.observe import Observer
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.stream.assemble import timers
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.dead_letter_rate import DeadLetterRate
from stepstream.stream.core.poison import PoisonLedger
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.shell.batching import Backlog
from stepstream.stream.shell.observation import WorkerObservation
from stepstream.stream.shell.partition_runner import PartitionRunner, Restored
from stepstream.stream.shell.sender import Sender
from tests.support.stream_world import PRICES, START_US, Kafka, Process, Rec, event, record_of

TRACES = [f"{number:032x}" for number in range(1, 101)]


class Sent:
    """A sender that keeps what it is given."""

    in_flight = 0

    def __init__(self) -> None:
        self.outputs: list[Any] = []

    def send(self, output: Any, acknowledge: Any) -> None:
        self.outputs.append(output)
        acknowledge(output, len(self.outputs))


class Worker:
    """One partition's shell with real logic, and the metrics page of its process."""

    def __init__(self, **settings: Any) -> None:
        made = Settings.model_validate(settings)
        self.counters, self.observer, self.sent = Counters(), Observer(), Sent()
        self.watch = WorkerObservation(self.observer, self.counters)
        self.logic = AssemblePartition(
            0,
            1,
            rules=RuleBook((), make_detector),
            prices=PRICES,
            limits=AssembleLimits.from_settings(made),
            counters=self.counters,
        )
        self.shell = PartitionRunner(TP("steps", 0), 1, cast(Sender, self.sent), {}, self.watch)
        fuse = DeadLetterRate("steps", 0, "state", made.dead_letter_limit)
        self.shell.loaded(Restored(self.logic, PoisonLedger("steps", 0, "state"), None, fuse))

    def process(self, *records: Rec) -> None:
        self.shell.process(records)
        self.logic.flush()
        self.shell.send_outputs()

    def metric(self, name: str) -> float:
        """A metric's value, whatever its labels."""
        self.watch.refresh(
            [self.shell],
            lambda _tp: self.logic.offsets.position,
            cast(Sender, self.sent),
            Backlog(),
        )
        found = re.search(
            rf"^stepstream_worker_{name}(?:{{[^}}]*}})? ([0-9.e+]+)$",
            self.observer.text().decode(),
            re.MULTILINE,
        )
        assert found is not None, name
        return float(found[1])


@pytest.mark.parametrize("parent", ["", "f" * 16])
def test_steps_per_run(parent: str) -> None:
    """``max_steps_per_run``: further steps are counted, not kept; the root is always kept."""
    worker = Worker(max_steps_per_run=5)
    worker.process(
        *(
            record_of(n, event(TRACES[0], f"{n + 1:016x}", parent, "end", START_US))
            for n in range(9)
        )
    )
    run = worker.logic.runs[TRACES[0]].run
    worker.process(record_of(9, event(TRACES[0], "f" * 16, "", "end", START_US)))
    # Without a parent the first step is the root already, so nothing is added beyond the five.
    assert len(run.steps) == 5 + (parent != "")
    assert worker.metric("over_limit_total") == 4 + (parent == "")
    assert run.root is not None


def test_open_runs() -> None:
    """``max_open_runs``: the idlest are closed, counted, and whole when a late step comes."""
    worker = Worker(max_open_runs=10)
    worker.process(
        *(
            record_of(n, event(trace, "1" * 16, "", "start", START_US))
            for n, trace in enumerate(TRACES)
        )
    )
    worker.process(record_of(100, event(TRACES[99], "2" * 16, "1" * 16, "end", START_US)))
    # A hundred runs begin, the oldest ninety have been idle for longest.
    assert set(worker.logic.runs) == set(TRACES[90:])
    assert (worker.metric("runs_forced_closed_total"), worker.metric("open_runs")) == (90, 10)
    worker.process(record_of(101, event(TRACES[0], "2" * 16, "1" * 16, "end", START_US)))
    # The run was closed by force, so its next step is a late one and opens no second run.
    assert (worker.metric("late_total"), worker.metric("runs_forced_closed_total")) == (1, 90)
    late = [
        output
        for output in worker.sent.outputs
        if output.topic == "trajectories" and output.key == TRACES[0].encode()
    ]
    assert b'"steps":2' in late[-1].value


def test_bytes_in_memory() -> None:
    """``max_held_bytes``: the idlest open runs close, states of closed runs go; both counted."""
    worker = Worker(max_held_bytes=100_000)
    worker.process(
        *(
            record_of(n, event(trace, "1" * 16, "", "start", START_US))
            for n, trace in enumerate(TRACES)
        )
    )
    worker.shell.send_outputs()
    still_open = int(worker.metric("open_runs"))
    assert set(worker.logic.runs) == set(TRACES[-still_open:])
    assert worker.metric("runs_forced_closed_total") == 100 - still_open > 70
    assert (worker.metric("held_bytes"), worker.metric("closed_runs")) == (
        worker.logic.size_bytes,
        100 - still_open,
    )
    for second in range(1, 8):  # the states of what was closed count as well, until there is room
        worker.logic.tick(START_US + second * 1_000_000)
        worker.logic.flush()
        worker.shell.send_outputs()
    assert worker.metric("held_bytes") <= 100_000
    assert (
        worker.metric("closed_runs_forgotten_total")
        == 100 - worker.metric("open_runs") - worker.metric("closed_runs")
        > 0
    )
    worker.process(record_of(100, event(TRACES[0], "2" * 16, "1" * 16, "end", START_US)))
    assert (worker.metric("too_late_total"), worker.metric("late_total")) == (1, 0)


def test_a_run_that_is_reported_as_it_closes_is_closed_once() -> None:
    """Closed by force with a finding to be written first, it is counted once and does close."""
    policy = Policy.model_validate({"name": "p", "rules": [{"rule": "tool_error_ignored"}]})
    kafka = Kafka()
    process = Process(
        kafka, random.Random(1), AssembleLimits(max_open_runs=1), RuleBook((policy,), make_detector)
    )
    failed = event(TRACES[0], "2" * 16, "1" * 16, "end", START_US, tool="refund", status="error")
    process.batch(
        [record_of(0, event(TRACES[0], "1" * 16, "", "start", START_US)), record_of(1, failed)]
    )
    process.batch([record_of(2, event(TRACES[1], "1" * 16, "", "start", START_US))])
    for _ in range(60):
        process.batch([])
    assert process.logic.counters.forced_closed == 1
    assert set(process.logic.runs) == {TRACES[1]}


def test_replay_length() -> None:
    """``replay_records``: an idle open run is written down, and the committed offset passes it."""
    worker = Worker(replay_records=50)
    worker.process(record_of(0, event(TRACES[0], "1" * 16, "", "start", START_US)))
    for number in range(1, 200):
        worker.process(record_of(number, event(TRACES[1], f"{number:016x}", "", "start", START_US)))
    # Without the checkpoint of the idle run it would be 200.
    assert worker.metric("floor_lag_records") <= 51
    assert worker.metric("states_total") > 0
    assert TRACES[0] in worker.logic.runs


def test_replay_length_with_very_many_runs() -> None:
    """Beyond 1,000 open runs at most one record in sixteen leads to a checkpoint."""
    worker = Worker(replay_records=50)
    runs = [f"{number:032x}" for number in range(1, 2_001)]
    worker.process(
        *(
            record_of(n, event(trace, "1" * 16, "", "start", START_US))
            for n, trace in enumerate(runs)
        )
    )
    assert worker.metric("states_total") == 0
    for number in range(2_000, 18_000, 500):
        steps = range(number, number + 500)
        worker.process(
            *(
                record_of(n, event(runs[-1], f"{n:016x}", "1" * 16, "start", START_US))
                for n in steps
            )
        )
    assert worker.metric("floor_lag_records") <= 16_000 + 500
    assert 1_900 <= worker.metric("states_total") <= 2_001


def test_dead_letter_rate() -> None:
    """``dead_letter_limit``: alert, count and gauge; refused records still are dead letters."""
    worker = Worker(dead_letter_limit=10)
    # Up to the limit: some garbage is normal.
    worker.process(*(Rec(n, START_US // 1000, b"k", b"no step") for n in range(10)))
    assert worker.metric("dead_letter_fuse") == 0
    worker.process(*(Rec(n, START_US // 1000, b"k", b"no step") for n in range(10, 30)))
    assert (worker.metric("dead_letter_fuse"), worker.metric("dead_letter_fuses_total")) == (1, 1)
    assert worker.metric("rejected_total") == 30
    topics = [output.topic for output in worker.sent.outputs]
    assert (topics.count("deadletter"), topics.count("findings"), topics.count("state")) == (
        30,
        1,
        1,
    )
    # Three minutes of log time without refusals end the alert.
    worker.shell.passed(START_US + 180_000_000)
    worker.shell.send_outputs()
    assert worker.metric("dead_letter_fuse") == 0


def test_orphans_are_counted_when_their_run_closes() -> None:
    """Until then their parents may come."""
    worker = Worker()
    worker.process(record_of(0, event(TRACES[0], "1" * 16, "", "end", START_US)))
    worker.process(record_of(1, event(TRACES[0], "2" * 16, "9" * 16, "end", START_US)))
    assert worker.metric("orphans_total") == 0
    for second in range(1, 20):
        worker.logic.tick(START_US + second * 1_000_000)
        worker.logic.flush()
        worker.shell.send_outputs()
    assert (worker.metric("orphans_total"), worker.metric("runs_closed_total")) == (1, 1)


def test_a_partition_that_stands_still_is_noticed() -> None:
    """Only where there is something to read, and only after the patience that the settings give."""
    worker = Worker()
    watch = WorkerObservation(worker.observer, worker.counters, hang_limit_s=30)
    assert watch.stuck([worker.shell], lambda _tp: 5, 0) == ""
    assert watch.stuck([worker.shell], lambda _tp: 5, 29) == ""
    assert (
        watch.stuck([worker.shell], lambda _tp: 5, 31)
        == "steps partition 0 has not moved from offset 0 for 31 s"
    )
    worker.process(record_of(0, event(TRACES[0], "1" * 16, "", "start", START_US)))
    assert watch.stuck([worker.shell], lambda _tp: 5, 32) == ""
    assert watch.stuck([worker.shell], lambda _tp: 1, 90) == ""
    endless = WorkerObservation(worker.observer, worker.counters, hang_limit_s=0)
    assert [endless.stuck([worker.shell], lambda _tp: 5, now_s) for now_s in (0, 10**6)] == ["", ""]


@pytest.mark.parametrize(
    "limit", ["max_steps_per_run", "max_open_runs", "max_held_bytes", "replay_records"]
)
def test_limits_are_the_settings_of_the_same_names(limit: str) -> None:
    """What people set is what holds."""
    assert getattr(AssembleLimits.from_settings(Settings.model_validate({limit: 7})), limit) == 7


async def test_a_shell_without_a_fuse_works() -> None:
    """A stage need not have one."""
    worker = Worker()
    worker.shell.dead_letter_rate = None
    worker.process(Rec(0, START_US // 1000, b"k", b"no step"))
    await asyncio.sleep(0)
    assert worker.metric("rejected_total") == 1


def test_timers_of_runs_that_are_gone_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run leaves a timer entry for when it would be stuck; the entries are bounded."""
    monkeypatch.setattr(timers, "SPARE", 50)
    worker = Worker()
    for number in range(400):
        trace_id = f"{number + 1:032x}"
        worker.process(record_of(2 * number, event(trace_id, "1" * 16, "", "start", START_US)))
        worker.process(record_of(2 * number + 1, event(trace_id, "1" * 16, "", "end", START_US)))
    assert worker.metric("runs_closed_total") > 100
    # Entries of closed runs are removed lazily, at the latest when there are as many again.
    assert len(worker.logic._timers) <= 2 * len(worker.logic.runs) + 52
    for second in range(30):
        worker.logic.tick(START_US + 8_000_000 * 2 + second * 1_000_000)
        worker.logic.flush()
        worker.shell.send_outputs()
    assert worker.metric("runs_closed_total") == 400


def test_runs_that_end_are_closed_before_a_million_others_are_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When very many runs become stuck at once, one turn wakes a bounded number of them."""
    monkeypatch.setattr(timers, "WAKE_UPS_A_TURN", 5)
    process = Process(Kafka(), random.Random(3), AssembleLimits())
    starts = [event(trace, "a" * 16, "", "start", START_US) for trace in TRACES[:60]]
    process.batch([record_of(number, item) for number, item in enumerate(starts)])
    late_us = START_US + 1_800_000_000
    for second in range(20):  # producers catch up
        process.logic.tick(late_us - 20_000_000 + second * 1_000_000)
        process.logic.flush()
    record = record_of(60, event(TRACES[70], "a" * 16, "", "end", late_us))
    record.timestamp = late_us // 1000
    process.batch([record])
    for turn in range(1, 5):
        process.logic.tick(late_us + turn * 1_000_000)
        process.logic.flush()
        for _ in range(20):
            process.pump()
    stuck = {found["trace_id"] for found in process.kafka.values("findings")}
    assert 0 < len(stuck) <= 30
    assert process.kafka.final()[TRACES[70]]["closed"]


def test_a_run_that_begins_after_a_backlog_closes_in_its_time() -> None:
    """Having caught up is a jump of the clock: earlier ended runs wait for late producers."""
    process = Process(Kafka(), random.Random(3), AssembleLimits())
    old, new = TRACES[:2]
    process.batch([record_of(0, event(old, "a" * 16, "", "end", START_US))])
    # Two and a half minutes without a record: longer than what counts as a jump.
    now_us = START_US + 150_000_000
    process.logic.tick(now_us)
    record = record_of(1, event(new, "a" * 16, "", "end", now_us))
    record.timestamp = now_us // 1000 + 100
    process.batch([record])
    for turn in range(1, 4):
        process.logic.tick(now_us + turn * 1_000_000)
        process.logic.flush()
        for _ in range(20):
            process.pump()
    assert {
        trace: final.get("closed", False) for trace, final in process.kafka.final().items()
    } == {old: False, new: True}
