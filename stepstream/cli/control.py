"""``stepstream stop``, ``pause``, ``resume`` and ``approve``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli.errors import USAGE, Failure
from stepstream.cli.options import ByOption, LastOption, RunArgument, takes
from stepstream.common.terminal import echo
from stepstream.schemas.endpoint import is_http
from stepstream.schemas.printable import printable
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.admin.commands import AcknowledgementReader, Target
    from stepstream.cli.queries import Scope
    from stepstream.schemas.alert import Command, CommandAction

PANEL = "Act"
ReasonOption = Annotated[
    str,
    typer.Option(
        metavar="TEXT", help="Reason, shown to the agent, in the trajectory and the audit log."
    ),
]
WaitOption = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="How long to wait for the run's acknowledgement; 0: do not wait.",
    ),
]


@dataclass(frozen=True)
class CommandOptions:
    """Which runs a command is for, and what is recorded with it."""

    run: RunArgument = None
    last: LastOption = False
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="All runs of this agent.")] = (
        None
    )
    project: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="All runs of this project; with --agent: of the agent in it."
        ),
    ] = None
    environment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --agent or --project: only in this environment."),
    ] = None
    reason: ReasonOption = ""
    by: ByOption = ""
    lasts: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="DURATION",
            help="With --agent or --project: also runs that start within this time.",
        ),
    ] = "5m"
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="With --agent or --project: do not ask."),
    ] = False
    wait: WaitOption = "10s"


@dataclass(frozen=True)
class ApprovalOptions:
    """Which run gets more budget, and how much."""

    run: RunArgument = None
    last: LastOption = False
    budget: Annotated[
        str,
        typer.Option(metavar="USD", help="Dollars in addition to limits and budgets."),
    ] = ""
    reason: ReasonOption = ""
    by: ByOption = ""
    wait: WaitOption = "10s"


def register(app: typer.Typer) -> None:
    for command in (stop, pause, resume, approve):
        app.command(rich_help_panel=PANEL)(command)


@takes("kafka", "clickhouse", settings=("endpoint", "endpoint_key"))
def stop(settings: Settings, options: CommandOptions) -> None:
    """Stop a run, or all runs of an agent or project.

    The next step that the run begins raises RunStopped.
    """
    _send(settings, "stop", options)


@takes("kafka", "clickhouse", settings=("endpoint", "endpoint_key"))
def pause(settings: Settings, options: CommandOptions) -> None:
    """Pause a run, or all runs of an agent or project.

    The run's next step waits until the run is resumed.
    """
    _send(settings, "pause", options)


@takes("kafka", "clickhouse", settings=("endpoint", "endpoint_key"))
def resume(settings: Settings, options: CommandOptions) -> None:
    """Let paused runs continue: earlier pause and stop commands no longer apply."""
    _send(settings, "resume", options)


@takes("kafka", "clickhouse", settings=("endpoint", "endpoint_key"))
def approve(settings: Settings, options: ApprovalOptions) -> None:
    """Let a run continue with more budget.

    Its limits are raised by --budget; earlier pause and stop commands no longer apply.
    """
    from stepstream.schemas.money import amount_nanos

    # `--budget '$5'` is an obvious way to write it.
    budget = options.budget.removeprefix("$")
    try:
        is_positive = amount_nanos(budget) > 0
    except (TypeError, ValueError):
        is_positive = False
    if not is_positive:
        raise Failure(
            f"--budget {options.budget or '(missing)'}: give the dollars to add, e.g. --budget 5",
            USAGE,
        )
    from stepstream.cli.queries import Scope

    target = _target(settings, options.run, options.last, Scope(limit=1))
    _send_to_run(settings, "resume", target, options, budget=budget)


def _send(settings: Settings, action: CommandAction, options: CommandOptions) -> None:
    """Send the command to one run, or to all runs of an agent or project."""
    from stepstream.cli.queries import Scope

    has_scope = options.agent is not None or options.project is not None
    # With --last, --agent and --project choose the run instead of addressing all of them.
    if options.last:
        scope = Scope(
            project=options.project,
            environment=options.environment,
            agent=options.agent,
            limit=1,
        )
        _send_to_run(settings, action, _target(settings, options.run, True, scope), options)
    elif options.run is not None and has_scope:
        raise Failure(
            f"name what to {action}: either the run {options.run}, or all runs of an agent or "
            "project",
            USAGE,
        )
    elif options.run is not None:
        _send_to_run(
            settings, action, _target(settings, options.run, False, Scope(limit=1)), options
        )
    elif has_scope:
        _send_to_scope(settings, action, options)
    else:
        raise Failure(
            f"name what to {action}: a run (its id, or --last), --agent, or --project", USAGE
        )


def _send_to_scope(settings: Settings, action: CommandAction, options: CommandOptions) -> None:
    from stepstream.admin.commands import send_to_scope
    from stepstream.admin.gateway_commands import CommandNotSent, send_to_scope_by_gateway
    from stepstream.common.person import who
    from stepstream.common.settings import require_kafka
    from stepstream.schemas.formatting import format_duration

    by_gateway = is_http(settings.endpoint)
    project = options.project if options.project is not None else settings.project
    what = f"all runs of {f'agent {options.agent} in ' if options.agent else ''}project {project}"
    what += f" ({options.environment})" if options.environment else ""
    if not options.yes and not _confirmed(f"{action} {what}?"):
        raise Failure("nothing was sent; --yes sends without asking")
    if not by_gateway:
        require_kafka(settings)
    lasts_us = _duration(options.lasts, "--for")
    # An agent that starts later would not see the command: a promise that cannot be kept.
    if lasts_us > settings.control_lookback:
        raise Failure(
            f"--for {options.lasts}: agents read commands of the last "
            f"{format_duration(settings.control_lookback)} (setting control_lookback), so no "
            "command can be valid for longer",
            USAGE,
        )
    names = {
        "project": project,
        "agent": options.agent or "",
        "environment": options.environment or "",
        "by": options.by or who(),
        "reason": options.reason,
    }
    if by_gateway:
        try:
            send_to_scope_by_gateway(settings, action, lasts=options.lasts, **names)
        except CommandNotSent as error:
            raise Failure(str(error)) from None
    else:
        now_us = time.time_ns() // 1_000
        send_to_scope(settings, action, now_us=now_us, lasts_us=lasts_us, **names)
    echo(
        f"sent {action} to {what}; it also applies to runs that start within "
        f"{format_duration(lasts_us)}"
    )


def _confirmed(question: str) -> bool:
    """Ask; False without an answer, such as in a script."""
    try:
        return typer.confirm(printable(question))
    except typer.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        echo("")
        return False


def _send_to_run(
    settings: Settings,
    action: CommandAction,
    target: Target,
    options: CommandOptions | ApprovalOptions,
    *,
    budget: str = "",
) -> None:
    from stepstream.admin.commands import AcknowledgementReader, send_to_run
    from stepstream.common.person import who
    from stepstream.common.settings import require_kafka

    if is_http(settings.endpoint):
        _send_by_gateway(settings, action, target, options, budget)
        return
    require_kafka(settings)
    wait_s = _duration(options.wait, "--wait") / 1e6
    # Opened before the command is sent: it reads from the end of the topic on.
    reader = AcknowledgementReader(settings, target.trace_id) if wait_s else None
    began = time.monotonic()
    try:
        command = send_to_run(
            settings,
            target,
            action,
            by=options.by or who(),
            reason=options.reason,
            budget_usd=budget,
            now_us=time.time_ns() // 1_000,
        )
        echo(f"sent {action} to run {target.trace_id[:8]}")
        if reader is not None:
            _report(reader, command, wait_s, began)
    finally:
        if reader is not None:
            reader.close()


def _send_by_gateway(
    settings: Settings,
    action: CommandAction,
    target: Target,
    options: CommandOptions | ApprovalOptions,
    budget: str,
) -> None:
    """Send by the gateway, which does not report the run's acknowledgement."""
    from stepstream.admin.gateway_commands import CommandNotSent, send_by_gateway
    from stepstream.common.person import who

    try:
        send_by_gateway(
            settings,
            target.trace_id,
            action,
            by=options.by or who(),
            reason=options.reason,
            budget_usd=budget,
        )
    except CommandNotSent as error:
        raise Failure(str(error)) from None
    echo(
        f"sent {action} to run {target.trace_id[:8]} by {settings.endpoint}; "
        "it applies when the run's next step begins"
    )


def _report(reader: AcknowledgementReader, command: Command, wait_s: float, began: float) -> None:
    """Wait for the acknowledgement and print it."""
    from stepstream.cli import printing
    from stepstream.schemas.formatting import format_duration

    step = reader.wait(command, wait_s)
    took = format_duration(round((time.monotonic() - began) * 1e6))
    if step is None:
        printing.note(
            f"no acknowledgement within {took}: the run applies the command when its next step "
            "begins, if it listens; `stepstream trace` shows it"
        )
    elif step.get("status", "ok") != "ok":
        printing.note("the run ended before it received the command")
    elif command.action == "pause":
        echo(
            f"acknowledged after {took}; its next step waits for "
            f"`stepstream resume {command.trace_id[:8]}`"
        )
    else:
        echo(f"acknowledged after {took}")


def _target(settings: Settings, run: str | None, last: bool, scope: Scope) -> Target:
    """The run with this id or beginning of an id, or with ``last`` the newest one of the scope.

    A run that is not in the store must be named by its full id.
    """
    from stepstream.admin.commands import Target
    from stepstream.cli import queries
    from stepstream.schemas.ids import TRACE_ID

    if (run is None) == (not last):
        raise Failure("name one run: its id (or a unique beginning of it), or --last", USAGE)
    is_full = run is not None and TRACE_ID.fullmatch(run) is not None
    # Stopping a run must not depend on the store: agents and workers need only Kafka for it.
    if run is not None and is_full and not settings.clickhouse_url:
        return Target(run)
    with queries.store(settings) as client:
        if run is None:
            trace_id = queries.last_run(client, scope)
        else:
            trace_id = run if is_full else queries.find_run(client, run)
        sql = (
            "SELECT root_step_id, project, environment, agent, agent_version, task, status "
            "FROM runs WHERE trace_id = {id:String}"
        )
        found = queries.records(client, sql, {"id": trace_id})
    if not found:
        return Target(trace_id)
    status = found[0].pop("status")
    # No agent would acknowledge it, and the command would wait for nothing.
    if status != "running":
        raise Failure(f"run {trace_id[:8]} has ended ({status}): it takes no commands")
    return Target(trace_id, **found[0])


def _duration(text: str, option: str) -> int:
    from stepstream.schemas.durations import parse_duration_us

    try:
        return parse_duration_us(text)
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from None
