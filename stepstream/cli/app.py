"""The tree of commands: one table, and the registration of the one command that is asked for.

A command's module is imported only when that command runs, so that ``stepstream --help`` is quick and a command needs
its own extra alone. Each module has ``register(app)``, which adds the commands that the table names.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from stepstream.cli import errors
from stepstream.common.quiet import silence_libraries

RUN: Final = "Run"
PREPARE: Final = "Check and prepare"
LOOK: Final = "Look"
ACT: Final = "Act"
DOCUMENTS: Final = "Policies, subscriptions, prices"
DATA: Final = "Data"


@dataclass(frozen=True)
class Entry:
    """A command: the module that registers it, its line in the overview, the group that it stands in."""

    module: str
    help: str
    panel: str


COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry(
        "up", "Run everything on this machine: Kafka, ClickHouse, worker, notifier and sink.", RUN
    ),
    "worker": Entry("processes", "Run a worker: steps in, trajectories and alerts out.", RUN),
    "sink": Entry("processes", "Run a sink: Kafka to ClickHouse.", RUN),
    "notify": Entry("processes", "Run a notifier: alerts to subscribers.", RUN),
    "doctor": Entry(
        "doctor",
        "Check the installation, Kafka, ClickHouse and the processes; say what to do.",
        PREPARE,
    ),
    "ready": Entry(
        "processes", "Say whether workers, sinks or notifiers hold every partition.", PREPARE
    ),
    "topics": Entry("topics", "Create and list the Kafka topics.", PREPARE),
    "store": Entry("store", "Prepare the ClickHouse database.", PREPARE),
    "credentials": Entry(
        "credentials",
        "Add, list and remove users of the notifier's admin API and alert stream.",
        PREPARE,
    ),
    "settings": Entry(
        "settings", "Show every setting, its value and where it comes from.", PREPARE
    ),
    "version": Entry("version", "Show the versions of stepstream and of what it runs on.", PREPARE),
    "runs": Entry("look", "List runs, the newest first.", LOOK),
    "trace": Entry("look", "Show one run as a tree.", LOOK),
    "sql": Entry("look", "Ask the store a question in SQL (read-only).", LOOK),
    "fleet": Entry(
        "fleet", "Show budgets, sealed hours and baselines, as the workers keep them.", LOOK
    ),
    "alerts": Entry(
        "alerts",
        "List alerts, the newest last, or follow them; acknowledge, silence, resolve.",
        LOOK,
    ),
    "subscriptions": Entry(
        "subscriptions",
        "Add, list, test and remove subscriptions; show their deliveries.",
        DOCUMENTS,
    ),
    "stop": Entry("control", "Stop a run, or all runs of an agent or project.", ACT),
    "pause": Entry("control", "Pause a run, or all runs of an agent or project.", ACT),
    "resume": Entry("control", "Let paused runs go on.", ACT),
    "approve": Entry("control", "Let a run go on with more budget.", ACT),
    "apply": Entry("documents", "Check documents and put them in force.", DOCUMENTS),
    "get": Entry("documents", "Show the documents in force.", DOCUMENTS),
    "delete": Entry("documents", "Take a document out of force.", DOCUMENTS),
    "replay": Entry("replay", "Send recorded step events through the pipeline.", DATA),
    "validate": Entry("data", "Check a file of step events as a worker would.", DATA),
    "schema": Entry("data", "Show the JSON Schema of a contract, or list the contracts.", DATA),
    "deadletter": Entry("deadletter", "List, show and replay what was refused.", DATA),
}
"""Every command. Each module of this table is ``stepstream.cli.<module>``."""

_HELP = """Event-streaming traces for AI agents: emit, reassemble, detect, store, subscribe.

`stepstream up` runs everything on this machine; `stepstream COMMAND --help` explains a command."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line on stderr, never a traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return errors.guarded(lambda: _invoke(arguments), debug="--debug" in arguments)


def _invoke(arguments: list[str]) -> int:
    if "--debug" not in arguments:
        silence_libraries()
    app = build(_command_of(arguments))
    code = app(args=arguments, prog_name="stepstream", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _command_of(arguments: Sequence[str]) -> str | None:
    """The command that is asked for, past the global options; None for the overview."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--settings":
            next(rest, None)
        elif not argument.startswith("-"):
            return argument
    return None


def build(command: str | None = None, *, everything: bool = False) -> typer.Typer:
    """The command line with ``command`` in full and the others as lines of the overview; or with everything in full."""
    app = typer.Typer(
        name="stepstream",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_globals)
    everything = everything or "_STEPSTREAM_COMPLETE" in os.environ
    for name, entry in COMMANDS.items():
        if everything or (command in COMMANDS and COMMANDS[command].module == entry.module):
            continue
        app.command(name, help=entry.help, rich_help_panel=entry.panel)(_line_of(name))
    modules = dict.fromkeys(entry.module for entry in COMMANDS.values()) if everything else {}
    if command in COMMANDS:
        modules[COMMANDS[command].module] = None
    for module in modules:
        register: Callable[[typer.Typer], None] = importlib.import_module(
            f"stepstream.cli.{module}"
        ).register
        register(app)
    return app


def _line_of(name: str) -> Callable[[], None]:
    def stub() -> None:
        raise AssertionError(f"the command {name} was not registered")

    return stub


def _version(wanted: bool) -> None:
    if wanted:
        from stepstream.admin.versions import package_versions
        from stepstream.common import terminal

        terminal.say(f"stepstream {package_versions()['stepstream']}")
        raise typer.Exit


def _globals(
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings", metavar="FILE", help="Settings file (TOML) instead of the usual one."
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the program an error came from.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version, help="Show the version of stepstream."
        ),
    ] = False,
) -> None:
    from stepstream.cli import common

    common.use_settings_file(settings)
