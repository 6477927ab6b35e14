"""``stepstream up``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli.options import takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("up", rich_help_panel="Run")(up)


# The processes that `up` starts get all of its settings, so it has the flags of all of them.
@takes(
    "up", "kafka", "clickhouse", "topics", "store", "worker", "sink", "notify", "gateway", "console"
)
def up(
    settings: Settings,
    policies: Annotated[
        Path | None,
        typer.Option(
            "--policies",
            metavar="DIR",
            help="Watch this directory of policies and other documents; the same as "
            "--documents-dir.",
        ),
    ] = None,
) -> None:
    """Run the whole pipeline on this machine: engines, processes, gateway, console.

    The engines are Kafka and ClickHouse, the processes worker, notifier and sink. Nothing else
    needs to be installed. Data is stored in --data-dir and survives a restart and a kill; a power
    failure can lose what the operating system had not written yet. Agents and commands of this user
    find the running `up` by themselves, with passwords that only this user can read
    (docs/security.md). Ctrl-C stops all processes after they have finished their work.

    With --kafka-brokers or --clickhouse-url those servers are used and not started here.

    With --policies the documents of a directory are applied, and again whenever a file changes.
    Documents of these files can only be changed there: other commands refuse and name the file.
    """
    # --policies is a name for the setting: everything below reads the setting only.
    if policies is not None:
        settings = settings.model_copy(update={"documents_dir": str(policies)})
    from stepstream.local.up import run

    raise typer.Exit(run(settings))
