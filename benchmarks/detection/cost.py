"""Runs that cost far more than usual, found while they are still going."""

from __future__ import annotations

import argparse

from benchmarks.cases import data_folder
from benchmarks.harness import Report


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Not measured yet."""
    data_folder("trail_gaia")
