"""What the demo shows while it works: a live view on a terminal, lines otherwise."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from examples.demo.alertlog import ReceivedAlert
from stepstream.common import terminal
from stepstream.render.alerts import alert_lines
from stepstream.render.glyphs import Glyphs
from stepstream.schemas.formatting import format_usd
from stepstream.schemas.money import amount_nanos

LINE_EVERY_S: Final = 3.0
SHOWN_ALERTS: Final = 6
LOG_CELLS: Final = 120


@dataclass(frozen=True)
class Figures:
    """The demo at one moment: what was sent, what is stored, how far worker and sink are behind.

    ``worker_seconds`` is the age of the oldest event that no run has yet (rows of open runs are
    written once a second), ``sink_seconds`` that of the oldest ended step that is not stored.
    """

    seconds: float
    sent: int = 0
    ended: int = 0
    runs: int = 0
    open_runs: int = 0
    merged: int = 0
    stored: int = 0
    usd: Decimal = Decimal(0)
    worker_seconds: float = 0
    sink_seconds: float = 0

    @property
    def behind(self) -> str:
        """The delay of the worker and the sink."""
        worker = (
            f"{self.worker_seconds:.1f} s ({self.sent - self.merged:,} events)"
            if self.sent > self.merged
            else "0"
        )
        sink = (
            f"{self.sink_seconds:.1f} s ({self.ended - self.stored:,} steps)"
            if self.ended > self.stored
            else "0"
        )
        return f"worker {worker}, sink {sink}"


def make_console() -> Console:
    """The console of the demo's output; without a terminal it has the width of a log."""
    console = terminal.console()
    return console if console.is_terminal else terminal.console(width=LOG_CELLS)


@dataclass
class Screen:
    """Shows figures and alerts. Used as a context manager while the fleet works."""

    console: Console
    seconds: float
    glyphs: Glyphs
    _live: Live | None = None
    _alerts: list[Text] = field(default_factory=list)
    _next_line: float = 0.0

    def __enter__(self) -> Self:
        # A log gets lines instead: a live view would fill it with control characters.
        if self.console.is_terminal:
            self._live = Live(
                self._picture(Figures(0)),
                console=self.console,
                refresh_per_second=8,
                transient=False,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, figures: Figures, news: list[ReceivedAlert]) -> None:
        """Show new figures, and the alerts that came since the last time."""
        for one in news:
            if one.alert.seq == 1 or one.alert.state == "firing":
                self._alerts.append(self._alert(one))
        if self._live is not None:
            self._live.update(self._picture(figures))
        else:
            self._lines(figures)

    def _alert(self, one: ReceivedAlert) -> Text:
        cause = "its deadline" if one.timed else "its cause"
        late = "" if one.latency_us is None else f"{one.latency_us / 1_000:.0f} ms after {cause}"
        width = self.console.width if self.console.is_terminal else None  # a log is wide
        return alert_lines(one.alert, width=width, glyphs=self.glyphs, remark=late)

    def _lines(self, figures: Figures) -> None:
        for alert in self._alerts:
            self.console.print(alert, soft_wrap=True)
        self._alerts.clear()
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY_S
            self.console.print(
                f"{figures.seconds:4.0f} s  {figures.sent:,} events sent, "
                f"{figures.merged:,} in runs; "
                f"{figures.ended:,} steps ended, {figures.stored:,} stored; "
                f"{figures.open_runs} of {figures.runs} runs open; "
                f"{_usd(figures.usd)}; behind: {figures.behind}",
                soft_wrap=True,
            )

    def _picture(self, figures: Figures) -> Group:
        table = Table.grid(padding=(0, 3))
        for justify in ("left", "right", "right", "right"):
            table.add_column(justify=justify)
        table.add_row(
            *(Text(name, style="dim") for name in ("", "events", "steps ended", "behind"))
        )
        table.add_row("sent by the agents", f"{figures.sent:,}", f"{figures.ended:,}", "")
        table.add_row(
            "in runs, by the worker", f"{figures.merged:,}", "", _seconds(figures.worker_seconds)
        )
        table.add_row(
            "in ClickHouse, by the sink", "", f"{figures.stored:,}", _seconds(figures.sink_seconds)
        )
        runs = Text(
            f"{figures.open_runs} of {figures.runs} runs open, {_usd(figures.usd)} spent",
            style="bold",
        )
        bar = ProgressBar(
            total=self.seconds, completed=min(figures.seconds, self.seconds), width=40
        )
        clock = Table.grid(padding=(0, 2))
        clock.add_row(bar, f"{figures.seconds:.0f} of {self.seconds:.0f} s", runs)
        recent = self._alerts[-SHOWN_ALERTS:]
        title = (
            Text(f"alerts ({len(self._alerts)})", style="bold")
            if recent
            else Text("no alerts yet", style="dim")
        )
        return Group(clock, Text(""), table, Text(""), title, *recent)


def _usd(amount: Decimal) -> str:
    return format_usd(amount_nanos(amount))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds else "0 s"
