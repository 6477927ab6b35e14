"""``stepstream store``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo
from stepstream.schemas.formatting import format_number_of

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

Place = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="A name in the server's backup directory, disk:DISK/PATH of the server, or the URL of "
        "an S3 bucket.",
    ),
]


def register(app: typer.Typer) -> None:
    store = typer.Typer(
        no_args_is_help=True, help="Prepare the ClickHouse database: create tables, check, back up."
    )
    for command in (migrate, status, url, reconcile, backup, restore):
        store.command(command.__name__)(command)
    app.add_typer(store, name="store", rich_help_panel="Check and prepare")


@takes("clickhouse", "store")
def migrate(settings: Settings) -> None:
    """Create the tables and views, upgrade them, and create again what is missing.

    Compares tables, columns, indexes, views and materialized views. Existing rows are not changed.
    Safe to repeat, and to run from several places at once.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse import migrate as bring_up_to_date

    require_clickhouse(settings)
    report = bring_up_to_date(settings)
    made = {
        "created again:": report.repaired,
        "note:": report.notes,
        "applied": report.applied,
        "view": report.views,
        "changed:": report.changes,
        "not changed:": report.wrong,
    }
    for what, names in made.items():
        for name in names:
            echo(f"{what} {name}")
    done = "" if report.changed else "; nothing to do"
    echo(f"database {report.database} is at version {report.version}{done}")
    if report.wrong:
        raise typer.Exit(errors.FAILED)


@takes("clickhouse", "store")
def status(settings: Settings) -> None:
    """Check whether the database is complete and up to date; exit code 1 when it is not."""
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse import status as read_status

    require_clickhouse(settings)
    found = read_status(settings)
    state = f"is at version {found.version}" if found.exists else "does not exist"
    echo(f"database {found.database} {state}")
    for name in found.pending:
        echo(f"pending {name}")
    for name in found.newer:
        echo(f"newer than this program {name}")
    for name in found.outdated_views:
        echo(f"missing or outdated view {name}")
    for other in (*found.lacks, *found.wrong, *found.differences):
        echo(other)
    if found.current:
        echo("complete and up to date")
        return
    echo(
        "the database is newer: install that version of stepstream"
        if found.newer
        else "run `stepstream store migrate`"
    )
    raise typer.Exit(errors.FAILED)


@takes("clickhouse")
def url(
    settings: Settings,
    writer: Annotated[
        bool,
        typer.Option(
            "--writer", help="Use the user that writes instead of the one that only reads."
        ),
    ] = False,
) -> None:
    """Print the store's URL with user and password, for other ClickHouse clients.

    The URL gives access to all inputs and outputs; with --writer also to change them. docs/store.md
    has examples.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.client import url_for_clients

    require_clickhouse(settings)
    echo(url_for_clients(settings, writer=writer))


@takes("clickhouse", "store")
def reconcile(
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare only; exit code 1 when something differs.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare the rollups behind metrics_1m and metrics_1h with the steps, and repair them.

    Compares day by day: the days before yesterday whose steps have not begun to expire. A day is
    replaced atomically; sinks may run meanwhile. Run it once a day, or after a manual repair.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.reconcile import reconcile as compare

    require_clickhouse(settings)
    report = compare(settings, repair=not dry_run)
    columns = ("day", "rollup", "project", "steps", "steps in rollup", "repaired")
    rows = [
        (
            found.day,
            found.rollup,
            found.project,
            # The first number of each is the count of steps; a rollup without rows has none.
            (*found.rows, 0)[0],
            (*found.rolled_up, 0)[0],
            found.repaired,
        )
        for found in report.differences
    ]
    if rows or format is not Format.TABLE:
        print_rows(columns, rows, format)
    if format is Format.TABLE:
        left_out = (
            f", {len(report.busy)} skipped because steps are being added to them"
            if report.busy
            else ""
        )
        days, found = (
            format_number_of(report.days, "day"),
            format_number_of(len(rows), "difference"),
        )
        echo(f"{days} from {report.first} to {report.last} compared: {found}{left_out}")
    if not report.exact:
        raise typer.Exit(errors.FAILED)


@takes("clickhouse")
def backup(
    settings: Settings,
    place: Place,
    base: Annotated[
        str,
        typer.Option(metavar="PLACE", help="Earlier backup; only changes since then are written."),
    ] = "",
) -> None:
    """Back up the whole database. Sinks, workers and readers may run meanwhile."""
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.backup import backup as write

    require_clickhouse(settings)
    written = write(settings, place, base=base)
    echo(
        f"database {settings.clickhouse_database} is backed up to {written.place}: "
        f"{format_number_of(written.files, 'file')}, {written.bytes:,} bytes"
    )


@takes(
    "clickhouse",
    "store",
    "kafka",
    settings=["sink_group", "sink_batch_rows", "data_dir", "kafka_jars_dir"],
)
def restore(
    settings: Settings,
    place: Place,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop the existing database first.")
    ] = False,
    source: Annotated[
        str,
        typer.Option(
            "--from-database",
            metavar="NAME",
            help="Name of the database in the backup, if it was another.",
        ),
    ] = "",
) -> None:
    """Restore a backup, upgrade it, and reset the sinks' offsets to its end.

    Stop the sinks first. On one machine stop `stepstream up`; this command runs its Kafka and
    ClickHouse for as long as it needs them. The next sink stores again what Kafka still has since
    the backup. Aggregates are compared with the restored steps and repaired.
    """
    from stepstream.sinks.clickhouse.backup import restore as bring_back

    with _engines(settings) as running:
        report = bring_back(running, place, replace=replace, source=source)
    steps, runs = format_number_of(report.steps, "step"), format_number_of(report.runs, "run")
    echo(f"database {settings.clickhouse_database} is restored: {steps}, {runs}")
    for name in report.applied:
        echo(f"applied {name}")
    if report.repaired:
        echo(f"rebuilt from the restored steps: {format_number_of(report.repaired, 'rollup')}")
    for (name, partition), offset in sorted(report.rewound.items()):
        echo(f"sinks resume {name} {partition} at offset {offset}")
    # Without Kafka the offsets of the group stay after the backup's end, and the sink would skip
    # what lies between.
    if not running.kafka_brokers:
        echo(
            "kafka_brokers is not set: delete the offsets of the sinks' consumer group before a "
            "sink starts, else steps since the backup are missing"
        )


@contextmanager
def _engines(settings: Settings) -> Iterator[Settings]:
    """The settings, with running engines.

    If no store runs but the data directory has one, its Kafka and ClickHouse run for the duration.
    """
    from stepstream.common.settings import data_dir, require_clickhouse
    from stepstream.local.engines import Engines

    # A URL names a server that runs; without a data directory there is nothing to start.
    if settings.clickhouse_url or not (data_dir(settings) / "clickhouse").is_dir():
        require_clickhouse(settings)
        yield settings
        return
    # Other ports than `up` uses, so that no client connects to a database that is being restored.
    engines = Engines(settings, lambda _who, _line: None, usual_ports=False)
    try:
        yield settings.model_copy(update=engines.start_kafka() | engines.start_clickhouse())
    finally:
        engines.stop()
