"""``python -m examples.demo``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from examples.demo.context import Options
from examples.demo.scenarios import SHORTEST_SECONDS
from examples.demo.show import run


def main() -> int:
    """Run the demo. The exit code is 0 if everything that was sent was stored."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="A small fleet of agents on the whole pipeline, on this machine.",
    )
    parser.add_argument(
        "--seconds", type=float, default=30, help="how long the agents work (default: 30)"
    )
    parser.add_argument("--seed", type=int, default=7, help="seed of the runs (default: 7)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="keep the data, leave it running until Ctrl-C",
    )
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="draw the worst run into an SVG file too"
    )
    given = parser.parse_args()
    if given.seconds < SHORTEST_SECONDS:
        parser.error(
            f"--seconds must be at least {SHORTEST_SECONDS}: some problems take that long to appear"
        )
    return run(Options(given.seconds, given.seed, given.keep, given.svg))


if __name__ == "__main__":
    sys.exit(main())
