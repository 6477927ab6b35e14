"""Runs the parts that are named, or all of them."""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks import harness
from benchmarks.evals import PARTS
from benchmarks.harness import Report


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Run each part in turn."""
    for name in arguments.parts or PARTS:
        import_module(f"benchmarks.evals.{name}").measure(report, arguments)


def flags() -> argparse.ArgumentParser:
    """The flags of every benchmark, and the names of the parts."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in PARTS.items())
    made = harness.parser(f"Simulations of the evaluation.\n\nparts:\n{listed}")
    made.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help="what to simulate (default: all)",
    )
    made.add_argument("--simulations", type=int, default=10_000, help="of an unchanged agent")
    return made


if __name__ == "__main__":
    harness.run("evals", measure, flags())
