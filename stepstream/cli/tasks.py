"""``stepstream tasks``, ``task``, ``executors`` and ``queues``: requested tasks, from the store."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from stepstream.cli.common import one_of, print_rows
from stepstream.cli.errors import FAILED, USAGE, Failure
from stepstream.cli.options import (
    AgentOption,
    EnvironmentOption,
    Format,
    FormatOption,
    LimitOption,
    ProjectOption,
    SinceOption,
    takes,
)
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_state import TaskStatus, WaitingFor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepstream.queries.answer import Answer

PANEL = "Tasks"
OPEN: Final = ("waiting", "bound", "running")


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks are listed."""

    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help=f"Only this state: {', '.join(get_args(TaskStatus))}."),
    ] = None
    waiting_for: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help=f"Only tasks that wait for this: {', '.join(get_args(WaitingFor)[1:])}.",
        ),
    ] = None
    user: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only tasks for this user.")
    ] = None
    session: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only tasks of this session.")
    ] = None
    key: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only tasks with this key.")
    ] = None
    executor: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only tasks of this executor.")
    ] = None
    since: SinceOption = None
    limit: LimitOption = 50


def register(app: typer.Typer) -> None:
    for command in (tasks, task, executors, queues):
        app.command(rich_help_panel=PANEL)(command)


@takes("clickhouse")
def tasks(settings: Settings, filter: TaskFilter, format: FormatOption = Format.TABLE) -> None:
    """List tasks, the newest first: their state, why they wait, who runs them.

    Tasks that have not ended are always listed, others if they were submitted in the last 24 hours
    or since --since.
    """
    one_of("--state", filter.state, get_args(TaskStatus))
    one_of("--waiting-for", filter.waiting_for, get_args(WaitingFor)[1:])
    given = {name: value for name, value in vars(filter).items() if value is not None}
    with _asking(settings) as ask:
        found = ask("tasks", **given).records()
    if format is not Format.TABLE:
        _print_records(found, format)
        return
    now_us = _now_us()
    columns = ("task", "state", "why", "agent", "attempt", "age", "executor", "run", "project")
    keep = ("state", "why", "agent")
    rows = [_task_row(row, now_us) for row in found]
    print_rows(columns, rows, format, empty="no tasks", prose=("why",), keep=keep)


@takes("clickhouse")
def task(
    settings: Settings,
    task_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the task, or a unique beginning of it.")
    ],
    project: ProjectOption = None,
    full: Annotated[bool, typer.Option("--full", help="Print input and result in full.")] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show the whole story of a task over its attempts.

    What was requested, how long it waited and what for, each change with its reason, which
    executors ran it, its runs with cost and findings, retries and fallbacks, and the result.
    """
    from stepstream.cli import printing
    from stepstream.render.tasks import HANGING_CELLS, Story, story_text
    from stepstream.schemas.times import us_of

    with _asking(settings) as ask:
        found = _one(ask("task", id=task_id, project=project or "*").records(), task_id)
        about = {
            "in_project": found["project"],
            "task": found["task_id"],
            "submitted_us": us_of(found["submitted_at"]),
        }
        events, runs, findings = (
            ask(f"task-{name}", **about).records() for name in ("events", "runs", "findings")
        )
        del about["submitted_us"]
        refusals = ask("task-refusals", **about).records()
    if format is Format.TABLE:
        story = Story(found, events, runs, findings, refusals)
        text = story_text(story, now_us=_now_us(), glyphs=printing.glyphs(), full=full)
        printing.show_folded(text, indent=HANGING_CELLS)
    elif format is Format.CSV:
        _print_records(events, format)
    else:
        record = {**found, "events": events, "runs": runs, "findings": findings}
        record["refusals"] = refusals
        _print_records([record], format)


@takes("clickhouse")
def executors(
    settings: Settings,
    project: ProjectOption = None,
    agent: AgentOption = None,
    limit: LimitOption = 100,
    format: FormatOption = Format.TABLE,
) -> None:
    """List the executors of tasks: state, slots in use, agents.

    Executors that are lost or have left are listed for an hour.
    """
    with _asking(settings) as ask:
        found = ask("executors", project=project or "*", agent=agent or "*", limit=limit).records()
    if format is not Format.TABLE:
        _print_records(found, format)
        return
    columns = (
        "executor",
        "state",
        "slots",
        "agents",
        "ended_1h",
        "host",
        "pid",
        "since",
        "project",
    )
    rows = [
        (
            row["executor_id"],
            ": ".join(filter(None, (row["state"], row["reason"]))),
            f"{row['used']} of {row['slots']}",
            ", ".join("@".join(filter(None, _spec(one))) for one in row["agents"]),
            row["ended_1h"],
            row["host"],
            row["pid"] or "",
            row["started_at"],
            row["project"],
        )
        for row in found
    ]
    print_rows(columns, rows, format, empty="no executors", keep=("state", "slots", "agents"))


@takes("clickhouse")
def queues(
    settings: Settings,
    project: ProjectOption = None,
    agent: AgentOption = None,
    limit: LimitOption = 100,
    format: FormatOption = Format.TABLE,
) -> None:
    """List for each agent how many tasks wait, why, since when, and who could run them."""
    with _asking(settings) as ask:
        found = ask("queues", project=project or "*", agent=agent or "*", limit=limit).records()
    if format is not Format.TABLE:
        _print_records(found, format)
        return
    now_us = _now_us()
    columns = (
        "agent", "waiting", "oldest", "waits_for", "running", "slots", "executors", "ended_1h",
        "ok", "failed", "retried", "versions", "project",
    )  # fmt: skip
    rows = [_queue_row(row, now_us) for row in found]
    keep = ("waiting", "oldest", "waits_for", "running", "executors")
    empty = "no queues: no task was submitted in the last day, and no executor is there"
    print_rows(columns, rows, format, empty=empty, keep=keep)


@contextmanager
def _asking(settings: Settings) -> Iterator[Callable[..., Answer]]:
    """Ask questions of one connection. Raises ``Failure`` for a wrong one."""
    from stepstream.cli import queries
    from stepstream.queries import QuestionError, ask

    with queries.store(settings) as client:
        try:
            yield lambda question, **given: ask(client, question, **given)
        except QuestionError as error:
            raise queries.failure(error) from None


def _one(found: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """The task with exactly this id, else the only one whose id begins so."""
    exact = [row for row in found if row["task_id"] == wanted]
    projects = {row["project"] for row in exact}
    if len(projects) > 1:
        raise Failure(
            f"several projects have a task {wanted}: name one with --project: "
            f"{', '.join(sorted(projects))}",
            USAGE,
        )
    if exact:
        # The newest submit: an id may be used again a week after its task has ended.
        return exact[0]
    ids = {row["task_id"] for row in found}
    if len(ids) > 1:
        raise Failure(
            f"several tasks have an id that begins with {wanted}: {', '.join(sorted(ids))}", USAGE
        )
    if not found:
        raise Failure(
            f"the store has no task {wanted}; `stepstream tasks` lists them. A task is in the "
            "store a second or two after its submit",
            FAILED,
        )
    return found[0]


def _task_row(row: Mapping[str, Any], now_us: int) -> tuple[Any, ...]:
    from stepstream.render.values import short_id
    from stepstream.schemas.formatting import format_duration
    from stepstream.schemas.times import us_of

    most = f" of {row['max_attempts']}" if row["max_attempts"] else ""
    return (
        row["task_id"],
        row["state"],
        _why(row),
        "@".join(filter(None, (row["run_agent"] or row["agent"], row["run_version"]))),
        f"{row['attempt']}{most}" if row["attempt"] else "",
        format_duration(now_us - us_of(row["submitted_at"])),
        row["executor_id"],
        short_id(row["trace_id"]),
        row["project"],
    )


def _why(row: Mapping[str, Any]) -> str:
    from stepstream.render.tasks import waits_for

    words = [row["reason"], row["detail"]]
    if row["state"] == "waiting":
        words.insert(0, f"for {waits_for(row['waiting_for'], row['waiting_until'])}")
    elif row["state"] not in ("ok", *OPEN):
        words += [row["error_type"], row["error_message"]]
    return ": ".join(filter(None, words))


def _queue_row(row: Mapping[str, Any], now_us: int) -> tuple[Any, ...]:
    from stepstream.schemas.formatting import format_duration
    from stepstream.schemas.times import us_of

    oldest = format_duration(now_us - us_of(row["oldest"])) if row["oldest"] else ""
    return (
        row["agent"],
        row["waiting"],
        oldest,
        ", ".join(row["waiting_for"]),
        row["running"],
        row["slots"],
        row["executors"],
        row["ended_1h"],
        row["ok_1h"],
        row["failed_1h"],
        row["retried_1h"],
        ", ".join(filter(None, row["versions"])),
        row["project"],
    )


def _spec(one: Any) -> tuple[str, str]:
    """Name and version of an agent that an executor offers."""
    return (one["name"], one["version"]) if isinstance(one, Mapping) else (one[0], one[1])


def _print_records(found: Sequence[Mapping[str, Any]], format: Format) -> None:
    from stepstream.cli import printing

    columns = list(found[0]) if found else ["task_id"]
    printing.print_records(columns, [list(row.values()) for row in found], format)


def _now_us() -> int:
    return time.time_ns() // 1_000
