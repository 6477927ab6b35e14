"""Replay: sends recorded step events again through Kafka, at recorded or scaled speed.

A recording is a file of JSON lines, each a step event; ``.gz`` is decompressed. By default runs get
new ids (the same one for all events of a run), and times are shifted so that the last event happens
when it is sent. Durations in the events stay as recorded, also at another speed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from stepstream.producers.clock import SYSTEM_CLOCK, Clock
from stepstream.producers.replay.recording import FreshIds, extent, lines
from stepstream.producers.transport.base import Record, Transport
from stepstream.producers.transport.kafka import KafkaTransport
from stepstream.schemas.accept import ANY_TIME, Accepted, Rejected, accept_value
from stepstream.schemas.formatting import format_number_of
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.step import happened_us

MOST_BAD_KEPT: Final = 100
PROGRESS_EVERY_S: Final = 0.1
# A replay fails after this time without any acknowledgement.
GIVE_UP_S: Final = 60.0

_TIMES: Final = ("start_time", "end_time", "first_token_time")
_STEP_IDS: Final = ("step_id", "parent_step_id", "retry_of", "fallback_of")


class ReplayError(Exception):
    """The file cannot be read, or no broker can be reached. The message contains what to do."""


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a valid step event."""

    place: str
    """``file:line``."""
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}: {self.detail}"


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """Progress of a replay. ``read_bytes`` and ``total_bytes`` are those of the (gzipped) file."""

    lines: int
    sent: int
    bad: int
    read_bytes: int
    total_bytes: int


@dataclass(slots=True)
class ReplayReport:
    """The result: ``lines`` = ``sent`` + ``bad``, ``sent`` = ``delivered`` + ``failed``."""

    lines: int = 0
    sent: int = 0
    delivered: int = 0
    failed: int = 0
    bad: int = 0
    runs: int = 0
    bad_lines: list[BadLine] = field(default_factory=list)
    """The first hundred."""
    first_failure: str = ""

    def __str__(self) -> str:
        parts = [
            f"{self.delivered:,} of {self.lines:,} events sent, "
            f"in {format_number_of(self.runs, 'run')}"
        ]
        if self.failed:
            parts.append(f"{self.failed:,} not delivered ({self.first_failure})")
        if self.bad:
            parts.append(format_number_of(self.bad, "bad line"))
        return "\n".join(["; ".join(parts), *(f"  {line}" for line in self.bad_lines)])


OnProgress = Callable[[ReplayProgress], None]


def replay(
    path: Path | str,
    settings: Settings,
    *,
    speed: float = 1.0,
    keep_times: bool = False,
    keep_ids: bool = False,
    on_progress: OnProgress | None = None,
    transport: Transport | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> ReplayReport:
    """Send a recording. ``speed`` 2 is twice as fast as recorded, 0 is without waiting.

    A bad line is reported and skipped. Raises ``ReplayError`` if the file cannot be read or no
    broker acknowledges anything for a minute, ``ValueError`` for a negative speed.
    """
    if speed < 0:
        raise ValueError(f"speed must not be negative: {speed}")
    if transport is None and not settings.kafka_brokers:
        raise ReplayError(
            "there is nowhere to send to: run `stepstream up`, or set STEPSTREAM_ENDPOINT=kafka://host:9092"
        )
    file = Path(path)
    try:
        first_us, last_us = extent(file)
        sender = _Sender(transport or KafkaTransport(settings))
        try:
            timing = _Timing(first_us, last_us, speed, clock, sender.wait)
            job = _Job(
                file,
                timing,
                sender,
                None if keep_ids else FreshIds(os.urandom(16)),
                keep_times,
                on_progress,
            )
            return job.run()
        finally:
            sender.close()
    except (OSError, EOFError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ReplayError(f"{file} cannot be read: {why[:1].lower()}{why[1:]}") from None


class _Job:
    """One replay."""

    def __init__(
        self,
        file: Path,
        timing: _Timing,
        sender: _Sender,
        fresh: FreshIds | None,
        keep_times: bool,
        on_progress: OnProgress | None,
    ) -> None:
        self._file = file
        self._timing = timing
        self._sender = sender
        self._fresh = fresh
        self._keep_times = keep_times
        self._on_progress = on_progress
        self._total_bytes = file.stat().st_size
        self._reported_at = 0.0
        self._runs: set[str] = set()
        self.report = ReplayReport()

    def run(self) -> ReplayReport:
        report = self.report
        read_bytes = 0
        for number, (line, read_bytes) in enumerate(lines(self._file), 1):
            if line:
                report.lines += 1
                self._line(number, line)
                self._report_progress(read_bytes)
        self._sender.finish()
        report.sent, report.delivered, report.failed = (
            self._sender.sent,
            self._sender.delivered,
            self._sender.failed,
        )
        report.first_failure = self._sender.first_failure
        report.runs = len(self._runs)
        self._report_progress(read_bytes, always=True)
        return report

    def _line(self, number: int, line: bytes) -> None:
        accepted = accept_value(line, timestamp_us=0, limits=ANY_TIME)
        if isinstance(accepted, Accepted):
            value = self._changed(line, accepted.step)
            if isinstance(value, bytes):
                self._runs.add(accepted.step.trace_id)
                self._timing.wait_for(happened_us(accepted.step))
                self._sender.send(Record(self._trace_id(accepted.step).encode(), value))
                return
            accepted = value
        self._bad(number, accepted)

    def _bad(self, number: int, rejected: Rejected) -> None:
        self.report.bad += 1
        if len(self.report.bad_lines) < MOST_BAD_KEPT:
            self.report.bad_lines.append(
                BadLine(f"{self._file}:{number}", rejected.reason, rejected.detail)
            )

    def _trace_id(self, step: StepRecord) -> str:
        return step.trace_id if self._fresh is None else self._fresh.trace(step.trace_id)

    def _changed(self, line: bytes, step: StepRecord) -> bytes | Rejected:
        """The line with its times and ids changed, and fields unknown to this version kept."""
        shift_us = 0 if self._keep_times else self._timing.shift_us
        changes: dict[str, Any] = {}
        if shift_us:
            changes = {
                name: at + shift_us for name in _TIMES if (at := getattr(step, name)) is not None
            }
        if self._fresh is not None:
            fresh = self._fresh
            changes["trace_id"] = fresh.trace(step.trace_id)
            changes |= {name: fresh.step(old) for name in _STEP_IDS if (old := getattr(step, name))}
        value = msgspec.json.encode({**msgspec.json.decode(line), **changes}) if changes else line
        # Checked again: a worker would refuse an event whose shifted time is too old.
        accepted_again = accept_value(value, timestamp_us=self._timing.now_us())
        return accepted_again if isinstance(accepted_again, Rejected) else value

    def _report_progress(self, read_bytes: int, *, always: bool = False) -> None:
        now = time.monotonic()
        if self._on_progress is None or (not always and now - self._reported_at < PROGRESS_EVERY_S):
            return
        self._reported_at = now
        report = self.report
        self._on_progress(
            ReplayProgress(
                report.lines,
                self._sender.sent,
                report.bad,
                read_bytes,
                max(self._total_bytes, read_bytes),
            )
        )


class _Timing:
    """When each event is due, and by how much the times are shifted."""

    def __init__(
        self, first_us: int, last_us: int, speed: float, clock: Clock, wait: Callable[[float], None]
    ) -> None:
        self._first_us = first_us
        self._speed = speed
        self._clock = clock
        self._wait = wait
        # In this order: where the thread is suspended between the two, events are sent later than
        # due, and not before the time that they name.
        self._began_us = clock.now_us()
        self._began_ns = clock.steady_ns()
        # Shifted so that the last event is at its sending time: none is in the future.
        lasts_us = int((last_us - first_us) / speed) if speed else 0
        self.shift_us = self._began_us + lasts_us - last_us

    def now_us(self) -> int:
        return self._began_us + (self._clock.steady_ns() - self._began_ns) // 1_000

    def wait_for(self, time_us: int) -> None:
        """Wait until an event that was recorded at this time is due."""
        while self._speed:
            due_us = self._began_us + int((time_us - self._first_us) / self._speed)
            left_s = (due_us - self.now_us()) / 1e6
            if left_s <= 0:
                return
            self._wait(min(left_s, 0.1))


class _Sender:
    """Sends records within the limits of the transport and counts the outcomes."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._settled_at = time.monotonic()
        self.sent = self.delivered = self.failed = 0
        self.first_failure = ""

    def send(self, record: Record) -> None:
        # With nothing pending the wait for an acknowledgement starts with this record.
        if self.sent == self.delivered + self.failed:
            self._settled_at = time.monotonic()
        while not self._transport.send(record, self._done):
            self._wait_for_broker()
        self.sent += 1
        self._transport.poll(0)

    def finish(self) -> None:
        """Wait until every record is delivered or failed."""
        while self.delivered + self.failed < self.sent:
            self._wait_for_broker()

    def wait(self, seconds: float) -> None:
        """Wait, while acknowledgements are processed."""
        until = time.monotonic() + seconds
        self._transport.poll(seconds)
        time.sleep(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        self._transport.close()

    def _wait_for_broker(self) -> None:
        self._transport.poll(0.1)
        if time.monotonic() - self._settled_at > GIVE_UP_S:
            raise ReplayError(
                f"no broker acknowledged anything for {GIVE_UP_S:.0f} s; "
                f"{self.delivered} events were delivered before that"
            )

    def _done(self, reason: str) -> None:
        self._settled_at = time.monotonic()
        if reason:
            self.failed += 1
            self.first_failure = self.first_failure or reason
        else:
            self.delivered += 1
