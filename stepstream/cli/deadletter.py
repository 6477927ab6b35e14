"""``stepstream deadletter``."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json, print_rows
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.common.terminal import echo, remark
from stepstream.schemas.formatting import format_number_of

if TYPE_CHECKING:
    from stepstream.admin.deadletter import Letter
    from stepstream.schemas.settings import Settings

ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="REASON", help="Only records refused for this reason.")
]
SinceOption = Annotated[
    str, typer.Option("--since", metavar="DURATION", help="Only records refused since: 1h, 2d ...")
]
OffsetsArgument = Annotated[
    list[int] | None, typer.Argument(metavar="[OFFSET]...", help="Offsets that `list` prints.")
]


def register(app: typer.Typer) -> None:
    deadletter = typer.Typer(
        no_args_is_help=True,
        help="List, show and replay refused records; resume a halted partition.",
    )
    deadletter.command("list")(show_list)
    deadletter.command("show")(show)
    deadletter.command("replay")(replay)
    deadletter.command("resume")(resume)
    app.add_typer(deadletter, name="deadletter", rich_help_panel="Data")


@takes("kafka")
def show_list(
    settings: Settings,
    reason: ReasonOption = "",
    since: SinceOption = "",
    limit: Annotated[
        int, typer.Option("--limit", metavar="INT", min=1, help="Maximum number of rows.")
    ] = 50,
    format: FormatOption = Format.TABLE,
) -> None:
    """List refused records, the newest last."""
    # Only the last rows stay in memory, however many records the topic has.
    letters = deque(_read(settings, reason, since), maxlen=limit)
    rows = [
        (
            letter.offset,
            datetime.fromtimestamp(letter.time_ms / 1000, UTC),
            letter.by,
            letter.reason,
            f"{letter.topic}/{letter.partition}/{letter.source_offset}",
            _shown(letter.key, 40),
            len(letter.value or b""),
            letter.detail,
        )
        for letter in letters
    ]
    columns = ("offset", "refused_at", "by", "reason", "came_from", "key", "bytes", "detail")
    empty = "no refused records" + (" match" if reason or since else "")
    print_rows(columns, rows, format, empty=empty, prose=("detail",), leave=("bytes", "key", "by"))


@takes("kafka")
def show(
    settings: Settings,
    offset: Annotated[int, typer.Argument(metavar="OFFSET", help="The offset that `list` prints.")],
) -> None:
    """Show one refused record in full, as JSON."""
    letter = next((one for one in _read(settings) if one.offset == offset), None)
    if letter is None:
        raise errors.Failure(
            f"the dead-letter topic has no record with offset {offset}; "
            "`stepstream deadletter list` prints the offsets"
        )
    facts = {
        name: getattr(letter, name)
        for name in (
            "offset",
            "time_ms",
            "topic",
            "partition",
            "source_offset",
            "reason",
            "detail",
            "by",
        )
    }
    headers = {name: _shown(value) for name, value in letter.headers}
    from stepstream.schemas.times import iso_time

    facts["time"] = iso_time(letter.time_ms * 1_000)
    print_json({**facts, "headers": headers, "key": _shown(letter.key), "value": _value(letter)})


@takes("kafka")
def replay(
    settings: Settings,
    *,
    offsets: OffsetsArgument = None,
    reason: ReasonOption = "",
    since: SinceOption = "",
    everything: Annotated[bool, typer.Option("--all", help="Replay all refused records.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and send nothing.")
    ] = False,
) -> None:
    """Send refused records again to the topic that they came from.

    A record that is still not acceptable is refused again. Nothing is counted twice.
    """
    from stepstream.admin import deadletter

    # Without a choice nothing is sent: replaying everything must be asked for.
    if not (offsets or reason or since or everything):
        raise errors.Failure("give offsets, --reason, --since, or --all", errors.USAGE)
    wanted = set(offsets or ())
    chosen: Iterable[Letter] = _read(settings, reason, since)
    if wanted:
        chosen = [letter for letter in chosen if letter.offset in wanted]
        # All or nothing: a typing error in one offset must not send half of the list.
        if missing := sorted(wanted - {letter.offset for letter in chosen}):
            offsets_missing = ", ".join(map(str, missing))
            raise errors.Failure(
                f"nothing was sent: the dead-letter topic has no record with offset "
                f"{offsets_missing}{' that matches' if reason or since else ''}; "
                "`stepstream deadletter list` prints the offsets"
            )
    if dry_run:
        echo(f"{format_number_of(sum(1 for _ in chosen), 'record')} would be sent again")
        return
    sent, foreign = deadletter.replay(settings, chosen)
    for letter in foreign:
        remark(
            f"warning: offset {letter.offset} came from {letter.topic or 'an unknown topic'} and "
            "is not sent"
        )
    echo(f"{format_number_of(sent, 'record')} sent again")


@takes("kafka")
def resume(
    settings: Settings,
    partition: Annotated[
        str,
        typer.Argument(
            metavar="TOPIC/PARTITION", help="The partition that the alert partition-halted names."
        ),
    ],
) -> None:
    """Let a halted partition continue by skipping the records that it fails on.

    It skips up to as many again as before it halted. After an upgrade that fixes the cause this is
    not needed: a restarted worker continues by itself.
    """
    from stepstream.admin import deadletter

    name, _, number = partition.partition("/")
    if not (number.isascii() and number.isdigit()):
        raise errors.Failure(
            f"{partition} is not a partition: write TOPIC/PARTITION, e.g. steps/0", errors.USAGE
        )
    try:
        deadletter.resume(settings, name, int(number))
    except ValueError as error:
        raise errors.Failure(str(error), errors.USAGE) from None
    echo(f"{partition} continues when its worker is restarted")


def _read(settings: Settings, reason: str = "", since: str = "") -> Iterator[Letter]:
    from stepstream.admin import deadletter, topics
    from stepstream.schemas.durations import parse_duration_us
    from stepstream.schemas.topics import topic

    topics.require_topic(settings, topic(settings.topic_prefix, "deadletter"))
    try:
        since_ms = int(time.time() * 1000) - parse_duration_us(since) // 1000 if since else 0
    except ValueError as error:
        raise errors.Failure(f"--since: {error}", errors.USAGE) from None
    letters = deadletter.read(settings, since_ms=since_ms)
    return _with_reason(letters, reason) if reason else letters


def _with_reason(letters: Iterator[Letter], reason: str) -> Iterator[Letter]:
    """The letters with this reason. Raises ``Failure`` if there are letters but none has it."""
    other, found = set(), False
    for letter in letters:
        if letter.reason == reason:
            found = True
            yield letter
        else:
            other.add(letter.reason)
    if other and not found:
        from stepstream.schemas.suggestions import did_you_mean

        known = sorted(other)
        hint = did_you_mean(reason, known, otherwise=f"the reasons are: {', '.join(known)}")
        raise errors.Failure(f"no record was refused for the reason {reason}; {hint}")


def _shown(data: bytes | None, limit: int = 1_000_000) -> str:
    return (data or b"").decode(errors="backslashreplace")[:limit]


def _value(letter: Letter) -> Any:
    """The decoded JSON value, or the bytes as text."""
    try:
        return json.loads(letter.value or b"")
    except ValueError:
        return _shown(letter.value)
