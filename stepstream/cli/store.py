"""``stepstream store``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import CLICKHOUSE, KAFKA, Format, FormatOption, print_rows, takes
from stepstream.common.terminal import say
from stepstream.schemas.formatting import format_number_of

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

RETENTION = (
    "steps_retention_days",
    "runs_retention_days",
    "alerts_retention_days",
    "metrics_retention_days",
    "retention_by_project",
)
SCHEMA = (*RETENTION, "text_search", "clickhouse_cluster")

Place = Annotated[
    str,
    typer.Argument(
        metavar="PLACE",
        help="A name in the server's folder of backups, disk:DISK/PATH of the server, or the URL of an S3 bucket.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    store = typer.Typer(
        no_args_is_help=True, help="Prepare the ClickHouse database, check it, back it up."
    )
    for command in (migrate, status, url, reconcile, backup, restore):
        store.command(command.__name__)(command)
    app.add_typer(store, name="store", rich_help_panel="Check and prepare")


@takes(*CLICKHOUSE, *SCHEMA)
def migrate(settings: Settings) -> None:
    """Make the database's tables and views, bring them up to date, and make again what is missing.

    Compared are tables, columns, indexes, views and materialized views. Rows that are there stay as they are. Safe to repeat,
    and from several places at once.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse import migrate as bring_up_to_date

    require_clickhouse(settings)
    report = bring_up_to_date(settings)
    done = {
        "made again:": report.repaired,
        "note:": report.notes,
        "applied": report.applied,
        "view": report.views,
        "changed:": report.changes,
        "left as it is:": report.wrong,
    }
    for what, names in done.items():
        for name in names:
            say(f"{what} {name}")
    say(
        f"database {report.database} is at version {report.version}{'' if report.changed else ', nothing was to be done'}"
    )
    if report.wrong:
        raise typer.Exit(errors.FAILED)


@takes(*CLICKHOUSE, *SCHEMA)
def status(settings: Settings) -> None:
    """Say whether the database is up to date and nothing of it is missing; exit code 1 when it is not."""
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse import status as read_status

    require_clickhouse(settings)
    found = read_status(settings)
    say(
        f"database {found.database} {f'is at version {found.version}' if found.exists else 'does not exist'}"
    )
    for name in found.pending:
        say(f"pending {name}")
    for name in found.newer:
        say(f"newer than this program {name}")
    for name in found.outdated_views:
        say(f"missing or outdated view {name}")
    for other in (*found.lacks, *found.wrong, *found.differences):
        say(other)
    if found.current:
        say("everything is there and up to date")
        return
    say(
        "install the newer version of stepstream"
        if found.newer
        else "`stepstream store migrate` puts it right"
    )
    raise typer.Exit(errors.FAILED)


@takes(*CLICKHOUSE)
def url(
    settings: Settings,
    writer: Annotated[
        bool, typer.Option("--writer", help="The user that writes, not the one that only reads.")
    ] = False,
) -> None:
    """Print the store's URL with user and password, for clients that are not ours.

    Whoever has it may read all inputs and outputs, with --writer change them too. Examples are in docs/store.md.
    """
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.client import url_for_clients

    require_clickhouse(settings)
    say(url_for_clients(settings, writer=writer))


@takes(*CLICKHOUSE, *RETENTION)
def reconcile(
    settings: Settings,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Compare only; exit code 1 when something differs.")
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare the rollups behind metrics_1m and metrics_1h with the steps, day by day, and repair the days that differ.

    Looked at are the days before yesterday whose steps have not begun to expire. A day is repaired at one stroke; sinks
    may go on meanwhile. Run it once a day, or after something was put right by hand.
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
            f", {len(report.busy)} left out because steps are being added to them"
            if report.busy
            else ""
        )
        days, found = (
            format_number_of(report.days, "day"),
            format_number_of(len(rows), "difference"),
        )
        say(f"{days} from {report.first} to {report.last} compared: {found}{left_out}")
    if not report.exact:
        raise typer.Exit(errors.FAILED)


@takes(*CLICKHOUSE)
def backup(
    settings: Settings,
    place: Place,
    base: Annotated[
        str,
        typer.Option(
            metavar="PLACE", help="An earlier backup: only what changed since is written."
        ),
    ] = "",
) -> None:
    """Write a backup of the whole database. Sinks, workers and readers may go on meanwhile."""
    from stepstream.common.settings import require_clickhouse
    from stepstream.sinks.clickhouse.backup import backup as write

    require_clickhouse(settings)
    written = write(settings, place, base=base)
    say(
        f"database {settings.clickhouse_database} is backed up to {written.place}: "
        f"{format_number_of(written.files, 'file')}, {written.bytes:,} bytes"
    )


@takes(*CLICKHOUSE, *SCHEMA, *KAFKA, "sink_group", "sink_batch_rows", "data_dir", "kafka_jars_dir")
def restore(
    settings: Settings,
    place: Place,
    replace: Annotated[
        bool, typer.Option("--replace", help="Drop what is in the database first.")
    ] = False,
    source: Annotated[
        str,
        typer.Option(
            "--from-database",
            metavar="NAME",
            help="The database's name in the backup, where it was another.",
        ),
    ] = "",
) -> None:
    """Bring a backup back, bring it up to date, and let the sinks go on from where it ends.

    Stop the sinks first; on one machine stop `stepstream up`, and its Kafka and ClickHouse run for this command alone.
    What Kafka still holds of the time since the backup is stored again by the next sink; rollups are compared with the
    restored steps and repaired.
    """
    from stepstream.sinks.clickhouse.backup import restore as bring_back

    with _engines(settings) as running:
        report = bring_back(running, place, replace=replace, source=source)
    steps, runs = format_number_of(report.steps, "step"), format_number_of(report.runs, "run")
    say(f"database {settings.clickhouse_database} is restored: {steps}, {runs}")
    for name in report.applied:
        say(f"applied {name}")
    if report.repaired:
        say(f"built anew from the restored steps: {format_number_of(report.repaired, 'rollup')}")
    for (name, partition), offset in sorted(report.rewound.items()):
        say(f"sinks read {name} {partition} from offset {offset} on")
    if not running.kafka_brokers:
        say(
            "no Kafka is known: before a sink starts again, delete the offsets of its group, or steps since then are missing"
        )


@contextmanager
def _engines(settings: Settings) -> Iterator[Settings]:
    """The settings; where no store runs but there is one in the data folder, with its engines for as long."""
    from stepstream.common.settings import data_dir, require_clickhouse
    from stepstream.local.engines import Engines

    if settings.clickhouse_url or not (data_dir(settings) / "clickhouse").is_dir():
        require_clickhouse(settings)
        yield settings
        return
    engines = Engines(settings, lambda _who, _line: None, usual_ports=False)
    try:
        yield settings.model_copy(update=engines.start_kafka() | engines.start_clickhouse())
    finally:
        engines.stop()
