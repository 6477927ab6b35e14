"""The line that an agent's program leaves on stderr: what it did, and the command that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from stepstream.producers.transport.background_sender import Counts
from stepstream.schemas.formatting import format_number_of, format_usd

ID_CHARS = 8


@dataclass(slots=True)
class Totals:
    """What was encoded so far: ended steps and runs, what they cost, and the newest run.

    ``unpriced`` are steps for whose usage the SDK knows no price, ``unmetered`` model calls that named no usage.
    """

    steps: int = 0
    runs: int = 0
    cost_nanos: int = 0
    unpriced: int = 0
    last_trace_id: str = ""
    unmetered: int = 0

    def reset(self) -> None:
        """Start counting anew: this is another process."""
        self.steps = self.runs = self.cost_nanos = self.unpriced = self.unmetered = 0
        self.last_trace_id = ""


def exit_line(totals: Totals, counts: Counts) -> str:
    """``stepstream: run 4bf92f35… · 7 steps · $0.0123 · stepstream trace 4bf92f35``; empty when nothing happened."""
    parts: list[str] = []
    if totals.runs:
        parts = [_runs(totals), format_number_of(totals.steps, "step"), *_cost(totals)]
    elif totals.steps:
        parts = [format_number_of(totals.steps, "step")]
    lost = counts.failed + counts.held
    if counts.dropped:
        parts.append(f"{format_number_of(counts.dropped, 'event')} dropped, the queue was full")
    if lost:
        parts.append(f"{format_number_of(lost, 'event')} not delivered")
    if not parts:
        return ""
    if totals.runs and counts.delivered:
        short = totals.last_trace_id[:ID_CHARS]
        parts.append(f"stepstream trace {short}" if totals.runs == 1 else "stepstream runs")
    return f"stepstream: {' · '.join(parts)}"


def _runs(totals: Totals) -> str:
    return (
        f"run {totals.last_trace_id[:ID_CHARS]}…" if totals.runs == 1 else f"{totals.runs:,} runs"
    )


def _cost(totals: Totals) -> list[str]:
    out = [format_usd(totals.cost_nanos)] if totals.cost_nanos else []
    if totals.unpriced:
        out.append(
            f"{format_number_of(totals.unpriced, 'step')} that the SDK's price list does not know"
        )
    if totals.unmetered:
        out.append(f"{format_number_of(totals.unmetered, 'model call')} without usage")
    return out
