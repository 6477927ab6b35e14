"""How workers, sinks and notifiers stand with what they read, and what that means. Pure; ``pipeline`` gathers the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from stepstream.doctor.check import Check, fail, ok, warn
from stepstream.schemas.formatting import format_duration, format_number_of

LAG_WARN: Final = 50_000
GRACE_US: Final = {"worker": 30_000_000, "sink": 10_000_000, "notify": 10_000_000}
"""What was appended less long ago is under way; a worker tells every few seconds how far it is, and a few seconds later."""


@dataclass(frozen=True)
class Standing:
    """One part at one moment."""

    part: str
    group: str
    members: int
    ever: bool
    """Whether its group has committed anything: it ran at some time."""
    waiting: int
    """Records that are there and not done."""
    waits_us: int = 0
    """For how long the oldest of them has been there."""
    reads: str = ""
    """The topics on which they are."""
    progress: int = 0
    """Grows with everything that is done."""
    done_us: int = 0
    """Of a worker: it has processed everything that was appended before; 0 where that is not known."""

    @property
    def is_behind(self) -> bool:
        """Whether something waits for longer than it takes where all is well."""
        return self.waiting > 0 and self.waits_us > GRACE_US[self.part]


def judge(
    standing: Standing,
    *,
    moved: bool,
    watched_us: int,
    stalled_after_us: int,
    open_runs: int | None = None,
) -> Check:
    """What to say of a part that was watched for a while. ``moved``: it got on meanwhile."""
    part, running = standing.part, f"{standing.members} running"
    start = f"start `stepstream {part}` or `stepstream up`"
    waiting = (
        f"{format_number_of(standing.waiting, 'record')} of {standing.reads} wait{'s' if standing.waiting == 1 else ''}"
        if standing.reads
        else "records wait"
    )
    since = f"{waiting}, the oldest for {format_duration(standing.waits_us)}"
    if not standing.members:
        nobody = f"none runs (group {standing.group})"
        if standing.waiting:
            return fail(part, f"{nobody}, {since}", start)
        if standing.ever:
            return fail(part, f"{nobody}, one did before", start)
        return warn(part, f"{nobody}, and nothing waits", start)
    if not standing.is_behind:
        return ok(part, f"{running}, up to date{_open(open_runs) if part == 'worker' else ''}")
    if moved:
        text = f"{running}, {since}; it gets on"
        if standing.waiting > LAG_WARN:
            return warn(part, text, f"wait if it falls; else start more: `stepstream {part}`")
        return ok(part, text)
    text = f"{running}, and makes no progress: {since}; watched for {format_duration(watched_us)}"
    todo = f"see its log; if it is frozen, end it and {start}"
    if part == "sink":
        todo = f"see its log and the lines about clickhouse; if it is frozen, end it and {start}"
    if standing.waits_us >= stalled_after_us:
        return fail(part, text, todo)
    return warn(part, text, todo)


def _open(runs: int | None) -> str:
    return "" if runs is None else f"; {format_number_of(runs, 'run')} open"
