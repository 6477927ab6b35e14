"""The command line. ``main`` is the script ``stepstream``; everything else is imported when it is needed."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit: 0 done, 1 it failed, 2 it was asked wrongly."""
    from stepstream.cli.app import run

    raise SystemExit(run())
