"""``stepstream executor``: runs a program's agents as tasks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli.errors import USAGE, Failure
from stepstream.cli.options import takes
from stepstream.cli.processes import LifelineOption, begin
from stepstream.common.terminal import remark

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("executor", rich_help_panel="Run")(executor)


@takes("kafka", "sdk", settings=("log_level", "log_format"))
def executor(
    settings: Settings,
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:APP",
            help="Where the stepstream.Executor is, such as agents:app; modules of the current "
            "folder are found.",
        ),
    ],
    slots: Annotated[
        int, typer.Option("--slots", metavar="INT", min=1, help="Attempts at a time.")
    ] = 1,
    drain: Annotated[
        str,
        typer.Option(
            "--drain",
            metavar="DURATION",
            help="Time that running attempts have after SIGTERM; then they are handed over.",
        ),
    ] = "25s",
    lifeline: LifelineOption = False,
) -> None:
    """Run an executor: it runs the agents of a program as durable tasks.

    Several executors share the tasks of a project. SIGTERM and Ctrl-C let running attempts finish
    within --drain; a second signal stops them at once. A lease that is lost stops them as well.
    """
    begin(settings, lifeline)
    from stepstream.common.settings import to_environment
    from stepstream.producers.executor.loading import AppNotFound, load_app
    from stepstream.producers.executor.service import CannotRun, TopicsMissing, run

    # The agents' SDK, and the processes that it starts, use the same settings.
    os.environ.update(to_environment(settings))
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = load_app(target)
        names = ", ".join(agent.label for agent in found.agents)
        remark(f"executor of {names or 'no agents'}: {slots} at a time; Ctrl-C drains it")
        raise typer.Exit(run(found, slots=slots, drain=drain, target=target, settings=settings))
    except (AppNotFound, ValueError) as error:
        raise Failure(str(error), USAGE) from None
    except (CannotRun, TopicsMissing) as error:
        raise Failure(str(error)) from None
