"""``stepstream stop``, ``pause``, ``resume`` and ``approve``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli.common import CLICKHOUSE, KAFKA, takes
from stepstream.cli.errors import USAGE, Failure
from stepstream.common.terminal import say
from stepstream.schemas.printable import printable
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.admin.orders import Obedience, Target
    from stepstream.schemas.alert import Command, CommandAction

PANEL = "Act"
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="The run's id, or a beginning of it that is unique."),
]
LastOption = Annotated[
    bool,
    typer.Option("--last", help="The newest run; with --agent or --project: the newest of these."),
]
AgentOption = Annotated[str | None, typer.Option(help="All runs of this agent.")]
ProjectOption = Annotated[
    str | None, typer.Option(help="All runs of this project; with --agent: of the agent in it.")
]
EnvironmentOption = Annotated[
    str | None, typer.Option(help="With --agent or --project: only in this environment.")
]
ReasonOption = Annotated[
    str, typer.Option(help="Why: the agent, the trajectory and the audit say so.")
]
ByOption = Annotated[
    str, typer.Option("--by", help="In whose name; default: you, at this machine.")
]
ForOption = Annotated[
    str,
    typer.Option(
        "--for",
        metavar="DURATION",
        help="With --agent or --project: runs that start within this are bound too.",
    ),
]
YesOption = Annotated[
    bool, typer.Option("--yes", "-y", help="With --agent or --project: do not ask.")
]
WaitOption = Annotated[
    str,
    typer.Option(metavar="DURATION", help="How long to wait for the run to obey; 0: not at all."),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (stop, pause, resume, approve):
        app.command(rich_help_panel=PANEL)(command)


@takes(*KAFKA, *CLICKHOUSE)
def stop(
    settings: Settings,
    run: RunArgument = None,
    *,
    last: LastOption = False,
    agent: AgentOption = None,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    reason: ReasonOption = "",
    by: ByOption = "",
    lasts: ForOption = "5m",
    yes: YesOption = False,
    wait: WaitOption = "10s",
) -> None:
    """Stop a run, or all runs of an agent or project: the next step that it begins raises RunStopped."""
    _order(settings, "stop", run, last, agent, project, environment, reason, by, lasts, yes, wait)


@takes(*KAFKA, *CLICKHOUSE)
def pause(
    settings: Settings,
    run: RunArgument = None,
    *,
    last: LastOption = False,
    agent: AgentOption = None,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    reason: ReasonOption = "",
    by: ByOption = "",
    lasts: ForOption = "5m",
    yes: YesOption = False,
    wait: WaitOption = "10s",
) -> None:
    """Pause a run, or all runs of an agent or project: their next step waits until they are resumed."""
    _order(settings, "pause", run, last, agent, project, environment, reason, by, lasts, yes, wait)


@takes(*KAFKA, *CLICKHOUSE)
def resume(
    settings: Settings,
    run: RunArgument = None,
    *,
    last: LastOption = False,
    agent: AgentOption = None,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    reason: ReasonOption = "",
    by: ByOption = "",
    lasts: ForOption = "5m",
    yes: YesOption = False,
    wait: WaitOption = "10s",
) -> None:
    """Let paused runs go on: pauses and stops that were ordered before are void."""
    _order(settings, "resume", run, last, agent, project, environment, reason, by, lasts, yes, wait)


@takes(*KAFKA, *CLICKHOUSE)
def approve(
    settings: Settings,
    run: RunArgument = None,
    *,
    last: LastOption = False,
    budget: Annotated[
        str, typer.Option(metavar="USD", help="Dollars on top of what limits and budgets allow.")
    ] = "",
    reason: ReasonOption = "",
    by: ByOption = "",
    wait: WaitOption = "10s",
) -> None:
    """Let a run go on with more budget: its limit is raised, orders from before are void."""
    from stepstream.schemas.money import amount_nanos

    try:
        good = amount_nanos(budget.removeprefix("$")) > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise Failure(
            f"--budget {budget or '(none)'}: say how many dollars are approved on top, such as --budget 5",
            USAGE,
        )
    _order_run(
        settings, "resume", _target(settings, run, last), reason, by, wait, budget.removeprefix("$")
    )


def _order(
    settings: Settings,
    action: CommandAction,
    run: str | None,
    last: bool,
    agent: str | None,
    project: str | None,
    environment: str | None,
    reason: str,
    by: str,
    lasts: str,
    yes: bool,
    wait: str,
) -> None:
    many = agent is not None or project is not None
    if last:
        scope = {"project": project, "environment": environment, "agent": agent}
        _order_run(settings, action, _target(settings, run, last, **scope), reason, by, wait)
        return
    if run is not None and many:
        raise Failure(
            f"say what to {action}: the run {run}, or all runs of an agent or project, not both",
            USAGE,
        )
    if run is not None:
        _order_run(settings, action, _target(settings, run, last), reason, by, wait)
        return
    if not many:
        raise Failure(
            f"say what to {action}: a run (its id, or --last), or --agent, or --project", USAGE
        )
    project = project if project is not None else settings.project
    what = f"all runs of {f'agent {agent} in ' if agent else ''}project {project}"
    what += f" ({environment})" if environment else ""
    if not yes and not _confirmed(f"{action} {what}?"):
        raise Failure("nothing was ordered; --yes orders without asking")
    _order_scope(settings, action, project, agent or "", environment or "", what, reason, by, lasts)


def _confirmed(question: str) -> bool:
    """Whether the person says yes; no where nobody can answer, such as in a script."""
    try:
        return typer.confirm(printable(question))
    except typer.Abort:
        if sys.stdin.isatty():
            raise  # Ctrl-C
        say("")
        return False


def _order_scope(
    settings: Settings,
    action: CommandAction,
    project: str,
    agent: str,
    environment: str,
    what: str,
    reason: str,
    by: str,
    lasts: str,
) -> None:
    from stepstream.admin.orders import order_to_scope, who
    from stepstream.schemas.formatting import format_duration

    _require(settings)
    lasts_us = _duration(lasts, "--for")
    if lasts_us > settings.control_lookback:
        most = format_duration(settings.control_lookback)
        raise Failure(
            f"--for {lasts}: agents read orders from {most} back, so that is the longest", USAGE
        )
    order_to_scope(
        settings, action, project=project, agent=agent, environment=environment, by=by or who(), reason=reason,
        now_us=time.time_ns() // 1_000, lasts_us=lasts_us,
    )  # fmt: skip
    say(
        f"ordered {what} to {action}; runs that start within {format_duration(lasts_us)} are bound too"
    )


def _order_run(
    settings: Settings,
    action: CommandAction,
    target: Target,
    reason: str,
    by: str,
    wait: str,
    budget: str = "",
) -> None:
    from stepstream.admin.orders import Obedience, order_to_run, who

    _require(settings)
    wait_s = _duration(wait, "--wait") / 1e6
    obedience = Obedience(settings, target.trace_id) if wait_s else None
    began = time.monotonic()
    try:
        command = order_to_run(
            settings,
            target,
            action,
            by=by or who(),
            reason=reason,
            budget_usd=budget,
            now_us=time.time_ns() // 1_000,
        )
        say(f"ordered run {target.trace_id[:8]} to {'go on' if action == 'resume' else action}")
        if obedience is not None:
            _tell(obedience, command, wait_s, began)
    finally:
        if obedience is not None:
            obedience.close()


def _tell(obedience: Obedience, command: Command, wait_s: float, began: float) -> None:
    from stepstream.cli import printing
    from stepstream.schemas.formatting import format_duration

    step = obedience.wait(command, wait_s)
    took = format_duration(round((time.monotonic() - began) * 1e6))
    if step is None:
        printing.note(
            f"no answer within {took}: it obeys when it begins its next step, if it listens; `stepstream trace` shows it"
        )
    elif step.get("status", "ok") != "ok":
        printing.note("the run was over before it could obey")
    elif command.action == "pause":
        say(
            f"got it after {took}; its next step waits for `stepstream resume {command.trace_id[:8]}`"
        )
    else:
        say(f"obeyed after {took}")


def _target(settings: Settings, run: str | None, last: bool, **scope: Any) -> Target:
    """The run that is meant; ``last``: the newest one of the scope. One that the store does not know must be named in full."""
    from stepstream.admin.orders import Target
    from stepstream.cli import queries
    from stepstream.schemas.ids import TRACE_ID

    if (run is None) == (not last):
        raise Failure("say which run: its id (or a unique beginning of it), or --last", USAGE)
    if run is not None and TRACE_ID.fullmatch(run) and not settings.clickhouse_url:
        return Target(run)
    with queries.store(settings) as client:
        if run is not None and TRACE_ID.fullmatch(run):
            trace_id = run
        else:
            wanted = queries.Scope(limit=1, **scope)
            trace_id = (
                queries.last_run(client, wanted) if run is None else queries.find_run(client, run)
            )
        sql = (
            "SELECT root_step_id, project, environment, agent, agent_version, task, status "
            "FROM runs WHERE trace_id = {id:String}"
        )
        found = queries.records(client, sql, {"id": trace_id})
    if found and found[0]["status"] != "running":
        raise Failure(
            f"run {trace_id[:8]} is over ({found[0]['status']}): there is nothing to order"
        )
    return (
        Target(trace_id, **{k: v for k, v in found[0].items() if k != "status"})
        if found
        else Target(trace_id)
    )


def _require(settings: Settings) -> None:
    from stepstream.common.settings import require_kafka

    require_kafka(settings)


def _duration(text: str, option: str) -> int:
    from stepstream.schemas.durations import parse_duration_us

    try:
        return parse_duration_us(text)
    except ValueError as error:
        raise Failure(f"{option}: {error}", USAGE) from None
