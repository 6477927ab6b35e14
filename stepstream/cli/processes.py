"""``stepstream worker`` and ``stepstream sink``: one process of the pipeline each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli.common import CLICKHOUSE, KAFKA, takes

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

LifelineOption = Annotated[bool, typer.Option("--lifeline", hidden=True, help="End when standard input closes.")]

WORKER = (
    "worker_group",
    "close_after",
    "rootless_idle",
    "stuck_after",
    "max_run_age",
    "late_horizon",
    "revision_interval",
    "max_steps_per_run",
    "max_open_runs",
    "replay_records",
    "session_timeout",
)
SINK = (
    "sink_group",
    "sink_batch_rows",
    "sink_batch_bytes",
    "sink_batch_interval",
    "steps_retention_days",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("worker", rich_help_panel="Run")(worker)
    app.command("sink", rich_help_panel="Run")(sink)


@takes(*KAFKA, *WORKER)
def worker(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a worker: steps in, trajectories and alerts out.

    Start more of them to share the partitions. SIGTERM and Ctrl-C let it finish what it holds; after a kill it goes on
    from the log.
    """
    _follow(lifeline)
    from stepstream.settings import require_kafka

    require_kafka(settings)
    from stepstream.stream.worker import run

    raise typer.Exit(run(settings))


@takes(*KAFKA, *CLICKHOUSE, *SINK)
def sink(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a sink: Kafka to ClickHouse.

    Start more of them to share the partitions. SIGTERM and Ctrl-C let it finish what it holds; after a kill it goes on
    from the log. The tables are made by `stepstream store migrate`.
    """
    _follow(lifeline)
    from stepstream.settings import require_clickhouse, require_kafka

    require_kafka(settings)
    require_clickhouse(settings)
    from stepstream.sinks.clickhouse.sink import run

    raise typer.Exit(run(settings))


def _follow(lifeline: bool) -> None:
    if lifeline:
        from stepstream.lifeline import follow_parent

        follow_parent()
