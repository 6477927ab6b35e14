"""``stepstream spool``: events that agents of this user could not deliver."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json
from stepstream.cli.options import takes
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.producers.transport.delivery import SpoolPlace
    from stepstream.producers.transport.spool import SpoolStatus
    from stepstream.schemas.settings import Settings

HELP = "Show and send the events that agents of this user could not deliver."
SETTINGS = ("endpoint", "endpoint_key", "spool_dir", "spool_bytes")


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help=HELP)
    group.command("status")(status)
    group.command("drain")(drain)
    app.add_typer(group, name="spool", rich_help_panel="Data")


@takes("kafka", settings=SETTINGS)
def status(
    settings: Settings,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is in the spool: events, their age and where they are for."""
    place = _place(settings)
    if not place.exists():
        if json:
            from stepstream.producers.transport.spool import SpoolStatus

            print_json(asdict(SpoolStatus(place.path, max_bytes=place.max_bytes)))
        else:
            echo(f"{place.path}: there is no spool; nothing was undelivered")
        return
    spool = place.open()
    try:
        found = spool.status()
    finally:
        spool.close()
    if json:
        print_json(asdict(found))
        return
    for line in _lines(found):
        echo(line)


@takes("kafka", settings=SETTINGS)
def drain(
    settings: Settings,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            help="Give up when nothing was acknowledged for this long.",
        ),
    ] = 30.0,
    all_destinations: Annotated[
        bool,
        typer.Option(
            "--all", help="Also events for other endpoints: send them to the configured one."
        ),
    ] = False,
) -> None:
    """Send the events that ended programs left in the spool.

    Programs do that themselves: a running one when its endpoint is back, and the next one with the
    same endpoint for those that have ended. Events of running programs are left to these. The exit
    code is 1 if events could not be sent.
    """
    from stepstream.producers.engine import new_transport
    from stepstream.producers.transport import drain as draining

    place = _place(settings)
    if not place.exists():
        echo("there is nothing to send")
        return
    spool = place.open()
    try:
        if all_destinations:
            # First, so that this destination has all events when the transport is opened.
            spool.take_all()
        transport = new_transport(settings)
        try:
            report = draining.drain(spool, transport, timeout)
        finally:
            transport.close()
        destinations = spool.status().destinations
    finally:
        spool.close()
    left = {one.destination: one.left for one in destinations}
    # The status was read after sending: what programs have added meanwhile counts as left.
    here = left.pop(place.destination, 0)
    elsewhere = sum(left.values())
    echo(f"{report.delivered:,} events sent")
    if report.refused:
        remark(f"{report.refused:,} events refused: {report.first_refusal}")
    if elsewhere:
        remark(f"{elsewhere:,} events are for other endpoints: see `stepstream spool status`")
    if report.is_busy:
        remark("another process is sending the rest")
    if report.is_timeout:
        raise errors.Failure(
            f"nothing was acknowledged by {place.destination} for {timeout:g} s; "
            f"{here:,} events are still in the spool"
        )
    if report.refused:
        raise typer.Exit(errors.FAILED)


def _place(settings: Settings) -> SpoolPlace:
    from stepstream.producers.engine import spool_place

    place = spool_place(settings)
    if place is None:
        raise errors.Failure("the spool is switched off: spool_bytes is 0", errors.USAGE)
    return place


def _lines(found: SpoolStatus) -> list[str]:
    from stepstream.schemas.durations import write_duration

    lines = [f"{found.path}: {found.bytes / 2**20:.1f} of {found.max_bytes / 2**20:.0f} MiB"]
    if not found.events:
        lines.append("no events")
    else:
        # Whole seconds: the units below are of no use here. The clock may have been set back.
        age_us = max(0, time.time_ns() // 1_000 - found.oldest_us) // 1_000_000 * 1_000_000
        lines.append(
            f"{found.events:,} events of {found.runs:,} runs, "
            f"the oldest {write_duration(age_us)} old"
        )
    for one in found.destinations:
        by = f", being sent by process {one.drained_by}" if one.drained_by else ""
        running = one.events - one.left
        lines.append(
            f"  for {one.destination}: {one.left:,} of programs that have ended{by}, "
            f"{running:,} of running ones"
        )
    if found.dropped:
        lines.append(f"{found.dropped:,} events were dropped because the spool was full")
    if found.shortened:
        lines.append(f"{found.shortened:,} events lost their contents because the spool was full")
    return lines
