"""``stepstream alerts show``, ``ack``, ``silence`` and ``resolve``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepstream.cli.common import CLICKHOUSE, KAFKA, Format, FormatOption, takes
from stepstream.cli.errors import USAGE, Failure
from stepstream.common.terminal import say
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from stepstream.schemas.alert import Alert
    from stepstream.schemas.alert_actions import Action

STORED_S: Final = 5.0
IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The alert's id, or a beginning of it that is unique.")
]
ByOption = Annotated[
    str, typer.Option("--by", help="In whose name; default: you, at this machine.")
]


@takes(*KAFKA, *CLICKHOUSE)
def ack(settings: Settings, alert: IdArgument, *, by: ByOption = "") -> None:
    """Say that you look after an alert: it goes on firing, and nobody is told again that it does."""
    _act(settings, alert, "acknowledged", by)


@takes(*KAFKA, *CLICKHOUSE)
def silence(
    settings: Settings,
    alert: IdArgument,
    *,
    lasts: Annotated[
        str, typer.Option("--for", metavar="DURATION", help="How long; 0 ends a silence.")
    ] = "1h",
    by: ByOption = "",
) -> None:
    """Keep an alert quiet for a while, and what opens of the same trouble meanwhile."""
    from stepstream.schemas.durations import parse_duration_us

    try:
        lasts_us = parse_duration_us(lasts)
    except ValueError as error:
        raise Failure(f"--for: {error}", USAGE) from None
    until_us = time.time_ns() // 1_000 + lasts_us if lasts_us else 0
    _act(settings, alert, "silenced", by, until_us=until_us)


@takes(*KAFKA, *CLICKHOUSE)
def resolve(settings: Settings, alert: IdArgument, *, by: ByOption = "") -> None:
    """Say that a trouble is over; if it is not, the next finding opens the alert again."""
    _act(settings, alert, "resolved", by)


@takes(*KAFKA, *CLICKHOUSE)
def show(settings: Settings, alert: IdArgument, format: FormatOption = Format.TABLE) -> None:
    """Show an alert and its history: every change, when, by whom."""
    from stepstream.cli import printing, queries
    from stepstream.cli.alerts import plain
    from stepstream.render.alerts import HANGING_CELLS, alert_lines
    from stepstream.schemas.alert import Alert

    with queries.store(settings) as client:
        found = queries.find_alert(client, alert)
        history = queries.alert_history(client, found.alert_id)
    if format is not Format.TABLE:
        printing.print_records(
            list(Alert.model_fields), [list(plain(one).values()) for one in history], format
        )
        return
    printing.show_folded(
        alert_lines(found, glyphs=printing.glyphs(), history=True), indent=HANGING_CELLS
    )
    say(*_about(found), *map(_event, history))


def _about(alert: Alert) -> list[str]:
    from stepstream.render.values import one_line

    rows = {
        "id": alert.alert_id,
        "project": f"{alert.project}{f' ({alert.environment})' if alert.environment else ''}",
        "rule": f"{alert.rule}{f' of policy {alert.policy}' if alert.policy else ''}",
        "about": alert.subject,
        "run": alert.trace_id,
        "runs": f"{alert.runs}, such as {', '.join(one[:8] for one in alert.trace_ids[:5])}"
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
    from stepstream.schemas.alert import with_quotation

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
    from stepstream.admin.orders import who
    from stepstream.common.settings import require_kafka
    from stepstream.render.values import format_time

    require_kafka(settings)
    found = _find(settings, prefix)
    if found.state != "firing":
        raise Failure(
            f"alert {found.alert_id[:8]} is over ({found.alert} of {found.agent or found.project})"
        )
    try:
        now = act(settings, found, action, by=by or who(), until_us=until_us)
    except NotTaken as error:
        raise Failure(str(error)) from None
    until = f" until {format_time(until_us)}" if until_us else ""
    what = "no longer silenced" if action == "silenced" and not until_us else f"{action}{until}"
    say(f"{now.alert} {now.alert_id[:8]} {what} by {now.by}")
    _wait_for_the_store(settings, now)


def _wait_for_the_store(settings: Settings, alert: Alert) -> None:
    """Return once the store shows what was done, so that whoever looks next sees it; after a few seconds in any case."""
    from stepstream.cli import queries

    if not settings.clickhouse_url:
        return
    deadline = time.monotonic() + STORED_S
    with queries.store(settings) as client:
        while time.monotonic() < deadline:
            if queries.find_alert(client, alert.alert_id).seq >= alert.seq:
                return
            time.sleep(0.1)


def _find(settings: Settings, prefix: str) -> Alert:
    """From the store where there is one, else from the alerts topic itself."""
    from stepstream.admin.alert_actions import find_alert
    from stepstream.cli import queries

    if settings.clickhouse_url:
        with queries.store(settings) as client:
            return queries.find_alert(client, prefix)
    found = find_alert(settings, prefix)
    if found is None:
        raise Failure(
            f"not one alert has an id that begins with {prefix}; `stepstream alerts --follow` shows them"
        )
    return found
