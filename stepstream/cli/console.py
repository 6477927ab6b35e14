"""``stepstream console`` and ``stepstream open``."""

from __future__ import annotations

import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.options import takes
from stepstream.cli.processes import LifelineOption, begin
from stepstream.common.terminal import echo

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("console", rich_help_panel="Run")(console)
    app.command("open", rich_help_panel="Inspect")(open_page)


@takes("kafka", "clickhouse", "console")
def console(settings: Settings, lifeline: LifelineOption = False) -> None:
    """Run the console: pages that show runs, alerts and costs as they happen.

    It prints a link that signs its first visitor in; `stepstream open` prints another one.
    `stepstream up` runs a console too. Runs until SIGTERM or Ctrl-C.
    """
    from stepstream.common.settings import require_clickhouse, require_kafka

    begin(settings, lifeline)
    require_kafka(settings)
    require_clickhouse(settings)
    # Imported last: with wrong settings the command fails before it loads the server.
    from stepstream.console.server import run

    raise typer.Exit(run(settings, show=not lifeline))


@takes(settings=("state_dir", "console_url"))
def open_page(
    settings: Settings,
    run: Annotated[
        str, typer.Argument(metavar="[ID]", help="Run to show; without one, what runs now.")
    ] = "",
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the link and open no browser.")
    ] = False,
) -> None:
    """Open the console in a browser, signed in.

    The link works once, within ten minutes. Where no browser can be opened it is printed.
    """
    from stepstream.common.settings import state_dir
    from stepstream.console import address

    folder = state_dir(settings)
    found = address.read(folder)
    if found is None or not address.answers(found):
        raise errors.Failure(
            f"no console of {folder} answers: start `stepstream up` or `stepstream console`"
        )
    page = f"/runs/{run}" if run else "/"
    link = address.link(found, page)
    shown = f"{(settings.console_url or found.url).rstrip('/')}{page}"
    if print_only or not webbrowser.open(link):
        echo(f"{shown}\nsign in, once and within ten minutes: {link}")
    else:
        echo(f"opened {shown}")
