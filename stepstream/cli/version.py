"""``stepstream version``."""

from __future__ import annotations

import platform

import typer

from stepstream.cli.common import print_rows
from stepstream.cli.options import Format, FormatOption


def register(app: typer.Typer) -> None:
    app.command(rich_help_panel="Check and prepare")(version)


def version(format: FormatOption = Format.TABLE) -> None:
    """Show the versions of stepstream and its dependencies."""
    from stepstream.admin.versions import package_versions
    from stepstream.local.embedded.fetch import KAFKA_VERSION

    found = package_versions()
    rows = [("stepstream", found.pop("stepstream")), ("python", platform.python_version())]
    rows += [(name, installed or "not installed") for name, installed in found.items()]
    rows += [("embedded kafka", KAFKA_VERSION), ("platform", platform.platform())]
    print_rows(("what", "version"), rows, format)
