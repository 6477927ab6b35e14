"""The end of the demo: comparisons, answers in SQL, and the trace of the worst run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from examples.demo import answers, check
from examples.demo.alertlog import summary
from examples.demo.context import DemoContext
from stepstream.cli.queries import read_trace, records
from stepstream.common import terminal
from stepstream.render.glyphs import UNICODE, Glyphs
from stepstream.render.heading import View
from stepstream.render.listing import listing
from stepstream.render.tables import records_cells
from stepstream.render.tree import render_trace

SVG_CELLS: Final = 104


def print_comparison(demo: DemoContext, verdicts: list[check.Verdict]) -> None:
    """Print the comparisons, a line each."""
    console = demo.console
    console.print(Text("\nIs what was sent what is stored?", style="bold"))
    for verdict in verdicts:
        console.print(
            Text(
                "  yes  " if verdict.good else "  NO   ",
                style="green" if verdict.good else "bold red",
            )
            + Text(verdict.text)
        )
        for problem in verdict.problems[:5]:
            console.print(Text(f"       {problem}", style="red"))
        if len(verdict.problems) > 5:
            console.print(Text(f"       ... and {len(verdict.problems) - 5} more", style="red"))


def answer(demo: DemoContext) -> None:
    """Print the questions, their SQL and ClickHouse's answers, and the latency of the alerts."""
    console = demo.console
    for question in answers.QUESTIONS:
        console.print(Text(f"\n{question.text}", style="bold"))
        console.print(
            Text("\n".join(f"  {line}" for line in question.sql.splitlines()), style="dim"),
            soft_wrap=True,
        )
        answer: Any = demo.client.query(question.sql)
        columns, cells = records_cells(answer.column_names, answer.result_rows)
        folded = [
            replace(column, prose=not column.right and column.name != "trace_id")
            for column in columns
        ]
        console.print(listing(folded, cells, console.width)[0])
    log = demo.alerts
    console.print(
        "\n  from an agent's event to the alert in this program: "
        f"{summary(log.latencies_us(timed=False))}"
    )
    console.print(
        f"  from a deadline to the alert in this program: {summary(log.latencies_us(timed=True))}"
    )


def show_worst(demo: DemoContext) -> None:
    """Print the trace of the worst run; with ``--svg`` draw a silent failure into a file."""
    found = records(demo.client, answers.WORST_RUN)
    if not found:
        return
    command, picture = _picture(demo, found[0]["trace_id"])
    demo.console.print(Text(f"\nThe worst run ({command})", style="bold"))
    demo.console.print(picture(demo.console.width, demo.glyphs))
    if demo.options.svg is not None:
        ignored = records(demo.client, answers.SILENT_FAILURE) or found
        _draw(demo.options.svg, *_picture(demo, ignored[0]["trace_id"]))
        demo.console.print(f"\ndrawn into {demo.options.svg}")


def _picture(demo: DemoContext, trace_id: str) -> tuple[str, Callable[[int, Glyphs], Text]]:
    """The command that shows a run, and its picture at any width."""
    trace = read_trace(demo.client, trace_id)

    def picture(width: int, glyphs: Glyphs) -> Text:
        view = View(width=width, now_us=time.time_ns() // 1_000, glyphs=glyphs, limit=40)
        return render_trace(trace.steps, trace.run, trace.alerts, view)

    return f"stepstream trace {trace.run.trace_id[:8]}", picture


def _draw(file: Path, command: str, picture: Callable[[int, Glyphs], Text]) -> None:
    # A recording console draws to nothing; the SVG is exported from its record.
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        recorder = terminal.console(record=True, width=SVG_CELLS, file=nowhere, force_terminal=True)
        recorder.print(picture(SVG_CELLS, UNICODE))
    file.write_text(recorder.export_svg(title=command), encoding="utf-8")
