"""Alerts as two lines that a tired person understands, and as one line below a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import tzinfo
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from stepstream.render.glyphs import UNICODE, Glyphs
from stepstream.render.values import clip, format_clock, format_time, one_line, short_id
from stepstream.schemas.alert import Alert
from stepstream.schemas.alert_text import sentence, with_quotation
from stepstream.schemas.formatting import format_duration

STYLES: Final[dict[str, str]] = {
    "info": "cyan",
    "warning": "yellow",
    "error": "red",
    "critical": "bold white on red",
    "resolved": "green",
}
HANGING_CELLS: Final = 9
_HANGING: Final = " " * HANGING_CELLS
_ROOMY: Final = 100
_NARROW: Final = 60


class Note(NamedTuple):
    """A finding that opened no alert."""

    at_us: int
    alert: str
    message: str
    times: int = 1
    """The number of notes with the same text; ``at_us`` is the time of the first."""


def gathered(notes: Iterable[Note]) -> list[Note]:
    """Notes with the same text merged into one, in the place of the first."""
    found: dict[tuple[str, str], Note] = {}
    for note in notes:
        first = found.setdefault((note.alert, note.message), note._replace(times=0))
        found[note.alert, note.message] = first._replace(times=first.times + note.times)
    return list(found.values())


def note_line(note: Note, *, zone: tzinfo | None) -> Text:
    """A note in one line, as long as it is."""
    times = f" ({note.times} times)" if note.times > 1 else ""
    head = f"{format_clock(note.at_us, zone)} note {one_line(note.alert)}{times}: "
    return Text(head, style="dim", no_wrap=True, overflow="ignore").append(one_line(note.message))


def alert_lines(
    alert: Alert,
    *,
    zone: tzinfo | None = None,
    width: int | None = None,
    glyphs: Glyphs = UNICODE,
    remark: str = "",
    history: bool = False,
    own_run: bool = False,
) -> Text:
    """An alert as two lines: what happened and where; below it the cause and the next command.

    As news: the last change. As ``history``: time and severity of its opening, and how long it
    lasted. With ``own_run`` it is printed below its run, without the command that shows the run. No
    line is longer than ``width``.
    """
    label, style = alert.severity.upper(), STYLES[alert.severity]
    if alert.state == "resolved" and history:
        remark = remark or f"resolved after {format_duration(alert.resolved_at - alert.opened_at)}"
    elif alert.state == "resolved":
        label, style = "RESOLVED", STYLES["resolved"]
    who = "/".join(part for part in (alert.agent, alert.task) if part) or alert.project
    text = Text(no_wrap=True, overflow="ignore")
    text.append(
        f"{format_clock(alert.opened_at if history else alert.updated_at, zone)} ", style="dim"
    )
    text.append(label, style=style)
    text.append(f" {alert.alert} ", style="bold")
    head = f"{one_line(who)}: {with_quotation(one_line(sentence(alert)), one_line(alert.quoted))}"
    text.append(
        head if width is None else clip(head, width - cell_len(text.plain), glyphs.ellipsis)
    )
    if width is not None:
        text.truncate(width, overflow="crop")
    if history:
        remark = f" {glyphs.dot} ".join(part for part in (remark, *_handled(alert, zone)) if part)
    if below := _below(alert, remark, glyphs, width, named=history, own_run=own_run):
        text.append(f"\n{_HANGING}{below}", style="dim")
    return text


def _command(alert: Alert, dot: str) -> str:
    """The next command: show the run and, after ``dot``, stop it; or show the incident."""
    # An incident has many runs: its own page lists them.
    if alert.runs:
        return f"stepstream alerts show {short_id(alert.alert_id)}"
    if not alert.trace_id:
        return ""
    run = short_id(alert.trace_id)
    stop = (
        f"{dot}stepstream stop {run}" if dot and alert.running and alert.state == "firing" else ""
    )
    return f"stepstream trace {run}{stop}"


def _handled(alert: Alert, zone: tzinfo | None) -> Iterator[str]:
    """Acknowledgement and silence of the alert."""
    if alert.state == "resolved":
        return
    if alert.acknowledged_by:
        yield f"acknowledged by {one_line(alert.acknowledged_by)}"
    if alert.silenced_until > alert.opened_at:
        yield f"silenced until {format_time(alert.silenced_until, zone)}"


def _below(
    alert: Alert, remark: str, glyphs: Glyphs, width: int | None, *, named: bool, own_run: bool
) -> str:
    """The second line: remark and detail (truncated if needed), the alert's id if ``named``,
    command.
    """
    dot = f" {glyphs.dot} "
    command = "" if own_run else _command(alert, dot if width is None or width >= _ROOMY else "")
    if named and not alert.runs and (width is None or width >= _NARROW):
        command = dot.join(part for part in (f"alert {short_id(alert.alert_id)}", command) if part)
    words = dot.join(part for part in (remark, one_line(alert.detail)) if part)
    if words and width is not None:
        words = clip(
            words,
            width - len(_HANGING) - (len(command) + len(dot) if command else 0),
            glyphs.ellipsis,
        )
    return dot.join(part for part in (words, command) if part)
