"""``stepstream doctor``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import CLICKHOUSE, KAFKA, Format, FormatOption, print_rows, takes_resolved

if TYPE_CHECKING:
    from stepstream.doctor import Check

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", rich_help_panel="Check and prepare")(doctor)


@takes_resolved(*KAFKA, *CLICKHOUSE, "data_dir")
def doctor(settings: Any, format: FormatOption = Format.TABLE) -> None:
    """Check the installation, Kafka, ClickHouse and the processes; say what to do.

    Changes nothing. Exit code 1 when something fails; warnings leave it at 0.
    """
    from stepstream.doctor import examine

    checks = []
    for check in examine(settings):
        checks.append(check)
        if format is Format.TABLE:
            _print(check)
    if format is Format.JSON:
        print(json.dumps([asdict(check) for check in checks], indent=1, ensure_ascii=False))
    elif format is Format.CSV:
        print_rows(("status", "what", "text", "todo"), [tuple(asdict(check).values()) for check in checks], format)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(errors.FAILED)


def _print(check: Check) -> None:
    status = f"{check.status:<5}"
    if sys.stdout.isatty():
        status = typer.style(status, fg=COLOURS[check.status])
    print(f"{status} {check.what}: {check.text}", flush=True)
    if check.todo:
        print(f"      {check.todo}", flush=True)
