"""``stepstream up``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from stepstream.cli.common import CLICKHOUSE, KAFKA, takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

UP = (
    "data_dir",
    "kafka_port",
    "kafka_auth",
    "clickhouse_port",
    "kafka_heap_mb",
    "kafka_jars_dir",
    "documents_dir",
    "partitions",
    "steps_topic_retention",
    "steps_retention_days",
    "runs_retention_days",
    "alerts_retention_days",
    "metrics_retention_days",
    "retention_by_project",
    "text_search",
    "metrics_port",
    "notify_port",
    "notify_allow_private",
    "notify_allow_commands",
    "notify_secrets_dir",
    "synthetic_runs",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", rich_help_panel="Run")(up)


@takes(*UP, *KAFKA, *CLICKHOUSE)
def up(settings: Settings) -> None:
    """Run everything on this machine: Kafka, ClickHouse, worker, notifier and sink.

    Nothing else needs to be installed. Data lies in --data-dir and is there again at the next start, also after a kill; a
    power cut can lose what the operating system had not written yet. Agents and commands of this user find it by
    themselves, with passwords that only this user can read (docs/security.md). Ctrl-C lets everything finish what it
    holds.

    With --kafka-brokers or --clickhouse-url those servers are used, and not started here.
    """
    from stepstream.local.up import run

    raise typer.Exit(run(settings))
