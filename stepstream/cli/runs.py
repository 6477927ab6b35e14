"""``stepstream runs``, ``stepstream trace`` and ``stepstream sql``."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from stepstream.cli.common import one_of
from stepstream.cli.errors import USAGE, Failure
from stepstream.cli.options import (
    AgentOption,
    EnvironmentOption,
    Format,
    FormatOption,
    LastOption,
    LimitOption,
    ProjectOption,
    RunArgument,
    SinceOption,
    takes,
)
from stepstream.common.terminal import write_bytes
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.cli.queries import Trace

PANEL = "Inspect"


@dataclass(frozen=True)
class RunFilter:
    """Which runs are listed."""

    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    status: Annotated[
        str | None,
        typer.Option(
            metavar="STATUS",
            help="Only this status: running, ok, error, cancelled, stopped or incomplete.",
        ),
    ] = None
    since: SinceOption = None
    limit: LimitOption = 20


@dataclass(frozen=True)
class TraceOptions:
    """Which run is shown, and how much of it."""

    run: RunArgument = None
    other: Annotated[
        str | None,
        typer.Argument(metavar="[OTHER]", help="Another run to show next to the first one."),
    ] = None
    last: LastOption = False
    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    contents: Annotated[
        bool,
        typer.Option(
            "--contents",
            help="Show the beginnings of each step's input, output and documents.",
        ),
    ] = False
    full: Annotated[
        bool, typer.Option("--full", help="Show inputs, outputs and documents in full.")
    ] = False
    step: Annotated[
        str | None,
        typer.Option(
            "--step", metavar="STEP", help="Show only this step (name or id), with all its fields."
        ),
    ] = None
    limit: Annotated[
        int,
        typer.Option(
            metavar="INT",
            min=1,
            max=100_000,
            help="Maximum number of steps to draw; the others are summarised.",
        ),
    ] = 200
    width: Annotated[
        int | None,
        typer.Option(
            metavar="INT", min=40, help="Width in characters. Default: that of the terminal."
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write the run to FILE as one HTML page that needs nothing else. With --contents "
            "or --full it contains inputs, outputs and documents.",
        ),
    ] = None


def register(app: typer.Typer) -> None:
    for command in (runs, trace, sql):
        app.command(rich_help_panel=PANEL)(command)


@takes("clickhouse")
def runs(settings: Settings, filter: RunFilter, format: FormatOption = Format.TABLE) -> None:
    """List runs, the newest first."""
    from stepstream.admin.learning import learning, with_wider
    from stepstream.cli import printing, queries
    from stepstream.render.rows import run_row
    from stepstream.render.tables import runs_cells
    from stepstream.schemas.trajectory import RunStatus
    from stepstream.stream.baselines.history import Owner

    one_of("--status", filter.status, get_args(RunStatus))
    wanted = queries.Scope(
        project=filter.project,
        environment=filter.environment,
        agent=filter.agent,
        status=filter.status,
        since=queries.parse_since(filter.since, datetime.now(UTC)),
        limit=filter.limit,
    )
    with queries.store(settings) as client:
        found = queries.list_runs(client, wanted)
        counts = queries.alert_counts(client, [row["trace_id"] for row in found])
        projects = sorted({row["project"] for row in found})
        # Only the table prints the remark about baselines, so only the table pays for the query.
        learnt = queries.learnt_runs(client, projects) if format is Format.TABLE and found else {}
    if format is not Format.TABLE:
        rows = [{**row, "alerts": counts.get(row["trace_id"], 0)} for row in found]
        printing.print_records(
            list(rows[0]) if rows else ["trace_id"], [list(row.values()) for row in rows], format
        )
    elif found:
        glyphs = printing.glyphs()
        printing.show_listing(
            *runs_cells([run_row(row) for row in found], counts, now_us=_now_us(), glyphs=glyphs)
        )
        owners = (
            Owner(row["project"], row["environment"], row["agent"], row["task"]) for row in found
        )
        for line in learning(with_wider(learnt), owners):
            printing.note(f"cost spikes: {line}")
    else:
        printing.note(
            "no runs" + (" that match" if wanted != queries.Scope(limit=filter.limit) else " yet")
        )


@takes("clickhouse")
def trace(settings: Settings, options: TraceOptions, format: FormatOption = Format.TABLE) -> None:
    """Show one run as a tree.

    For each step: duration, cost, tokens, and whether it failed or is still running. Below it: the
    critical path, what followed each failure, and the run's alerts. Two runs are shown next to each
    other, their steps aligned.
    """
    from stepstream.cli import printing

    # Without a run and without --last a wrong guess could be shown to a reader who expects another.
    if (options.run is None) == (not options.last):
        raise Failure(
            "name one run: its id (or a unique beginning of it), or --last for the newest", USAGE
        )
    if options.other is not None:
        _compare(settings, options, format)
        return
    found = _read(settings, options, whole=options.full or format is not Format.TABLE)
    if options.html is not None:
        _write_page(found, options, options.html)
        return
    if format is Format.TABLE and options.step is not None:
        printing.show(printing.steps_text(found))
    elif format is Format.TABLE:
        text = printing.trace_text(
            found,
            width=options.width,
            contents=options.contents or options.full,
            full=options.full,
            limit=options.limit,
            now_us=_now_us(),
        )
        printing.show(text)
    else:
        _print_trace(found, format)


def _compare(settings: Settings, options: TraceOptions, format: Format) -> None:
    """Two runs next to each other."""
    from stepstream.cli import printing, queries
    from stepstream.render.compare import Side, render_comparison
    from stepstream.render.heading import View

    if format is not Format.TABLE or options.step is not None or options.html is not None:
        raise Failure("two runs are printed as a table, without --format, --step and --html", USAGE)
    with queries.store(settings) as client:
        sides = [
            queries.read_trace(client, queries.find_run(client, prefix))
            for prefix in (options.run or "", options.other or "")
        ]
    view = View(
        width=options.width or printing.picture_width(),
        now_us=_now_us(),
        limit=options.limit,
        glyphs=printing.glyphs(),
    )
    left, right = (Side(found.run, found.steps) for found in sides)
    printing.show(render_comparison(left, right, view))


def _read(settings: Settings, options: TraceOptions, *, whole: bool) -> Trace:
    """The run that is asked for; with ``--step`` only that step, in full."""
    from stepstream.cli import queries

    with queries.store(settings) as client:
        if options.run is None:
            scope = queries.Scope(
                project=options.project,
                environment=options.environment,
                agent=options.agent,
                limit=1,
            )
            trace_id = queries.last_run(client, scope)
        else:
            trace_id = queries.find_run(client, options.run)
        if options.step is not None:
            return queries.read_step(client, trace_id, options.step)
        return queries.read_trace(client, trace_id, contents=options.contents, whole=whole)


def _write_page(found: Trace, options: TraceOptions, file: Path) -> None:
    """Write the run as an HTML page and print where it is."""
    from stepstream.cli import printing
    from stepstream.console.export import PagesMissing, page

    run = found.run_record or {"trace_id": found.run.trace_id, "status": found.run.status}
    contents = options.contents or options.full
    try:
        text = page(run, found.step_records, written_at_us=_now_us(), contents=contents)
        file.write_text(text, encoding="utf-8")
    except PagesMissing as failure:
        raise Failure(str(failure)) from failure
    except OSError as failure:
        raise Failure(f"{file} cannot be written: {failure.strerror}") from failure
    without = "" if contents else ", without contents"
    printing.note(f"wrote {len(found.steps)} steps to {file}{without}")


def _print_trace(found: Trace, format: Format) -> None:
    """As CSV the steps, as JSON run, steps and alerts."""
    from stepstream.cli import printing
    from stepstream.cli.queries import alert_record

    if format is Format.CSV:
        rows = [list(row.values()) for row in found.step_records]
        printing.print_records(list(found.step_records[0]) if rows else ["step_id"], rows, format)
        return
    alerts = [alert_record(alert) for alert in found.alerts]
    printing.print_records(
        ["run", "steps", "alerts"], [[found.run_record, found.step_records, alerts]], format
    )


@takes("clickhouse")
def sql(
    settings: Settings,
    query: Annotated[
        str,
        typer.Argument(metavar="QUERY", help="One SQL statement; - reads it from standard input."),
    ],
    format: FormatOption = Format.TABLE,
) -> None:
    """Run an SQL query on the store (read-only).

    The views are runs, steps, open_steps, findings, alerts, alert_events, alert_marks, deliveries,
    delivery_events, tasks, task_events, task_refusals, executors, executor_events, eval_trials,
    eval_verdicts, metrics_1m, metrics_1h, and trace(id = '...') for one run. `DESCRIBE runs` lists
    the columns of a view. On a terminal, rows that are too wide for a table are printed with one
    column a line.
    """
    from stepstream.cli import printing, queries

    # ClickHouse refuses a semicolon at the end in the HTTP interface once FORMAT is appended.
    text = (sys.stdin.read() if query == "-" else query).strip().rstrip("; \n\t")
    if not text:
        raise Failure("the query is empty: give one, or - and one on standard input", USAGE)
    with queries.store(settings) as client:
        # The query names its own format: print what ClickHouse returns, unchanged.
        if re.search(r"\bFORMAT\s+\w+$", text, re.IGNORECASE):
            write_bytes(client.raw_query(text))
            return
        answer: Any = client.query(text)
        printing.print_records(answer.column_names, answer.result_rows, format)


def _now_us() -> int:
    return time.time_ns() // 1_000
