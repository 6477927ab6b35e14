"""``python -m tests.chaos [scenario ...]``: runs scenarios by name; without names those of the long
form.

``--rounds`` runs them again with other seeds. Prints the problems and the folder of the logs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import faulthandler
import logging
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.kafka import EmbeddedKafka
from tests.chaos import hostile_topics, spool
from tests.chaos.harness import Report, Scenario, run
from tests.chaos.scenarios import brokers, notify, short, sinks, windows, workers
from tests.support import fuzz

LONG = (
    "kills",
    "workers",
    "open-runs",
    "one-broker",
    "three-brokers",
    "sinks",
    "notify",
    "windows",
    "hostile",
    "contents",
)
CONTENTS_STEPS = 400_000
SPOOL_AGENTS = 20
SPOOL_KILLS = 1_000
SPOOL_S = 1_800.0
# What the long form must have done, or it proves nothing.
REACHED = {"worker kills": 100, "broker kills": 20}


def _all() -> dict[str, Scenario]:
    found: dict[str, Scenario] = {}
    for module in (short, workers, brokers, sinks, windows, notify):
        found |= {
            value.name: value for value in vars(module).values() if isinstance(value, Scenario)
        }
    return found


def main() -> int:
    """Run the scenarios and print their reports; returns 1 where there was a problem, else 0."""
    known = _all()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "scenario",
        nargs="*",
        choices=[*known, *FUZZ, []],
        help=f"which to play; the long form: {', '.join(LONG)}",
    )
    parser.add_argument("--seed", type=int, help="another seed than the scenario's own")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how often, each time with other seeds"
    )
    parser.add_argument("--folder", type=Path, help="where logs are kept")
    given = parser.parse_args()
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="stepstream-chaos-"))
    wrong = 0
    faults: Counter[str] = Counter()
    for turn in range(given.rounds):
        for name in given.scenario or LONG:
            if name in FUZZ:
                wrong += FUZZ[name](folder, (given.seed or 1) + 100 * turn)
                continue
            scenario = known[name]
            seed = (scenario.seed if given.seed is None else given.seed) + 100 * turn
            try:
                report = _play(dataclasses.replace(scenario, seed=seed), folder)
            except (
                Exception
            ):  # an engine that cannot be started again; the others are played all the same
                traceback.print_exc()
                print(f"{name} (seed {seed}): could not be played to its end")
                wrong += 1
                continue
            wrong += len(report.problems)
            faults.update(report.faults)
    if not given.scenario:
        for what, wanted in REACHED.items():
            if faults[what] < wanted:
                wrong += 1
                print(f" - only {faults[what]} {what}, the long form is to reach {wanted}")
    print(f"{wrong} problems under {dict(faults)}; logs in {folder}")
    return 1 if wrong else 0


def _hostile(folder: Path, seed: int) -> int:
    """Hostile records on every topic; the number of problems."""
    place = folder / f"hostile-{seed}-{time.time_ns() // 1_000_000_000}"
    with (
        EmbeddedKafka(place / "kafka", heap_mb=384) as kafka,
        EmbeddedClickHouse(place / "clickhouse") as store,
    ):
        report = hostile_topics.run(
            hostile_topics.HostileTopics(seed=seed), kafka, store, place / "logs"
        )
    print(report)
    _print(report.problems)
    return len(report.problems)


def _contents(_folder: Path, seed: int) -> int:
    """Hostile contents through all detectors, hostile records through all readers; the number of
    problems."""
    began = time.monotonic()
    contents, records = fuzz.Contents(seed), fuzz.Records(seed)
    contents.play(CONTENTS_STEPS)
    records.play(5_000)
    problems = contents.problems() + records.problems()
    print(f"contents (seed {seed}): {len(problems)} problems in {time.monotonic() - began:.0f} s")
    print(contents.counts() | records.counts())
    _print(problems)
    return len(problems)


def _spool(folder: Path, seed: int) -> int:
    """Agents that share one spool are killed while the broker goes away; the number of problems."""
    place = folder / f"spool-{seed}-{time.time_ns() // 1_000_000_000}"
    began = time.monotonic()
    with EmbeddedKafka(place / "kafka", heap_mb=384) as kafka:
        outcome = spool.play(
            kafka,
            "spoolchaos",
            place / "agents",
            agents=SPOOL_AGENTS,
            kills=SPOOL_KILLS,
            seed=seed,
            most_s=SPOOL_S,
        )
    problems = outcome.problems()
    print(f"spool (seed {seed}): {len(problems)} problems in {time.monotonic() - began:.0f} s")
    counts = f"{outcome.kills} kills, {outcome.outages} outages, {outcome.safe:,} safe events"
    print(f"{counts}, {outcome.stored:,} in Kafka")
    _print(problems)
    return len(problems)


FUZZ = {"hostile": _hostile, "contents": _contents, "spool": _spool}


def _print(problems: list[str]) -> None:
    for problem in problems[:40]:
        print(" -", problem)


def _play(scenario: Scenario, folder: Path) -> Report:
    place = folder / f"{scenario.name}-{scenario.seed}-{time.time_ns() // 1_000_000_000}"
    with contextlib.ExitStack() as stack:
        kafka = stack.enter_context(
            EmbeddedKafka(place / "kafka", nodes=scenario.nodes, heap_mb=384)
        )
        store = (
            None
            if scenario.store is None
            else stack.enter_context(EmbeddedClickHouse(place / "clickhouse"))
        )
        report = run(scenario, kafka, "chaos", place / "logs", store)
    print(report)
    _print(report.problems)
    for item in report.exits:
        print(f" {item.crew} {item.slot} ended with {item.code}: {item.tail[-600:]}")
    sys.stdout.flush()
    return report


if __name__ == "__main__":
    sys.exit(main())
