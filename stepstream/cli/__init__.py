"""The command line. ``main`` is the script ``stepstream``; other modules are imported lazily."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its exit code (docs/cli.md)."""
    from stepstream.cli.app import run

    raise SystemExit(run())
