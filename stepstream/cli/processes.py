"""``stepstream worker``, ``sink`` and ``notify``: one process of the pipeline each; ``ready``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import one_of
from stepstream.cli.options import takes
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

LifelineOption = Annotated[
    bool, typer.Option("--lifeline", hidden=True, help="End when standard input closes.")
]


def register(app: typer.Typer) -> None:
    app.command("worker", rich_help_panel="Run")(worker)
    app.command("sink", rich_help_panel="Run")(sink)
    app.command("notify", rich_help_panel="Run")(notify)
    app.command("ready", rich_help_panel="Check and prepare")(ready)


@takes("kafka", "worker")
def worker(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a worker: it reads steps and writes trajectories and alerts.

    Several workers share the partitions. SIGTERM and Ctrl-C let it write its state and commit
    offsets first; after a kill it resumes from the committed offsets.
    """
    begin(settings, lifeline)
    from stepstream.common.settings import require_kafka

    require_kafka(settings)
    from stepstream.stream.shell.worker import run

    raise typer.Exit(run(settings))


@takes("kafka", "clickhouse", "sink")
def sink(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a sink: it writes the records of Kafka to ClickHouse.

    Several sinks share the partitions. SIGTERM and Ctrl-C let it finish its batches first; after a
    kill it resumes from the committed offsets. `stepstream store migrate` creates the tables.
    """
    begin(settings, lifeline)
    from stepstream.common.settings import require_clickhouse, require_kafka

    require_kafka(settings)
    require_clickhouse(settings)
    from stepstream.sinks.clickhouse.sink import run

    raise typer.Exit(run(settings))


@takes("kafka", "notify")
def notify(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run a notifier: it sends alerts to subscribers.

    Several notifiers share the alerts. SIGTERM and Ctrl-C let it finish running deliveries first;
    after a kill it resumes from the committed offsets. It serves the admin API and the alert stream
    on the loopback interface.
    """
    begin(settings, lifeline)
    from stepstream.common.settings import require_kafka

    require_kafka(settings)
    from stepstream.admin.notify import run

    raise typer.Exit(run(settings))


@takes("kafka", settings=["worker_group", "sink_group", "notify_group"])
def ready(
    settings: Settings,
    part: Annotated[
        str, typer.Argument(metavar="PART", help="The process: worker, sink or notify.")
    ],
    wait: Annotated[
        float, typer.Option("--wait", min=0, metavar="SECONDS", help="How long to wait for it.")
    ] = 0,
) -> None:
    """Check whether the workers, sinks or notifiers have all partitions assigned.

    Exit code 0 when they have, else 1. For health checks.
    """
    from stepstream.admin import groups, topics

    one_of("PART", part, list(groups.PARTS))
    client = topics.admin(settings)
    deadline = time.monotonic() + wait
    # A group rebalances for some seconds after a start, so it is checked until the deadline.
    while not groups.ready(client, settings, part, timeout=5):
        if time.monotonic() >= deadline:
            group = groups.PARTS[part](settings)
            raise errors.Failure(
                f"{part} is not ready: the consumer group {group} has not all partitions assigned; "
                f"start more of it, or see its log"
            )
        time.sleep(0.2)
    echo(f"{part} is ready")


def begin(settings: Settings, lifeline: bool) -> None:
    """Set up logging; with ``lifeline`` the process ends with the one that started it."""
    from stepstream.common import logs

    logs.configure(settings)
    if lifeline:
        from stepstream.local.processes.follow_parent import follow_parent

        follow_parent()
