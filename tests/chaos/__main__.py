"""``python -m tests.chaos [scenario ...]``: plays scenarios by name; all of the long form when none is named."""

from __future__ import annotations

import argparse
import dataclasses
import faulthandler
import logging
import sys
import tempfile
import time
from pathlib import Path

from stepstream.embedded.kafka import EmbeddedKafka
from tests.chaos.harness import Scenario, run
from tests.chaos.scenarios import brokers, short, workers

LONG: tuple[Scenario, ...] = ()


def _all() -> dict[str, Scenario]:
    found = [value for module in (short, workers, brokers) for value in vars(module).values() if isinstance(value, Scenario)]
    return {scenario.name: scenario for scenario in found}


def main() -> int:
    """Play, print, and say by the exit code whether anything was wrong."""
    known = _all()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*known, []], help="which to play")
    parser.add_argument("--seed", type=int, help="another seed than the scenario's own")
    parser.add_argument("--folder", type=Path, help="where logs are kept")
    given = parser.parse_args()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="stepstream-chaos-"))
    wrong = 0
    for name in given.scenario or known:
        scenario = known[name]
        if given.seed is not None:
            scenario = dataclasses.replace(scenario, seed=given.seed)
        place = folder / f"{name}-{scenario.seed}-{time.time_ns() // 1_000_000_000}"
        with EmbeddedKafka(place / "kafka", nodes=scenario.nodes, heap_mb=384) as kafka:
            report = run(scenario, kafka, "chaos", place / "logs")
        print(report)
        for problem in report.problems[:40]:
            print(" -", problem)
        wrong += len(report.problems)
    print(f"{wrong} problems; logs in {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
