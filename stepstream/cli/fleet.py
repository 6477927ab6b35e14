"""``stepstream fleet``: budgets, hours and baselines of many runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption, takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


class What(StrEnum):
    BUDGETS = "budgets"
    HOURS = "hours"
    BASELINES = "baselines"


EMPTY: Final = {
    What.BUDGETS: "no budgets: a policy with a rule `spend` creates one",
    What.HOURS: "no hours in this time",
    What.BASELINES: "no baselines yet: workers learn them from closed runs",
}


# Columns that a narrow terminal leaves out first; those of KEEP are never left out.
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
    app.command("fleet", rich_help_panel="Inspect")(fleet)


@takes("kafka")
def fleet(
    settings: Settings,
    what: Annotated[
        What, typer.Argument(metavar="[WHAT]", help="What to list: budgets, hours or baselines.")
    ] = What.BUDGETS,
    *,
    project: Annotated[str, typer.Option(metavar="NAME", help="Only this project.")] = "",
    since: Annotated[
        str, typer.Option(metavar="DURATION", help="How far back hours are listed.")
    ] = "24h",
    limit: Annotated[int, typer.Option(metavar="INT", help="Maximum number of rows.")] = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """Show the budgets, sealed hours and baselines that the workers maintain.

    The amounts of budgets include everything up to the last sealed part of an hour; a finding is
    written as soon as a budget is exceeded. A limit that has just been applied is listed without
    an amount.
    """
    from stepstream.admin import fleet as fleet_topic
    from stepstream.common.settings import require_kafka
    from stepstream.schemas.durations import parse_duration_us

    require_kafka(settings)
    now_us = time.time_ns() // 1_000
    columns: Sequence[str]
    if what is What.BUDGETS:
        columns, rows = fleet_topic.BUDGETS, fleet_topic.budgets(settings, now_us)
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
    # Filtered here: the topic is compacted and read as a whole, whichever project is asked for.
    place = columns.index("project")
    shown = [row for row in rows if project in ("", row[place])][:limit]
    print_rows(columns, shown, format, empty=EMPTY[what], leave=LEAVE, keep=KEEP)
