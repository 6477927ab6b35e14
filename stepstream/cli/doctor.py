"""``stepstream doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.options import Format, FormatOption, resolve_settings, takes
from stepstream.common.terminal import console, echo

if TYPE_CHECKING:
    from stepstream.doctor import Check

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Check and prepare")(doctor)


@takes("kafka", "clickhouse", settings=["data_dir"], load=resolve_settings)
def doctor(settings: Any, format: FormatOption = Format.TABLE) -> None:
    """Check the installation, Kafka, ClickHouse and the processes; explain what to do.

    Changes nothing. Exit code 1 when a check fails, 0 with warnings only.
    """
    from stepstream.doctor import examine

    checks = []
    # Printed one by one: a server that does not answer delays the next checks by seconds.
    for check in examine(settings):
        checks.append(check)
        if format is Format.TABLE:
            _print(check)
    if format is Format.JSON:
        print_json([asdict(check) for check in checks])
    elif format is Format.CSV:
        print_rows(
            ("status", "what", "text", "todo"),
            [tuple(asdict(check).values()) for check in checks],
            format,
        )
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(errors.FAILED)


def _print(check: Check) -> None:
    from rich.text import Text

    line = Text(f"{check.status:<5}", style=COLOURS[check.status])
    line.append(f" {check.what}: {check.text}", style="default")
    # The terminal wraps the line, so that a copied command has no line breaks of ours in it.
    console(soft_wrap=True).print(line)
    if check.todo:
        echo(f"      {check.todo}")
