"""Runs the parts that are named, or all of them."""

from __future__ import annotations

import argparse
from importlib import import_module

from benchmarks import harness
from benchmarks.cases import MissingData
from benchmarks.detection import PARTS
from benchmarks.harness import Report


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Run each part in turn. A part without its data is skipped, with a note in the report."""
    for name in arguments.parts or PARTS:
        try:
            import_module(f"benchmarks.detection.{name}").measure(report, arguments)
        except MissingData as missing:
            print(f"\n{name}: skipped, {missing}", flush=True)
            report.notes.append(f"{name} was skipped: {missing}")


def flags() -> argparse.ArgumentParser:
    """The flags of every benchmark, and the names of the parts."""
    listed = "\n".join(f"  {name:10} {what}" for name, what in PARTS.items())
    made = harness.parser(f"Detectors scored on real data.\n\nparts:\n{listed}")
    made.add_argument(
        "parts",
        nargs="*",
        choices=[*PARTS, []],
        metavar="PART",
        help="what to score (default: all)",
    )
    return made


if __name__ == "__main__":
    harness.run("detection", measure, flags())
