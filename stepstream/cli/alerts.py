"""``stepstream alerts``: list and follow alerts; acknowledge, silence, resolve, mark one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli.common import one_of
from stepstream.cli.errors import USAGE, Failure
from stepstream.cli.options import (
    AgentOption,
    ByOption,
    EnvironmentOption,
    Format,
    FormatOption,
    LimitOption,
    ProjectOption,
    SinceOption,
    takes,
)
from stepstream.common.terminal import echo, echo_csv, echo_json
from stepstream.schemas.alert import SEVERITIES, Alert
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.cli.queries import Scope
    from stepstream.schemas.alert_actions import Action

PANEL: Final = "Inspect"
HELP: Final = "List alerts, the newest last, or follow them; acknowledge, silence, resolve, mark."
# How long a command waits until the store has its change, so that the next command shows it.
STORED_S: Final = 5.0

IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Id of the alert, or a unique beginning of it.")
]


@dataclass(frozen=True)
class AlertFilter:
    """Which alerts are listed."""

    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Print alerts as they arrive, until Ctrl-C."),
    ] = False
    project: ProjectOption = None
    environment: EnvironmentOption = None
    agent: AgentOption = None
    alert: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only alerts with this name.")
    ] = None
    severity: Annotated[
        str | None,
        typer.Option(metavar="SEVERITY", help=f"Only this severity: {', '.join(SEVERITIES)}."),
    ] = None
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only this state: firing or resolved.")
    ] = None
    since: SinceOption = None
    limit: LimitOption = 50


def register(app: typer.Typer) -> None:
    """Add the commands. ``alerts`` without a subcommand lists."""
    group = typer.Typer(help=HELP)
    group.callback(invoke_without_command=True, help=HELP)(alerts)
    group.command("list")(show_list)
    for command in (show, ack, silence, resolve, mark):
        group.command(command.__name__)(command)
    app.add_typer(group, name="alerts", rich_help_panel=PANEL)


@takes("kafka", "clickhouse")
def alerts(
    settings: Settings,
    context: typer.Context,
    filter: AlertFilter,
    format: FormatOption = Format.TABLE,
) -> None:
    """List alerts unless a subcommand was given."""
    if context.invoked_subcommand is None:
        _list(settings, filter, format)


@takes("kafka", "clickhouse")
def show_list(settings: Settings, filter: AlertFilter, format: FormatOption = Format.TABLE) -> None:
    """List alerts, the newest last.

    With --follow: print alerts as they arrive; with --since as well, first those since then.
    """
    _list(settings, filter, format)


def _list(settings: Settings, filter: AlertFilter, format: Format) -> None:
    from stepstream.cli import queries

    one_of("--severity", filter.severity, SEVERITIES)
    one_of("--state", filter.state, ("firing", "resolved"))
    scope = queries.Scope(
        project=filter.project,
        environment=filter.environment,
        agent=filter.agent,
        alert=filter.alert,
        severity=filter.severity,
        state=filter.state,
        since=queries.parse_since(filter.since, datetime.now(UTC)),
        limit=filter.limit,
    )
    if filter.follow:
        _follow(settings, scope, format)
        return
    with queries.store(settings) as client:
        found = queries.list_alerts(client, scope)
        # Only the table shows them.
        ids = [one.alert_id for one in found] if format is Format.TABLE else []
        _print_history(found, format, queries.alert_marks(client, ids))


@takes("kafka", "clickhouse")
def show(settings: Settings, alert: IdArgument, format: FormatOption = Format.TABLE) -> None:
    """Show an alert and its history: every change, its time and who made it."""
    from stepstream.cli import printing, queries
    from stepstream.render.alerts import HANGING_CELLS, alert_lines

    with queries.store(settings) as client:
        found = queries.find_alert(client, alert)
        history = queries.alert_history(client, found.alert_id)
        marks = queries.alert_marks(client, [found.alert_id])
    if format is not Format.TABLE:
        _print_records(history, format)
        return
    printing.show_folded(
        alert_lines(found, glyphs=printing.glyphs(), history=True), indent=HANGING_CELLS
    )
    echo(*_about(found), *_mark_lines(marks), *map(_event, history))


@takes("kafka", "clickhouse")
def ack(settings: Settings, alert: IdArgument, by: ByOption = "") -> None:
    """Acknowledge an alert: it stays firing, and repeat notifications stop."""
    _act(settings, alert, "acknowledged", by)


@takes("kafka", "clickhouse")
def silence(
    settings: Settings,
    alert: IdArgument,
    lasts: Annotated[
        str,
        typer.Option("--for", metavar="DURATION", help="How long; 0 ends the silence."),
    ] = "1h",
    by: ByOption = "",
) -> None:
    """Send no notifications about an alert for some time.

    Further alerts with the same cause that open meanwhile are silenced as well.
    """
    from stepstream.schemas.durations import parse_duration_us

    try:
        lasts_us = parse_duration_us(lasts)
    except ValueError as error:
        raise Failure(f"--for: {error}", USAGE) from None
    # 0 is how alert_actions encodes the end of a silence.
    until_us = time.time_ns() // 1_000 + lasts_us if lasts_us else 0
    _act(settings, alert, "silenced", by, until_us=until_us)


@takes("kafka", "clickhouse")
def resolve(settings: Settings, alert: IdArgument, by: ByOption = "") -> None:
    """Resolve an alert. The next finding of the same condition opens it again."""
    _act(settings, alert, "resolved", by)


@takes("kafka", "clickhouse")
def mark(
    settings: Settings,
    alert: IdArgument,
    verdict: Annotated[
        str,
        typer.Argument(
            metavar="true|false", help="true: it reported a real problem; false: a false alarm."
        ),
    ],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="Why.")] = "",
    by: ByOption = "",
) -> None:
    """Mark an alert as right or as a false alarm; `stepstream policy suggest` uses the marks.

    A resolved alert can be marked too. The newest mark of an alert counts; SQL: alert_marks.
    """
    from stepstream.admin import alert_actions
    from stepstream.common.person import who
    from stepstream.common.settings import require_kafka

    one_of("true|false", verdict, ("true", "false"))
    require_kafka(settings)
    found, by = _find(settings, alert), by or who()
    alert_actions.mark(
        settings, found, right=verdict == "true", by=by, message=note.strip()[:1_000]
    )
    _wait_for_the_mark(settings, found, verdict)
    echo(f"{found.alert} {found.alert_id[:8]} marked {verdict} by {by}")


def _wait_for_the_mark(settings: Settings, alert: Alert, verdict: str) -> None:
    """Return when the store has the mark, at the latest after ``STORED_S``."""
    from stepstream.cli import queries

    if not settings.clickhouse_url:
        return
    deadline = time.monotonic() + STORED_S
    with queries.store(settings) as client:
        while time.monotonic() < deadline:
            found = queries.alert_marks(client, [alert.alert_id]).get(alert.alert_id)
            if found is not None and found["verdict"] == verdict:
                return
            time.sleep(0.1)


def _marked(mark: Mapping[str, Any] | None) -> str:
    from stepstream.render.values import one_line

    if mark is None:
        return ""
    note = f": {one_line(mark['note'])}" if mark["note"] else ""
    return f"marked {one_line(mark['verdict'])} by {one_line(mark['marked_by'])}{note}"


def _mark_lines(marks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [f"  {'mark':<13}{_marked(mark)}" for mark in marks.values()]


def _print_history(
    found: list[Alert], format: Format, marks: Mapping[str, Mapping[str, Any]]
) -> None:
    from stepstream.cli import printing

    if format is not Format.TABLE:
        _print_records(found, format)
    elif found:
        _print_lines(found, history=True, marks=marks)
    else:
        printing.note("no alerts")


def _print_records(found: Sequence[Alert], format: Format) -> None:
    from stepstream.cli import printing
    from stepstream.cli.queries import alert_record

    rows = [list(alert_record(one).values()) for one in found]
    printing.print_records(list(Alert.model_fields), rows, format)


def _follow(settings: Settings, scope: Scope, format: Format) -> None:
    """Print alerts as they arrive; with a time, first those in the store since then."""
    from stepstream.cli import queries
    from stepstream.common.settings import require_kafka
    from stepstream.sinks.subscribe import NoAlertsTopic, subscribe

    require_kafka(settings)
    names = ("project", "environment", "agent", "alert", "severity")
    wanted = {name: getattr(scope, name) for name in names if getattr(scope, name) is not None}
    try:
        coming = subscribe(settings=settings, **wanted)
    except NoAlertsTopic as error:
        raise Failure(str(error)) from None
    # Subscribed before the store is read, so that nothing is missed in between.
    with coming:
        # An alert may be in the store and arrive as well: only a higher seq is a change.
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
    """Print one alert and flush: as two lines, or as a line of JSON or CSV."""
    from stepstream.cli.queries import alert_record
    from stepstream.render.tables import records_csv, records_json

    if format is Format.TABLE:
        _print_lines([alert], history=False)
        return
    columns, row = list(Alert.model_fields), list(alert_record(alert).values())
    if format is Format.JSON:
        # Without the brackets of the array: with --follow each line is a JSON object (JSON Lines).
        echo_json(records_json(columns, [row])[1:-1])
    else:
        echo_csv(records_csv(columns, [row]).split("\n", 1)[1])


def _print_lines(
    found: Sequence[Alert],
    *,
    history: bool,
    marks: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> None:
    """Two lines an alert; a history has a heading for each day."""
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
        remark = _marked(marks.get(alert.alert_id))
        lines.append(alert_lines(alert, glyphs=printing.glyphs(), history=history, remark=remark))
    printing.show_folded(Text("\n").join(lines), indent=HANGING_CELLS)


def _of_policy(alert: Alert) -> str:
    if not alert.policy:
        return ""
    revision = f", revision {alert.policy_revision}" if alert.policy_revision else ""
    return f" of policy {alert.policy}{revision}"


def _about(alert: Alert) -> list[str]:
    from stepstream.render.values import one_line

    rows = {
        "id": alert.alert_id,
        "project": f"{alert.project}{f' ({alert.environment})' if alert.environment else ''}",
        "rule": f"{alert.rule}{_of_policy(alert)}",
        "about": alert.subject,
        "run": alert.trace_id,
        "runs": f"{alert.runs}, such as run {', '.join(one[:8] for one in alert.trace_ids[:5])}"
        if alert.runs
        else "",
        "part of": f"incident {alert.incident_id[:8]}" if alert.incident_id else "",
        "steps": ", ".join(alert.step_ids[:5]),
        "acknowledged": f"by {alert.acknowledged_by}" if alert.acknowledged_by else "",
        "came back": f"{alert.reopened} times" if alert.reopened else "",
    }
    return [f"  {name:<13}{one_line(text)}" for name, text in rows.items() if text]


def _event(event: Alert) -> str:
    from stepstream.render.values import format_time, one_line
    from stepstream.schemas.alert_text import with_quotation

    by = (
        f" by {event.by}"
        if event.by and event.change in ("acknowledged", "silenced", "resolved")
        else ""
    )
    until = (
        f" until {format_time(event.silenced_until)}"
        if event.change == "silenced" and event.silenced_until
        else ""
    )
    sentence = with_quotation(one_line(event.message), one_line(event.quoted))
    change = (
        "no longer silenced"
        if event.change == "silenced" and not event.silenced_until
        else event.change
    )
    return f"  {event.seq:>4}  {format_time(event.updated_at)}  {change}{by}{until}: {sentence}"


def _act(settings: Settings, prefix: str, action: Action, by: str, *, until_us: int = 0) -> None:
    from stepstream.admin.alert_actions import NotTaken, act
    from stepstream.common.person import who
    from stepstream.common.settings import require_kafka
    from stepstream.render.values import format_time

    require_kafka(settings)
    # The full alert is read first: its project is the key under which the action is written.
    found = _find(settings, prefix)
    if found.state != "firing":
        raise Failure(
            f"alert {found.alert_id[:8]} ({found.alert} of {found.agent or found.project}) is "
            "resolved already"
        )
    try:
        now = act(settings, found, action, by=by or who(), until_us=until_us)
    except NotTaken as error:
        raise Failure(str(error)) from None
    until = f" until {format_time(until_us)}" if until_us else ""
    what = "no longer silenced" if action == "silenced" and not until_us else f"{action}{until}"
    echo(f"{now.alert} {now.alert_id[:8]} {what} by {now.by}")
    _wait_for_the_store(settings, now)


def _wait_for_the_store(settings: Settings, alert: Alert) -> None:
    """Return when the store has the change, at the latest after ``STORED_S``."""
    from stepstream.cli import queries

    # Nothing to wait for: `alerts` reads from the store, and there is none.
    if not settings.clickhouse_url:
        return
    deadline = time.monotonic() + STORED_S
    with queries.store(settings) as client:
        while time.monotonic() < deadline:
            if queries.find_alert(client, alert.alert_id).seq >= alert.seq:
                return
            time.sleep(0.1)


def _find(settings: Settings, prefix: str) -> Alert:
    """Read the alert from the store if there is one, else from the alerts topic."""
    from stepstream.admin.alert_actions import find_alert
    from stepstream.cli import queries

    # The store finds an id at once; the topic has to be read from its beginning.
    if settings.clickhouse_url:
        with queries.store(settings) as client:
            return queries.find_alert(client, prefix)
    found = find_alert(settings, prefix)
    if found is None:
        raise Failure(
            f"no single alert has an id that begins with {prefix}; "
            "`stepstream alerts --follow` prints ids"
        )
    return found
