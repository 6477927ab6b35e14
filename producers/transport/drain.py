"""Sends what ended processes left in the spool, for ``stepstream spool drain``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stepstream.producers.transport.base import Transport, Undelivered
from stepstream.producers.transport.spool import Spool, Spooled

BATCH: Final = 512
POLL_S: Final = 0.05


@dataclass(slots=True)
class DrainReport:
    """The result. ``is_busy``: another process is sending these events."""

    delivered: int = 0
    refused: int = 0
    first_refusal: str = ""
    is_busy: bool = False
    is_timeout: bool = False


class _Outcome:
    def __init__(self) -> None:
        self.reason: str | None = None

    def __call__(self, reason: str) -> None:
        self.reason = reason


def drain(
    spool: Spool,
    transport: Transport,
    timeout_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> DrainReport:
    """Send events and delete those that are acknowledged or refused for good.

    Ends when none is left, or when nothing was acknowledged for ``timeout_s`` seconds. Raises
    ``SpoolError``.
    """
    report = DrainReport()
    if not spool.acquire():
        report.is_busy = True
        return report
    try:
        while writers := spool.left_writers():
            for writer in writers:
                while rows := spool.read(BATCH, writer=writer):
                    if not spool.acquire():
                        report.is_busy = True
                        return report
                    if not _send(spool, transport, rows, report, timeout_s, clock):
                        report.is_timeout = True
                        return report
    finally:
        spool.release()
    return report


def _send(
    spool: Spool,
    transport: Transport,
    rows: list[Spooled],
    report: DrainReport,
    timeout_s: float,
    clock: Callable[[], float],
) -> bool:
    """Send rows. False if not all of them were acknowledged or refused in time."""
    outcomes = [(row, _Outcome()) for row in rows]
    waiting = deque(outcomes)
    known, deadline = 0, clock() + timeout_s
    while known < len(rows) and clock() <= deadline:
        while waiting and transport.send(waiting[0][0].record, waiting[0][1]):
            waiting.popleft()
        transport.poll(POLL_S)
        before, known = known, sum(outcome.reason is not None for _, outcome in outcomes)
        if known > before:
            deadline = clock() + timeout_s
    settled = [
        (row, outcome.reason)
        for row, outcome in outcomes
        if outcome.reason is not None and not isinstance(outcome.reason, Undelivered)
    ]
    spool.delete([row.id for row, _ in settled])
    refusals = [reason for _, reason in settled if reason]
    report.delivered += len(settled) - len(refusals)
    report.refused += len(refusals)
    report.first_refusal = report.first_refusal or next(iter(refusals), "")
    return len(settled) == len(rows)
