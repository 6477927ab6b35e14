"""The line that a traced program prints on stderr at its end: its steps, and how to show them."""

from __future__ import annotations

from dataclasses import dataclass

from stepstream.producers.transport.background_sender import Counts
from stepstream.schemas.formatting import format_number_of, format_usd

ID_CHARS = 8


@dataclass(slots=True)
class Totals:
    """Ended steps and runs so far, their cost, and the newest run.

    The cost is an estimate by the SDK's price list; the sink applies Prices documents as well.

    ``unpriced`` steps have usage without a known price, ``unmetered`` model calls have no usage.
    """

    steps: int = 0
    runs: int = 0
    cost_nanos: int = 0
    unpriced: int = 0
    last_trace_id: str = ""
    unmetered: int = 0

    def reset(self) -> None:
        """Start again at zero, in a forked child."""
        self.steps = self.runs = self.cost_nanos = self.unpriced = self.unmetered = 0
        self.last_trace_id = ""


def exit_line(totals: Totals, counts: Counts, console_url: str = "") -> str:
    """``stepstream: run 4bf92f35… · 7 steps · $0.0123 by list price · stepstream trace 4bf92f35``.

    Empty if nothing was recorded. With ``console_url`` it ends with the run's page.
    """
    parts: list[str] = []
    if totals.runs:
        parts = [_runs(totals), format_number_of(totals.steps, "step"), *_cost(totals)]
    elif totals.steps:
        parts = [format_number_of(totals.steps, "step")]
    lost = counts.failed + counts.pending - counts.spooled
    if counts.dropped:
        parts.append(f"{format_number_of(counts.dropped, 'event')} dropped, the queue was full")
    if lost:
        parts.append(f"{format_number_of(lost, 'event')} not delivered")
    if counts.spooled:
        kept = format_number_of(counts.spooled, "event")
        parts.append(f"{kept} kept on disk until the next start (stepstream spool status)")
    if not parts:
        return ""
    if totals.runs and counts.delivered:
        short = totals.last_trace_id[:ID_CHARS]
        parts.append(f"stepstream trace {short}" if totals.runs == 1 else "stepstream runs")
        if console_url:
            page = f"/{totals.last_trace_id}" if totals.runs == 1 else ""
            parts.append(f"{console_url.rstrip('/')}/runs{page}")
    return f"stepstream: {' · '.join(parts)}"


def _runs(totals: Totals) -> str:
    return (
        f"run {totals.last_trace_id[:ID_CHARS]}…" if totals.runs == 1 else f"{totals.runs:,} runs"
    )


def _cost(totals: Totals) -> list[str]:
    out = [f"{format_usd(totals.cost_nanos)} by list price"] if totals.cost_nanos else []
    if totals.unpriced:
        out.append(f"{format_number_of(totals.unpriced, 'step')} without a known price")
    if totals.unmetered:
        out.append(f"{format_number_of(totals.unmetered, 'model call')} without usage")
    return out
