"""``stepstream schema`` and ``stepstream validate``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.options import Format, FormatOption
from stepstream.common.terminal import echo, remark

PANEL = "Data"


def register(app: typer.Typer) -> None:
    app.command("schema", rich_help_panel=PANEL)(schema)
    app.command("validate", rich_help_panel=PANEL)(validate)


def schema(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Name of the contract. Default: list all.")
    ] = "",
) -> None:
    """Show the JSON Schema of a contract, or list the contracts."""
    from stepstream.schemas import CONTRACTS
    from stepstream.schemas.suggestions import did_you_mean

    if not name:
        rows = [
            (contract, (model.__doc__ or "").strip().splitlines()[0])
            for contract, model in CONTRACTS.items()
        ]
        print_rows(("name", "meaning"), rows, prose=("meaning",))
        return
    found = {contract.lower(): model for contract, model in CONTRACTS.items()}.get(name.lower())
    if found is None:
        raise errors.Failure(
            f"there is no contract {name}; {did_you_mean(name, CONTRACTS)}", errors.USAGE
        )
    print_json(found.model_json_schema(), indent=2)


def validate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="File of step events, one JSON object a line; - is standard input."
        ),
    ],
    limit: Annotated[
        int, typer.Option("--limit", metavar="INT", min=1, help="Maximum number of lines listed.")
    ] = 50,
    any_time: Annotated[
        bool,
        typer.Option(
            "--any-time",
            help="Check each event as if it arrived at its own time, as `replay` sends it.",
        ),
    ] = False,
    format: FormatOption = Format.TABLE,
) -> None:
    """Check a file of step events as a worker would check it.

    Lists the lines that would be refused, and the lines with values that would be clamped, each
    with the reason. Exit code 1 when a line would be refused.
    """
    rows: list[tuple[int, str, str, str]] = []
    counts: Counter[str] = Counter()
    with _opened(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            outcome, reasons = _checked(line.strip(), any_time)
            counts[outcome] += 1
            # Lines beyond the limit are counted too: totals and exit code are about the whole file.
            rows += [
                (number, outcome, reason, detail) for reason, detail in reasons if len(rows) < limit
            ]
    if rows or format is not Format.TABLE:
        print_rows(("line", "outcome", "reason", "detail"), rows, format, prose=("detail",))
    words = ", ".join(
        f"{counts[outcome]:,} {outcome}" for outcome in ("accepted", "clamped", "rejected")
    )
    # JSON and CSV on standard output must stay parseable, so the totals go to standard error.
    (echo if format is Format.TABLE else remark)(words)
    if counts["rejected"]:
        raise typer.Exit(errors.FAILED)


def _checked(line: bytes, any_time: bool) -> tuple[str, list[tuple[str, str]]]:
    """The outcome of one line, and each reason with its detail."""
    from stepstream.schemas.accept import Rejected, accept_value

    result = accept_value(line, timestamp_us=_time_of(line) if any_time else time.time_ns() // 1000)
    if isinstance(result, Rejected):
        return "rejected", [(result.reason, result.detail)]
    return ("clamped" if result.clamped else "accepted"), list(
        zip(result.clamped, result.notes, strict=True)
    )


def _time_of(line: bytes) -> int:
    """The event's own time, or now if it has none."""
    import msgspec

    try:
        event = msgspec.json.decode(line)
        return int(event.get("end_time") or event["start_time"])
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, ValueError):
        return time.time_ns() // 1000


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    # As bytes: a line that is not UTF-8 is one of the errors to be reported.
    with file.open("rb") as lines:
        yield lines
