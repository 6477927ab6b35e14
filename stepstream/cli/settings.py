"""``stepstream settings``."""

from __future__ import annotations

import typer

from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption, resolve_settings


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Check and prepare")(settings)


def settings(format: FormatOption = Format.TABLE) -> None:
    """Show every setting, its value and where it comes from.

    A setting is an environment variable (STEPSTREAM_ and its name in capitals), a key of the
    settings file, or a flag of the commands that read it. Secrets are not shown.
    """
    from stepstream.schemas.formatting import format_duration
    from stepstream.schemas.settings import DURATIONS, SECRETS, Settings

    resolved = resolve_settings()
    rows = []
    for name, field in Settings.model_fields.items():
        value = getattr(resolved.settings, name)
        if name in SECRETS:
            value = "(set)" if value.get_secret_value() else ""
        elif name in DURATIONS and format is Format.TABLE:
            value = format_duration(value)
        rows.append((name, value, resolved.sources[name], field.description or ""))
    print_rows(
        ("name", "value", "source", "meaning"),
        rows,
        format,
        prose=("meaning", "value"),
        leave=("meaning",),
        keep=("value", "source"),
    )
