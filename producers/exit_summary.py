"""The line that an agent's program leaves on stderr: what it did, and the command that shows it."""

from __future__ import annotations

from dataclasses import dataclass

from stepstream.producers.transport.background_sender import Counts
from stepstream.schemas.money import NANOS_PER_USD, usd_from_nanos

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
        parts = [_runs(totals), _number(totals.steps, "step"), *_cost(totals)]
    elif totals.steps:
        parts = [_number(totals.steps, "step")]
    lost = counts.failed + counts.held
    if counts.dropped:
        parts.append(f"{_number(counts.dropped, 'event')} dropped, the queue was full")
    if lost:
        parts.append(f"{_number(lost, 'event')} not delivered")
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


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _cost(totals: Totals) -> list[str]:
    out = [money(totals.cost_nanos)] if totals.cost_nanos else []
    if totals.unpriced:
        out.append(f"{_number(totals.unpriced, 'step')} that the SDK's price list does not know")
    if totals.unmetered:
        out.append(f"{_number(totals.unmetered, 'model call')} without usage")
    return out


def money(nanos: int) -> str:
    """Dollars for people: cents, and as many digits more as a small amount needs."""
    if nanos >= NANOS_PER_USD:
        return f"${nanos / NANOS_PER_USD:,.2f}"
    digits = usd_from_nanos(nanos).partition(".")[2]
    places = min(9, max(4, len(digits) - len(digits.lstrip("0")) + 3))
    whole, _, digits = usd_from_nanos(round(nanos, places - 9)).partition(".")
    return f"${whole}.{digits[:places]:0<4}"
