"""A line of the overview of commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A command: its module ``stepstream.cli.<module>``, its line and its group in the overview."""

    module: str
    help: str
    panel: str
