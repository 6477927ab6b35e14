"""``stepstream runs``, ``stepstream trace`` and ``stepstream sql``."""

from __future__ import annotations

import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

import typer

from stepstream.cli.common import CLICKHOUSE, Format, FormatOption, one_of, takes
from stepstream.cli.errors import USAGE, Failure
from stepstream.common.terminal import write_bytes
from stepstream.schemas.settings import Settings

PANEL = "Look"
ProjectOption = Annotated[
    str | None, typer.Option(help="Only this project (patterns with * and ?).")
]
EnvironmentOption = Annotated[str | None, typer.Option(help="Only this environment.")]
AgentOption = Annotated[str | None, typer.Option(help="Only this agent.")]
SinceOption = Annotated[
    str | None, typer.Option(help="How long ago (90s, 2h, 7d), or a time (2026-03-01T12:00).")
]
LimitOption = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (runs, trace, sql):
        app.command(rich_help_panel=PANEL)(command)


@takes(*CLICKHOUSE)
def runs(
    settings: Settings,
    *,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    agent: AgentOption = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only these: running, ok, error, cancelled, stopped or incomplete."),
    ] = None,
    since: SinceOption = None,
    limit: LimitOption = 20,
    format: FormatOption = Format.TABLE,
) -> None:
    """List runs, the newest first."""
    from stepstream.admin.learning import learning, with_wider
    from stepstream.cli import printing, queries
    from stepstream.render.rows import run_row
    from stepstream.render.tables import runs_cells
    from stepstream.schemas.trajectory import RunStatus
    from stepstream.stream.baselines.history import Owner

    one_of("--status", status, get_args(RunStatus))
    wanted = queries.Scope(
        project=project,
        environment=environment,
        agent=agent,
        status=status,
        since=queries.parse_since(since, datetime.now(UTC)),
        limit=limit,
    )
    with queries.store(settings) as client:
        found = queries.list_runs(client, wanted)
        counts = queries.alert_counts(client, [row["trace_id"] for row in found])
        projects = sorted({row["project"] for row in found})
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
            "no runs" + (" that match" if wanted != queries.Scope(limit=limit) else " yet")
        )


@takes(*CLICKHOUSE)
def trace(
    settings: Settings,
    run: Annotated[
        str | None,
        typer.Argument(metavar="[ID]", help="The run's id, or a beginning of it that is unique."),
    ] = None,
    *,
    last: Annotated[bool, typer.Option("--last", help="The newest run.")] = False,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    agent: AgentOption = None,
    contents: Annotated[
        bool,
        typer.Option(
            "--contents",
            help="Show the beginnings of what went into each step, what came out, its documents.",
        ),
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Show these in full.")] = False,
    step: Annotated[
        str | None,
        typer.Option(
            "--step",
            metavar="STEP",
            help="Show one step alone, with all its fields in full: its name or id.",
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=1, max=100_000, help="Steps to draw at most; the others are summed up."),
    ] = 200,
    width: Annotated[
        int | None, typer.Option(min=40, help="Width of the picture; default: the terminal's.")
    ] = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show one run as a tree: time, cost and tokens of each step, what failed, what is still running, its alerts."""
    from stepstream.cli import printing, queries
    from stepstream.cli.alerts import plain

    if (run is None) == (not last):
        raise Failure("say which run: its id (or a unique beginning of it), or --last", USAGE)
    whole = full or step is not None or format is not Format.TABLE
    with queries.store(settings) as client:
        scope = queries.Scope(project=project, environment=environment, agent=agent, limit=1)
        trace_id = queries.last_run(client, scope) if run is None else queries.find_run(client, run)
        found = queries.read_trace(client, trace_id, contents=contents, whole=whole)
    if step is not None:
        found = queries.only_step(found, step)
    if format is Format.TABLE and step is not None:
        printing.show(printing.steps_text(found))
    elif format is Format.TABLE:
        now_us = _now_us()
        text = printing.trace_text(
            found, width=width, contents=contents or full, full=full, limit=limit, now_us=now_us
        )
        printing.show(text)
    elif format is Format.CSV:
        rows = [list(row.values()) for row in found.step_records]
        printing.print_records(list(found.step_records[0]) if rows else ["step_id"], rows, format)
    else:
        alerts = [plain(alert) for alert in found.alerts]
        printing.print_records(
            ["run", "steps", "alerts"], [[found.run_record, found.step_records, alerts]], format
        )


@takes(*CLICKHOUSE)
def sql(
    settings: Settings,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One statement; - reads it from standard input.")
    ],
    format: FormatOption = Format.TABLE,
) -> None:
    """Ask the store a question in SQL (read-only).

    The views are runs, steps, open_steps, findings, alerts, alert_events, deliveries, delivery_events, metrics_1m,
    metrics_1h, and trace(id = '...') for one run; `DESCRIBE runs` explains the columns of one. On a terminal, rows that are
    too wide for a table are shown one below another.
    """
    from stepstream.cli import printing, queries

    text = (sys.stdin.read() if query == "-" else query).strip().rstrip("; \n\t")
    if not text:
        raise Failure("there is no query: give one, or - and one on standard input", USAGE)
    with queries.store(settings) as client:
        if re.search(r"\bFORMAT\s+\w+$", text, re.IGNORECASE):  # the answer as ClickHouse writes it
            write_bytes(client.raw_query(text))
            return
        answer: Any = client.query(text)
        printing.print_records(answer.column_names, answer.result_rows, format)


def _now_us() -> int:
    return time.time_ns() // 1_000
