"""``stepstream replay``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.options import takes
from stepstream.common.terminal import console, echo

if TYPE_CHECKING:
    from stepstream.producers.replay.replay import ReplayProgress
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("replay", rich_help_panel="Data")(replay)


@takes("kafka", settings=["compression"])
def replay(
    settings: Settings,
    *,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of step events, one JSON object a line; .gz is decompressed."
        ),
    ],
    speed: Annotated[
        float,
        typer.Option(
            "--speed",
            metavar="FLOAT",
            min=0,
            help="Speed relative to the recording: 2 is twice as fast, 0 does not wait.",
        ),
    ] = 1.0,
    keep_times: Annotated[
        bool,
        typer.Option(
            "--keep-times", help="Keep the recorded times instead of shifting them to now."
        ),
    ] = False,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="Keep the recorded run ids instead of new ones.")
    ] = False,
) -> None:
    """Send recorded step events through the pipeline, in their order and at their speed.

    Times are shifted to now and runs get new ids, so that a recording can be sent many times and
    is a new run each time. Lines that are not step events are reported and skipped; the exit code
    is then 1.
    """
    from stepstream.admin.topics import require_topic
    from stepstream.producers.replay.replay import replay as send
    from stepstream.schemas.topics import topic

    # Before the file is read: a missing topic would show up only after the producer's timeout.
    require_topic(settings, topic(settings.topic_prefix, "steps"))
    with _progress(file.name) as on_progress:
        report = send(
            file,
            settings,
            speed=speed,
            keep_times=keep_times,
            keep_ids=keep_ids,
            on_progress=on_progress,
        )
    echo(report)
    if report.failed or report.bad:
        raise typer.Exit(errors.FAILED)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[ReplayProgress], None] | None]:
    """A progress bar on stderr if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # markup=False: a file name may contain brackets, which rich would take for styles.
    file = TextColumn("{task.description}", markup=False)
    columns = (
        file,
        BarColumn(),
        TextColumn("{task.fields[sent]:,} events", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None, sent=0)

        def show(progress: ReplayProgress) -> None:
            bar.update(
                task,
                completed=progress.read_bytes,
                # 0 for a pipe or an empty file: None makes the bar pulse.
                total=progress.total_bytes or None,
                sent=progress.sent,
            )

        yield show
