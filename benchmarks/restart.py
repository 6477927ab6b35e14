"""How long a restart takes: a worker that holds 100,000 open steps is killed, and another one starts in the same moment.

The open steps are old: the log has gone on by far more than a worker reads again, so their runs are known from their states.
Measured are the state that is read, the records that are read again, and the seconds until nothing is left to read.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from confluent_kafka import TopicPartition

from benchmarks import harness, worker_process
from benchmarks.bench import broker, prepared, records_in, scratch_folder, steps_topic
from benchmarks.child import Answer, Child, ChildFailed
from benchmarks.harness import Report
from benchmarks.load import LoadSpec
from benchmarks.sender import Sender
from stepstream import groups
from stepstream.kafka import consumer, producer
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS

STEPS_EACH: Final = 10
APPEND_RATE: Final = 40_000
SETTLE_S: Final = 4.0
"""From the last record processed to the kill: floors are committed twice a second."""

_START: Final = (
    '{{"trace_id":"{run:032x}","step_id":"{step:016x}","parent_step_id":"{parent}","phase":"start","kind":"{kind}",'
    '"name":"{kind}","project":"shop","agent":"patient","agent_version":"1","task":"wait","start_time":{at}}}'
)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    open_steps: int
    later_events: int


FULL: Final = Scale(open_steps=100_000, later_events=400_000)
QUICK: Final = Scale(open_steps=5_000, later_events=20_000)


def send_open_steps(settings: Settings, count: int) -> None:
    """Runs of ten steps that have started; none has ended."""
    client = producer(settings, **{"queue.buffering.max.messages": 2 * count})
    at_us = int(time.time() * 1e6)
    for number in range(count):
        run, place = divmod(number, STEPS_EACH)
        step, kind = number + 1, "tool_call" if place else "agent"
        parent = f"{run * STEPS_EACH + 1:016x}" if place else ""
        value = _START.format(run=run + 1, step=step, parent=parent, kind=kind, at=at_us)
        client.produce(steps_topic(settings), value, f"{run + 1:032x}", headers=list(RECORD_HEADERS))
        client.poll(0)
    if client.flush(60):
        raise ChildFailed("the open steps were not acknowledged")


def committed(settings: Settings) -> int:
    """The sum of the floors."""
    client = consumer(settings, groups.worker_group(settings))
    try:
        wanted = [TopicPartition(steps_topic(settings), number) for number in range(settings.partitions)]
        return sum(max(0, found.offset) for found in client.committed(wanted, timeout=10))
    finally:
        client.close()


def wait_for(child: Child, records: int, timeout_s: float = 300) -> Answer:
    """Until so many have been processed and nothing is under way."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = child.ask(60, do="status")
        if status["records"] >= records:
            return status
        time.sleep(0.02)
    raise ChildFailed(f"{status['records']} of {records} records within {timeout_s:.0f} s: {status['counts']}")


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Fill, read, kill, start again."""
    scale = QUICK if report.quick else FULL
    with scratch_folder() as folder, broker(folder) as kafka, Sender(kafka.bootstrap) as sender:
        settings = prepared(kafka.bootstrap, "restart", content_detectors=False)
        send_open_steps(settings, scale.open_steps)
        spec = LoadSpec(start_us=int(time.time() * 1e6), seed=arguments.seed, events_per_s=APPEND_RATE)
        sender.load(spec.sized(scale.later_events))
        sender.send(steps_topic(settings), rate=APPEND_RATE)
        total = records_in(settings, steps_topic(settings))
        with worker_process.start(settings) as first:
            first.ask(60, do="go")
            first_status = wait_for(first, total)
            report.say(f"{total:,} records read, {first_status['counts']}")
            time.sleep(SETTLE_S)
            replay = total - committed(settings)
            os.kill(first.pid, signal.SIGKILL)
            killed_s = time.monotonic()
        with worker_process.start(settings) as second:
            second.ask(60, do="go")
            status = wait_for(second, replay) if replay else second.ask(60, do="status")
            _report(report, settings, scale, status, replay, killed_s)


def _report(report: Report, settings: Settings, scale: Scale, status: Answer, replay: int, killed_s: float) -> None:
    loads = status["loads"]
    began_s, loaded_s = min(load["began_s"] for load in loads), max(load["ended_s"] for load in loads)
    open_runs, closed_runs = sum(load["open"] for load in loads), sum(load["closed"] for load in loads)
    session_s, replay_s = settings.session_timeout / 1e6, max(0.001, status["at_s"] - loaded_s)
    rows = [
        ("killed until the partitions were another's", began_s - killed_s, session_s, "session_timeout"),
        ("reading the state", loaded_s - began_s, None, f"{open_runs:,} open runs, {closed_runs:,} closed ones"),
        ("reading records again", replay_s, None, f"{replay:,} records"),
        ("killed until caught up", status["at_s"] - killed_s, None, ""),
    ]
    report.table(f"a restart with {scale.open_steps:,} open steps", ("", "seconds", "of them to wait", "what"), rows)
    report.figures |= {
        "open_steps": scale.open_steps,
        "taken_over_s": began_s - killed_s,
        "state_read_s": loaded_s - began_s,
        "state_open_runs": open_runs,
        "state_closed_runs": closed_runs,
        "replayed_records": replay,
        "replay_s": replay_s,
        "caught_up_s": status["at_s"] - killed_s,
        "replayed_per_s": replay / replay_s,
    }
    report.ratios["replayed_to_bound"] = replay / (settings.replay_records * settings.partitions)
    report.ratios["caught_up_to_session_timeout"] = (status["at_s"] - killed_s) / session_s
    runs = scale.open_steps // STEPS_EACH
    if not report.quick and open_runs < runs:
        report.wrong.append(f"{open_runs} of {runs} open runs were found in the state")


if __name__ == "__main__":
    try:
        harness.run("restart", measure, harness.parser(__doc__ or ""))
    except ChildFailed as error:
        raise SystemExit(f"restart: {error}") from None
