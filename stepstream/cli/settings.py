"""``stepstream settings``."""

from __future__ import annotations

import typer

from stepstream.cli.common import Format, FormatOption, print_rows, resolve_settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Check and prepare")(settings)


def settings(format: FormatOption = Format.TABLE) -> None:
    """Show every setting, its value and where it comes from.

    A setting is the environment variable STEPSTREAM_<NAME>, a key of the settings file, or a flag of the commands
    that it matters to. Secrets are not shown.
    """
    from stepstream.common.settings import DURATIONS
    from stepstream.schemas.formatting import format_duration
    from stepstream.schemas.settings import SECRETS, Settings

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
