"""The tree of commands: one table; only the module of the command that runs is imported.

So ``stepstream --help`` is quick, and a command needs only its own extra. Each module has
``register(app)``, which adds its commands; ``cli/table.py`` is generated from them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.table import COMMANDS
from stepstream.common.quiet import silence_libraries

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

    format_help = command.format_help

    def with_whole_names(context: Any, formatter: Any) -> None:
        # Imported here, because rich is only needed where help is printed.
        from stepstream.cli.help_tables import keep_names_whole

        keep_names_whole()
        format_help(context, formatter)

    command.get_help_option, command.format_help = without_type, with_whole_names
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
