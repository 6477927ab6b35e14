"""The tree of commands: one table; only the module of the command that runs is imported.

So ``stepstream --help`` is quick, and a command needs only its own extra. Each module has
``register(app)``, which adds the commands that the table names.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from stepstream.cli import errors
from stepstream.common.quiet import silence_libraries

RUN: Final = "Run"
PREPARE: Final = "Check and prepare"
INSPECT: Final = "Inspect"
ACT: Final = "Act"
DOCUMENTS: Final = "Policies, subscriptions, prices"
DATA: Final = "Data"


@dataclass(frozen=True)
class Entry:
    """A command: its module, its line in the overview, and its group there."""

    module: str
    help: str
    panel: str


# The help repeats the first sentence of each command: to read it from the commands the overview
# would have to import all their modules. tests/unit/cli/test_tree.py keeps both equal.
COMMANDS: Final[dict[str, Entry]] = {
    "up": Entry(
        "up", "Run everything on this machine: Kafka, ClickHouse, worker, notifier and sink.", RUN
    ),
    "worker": Entry(
        "processes", "Run a worker: it reads steps and writes trajectories and alerts.", RUN
    ),
    "sink": Entry("processes", "Run a sink: it writes the records of Kafka to ClickHouse.", RUN),
    "notify": Entry("processes", "Run a notifier: it sends alerts to subscribers.", RUN),
    "gateway": Entry(
        "gateway", "Run a gateway: it writes OpenTelemetry and JSON from HTTP to Kafka.", RUN
    ),
    "console": Entry(
        "console", "Run the console: pages that show runs, alerts and costs as they happen.", RUN
    ),
    "doctor": Entry(
        "doctor",
        "Check the installation, Kafka, ClickHouse and the processes; explain what to do.",
        PREPARE,
    ),
    "ready": Entry(
        "processes",
        "Check whether the workers, sinks or notifiers have all partitions assigned.",
        PREPARE,
    ),
    "topics": Entry("topics", "Create and list the Kafka topics.", PREPARE),
    "store": Entry("store", "Prepare the ClickHouse database.", PREPARE),
    "credentials": Entry(
        "credentials",
        "Add, list and remove users of the notifier's admin API and alert stream.",
        PREPARE,
    ),
    "keys": Entry("keys", "Make, list, rotate and remove the keys of the gateway.", PREPARE),
    "settings": Entry(
        "settings", "Show every setting, its value and where it comes from.", PREPARE
    ),
    "version": Entry("version", "Show the versions of stepstream and its dependencies.", PREPARE),
    "runs": Entry("runs", "List runs, the newest first.", INSPECT),
    "trace": Entry("runs", "Show one run as a tree.", INSPECT),
    "sql": Entry("runs", "Run an SQL query on the store (read-only).", INSPECT),
    "ask": Entry("ask", "Ask a question about runs, costs, failures or tools.", INSPECT),
    "open": Entry("console", "Open the console in a browser, signed in.", INSPECT),
    "fleet": Entry(
        "fleet", "Show the budgets, sealed hours and baselines that the workers maintain.", INSPECT
    ),
    "alerts": Entry(
        "alerts",
        "List alerts, the newest last, or follow them; acknowledge, silence, resolve.",
        INSPECT,
    ),
    "subscriptions": Entry(
        "subscriptions",
        "Add, list, test and remove subscriptions; show their deliveries.",
        DOCUMENTS,
    ),
    "stop": Entry("control", "Stop a run, or all runs of an agent or project.", ACT),
    "pause": Entry("control", "Pause a run, or all runs of an agent or project.", ACT),
    "resume": Entry("control", "Let paused runs continue.", ACT),
    "approve": Entry("control", "Let a run continue with more budget.", ACT),
    "apply": Entry("documents", "Check documents and apply them.", DOCUMENTS),
    "get": Entry("documents", "Show the documents that are in effect.", DOCUMENTS),
    "delete": Entry("documents", "Delete a document.", DOCUMENTS),
    "policy": Entry(
        "policy", "Check, explain and test policies before they are applied.", DOCUMENTS
    ),
    "incident": Entry("incident", "Save runs as tests of policies.", DOCUMENTS),
    "backtest": Entry(
        "backtest",
        "Evaluate recorded runs with other policies: which alerts, which runs stopped, what saved.",
        DOCUMENTS,
    ),
    "replay": Entry("replay", "Send recorded step events through the pipeline.", DATA),
    "import": Entry(
        "imports",
        "Import history: OTLP JSON files, exports of Langfuse and Phoenix, OpenAI message lists.",
        DATA,
    ),
    "validate": Entry("data", "Check a file of step events as a worker would check it.", DATA),
    "schema": Entry("data", "Show the JSON Schema of a contract, or list the contracts.", DATA),
    "spool": Entry(
        "spool", "Show and send the events that agents of this machine could not deliver.", DATA
    ),
    "deadletter": Entry(
        "deadletter", "List, show and replay refused records; resume a halted partition.", DATA
    ),
}
"""Every command. Each module of this table is ``stepstream.cli.<module>``."""

_HELP = """Event-streaming traces for AI agents: emit, reassemble, detect, store, subscribe.

`stepstream up` runs everything on this machine; `stepstream COMMAND --help` explains a command."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; an error is one line on stderr."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    return errors.guarded(lambda: _invoke(arguments), debug="--debug" in arguments)


def _invoke(arguments: list[str]) -> int:
    if "--debug" not in arguments:
        silence_libraries()
    tree = command_tree(build(_command_of(arguments)))
    code = tree(args=arguments, prog_name="stepstream", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _command_of(arguments: Sequence[str]) -> str | None:
    """The command in the arguments, after the global options; None for the overview."""
    rest = iter(arguments)
    for argument in rest:
        if argument == "--settings":
            next(rest, None)
        elif not argument.startswith("-"):
            return argument
    return None


def build(command: str | None = None, *, everything: bool = False) -> typer.Typer:
    """The command line: ``command`` in full, the others as lines of the overview.

    With ``everything`` all are in full, as shell completion and docs/cli.md need them.
    """
    app = typer.Typer(
        name="stepstream",
        help=_HELP,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_globals)
    # The shell asks for the options of any command, so all of them are needed.
    everything = everything or "_STEPSTREAM_COMPLETE" in os.environ
    for name, entry in COMMANDS.items():
        if everything or (command in COMMANDS and COMMANDS[command].module == entry.module):
            continue
        # A stub without options: the module behind it is not imported for a line of the overview.
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


def command_tree(app: typer.Typer) -> Any:
    """The commands of ``app``, ready to be called and to print their help."""
    from typer.main import get_command

    tree = get_command(app)
    _hide_types_of_switches(tree)
    return tree


def _hide_types_of_switches(command: Any) -> None:
    """Print switches without a type: Typer writes ``--last <bool>``, but no value is taken."""
    for option in command.params:
        if getattr(option, "is_flag", False) and option.metavar is None:
            option.metavar = ""
    help_option = command.get_help_option  # makes --help when it is called first

    def without_type(context: Any) -> Any:
        option = help_option(context)
        if option is not None:
            option.metavar = ""
        return option

    command.get_help_option = without_type
    for subcommand in getattr(command, "commands", {}).values():
        _hide_types_of_switches(subcommand)


def _line_of(name: str) -> Callable[[], None]:
    def stub() -> None:
        raise AssertionError(f"the command {name} was not registered")

    return stub


def _version(wanted: bool) -> None:
    if wanted:
        from stepstream.admin.versions import package_versions
        from stepstream.common import terminal

        terminal.echo(f"stepstream {package_versions()['stepstream']}")
        raise typer.Exit


def _globals(
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FILE",
            help="Settings file (TOML) to use instead of the default ones.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_version, help="Show the version of stepstream."
        ),
    ] = False,
) -> None:
    from stepstream.cli import options

    options.use_settings_file(settings)
