"""A command as ``stepstream --help`` lists it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """A command as ``stepstream --help`` lists it."""

    module: str
    """Its module: ``stepstream.cli.<module>``."""
    help: str
    """Its one-line description."""
    panel: str
    """The heading below which it is listed."""
