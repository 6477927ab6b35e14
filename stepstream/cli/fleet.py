"""``stepstream fleet``: what the workers keep over many runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from stepstream.cli import errors
from stepstream.cli.common import KAFKA, Format, FormatOption, print_rows, takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


class What(StrEnum):
    """What is listed."""

    BUDGETS = "budgets"
    HOURS = "hours"
    BASELINES = "baselines"


EMPTY: Final = {
    What.BUDGETS: "no budgets: a policy with a rule `spend` makes some",
    What.HOURS: "no hours in this time",
    What.BASELINES: "no baselines yet: they are learnt from closed runs",
}


LEAVE: Final = (
    "as_of",
    "environment",
    "agent_version",
    "window",
    "per",
    "project",
    "policy",
    "user_id",
    "error_steps",
)
KEEP: Final = (
    "alert",
    "group",
    "spent_usd",
    "limit_usd",
    "share",
    "agent",
    "runs",
    "cost_usd",
    "state",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("fleet", rich_help_panel="Look")(fleet)


@takes(*KAFKA)
def fleet(
    settings: Settings,
    what: Annotated[What, typer.Argument(help="What to list.")] = What.BUDGETS,
    *,
    project: Annotated[str, typer.Option(help="Only this project's.")] = "",
    since: Annotated[str, typer.Option(help="How far back hours are listed.")] = "24h",
    limit: Annotated[int, typer.Option(help="How many at most.")] = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show budgets, sealed hours and baselines, as the workers keep them.

    Budgets count up to the last sealed part of an hour; a finding comes as soon as one is exceeded. A limit that was put in
    force just now is listed at once, without an amount.
    """
    from stepstream.admin import fleet as fleet_topic
    from stepstream.common.settings import require_kafka
    from stepstream.schemas.durations import parse_duration_us

    require_kafka(settings)
    now_us = time.time_ns() // 1_000
    columns: Sequence[str]
    if what is What.BUDGETS:
        columns, rows = fleet_topic.BUDGETS, _budgets(settings, now_us)
    elif what is What.HOURS:
        try:
            since_us = now_us - parse_duration_us(since)
        except ValueError as error:
            raise errors.Failure(f"--since: {error}", errors.USAGE) from None
        columns, rows = (
            fleet_topic.HOURS,
            fleet_topic.hour_rows(fleet_topic.read_fleet(settings, "window"), since_us),
        )
    else:
        columns, rows = (
            fleet_topic.BASELINES,
            fleet_topic.baseline_rows(fleet_topic.read_fleet(settings, "baseline")),
        )
    place = columns.index("project")
    shown = [row for row in rows if project in ("", row[place])][:limit]
    print_rows(columns, shown, format, empty=EMPTY[what], leave=LEAVE, keep=KEEP)


def _budgets(settings: Settings, now_us: int) -> list[tuple[Any, ...]]:
    """Budgets with what was spent, and limits that are in force and of which nothing is counted yet."""
    from stepstream.admin import documents
    from stepstream.admin import fleet as fleet_topic
    from stepstream.schemas.documents import AlertMatch, WrongDocument, decode_document
    from stepstream.schemas.policy import Policy
    from stepstream.sinks.notify import latest_records

    policies = []
    for held in documents.in_force(settings).values():
        with contextlib.suppress(WrongDocument):
            document = decode_document(held.value)
            policies += [document] if isinstance(document, Policy) else []
    counted = fleet_topic.budget_rows(fleet_topic.read_fleet(settings, "budget"), now_us)
    firing = latest_records.list_alerts(
        settings, AlertMatch(rule="spend"), state="firing", limit=10_000
    )
    return [*counted, *fleet_topic.uncounted_rows(policies, firing, counted)]
