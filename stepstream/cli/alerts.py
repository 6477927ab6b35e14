"""``stepstream alerts``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli.common import CLICKHOUSE, KAFKA, Format, FormatOption, one_of, takes
from stepstream.cli.look import (
    PANEL,
    AgentOption,
    EnvironmentOption,
    LimitOption,
    ProjectOption,
    SinceOption,
)
from stepstream.common.terminal import say, say_json
from stepstream.schemas.alert import SEVERITIES, TIME_FIELDS, Alert
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import time_of

if TYPE_CHECKING:
    from stepstream.cli.queries import Scope


HELP = "List alerts, the newest last, or follow them; acknowledge, silence, resolve."
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Wait for alerts and show them as they come.")
]
AlertOption = Annotated[str | None, typer.Option(help="Only alerts of this name.")]
StateOption = Annotated[str | None, typer.Option(help="Only those that are firing, or resolved.")]
SeverityOption = Annotated[
    str | None, typer.Option(help=f"Only this severity: {', '.join(SEVERITIES)}.")
]


def register(app: typer.Typer) -> None:
    """Add the commands. Without one of its own, ``alerts`` lists."""
    from stepstream.cli import alert_commands

    group = typer.Typer(help=HELP)
    group.callback(invoke_without_command=True, help=HELP)(alerts)
    group.command("list")(show_list)
    for command in (
        alert_commands.show,
        alert_commands.ack,
        alert_commands.silence,
        alert_commands.resolve,
    ):
        group.command(command.__name__)(command)
    app.add_typer(group, name="alerts", rich_help_panel=PANEL)


@takes(*KAFKA, *CLICKHOUSE)
def alerts(
    settings: Settings,
    context: typer.Context,
    *,
    follow: FollowOption = False,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    agent: AgentOption = None,
    alert: AlertOption = None,
    severity: SeverityOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """List, or a command of the group."""
    if context.invoked_subcommand is None:
        _list(
            settings,
            follow,
            project,
            environment,
            agent,
            alert,
            severity,
            state,
            since,
            limit,
            format,
        )


@takes(*KAFKA, *CLICKHOUSE)
def show_list(
    settings: Settings,
    *,
    follow: FollowOption = False,
    project: ProjectOption = None,
    environment: EnvironmentOption = None,
    agent: AgentOption = None,
    alert: AlertOption = None,
    severity: SeverityOption = None,
    state: StateOption = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """List alerts, the newest last, or follow them as they come (with --since: after those since then)."""
    _list(
        settings, follow, project, environment, agent, alert, severity, state, since, limit, format
    )


def _list(
    settings: Settings,
    follow: bool,
    project: str | None,
    environment: str | None,
    agent: str | None,
    alert: str | None,
    severity: str | None,
    state: str | None,
    since: str | None,
    limit: int,
    format: Format,
) -> None:
    from stepstream.cli import queries

    one_of("--severity", severity, SEVERITIES)
    one_of("--state", state, ("firing", "resolved"))
    scope = queries.Scope(
        project=project,
        environment=environment,
        agent=agent,
        alert=alert,
        severity=severity,
        state=state,
        since=queries.parse_since(since, datetime.now(UTC)),
        limit=limit,
    )
    if follow:
        _follow(settings, scope, format)
        return
    with queries.store(settings) as client:
        _print_history(queries.list_alerts(client, scope), format)


def _print_history(found: list[Alert], format: Format) -> None:
    from stepstream.cli import printing

    if format is not Format.TABLE:
        printing.print_records(
            list(Alert.model_fields), [list(plain(one).values()) for one in found], format
        )
    elif found:
        _print_lines(found, history=True)
    else:
        printing.note("no alerts")


def _follow(settings: Settings, scope: Scope, format: Format) -> None:
    """First what the store holds, where a time was asked for, then what comes; an alert that is in both is shown once."""
    from stepstream.cli import queries
    from stepstream.cli.errors import Failure
    from stepstream.common.settings import require_kafka
    from stepstream.sinks.subscribe import NoAlertsTopic, subscribe

    require_kafka(settings)
    names = ("project", "environment", "agent", "alert", "severity")
    wanted = {name: getattr(scope, name) for name in names if getattr(scope, name) is not None}
    try:
        coming = subscribe(settings=settings, **wanted)
    except NoAlertsTopic as error:
        raise Failure(str(error)) from None
    with coming:
        shown: dict[str, int] = {}
        if scope.since is not None:
            with queries.store(settings) as client:
                history = queries.list_alerts(client, scope)
            shown = {alert.alert_id: alert.seq for alert in history}
            for alert in history:
                _print_one(alert, format)
        for alert in coming:
            if alert.seq > shown.get(alert.alert_id, 0) and scope.state in (None, alert.state):
                _print_one(alert, format)


def _print_one(alert: Alert, format: Format) -> None:
    """One alert, at once: as two lines, as a line of JSON or of CSV."""
    from stepstream.render.tables import records_csv, records_json

    if format is Format.TABLE:
        _print_lines([alert], history=False)
        return
    columns, row = list(Alert.model_fields), list(plain(alert).values())
    if format is Format.JSON:
        say_json(records_json(columns, [row])[1:-1])
    else:
        say(records_csv(columns, [row]).split("\n", 1)[1])


def _print_lines(found: Sequence[Alert], *, history: bool) -> None:
    """Two lines an alert; in a history a heading for each day."""
    from rich.text import Text

    from stepstream.cli import printing
    from stepstream.render.alerts import HANGING_CELLS, alert_lines
    from stepstream.render.values import format_time, zone_name

    lines, day = [], ""
    for alert in found:
        date = format_time(alert.opened_at)[:10]
        if history and date != day:
            day = date
            lines.append(Text(f"{date} ({zone_name(alert.opened_at)})", style="bold"))
        lines.append(alert_lines(alert, glyphs=printing.glyphs(), history=history))
    printing.show_folded(Text("\n").join(lines), indent=HANGING_CELLS)


def plain(alert: Alert) -> dict[str, object]:
    """The alert with its times as times."""
    fields = alert.model_dump()
    for name in TIME_FIELDS:
        fields[name] = time_of(fields[name]) if fields[name] else None
    return fields
