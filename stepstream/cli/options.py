"""Options that commands share, and the flags of settings.

A command names the processes whose settings it reads, and gets a flag for each of them. A parameter
whose type is a dataclass of options stands for all of its fields::

    @dataclass(frozen=True)
    class Filter:
        project: ProjectOption = None
        limit: LimitOption = 50

    @takes("kafka", "clickhouse")
    def show(settings: Settings, filter: Filter, format: FormatOption = Format.TABLE) -> None: ...
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from stepstream.common.links import Links
from stepstream.common.terminal import link_to

if TYPE_CHECKING:
    from stepstream.common.settings import Resolved
    from stepstream.schemas.settings import Process, Settings

_settings_file: ContextVar[Path | None] = ContextVar("stepstream_settings_file", default=None)


class Format(StrEnum):
    """How a listing is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Output format: table, json or csv. CSV prefixes texts that a spreadsheet would "
        "run as a formula with '.",
    ),
]
RunArgument = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="Id of the run, or a unique beginning of it."),
]
LastOption = Annotated[
    bool,
    typer.Option("--last", help="The newest run; with --agent or --project the newest of those."),
]
ProjectOption = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Only this project; the pattern may contain * and ?."),
]
EnvironmentOption = Annotated[
    str | None, typer.Option(metavar="PATTERN", help="Only this environment.")
]
AgentOption = Annotated[str | None, typer.Option(metavar="PATTERN", help="Only this agent.")]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION|TIME",
        help="Only what is newer: an age (90s, 2h, 7d) or a time (2026-03-01T12:00).",
    ),
]
LimitOption = Annotated[
    int, typer.Option(metavar="INT", min=1, max=100_000, help="Maximum number of rows.")
]
ByOption = Annotated[
    str,
    typer.Option(
        "--by", metavar="NAME", help="Name for the audit log. Default: your user at this machine."
    ),
]


def use_settings_file(file: Path | None) -> None:
    """Store the value of the global option ``--settings``."""
    _settings_file.set(file)


def flag(name: str) -> str:
    """The flag of a setting: ``--kafka-brokers``."""
    return "--" + name.replace("_", "-")


def resolve_settings(**flags: Any) -> Resolved:
    """The settings in force with this command's flags, and the source of each."""
    from stepstream.common.settings import resolve

    return resolve(file=_settings_file.get(), flags=flags, flag_name=flag)


def console_address(settings: Any) -> str:
    """The address that links of printed lines begin with: ``console_url``, or on a terminal that of
    a console of this machine; empty without one.
    """
    if url := str(getattr(settings, "console_url", "")):
        return url
    if not (sys.stdout.isatty() or sys.stderr.isatty()):
        return ""
    from stepstream.common.settings import state_dir
    from stepstream.console import address

    found = address.read(state_dir(settings))
    return found.url if found is not None and address.listens(found) else ""


def load_settings(**flags: Any) -> Settings:
    """The settings in force with this command's flags."""
    return resolve_settings(**flags).settings


Command = Callable[..., Any]


def takes(
    *processes: Process,
    settings: Sequence[str] = (),
    load: Callable[..., Any] = load_settings,
) -> Callable[[Command], Command]:
    """Give a command flags for the settings of ``processes``, and call it with ``settings``.

    ``settings`` names single settings of other processes that the command reads as well. ``load``
    makes the command's ``settings`` from the flags.
    """

    def decorate(command: Command) -> Command:
        from stepstream.schemas.settings import Settings, settings_of

        read = {*settings_of(*processes), *settings}
        names = tuple(name for name in Settings.model_fields if name in read)
        own = list(inspect.signature(command).parameters)
        # Command modules import Settings for type checkers only.
        hints = get_type_hints(command, localns={"Settings": Any}, include_extras=True)
        groups = {name: hints[name] for name in own if is_dataclass(hints[name])}

        def wrapper(**values: Any) -> Any:
            flags = {name: values.pop(name) for name in names}
            for name, group in groups.items():
                values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
            loaded = load(**flags)
            link_to(Links(lambda: console_address(loaded)))
            return command(settings=loaded, **values)

        wrapper.__name__, wrapper.__module__ = command.__name__, command.__module__
        wrapper.__doc__ = _reflowed(command.__doc__)
        parameters = [*_own_parameters(command, hints, groups), *map(_setting_parameter, names)]
        # Typer reads a command's options from its signature and has no other hook for groups of
        # options, so the wrapper shows the expanded signature.
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _own_parameters(
    command: Command, hints: Mapping[str, Any], groups: Mapping[str, Any]
) -> Iterator[inspect.Parameter]:
    """The command's parameters without ``settings``, each dataclass as its fields."""
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            of_fields = get_type_hints(groups[name], include_extras=True)
            for one in fields(groups[name]):
                yield _keyword(one.name, one.default, of_fields[one.name])
        elif name != "settings":
            yield _keyword(name, parameter.default, hints[name])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _setting_parameter(name: str) -> inspect.Parameter:
    from stepstream.schemas.settings import Settings, setting_info

    field, info = Settings.model_fields[name], setting_info(name)
    is_switch = field.annotation is bool
    default = default_text(name)
    help = (field.description or "") + (f" [default: {default}]" if default else "")
    option = typer.Option(
        f"{flag(name)}/--no-{name.replace('_', '-')}" if is_switch else flag(name),
        metavar=None if is_switch else info.metavar,
        help=help.replace("[", "\\["),  # help texts are rich markup
        hidden=info.rare,
        rich_help_panel=f"{SETTINGS_PANEL}{info.section}",
        show_default=False,
    )
    # The default is None, so that a flag that was not given does not hide the settings file.
    return _keyword(name, None, Annotated[bool | None if is_switch else str | None, option])


SETTINGS_PANEL: Final = "Settings: "


def default_text(name: str) -> str:
    """A setting's default as it is written on the command line; empty where there is none."""
    from stepstream.schemas.durations import write_duration
    from stepstream.schemas.settings import DURATIONS, SECRETS, Settings

    default = Settings.model_fields[name].default
    if name in SECRETS:
        return ""
    if name in DURATIONS:
        return write_duration(default)
    if isinstance(default, bool):
        return "on" if default else "off"
    return str(default)


def _reflowed(text: str | None) -> str:
    """A docstring with each paragraph on one line, for terminals of any width."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(
        # Indented paragraphs are examples, whose line breaks count.
        part if part.startswith(" ") else " ".join(part.split())
        for part in paragraphs
    )
