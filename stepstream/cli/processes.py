"""``stepstream worker``, ``stepstream sink`` and ``stepstream notify``: one process of the pipeline each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import CLICKHOUSE, KAFKA, one_of, takes
from stepstream.common.terminal import say

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

LifelineOption = Annotated[
    bool, typer.Option("--lifeline", hidden=True, help="End when standard input closes.")
]

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
    "dead_letter_limit",
    "watchdog",
    "session_timeout",
    "steps_retention_days",
    "retention_by_project",
)
SINK = (
    "sink_group",
    "sink_batch_rows",
    "sink_batch_bytes",
    "sink_batch_interval",
    "steps_retention_days",
    "runs_retention_days",
    "alerts_retention_days",
    "metrics_retention_days",
    "retention_by_project",
    "text_search",
    "clickhouse_cluster",
)

NOTIFY = (
    "notify_group",
    "notify_port",
    "notify_allow_private",
    "notify_allow_commands",
    "notify_secrets_dir",
    "watch_after",
    "watch_lag_share",
    "synthetic_runs",
    "worker_group",
    "sink_group",
    "session_timeout",
)

PROCESS = ("metrics_host", "metrics_port", "log_level", "log_format")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("worker", rich_help_panel="Run")(worker)
    app.command("sink", rich_help_panel="Run")(sink)
    app.command("notify", rich_help_panel="Run")(notify)
    app.command("ready", rich_help_panel="Check and prepare")(ready)


@takes(*KAFKA, *WORKER, *PROCESS)
def worker(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a worker: steps in, trajectories and alerts out.

    Start more of them to share the partitions. SIGTERM and Ctrl-C let it finish what it holds; after a kill it goes on
    from the log.
    """
    _begin(settings, lifeline)
    from stepstream.common.settings import require_kafka

    require_kafka(settings)
    from stepstream.stream.shell.worker import run

    raise typer.Exit(run(settings))


@takes(*KAFKA, *CLICKHOUSE, *SINK, *PROCESS)
def sink(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a sink: Kafka to ClickHouse.

    Start more of them to share the partitions. SIGTERM and Ctrl-C let it finish what it holds; after a kill it goes on
    from the log. The tables are made by `stepstream store migrate`.
    """
    _begin(settings, lifeline)
    from stepstream.common.settings import require_clickhouse, require_kafka

    require_kafka(settings)
    require_clickhouse(settings)
    from stepstream.sinks.clickhouse.sink import run

    raise typer.Exit(run(settings))


@takes(*KAFKA, *NOTIFY, *PROCESS)
def notify(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a notifier: alerts to subscribers.

    Start more of them to share the alerts. SIGTERM and Ctrl-C let it finish what is under way; after a kill it goes on
    from the log. It serves the admin API and the alert stream on loopback.
    """
    _begin(settings, lifeline)
    from stepstream.common.settings import require_kafka

    require_kafka(settings)
    from stepstream.admin.notify import run

    raise typer.Exit(run(settings))


@takes(*KAFKA, "worker_group", "sink_group", "notify_group")
def ready(
    settings: Settings,
    part: Annotated[str, typer.Argument(metavar="PART", help="worker, sink or notify.")],
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for it.")] = 0,
) -> None:
    """Say whether workers, sinks or notifiers hold every partition: exit code 0 when they do. For health checks."""
    from stepstream.admin import groups, topics

    one_of("PART", part, list(groups.PARTS))
    client = topics.admin(settings)
    deadline = time.monotonic() + wait
    while not groups.ready(client, settings, part, timeout=5):
        if time.monotonic() >= deadline:
            raise errors.Failure(
                f"{part} is not ready: the group {groups.PARTS[part](settings)} does not hold all partitions"
            )
        time.sleep(0.2)
    say(f"{part} is ready")


def _begin(settings: Settings, lifeline: bool) -> None:
    from stepstream.common import logs

    logs.configure(settings)
    if lifeline:
        from stepstream.local.lifeline import follow_parent

        follow_parent()
