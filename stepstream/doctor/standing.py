"""Evaluates the progress of workers, sinks and notifiers. Pure; ``pipeline`` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stepstream.doctor.check import Check, fail, ok, warn
from stepstream.schemas.formatting import format_duration, format_number_of

LAG_WARN: Final = 50_000
GRACE_US: Final = {"worker": 30_000_000, "sink": 10_000_000, "notify": 10_000_000}
"""Younger records count as in progress; a worker reports its progress every 5 s, with delay."""


@dataclass(frozen=True)
class Standing:
    """The progress of a process at one time."""

    part: str
    group: str
    members: int
    ever: bool
    """Whether its group has committed offsets: it ran at some time."""
    waiting: int
    """Number of records that are not processed."""
    waits_us: int = 0
    """Age of the oldest of them."""
    reads: str = ""
    """Their topics."""
    progress: int = 0
    """A number that grows with every processed record."""
    done_us: int = 0
    """Worker only: everything appended before this time is processed; 0 if unknown."""

    @property
    def is_behind(self) -> bool:
        """Whether records wait for longer than in normal operation."""
        return self.waiting > 0 and self.waits_us > GRACE_US[self.part]


def evaluate(
    standing: Standing,
    *,
    moved: bool,
    watched_us: int,
    stalled_after_us: int,
    open_runs: int | None = None,
) -> Check:
    """The check of a process that was watched; ``moved``: it made progress meanwhile."""
    part, running = standing.part, f"{standing.members} running"
    start = f"start `stepstream {part}` or `stepstream up`"
    verb = "waits" if standing.waiting == 1 else "wait"
    waiting = (
        f"{format_number_of(standing.waiting, 'record')} of {standing.reads} {verb}"
        if standing.reads
        else "records wait"
    )
    since = f"{waiting}, the oldest for {format_duration(standing.waits_us)}"
    if not standing.members:
        none = f"none is running (group {standing.group})"
        if standing.waiting:
            return fail(part, f"{none}, {since}", start)
        # It ran once, so it is missing now; a group that never ran may not be needed yet.
        if standing.ever:
            return fail(part, f"{none}, one ran earlier", start)
        return warn(part, f"{none}, and no records wait", start)
    if not standing.is_behind:
        return ok(part, f"{running}, up to date{_open(open_runs) if part == 'worker' else ''}")
    if moved:
        text = f"{running}, {since}; it makes progress"
        if standing.waiting > LAG_WARN:
            return warn(
                part, text, f"wait if the number falls; else start more: `stepstream {part}`"
            )
        return ok(part, text)
    text = f"{running}, and makes no progress: {since}; watched for {format_duration(watched_us)}"
    todo = f"see its log; if it hangs, kill it and {start}"
    if part == "sink":
        todo = f"see its log and the lines about clickhouse; if it hangs, kill it and {start}"
    # The same limit as the notifier's pipeline alerts, so that both report the same state.
    if standing.waits_us >= stalled_after_us:
        return fail(part, text, todo)
    return warn(part, text, todo)


def _open(runs: int | None) -> str:
    return "" if runs is None else f"; {format_number_of(runs, 'run')} open"
