"""While a sender's transport fails, its events go to the spool and come back from it."""

from __future__ import annotations

import os
import random
import threading
from collections import defaultdict
from pathlib import Path

import pytest

from stepstream.producers.transport.background_sender import BackgroundSender, Counts
from stepstream.producers.transport.base import Done, Record
from stepstream.producers.transport.delivery import LATE_S, Delivery, Pace, SpoolPlace
from stepstream.producers.transport.drain import drain
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.producers.transport.spool import Spool
from stepstream.schemas.step import Step as StepRecord
from tests.support.processes import wait_until
from tests.support.sdk import logged


@pytest.fixture
def place(tmp_path: Path) -> SpoolPlace:
    return SpoolPlace(tmp_path / "spool" / "events.db", "memory", 8_000_000)


def record(number: int, run: int = 0, phase: str = "end", text: str = "") -> StepRecord:
    return StepRecord(
        trace_id=f"{run:032x}",
        step_id=f"{number:016x}",
        kind="plan",
        name="x",
        start_time=1,
        phase=phase,
        input=text,
    )


def encode(record: StepRecord) -> Record:
    value = b'{"phase": "%s", "number": %d, "input": "%s"}' % (
        record.phase.encode(),
        int(record.step_id, 16),
        record.input.encode(),
    )
    return Record(record.trace_id.encode(), value)


def sender(
    transport: MemoryTransport, place: SpoolPlace | None, max_events: int = 10_000
) -> BackgroundSender:
    return BackgroundSender(encode, lambda: transport, max_events=max_events, spool=place)


def numbers(transport: MemoryTransport) -> dict[int, list[int]]:
    """What arrived, by run, in order."""
    found: dict[int, list[int]] = defaultdict(list)
    for one in transport.records:
        found[int(one.key, 16)].append(int(one.value.split(b'"number": ')[1].split(b",")[0]))
    return found


def in_file(place: SpoolPlace) -> int:
    spool = Spool(place.path)
    try:
        return spool.status().events
    finally:
        spool.close()


def dropped_from(place: SpoolPlace) -> int:
    spool = Spool(place.path)
    try:
        return spool.status().dropped
    finally:
        spool.close()


def test_nothing_is_written_while_all_is_acknowledged(place: SpoolPlace) -> None:
    """The healthy path does not touch the disk."""
    made = sender(MemoryTransport(), place)
    for number in range(1_000):
        made.enqueue(record(number))
    assert made.close(10)
    assert made.counts == Counts(1_000, 1_000)
    assert not place.path.parent.exists()


def test_events_of_an_outage_are_on_disk_and_come_back_in_order(place: SpoolPlace) -> None:
    """More of them than the queue has room for, and nothing is sent twice or left in the file."""
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, place, max_events=100)
    for number in range(50):
        assert made.enqueue(record(number, number % 3))
    wait_until(lambda: made.counts.spooled == 50, 10, "the events are late")
    assert in_file(place) == 50
    for number in range(50, 1_000):
        # Also when the queue is full: the call waits until the spool has some of it.
        assert made.enqueue(record(number, number % 3))
    wait_until(lambda: made.counts.spooled == 1_000, 10, "all are in the spool")
    assert not made.flush(0.05), "the transport does not have them"
    transport.unreachable = False
    assert made.flush(20)
    assert made.counts == Counts(1_000, 1_000)
    assert numbers(transport) == {run: list(range(run, 1_000, 3)) for run in range(3)}
    assert in_file(place) == 0
    made.close(5)


def test_what_is_pending_at_the_end_is_sent_by_the_next_sender(place: SpoolPlace) -> None:
    """What it already had and what it was never offered, in the order of the run."""
    made = sender(MemoryTransport(unreachable=True), place)
    for number in range(500):
        made.enqueue(record(number))
    assert not made.close(0.01)
    assert made.counts == Counts(500, pending=500, spooled=500)
    assert in_file(place) == 500
    transport = MemoryTransport()
    later = sender(transport, place)
    later.enqueue(record(1_000, run=1))
    wait_until(lambda: len(transport.records) == 501, 10, "the rest is sent")
    assert numbers(transport) == {0: list(range(500)), 1: [1_000]}
    assert later.close(10)
    assert in_file(place) == 0
    assert later.counts == Counts(1, 1), "what others left is not counted as its own"


def test_what_a_closed_sender_has_left_is_counted_until_it_is_sent(place: SpoolPlace) -> None:
    """By whichever sender of the process, as events of the one that recorded them."""
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, place)
    for number in range(20):
        made.enqueue(record(number))
    made.close(0.01)
    assert made.counts == Counts(20, pending=20, spooled=20)
    transport.unreachable = False
    made.enqueue(record(20))
    wait_until(lambda: made.counts == Counts(21, 21), 20, "all are delivered")
    made.close(5)


def test_what_another_process_has_sent_is_no_longer_in_the_spool(place: SpoolPlace) -> None:
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, place)
    made.enqueue(record(0))
    made.close(0.01)
    assert made.counts == Counts(1, pending=1, spooled=1)
    other = Spool(place.path, place.destination)
    assert drain(other, MemoryTransport(), 5).delivered == 1
    other.close()
    transport.unreachable = False
    made.enqueue(record(1))
    wait_until(lambda: made.counts == Counts(2, 2), 20, "the sender sees that it is gone")
    made.close(5)


def test_events_for_another_destination_stay(place: SpoolPlace) -> None:
    """A program with another endpoint must not get them."""
    made = sender(MemoryTransport(unreachable=True), place)
    made.enqueue(record(1))
    made.close(0.01)
    other = MemoryTransport()
    later = sender(other, SpoolPlace(place.path, "elsewhere", place.max_bytes))
    later.enqueue(record(2))
    assert later.close(10)
    assert numbers(other) == {0: [2]}
    assert in_file(place) == 1


def test_a_transport_without_room_fills_the_spool(place: SpoolPlace) -> None:
    """Instead of the queue: the agent loses nothing, and all of it arrives in order."""
    transport = MemoryTransport(room=10, unreachable=True)
    made = sender(transport, place, max_events=1_000)
    for number in range(900):
        assert made.enqueue(record(number))
    wait_until(lambda: made.counts.spooled >= 890, 10, "what has no room is in the spool")
    transport.unreachable = False
    assert made.flush(20)
    assert numbers(transport) == {0: list(range(900))}
    made.close(5)


def test_a_folder_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    """Events stay in memory then, and arrive when the transport is back."""
    (tmp_path / "spool").write_text("a file in the place of the folder")
    place = SpoolPlace(tmp_path / "spool" / "events.db", "memory", 8_000_000)
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, place)
    with logged() as messages:
        for number in range(100):
            made.enqueue(record(number))
        wait_until(lambda: bool(messages), 10, "the spool was tried")
        for number in range(100, 200):
            made.enqueue(record(number))
        assert not made.flush(2 * LATE_S)
        assert made.counts == Counts(200, pending=200)
        transport.unreachable = False
        assert made.flush(10)
    # On a slow machine the end of the outage is logged as well.
    [message] = [text for one in messages if "events.db" in (text := one.getMessage())]
    assert "events.db cannot be used" in message
    assert "kept in memory only" in message
    assert numbers(transport) == {0: list(range(200))}
    made.close(5)


def test_what_a_full_spool_drops_is_counted(tmp_path: Path) -> None:
    """Ends displace starts; every event is delivered or failed in the end."""
    # The smallest bound: the spool is full after few events.
    place = SpoolPlace(tmp_path / "events.db", "memory", 1)
    transport = MemoryTransport(room=100, unreachable=True)
    made = sender(transport, place, max_events=100_000)
    with logged():
        for number in range(1_500):
            made.enqueue(record(number, phase="start", text="x" * 4_000))
        for number in range(1_500):
            made.enqueue(record(number, text="x" * 4_000))
        wait_until(lambda: dropped_from(place) > 500, 30, "starts are dropped")
        transport.unreachable = False
        assert made.flush(30)
    counts = made.counts
    assert counts.enqueued == 3_000 == counts.delivered + counts.failed
    assert counts.failed > 0
    ends = [one for one in transport.records if b'"end"' in one.value]
    assert len(ends) > len(transport.records) - len(ends)
    made.close(5)


class Refusing:
    """Refuses every third record for good."""

    def __init__(self) -> None:
        self.inner = MemoryTransport()
        self.number = 0

    def send(self, record: Record, done: Done) -> bool:
        self.number += 1
        if self.number % 3:
            return self.inner.send(record, done)
        done("it is too large")
        return True

    def poll(self, timeout_s: float) -> None:
        self.inner.poll(timeout_s)

    def close(self) -> None:
        self.inner.close()

    def abandon(self) -> None:
        self.inner.abandon()


def test_a_record_that_is_refused_for_good_is_not_kept(place: SpoolPlace) -> None:
    """It is counted as failed, and does not come back."""
    made = BackgroundSender(encode, Refusing, spool=place)
    with logged():
        for number in range(30):
            made.enqueue(record(number))
        assert made.flush(10)
    assert made.counts == Counts(30, 20, 10)
    assert made.close(5)
    assert not place.path.exists()


class Flaky(MemoryTransport):
    """Comes and goes, and gives some of what it has back when it is closed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = random.Random(seed)

    def poll(self, timeout_s: float) -> None:
        if self.chance.random() < 0.02:
            self.unreachable = not self.unreachable
        super().poll(min(timeout_s, 0.002))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_by_a_transport_that_comes_and_goes(place: SpoolPlace, seed: int) -> None:
    """From many threads and over several senders; the order of each run is kept."""
    transport = Flaky(seed)
    total = 0
    for _ in range(4):
        made = sender(transport, place, max_events=100_000)

        def produce(thread: int, start: int, made: BackgroundSender = made) -> None:
            for number in range(start, start + 200):
                assert made.enqueue(record(number, thread))

        threads = [threading.Thread(target=produce, args=(n, total)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        total += 200
        with logged():
            made.close(0.3)
    transport.unreachable, transport.chance = False, random.Random()
    # From now on nothing fails, so that the end can be counted.
    transport.chance.random = lambda: 1.0  # type: ignore[method-assign]
    last = sender(transport, place)
    last.enqueue(record(9, 9))
    wait_until(lambda: in_file(place) == 0, 20, "the spool is empty")
    assert last.close(10)
    arrived = numbers(transport)
    for run in range(4):
        assert sorted(set(arrived[run])) == list(range(total))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_is_forked_in_an_outage(place: SpoolPlace) -> None:
    """Parent and child use the same file, each for its own events."""
    transport = MemoryTransport(unreachable=True)
    made = sender(transport, place)
    made.enqueue(record(1))
    wait_until(lambda: made.counts.spooled == 1, 10, "the event is late")
    child = os.fork()
    if not child:
        made.enqueue(record(2))
        wait_until(lambda: made.counts.spooled == 1, 10, "the child's event is late")
        made.close(0.01)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert in_file(place) == 2
    transport.unreachable = False
    wait_until(lambda: len(transport.records) == 2, 10, "both are sent")
    assert made.close(10)
    assert in_file(place) == 0


def test_the_time_after_which_the_transport_is_away() -> None:
    """Four times the median, within bounds; the backlog of an outage does not count."""
    pace = Pace()
    now_s = 0.0
    assert pace.away_after_s == LATE_S
    # The last one as after an outage of 30 s: an outage would then be noticed late.
    for took_s, away_s in [(0.01, LATE_S), (0.1, 0.4), (30.0, 0.4), (0.9, 0.5)]:
        for _ in range(100):
            now_s += 1
            pace.add(now_s - took_s, now_s)
        assert pace.away_after_s == pytest.approx(away_s)


class _Slow(MemoryTransport):
    """Acknowledges when the test asks for it."""

    gather_s = 0.04

    def __init__(self) -> None:
        super().__init__()
        self.open: list[Done] = []
        self.acknowledges = True

    def send(self, record: Record, done: Done) -> bool:
        self.open.append(done)
        return True

    def poll(self, timeout_s: float) -> None:
        while self.acknowledges and self.open:
            self.open.pop()("")


class _Spooled:
    """What a delivery reports."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def settled(self, number: int, reason: str) -> None:
        assert reason == "", number

    def spooled(self, number: int) -> None:
        self.numbers.append(number)

    def unspooled(self, reason: str) -> None:
        assert reason == ""


def test_an_event_is_on_disk_in_time_however_long_acknowledgements_usually_take(
    place: SpoolPlace,
) -> None:
    """From when it was recorded: the wait for further records counts too. The transport is not
    away by that, so that later events are still sent.
    """
    now_s = [0.0]
    transport, outcomes = _Slow(), _Spooled()
    made = Delivery(transport, outcomes, place, clock=lambda: now_s[0])
    for number in range(10):
        made.send(encode(record(number)), number)
        now_s[0] += 0.4
        made.poll(0)
    transport.acknowledges = False
    outcomes.numbers.clear()
    made.send(encode(record(10)), 10)
    now_s[0] += LATE_S - transport.gather_s - 0.01
    made.poll(0)
    assert outcomes.numbers == []
    now_s[0] += 0.02
    made.poll(0)
    assert outcomes.numbers == [10]
    made.send(encode(record(11)), 11)
    assert len(transport.open) == 2
    transport.acknowledges = True
    made.poll(0)
    assert in_file(place) == 0
    made.close()
