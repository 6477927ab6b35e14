"""``take_outputs`` sends what ended processes left, as long as something is acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stepstream.common.process import Identity
from stepstream.producers.transport.base import Done, Record, Undelivered
from stepstream.producers.transport.drain import POLL_S, DrainReport, drain
from stepstream.producers.transport.spool import Spool

EVENTS = 40
ENDED = Identity(2**22 - 1, "another boot/1")


class Slow:
    """Has room for few records and takes a second for each; time passes in ``poll`` only."""

    def __init__(self, reasons: dict[int, str] | None = None, room: int = 1) -> None:
        self.now_s = 0.0
        self.polls = 0
        self._reasons = reasons or {}
        self._room = room
        self._sent = 0
        self._taken: list[tuple[float, Done, str]] = []

    def send(self, record: Record, done: Done) -> bool:
        if len(self._taken) >= self._room:
            return False
        self._taken.append((self.now_s + 1, done, self._reasons.get(self._sent, "")))
        self._sent += 1
        return True

    def poll(self, timeout_s: float) -> None:
        self.polls += 1
        self.now_s += timeout_s
        due = [one for one in self._taken if one[0] <= self.now_s]
        self._taken = [one for one in self._taken if one[0] > self.now_s]
        for _, done, reason in due:
            done(reason)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass

    def clock(self) -> float:
        return self.now_s


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    left = Spool(tmp_path / "events.db", identity=ENDED)
    left.put([Record(b"run", b'{"number": %d}' % number) for number in range(EVENTS)])
    left.disconnect()
    made = Spool(tmp_path / "events.db")
    yield made
    made.close()


def test_it_goes_on_while_events_are_acknowledged(spool: Spool) -> None:
    """The time limit is that of one acknowledgement, not of them all."""
    transport = Slow()
    report = drain(spool, transport, 2, clock=transport.clock)
    assert report == DrainReport(delivered=EVENTS)
    assert spool.status().events == 0


def test_it_gives_up_once_when_nothing_is_acknowledged(spool: Spool) -> None:
    """A transport without room is not offered each of the events for that long."""
    transport = Slow(room=0)
    report = drain(spool, transport, 2, clock=transport.clock)
    assert report == DrainReport(is_timeout=True)
    assert transport.polls <= 2 / POLL_S + 1
    assert spool.status().events == EVENTS


def test_what_is_refused_is_deleted_and_what_comes_back_is_kept(spool: Spool) -> None:
    """The first reason is reported."""
    transport = Slow({1: "too large", 3: Undelivered("away"), 5: "no"})
    report = drain(spool, transport, 2, clock=transport.clock)
    assert report == DrainReport(EVENTS - 3, 2, "too large", is_timeout=True)
    assert spool.status().events == 1


def test_one_process_at_a_time(spool: Spool, tmp_path: Path) -> None:
    """Nothing is sent while another living process has the lease."""
    other = Spool(tmp_path / "events.db")
    assert other.acquire()
    transport = Slow()
    assert drain(spool, transport, 2, clock=transport.clock) == DrainReport(is_busy=True)
    assert transport.polls == 0
    other.close()
