"""What commands share: settings and their flags, output as table, JSON or CSV.

A command that takes settings is written so, and gets flags for the settings it names::

    @app.command()
    @takes(*KAFKA, "partitions")
    def create(settings: Settings, dry_run: bool = False) -> None: ...
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from stepstream.common.terminal import remark, say, say_json
from stepstream.schemas.printable import printable

if TYPE_CHECKING:
    from stepstream.common.settings import Resolved
    from stepstream.schemas.settings import Settings

KAFKA: Final = (
    "kafka_brokers",
    "kafka_sasl_mechanism",
    "kafka_sasl_username",
    "kafka_sasl_password",
    "kafka_token_hook",
    "kafka_tls",
    "kafka_ca_file",
    "kafka_certificate_file",
    "kafka_key_file",
    "topic_prefix",
    "state_dir",
)
"""Settings of every command that talks to Kafka."""

CLICKHOUSE: Final = (
    "clickhouse_url",
    "clickhouse_user",
    "clickhouse_password",
    "clickhouse_reader_user",
    "clickhouse_reader_password",
    "clickhouse_ca_file",
    "clickhouse_database",
    "state_dir",
)
"""Settings of every command that talks to ClickHouse."""

_RARE: Final = {
    *KAFKA[1:9],
    "clickhouse_ca_file",
    "clickhouse_reader_user",
    "clickhouse_reader_password",
}
"""Flags that work but are left out of the help: what rarely changes stands in the environment or in a file."""

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
        help="How to print it. JSON has texts as they are; in CSV a ' keeps one from being a formula.",
    ),
]


def use_settings_file(file: Path | None) -> None:
    """Remember the global option ``--settings``."""
    _settings_file.set(file)


def one_of(option: str, given: str | None, known: Sequence[str]) -> None:
    """Raise ``Failure`` where something was given for an option that is none of the known words."""
    if given and given not in known:
        from stepstream.cli.errors import USAGE, Failure
        from stepstream.schemas.suggestions import did_you_mean

        hint = did_you_mean(given, known, otherwise=f"one of {', '.join(known)}")
        raise Failure(f"{option} {given}: {hint}", USAGE)


def flag(name: str) -> str:
    """How a setting is called on the command line."""
    return "--" + name.replace("_", "-")


def resolve_settings(**flags: Any) -> Resolved:
    """The settings in force with this command's flags, and where each comes from."""
    from stepstream.common.settings import resolve

    return resolve(file=_settings_file.get(), flags=flags, flag_name=flag)


def load_settings(**flags: Any) -> Settings:
    """The settings in force with this command's flags."""
    return resolve_settings(**flags).settings


def takes(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command a flag for each named setting, and call it with ``settings`` (its first parameter)."""
    return _takes(names, load_settings)


def takes_resolved(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """As ``takes``; ``settings`` is a ``Resolved``, which knows where each setting comes from."""
    return _takes(names, resolve_settings)


def _takes(
    names: Sequence[str], load: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    names = tuple(dict.fromkeys(names))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        # Command modules import Settings for type checkers only.
        hints = get_type_hints(command, localns={"Settings": Any}, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "settings"
        ]

        def wrapper(**values: Any) -> Any:
            flags = {name: values.pop(name) for name in names}
            return command(settings=load(**flags), **values)

        wrapper.__name__, wrapper.__doc__, wrapper.__module__ = (
            command.__name__,
            _reflowed(command.__doc__),
            command.__module__,
        )
        parameters = [*own, *(_parameter(name) for name in names)]
        # The argument parser reads the signature: it is that of the command, with the flags in the place of settings.
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    from stepstream.schemas.settings import Settings

    field = Settings.model_fields[name]
    boolean = field.annotation is bool
    option = typer.Option(
        f"{flag(name)}/--no-{name.replace('_', '-')}" if boolean else flag(name),
        metavar=None if boolean else _metavar(name, field.annotation),
        help=_sentence(field.description or ""),
        hidden=name in _RARE,
        rich_help_panel="Settings (also in the environment and in a file)",
        show_default=False,
    )
    annotation = Annotated[bool | None, option] if boolean else Annotated[str | None, option]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
    )


def _metavar(name: str, kind: Any) -> str:
    """What to write for a setting, in a word."""
    from stepstream.common.settings import DURATIONS

    if name in DURATIONS:
        return "DURATION"
    if kind in (int, float):
        return "PORT" if name.endswith("_port") else "DAYS" if name.endswith("_days") else "NUMBER"
    ends = {
        "_file": "FILE",
        "_dir": "FOLDER",
        "_url": "URL",
        "_user": "USER",
        "_password": "PASSWORD",
        "_brokers": "HOST:PORT",
    }
    return next((word for end, word in ends.items() if name.endswith(end)), "TEXT")


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    capital = (
        text[:1].upper() if first.rstrip(",;:").isalpha() else text[:1]
    )  # a name or a URL stays as it is
    return f"{capital}{text[1:]}.".replace("[", "\\[")  # help texts are markup


def _reflowed(text: str | None) -> str:
    """A docstring whose paragraphs are lines, for terminals of any width."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(
        part if part.startswith(" ") else " ".join(part.split()) for part in paragraphs
    )


def print_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    format: Format = Format.TABLE,
    *,
    empty: str = "",
    prose: Sequence[str] = (),
    leave: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> None:
    """Print a listing; JSON is one array of objects, a table that goes to a file or a pipe is as wide as it is.

    Without rows a table is the remark ``empty``. On a terminal the columns ``prose`` are folded, and what does not fit is left
    out by whole columns: those of ``leave`` first, in that order, then the last ones; never the first one, nor ``keep``.
    """
    listed = list(rows)
    if format is not Format.TABLE:
        from stepstream.render.tables import records_csv, records_json

        if format is Format.JSON:
            say_json(records_json(columns, listed))
        else:
            say(records_csv(columns, listed))
    elif not listed and empty:
        remark(empty)
    else:
        _print_table(
            columns, [[_cell(value) for value in row] for row in listed], prose, leave, keep
        )


def print_json(data: Any, *, indent: int | None = 1) -> None:
    """Print data as JSON."""
    say_json(json.dumps(data, indent=indent, default=str, ensure_ascii=False))


def _print_table(
    columns: Sequence[str],
    texts: list[list[str]],
    prose: Sequence[str],
    leave: Sequence[str],
    keep: Sequence[str],
) -> None:
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
        for line in ([column.upper() for column in columns], *texts):
            say(
                "  ".join(
                    text.ljust(width) for text, width in zip(line, widths, strict=True)
                ).rstrip()
            )
        return
    from rich.text import Text

    from stepstream.cli.printing import show_listing
    from stepstream.render.listing import Column

    order = [
        *leave,
        *(name for name in reversed(columns[1:]) if name not in leave and name not in keep),
    ]
    ranks = {name: len(order) - place for place, name in enumerate(order)}
    shaped = [Column(name, prose=name in prose, leaves=ranks.get(name, 0)) for name in columns]
    show_listing(shaped, [[Text(text) for text in row] for row in texts])


def _cell(value: Any) -> str:
    """The value on one line; a time in the zone of this machine."""
    if isinstance(value, datetime):
        return value.astimezone().isoformat(timespec="seconds")
    return "" if value is None else " ".join(printable(str(value)).split())
