"""``stepstream submit``, ``cancel``, ``retry`` and ``drain``: what is sent to the scheduler."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli.errors import USAGE, Failure
from stepstream.cli.options import ByOption, takes
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.producers.tasks.handle import TaskHandle
    from stepstream.producers.tasks.ways import Way
    from stepstream.schemas.settings import Settings

PANEL = "Tasks"
TaskArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the task.")]
ReasonOption = Annotated[
    str, typer.Option(metavar="TEXT", help="Reason, recorded in the task's history.")
]
_DURATION = "DURATION"


@dataclass(frozen=True)
class RequestOptions:
    """A request to run an agent."""

    input: Annotated[
        str,
        typer.Option(metavar="JSON", help="Input: JSON, @FILE with JSON, or - for standard input."),
    ] = ""
    id: Annotated[
        str,
        typer.Option(metavar="ID", help="Id: a second submit with it is the same task."),
    ] = ""
    version: Annotated[
        str, typer.Option(metavar="NAME", help="Only this version of the agent.")
    ] = ""
    priority: Annotated[
        int, typer.Option(metavar="INT", min=0, max=9, help="Higher ones run first.")
    ] = 0
    delay: Annotated[str, typer.Option(metavar=_DURATION, help="Time before it may run.")] = ""
    deadline: Annotated[
        str,
        typer.Option(metavar=f"{_DURATION}|TIME", help="It expires when it has not ended by then."),
    ] = ""
    after: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="A task that must have ended well before; repeatable."),
    ] = None
    key: Annotated[
        str, typer.Option(metavar="TEXT", help="Tasks with the same key run one after another.")
    ] = ""
    on_busy: Annotated[
        str,
        typer.Option(
            "--on-busy",
            metavar="ACTION",
            help="While another task has its key: enqueue, reject, interrupt or replace.",
        ),
    ] = ""
    user_id: Annotated[str, typer.Option("--user-id", metavar="TEXT", help="User id.")] = ""
    session_id: Annotated[str, typer.Option("--session-id", metavar="TEXT", help="Session id.")] = (
        ""
    )
    attempts: Annotated[
        int | None,
        typer.Option(metavar="INT", help="Attempts at most, instead of the agent's."),
    ] = None
    timeout: Annotated[
        str, typer.Option(metavar=_DURATION, help="Limit of an attempt, instead of the agent's.")
    ] = ""
    budget: Annotated[
        str, typer.Option(metavar="USD", help="Limit of its cost, instead of the agent's.")
    ] = ""


def register(app: typer.Typer) -> None:
    for command in (submit, cancel, retry, drain):
        app.command(rich_help_panel=PANEL)(command)


@takes("kafka", settings=("endpoint", "endpoint_key", "project", "environment"))
def submit(
    settings: Settings,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="The agent that is to run.")],
    options: RequestOptions,
    wait: Annotated[
        str,
        typer.Option(
            metavar=_DURATION,
            help="Wait so long for its end and print the result as JSON; exit code 1 for any "
            "other end than ok.",
        ),
    ] = "",
) -> None:
    """Ask for a run of an agent by an executor, as a durable task; print the task's id."""
    from stepstream.producers.tasks.submit import submit as submit_task

    wait_s = _seconds("--wait", wait)
    given = {
        "id": options.id,
        "version": options.version,
        "delay": options.delay,
        "deadline": options.deadline,
        "on_busy": options.on_busy,
        "timeout": options.timeout,
        "budget_usd": options.budget,
    }
    try:
        handle = submit_task(
            agent,
            _input(options.input),
            priority=options.priority,
            after=options.after or (),
            key=options.key,
            user_id=options.user_id,
            session_id=options.session_id,
            attempts=options.attempts,
            settings=settings,
            **{name: text or None for name, text in given.items()},  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise Failure(f"--{_flag_of(str(error))}", USAGE) from None
    if not wait_s:
        echo(handle.id)
        return
    _print_result(handle, wait_s)


@takes("kafka", settings=("endpoint", "endpoint_key", "project"))
def cancel(
    settings: Settings, task: TaskArgument, reason: ReasonOption = "", by: ByOption = ""
) -> None:
    """Cancel a task: a waiting one ends at once, a running one when its next step begins."""
    way, project, named = _place(settings, task)
    way.cancel(project, named, reason, by)
    echo(f"sent cancel of task {named}")


@takes("kafka", settings=("endpoint", "endpoint_key", "project"))
def retry(
    settings: Settings, task: TaskArgument, reason: ReasonOption = "", by: ByOption = ""
) -> None:
    """Run a task again that has ended in another way than ok."""
    way, project, named = _place(settings, task)
    way.retry(project, named, reason, by)
    echo(f"sent retry of task {named}")


@takes("kafka", settings=("project",))
def drain(
    settings: Settings,
    executor: Annotated[str, typer.Argument(metavar="EXECUTOR", help="Id of the executor.")],
    deadline: Annotated[
        str,
        typer.Option(
            metavar=_DURATION,
            help="Time for running attempts; what has not ended then is handed over. Default: no "
            "limit.",
        ),
    ] = "",
    by: ByOption = "",
) -> None:
    """Drain an executor: it gets no new attempts, and ends when its running ones have ended."""
    from stepstream.common.settings import require_kafka
    from stepstream.producers.tasks.ways import KafkaWay

    require_kafka(settings)
    way = KafkaWay(settings)
    way.drain(
        settings.project or "default", executor, round(_seconds("--deadline", deadline) * 1e6), by
    )
    echo(f"sent drain to executor {executor}")


def _place(settings: Settings, task: str) -> tuple[Way, str, str]:
    from stepstream.producers.tasks.requests import task_id
    from stepstream.producers.tasks.ways import way_of

    try:
        named = task_id(task)
        return way_of(settings), settings.project or "default", named
    except ValueError as error:
        raise Failure(str(error), USAGE) from None


def _print_result(handle: TaskHandle, wait_s: float) -> None:
    from stepstream.cli.common import print_json
    from stepstream.producers.tasks.handle import TaskFailed

    try:
        result = handle.result(wait_s)
    except TimeoutError:
        status = handle.status()
        raise Failure(
            f"task {handle.id} has not ended within {wait_s:g} s: it is {status}; "
            f"`stepstream task {handle.id}` shows it"
        ) from None
    except TaskFailed as error:
        raise Failure(str(error)) from None
    print_json(result)


def _input(given: str) -> Any:
    """The input of a task, from JSON, a file or standard input."""
    if not given:
        return None
    where, text = "--input", given
    if given == "-":
        where, text = "standard input", sys.stdin.read()
    elif given.startswith("@"):
        where, text = given[1:], Path(given[1:]).read_text()
    try:
        return json.loads(text)
    except ValueError as error:
        hint = " (a text is written '\"in quotes\"')" if where == "--input" else ""
        raise Failure(f"{where} is not JSON: {error}{hint}", USAGE) from None


def _seconds(option: str, given: str) -> float:
    from stepstream.schemas.durations import parse_duration_us

    try:
        return parse_duration_us(given) / 1e6 if given else 0.0
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from None


def _flag_of(message: str) -> str:
    """The message about an argument, as the command's option is named."""
    return message.replace("budget_usd=", "budget ").replace("on_busy", "on-busy")
