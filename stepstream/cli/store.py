"""``stepstream store``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stepstream.cli import errors
from stepstream.cli.common import CLICKHOUSE, takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

RETENTION = ("steps_retention_days", "runs_retention_days", "alerts_retention_days")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    store = typer.Typer(no_args_is_help=True, help="Prepare the ClickHouse database.")
    store.command("migrate")(migrate)
    store.command("status")(status)
    app.add_typer(store, name="store", rich_help_panel="Check and prepare")


@takes(*CLICKHOUSE, *RETENTION)
def migrate(settings: Settings) -> None:
    """Make the database's tables and views, or bring them up to date. Safe to repeat, and from several places at once."""
    from stepstream.settings import require_clickhouse
    from stepstream.sinks.clickhouse import migrate as bring_up_to_date

    require_clickhouse(settings)
    report = bring_up_to_date(settings)
    for what, names in (("applied", report.applied), ("view", report.views), ("retention", report.retention)):
        for name in names:
            print(f"{what} {name}")
    print(f"database {report.database} is at version {report.version}{'' if report.changed else ', nothing was to be done'}")


@takes(*CLICKHOUSE, *RETENTION)
def status(settings: Settings) -> None:
    """Say whether the database is up to date; exit code 1 when it is not."""
    from stepstream.settings import require_clickhouse
    from stepstream.sinks.clickhouse import status as read_status

    require_clickhouse(settings)
    found = read_status(settings)
    print(f"database {found.database} {f'is at version {found.version}' if found.exists else 'does not exist'}")
    for name in found.pending:
        print(f"pending {name}")
    for name in found.newer:
        print(f"newer than this program {name}")
    for name in found.outdated_views:
        print(f"outdated view {name}")
    for name, (there, wanted) in found.retention.items():
        print(f"retention of {name}: {there} days, wanted {wanted}")
    if not found.current:
        raise typer.Exit(errors.FAILED)
