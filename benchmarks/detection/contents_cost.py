"""What reading contents costs: microseconds of CPU per ended step with content, of the content
detectors that are on.

The steps are real ones (tau_bench, trail_gaia; where they lie) and full ones: 4 KB in and out of
words and of JSON. Their runs are merged beforehand; timed is what the worker does beyond that, with
its garbage collection: making the contents and asking each detector.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any, Final

import msgspec

from benchmarks.cases import MissingData, tau_bench, trail_gaia
from benchmarks.detection.replayed import PRICES
from benchmarks.harness import Goal, Report
from stepstream.schemas.policy import Policy
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import default_rules
from stepstream.schemas.step import Step, StepEvent
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.contents import HEAD, Contents
from stepstream.stream.run.rules import Applied, RuleBook, RuleSet
from stepstream.stream.run.run import Run

GOAL_US: Final = 40.0
ROUNDS: Final = 5
OPTIONAL: Final[tuple[dict[str, Any], ...]] = (
    {"rule": "irrelevant_retrieval"},
    {"rule": "unsupported_answer"},
    {"rule": "forbidden", "tools": ["delete_*"], "patterns": [r"drop\s+table", r"rm -rf"]},
)
_decode = msgspec.json.Decoder(Step).decode

Loaded = list[tuple[Run, list[tuple[Step, Any]]]]


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Each source in turn: all detectors that are on, then each alone."""
    rows: list[tuple[Any, ...]] = []
    worst = {"real runs": 0.0, "4 KB in and 4 KB out": 0.0}
    for name, runs in _sources(arguments.seed, report.quick):
        us, steps, characters = _cost(runs, content_defaults())
        rows.append(
            (name, steps, characters, us, *(_cost(runs, (rule,))[0] for rule in content_defaults()))
        )
        report.figures[f"content_us_per_step_{name.replace(' ', '_')}"] = us
        kind = "4 KB in and 4 KB out" if name.startswith("4 KB") else "real runs"
        worst[kind] = max(worst[kind], us)
    names = [rule.rule for rule in content_defaults()]
    report.table(
        "microseconds per ended step with content",
        ("steps", "number", "characters", "all on", *names),
        rows,
    )
    for kind, us in worst.items():
        report.goals.append(
            Goal(
                f"detectors that read contents, per ended step with content, {kind}",
                us or None,
                GOAL_US,
                "us",
            )
        )
    _measure_optional(report, arguments)


def _measure_optional(report: Report, arguments: argparse.Namespace) -> None:
    policy = Policy.model_validate({"name": "optional", "rules": list(OPTIONAL)})
    rows: list[tuple[float | str | None, ...]] = [
        (name, *(_cost(runs, (rule,))[0] for rule in policy.rules))
        for name, runs in _sources(arguments.seed, report.quick)
    ]
    title = "microseconds per ended step with content, of those that a policy turns on"
    report.table(title, ("steps", *(rule["rule"] for rule in OPTIONAL)), rows)


def _sources(seed: int, quick: bool) -> Iterator[tuple[str, list[list[StepEvent]]]]:
    for name, reader in (("tau_bench", tau_bench), ("trail_gaia", trail_gaia)):
        try:
            yield name, list(reader.runs())[: 20 if quick else 200]
        except MissingData as missing:
            print(f"{name}: left out, {missing}")
    yield "4 KB of words", _full_runs(seed, quick, as_json=False)
    yield "4 KB of JSON", _full_runs(seed, quick, as_json=True)


def _full_runs(seed: int, quick: bool, *, as_json: bool) -> list[list[StepEvent]]:
    """Runs of twenty calls and twenty model calls with as much content as is read."""
    rng = random.Random(seed)
    vocabulary = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 11)))
        for _ in range(3_000)
    ]

    def text() -> str:
        if not as_json:
            return " ".join(rng.choices(vocabulary, k=HEAD // 4))[: HEAD - 20]
        rows = [
            {
                "id": f"ord_{rng.randrange(10**6)}",
                "name": rng.choice(vocabulary),
                "usd": rng.randrange(10**4),
            }
            for _ in range(78)
        ]
        # As long as what is read, and still valid: cut JSON takes the way of plain text.
        while len(written := json.dumps({"rows": rows})) > HEAD:
            rows.pop()
        return written

    runs = []
    for number in range(4 if quick else 40):
        whose = {"trace_id": f"{number + 1:032x}", "agent": "a"}
        run = [
            StepEvent.model_validate(
                whose
                | {
                    "step_id": f"{1:016x}",
                    "kind": "agent",
                    "name": "r",
                    "start_time": 0,
                    "end_time": 99,
                }
            )
        ]
        for step in range(2, 42):
            kind = (
                {"kind": "tool_call", "tool": f"t{step % 6}"}
                if step % 2
                else {"kind": "llm_call", "model": "m"}
            )
            times = {
                "start_time": step,
                "end_time": step + 1,
                "step_id": f"{step:016x}",
                "parent_step_id": f"{1:016x}",
            }
            given = json.dumps({"query": text()[:900]}) if step % 2 else text()
            run.append(
                StepEvent.model_validate(
                    whose | kind | times | {"name": "s", "input": given, "output": text()}
                )
            )
        runs.append(run)
    return runs


def content_defaults() -> tuple[RuleBase, ...]:
    """The rules about contents that apply without any policy."""
    return tuple(rule for rule in default_rules("run") if rule.reads_contents)


def _cost(runs: list[list[StepEvent]], rules: Iterable[RuleBase]) -> tuple[float, int, int]:
    """Microseconds a step, the number of steps, and the median of their characters that are
    read."""
    loaded = _merged(runs)
    applied = RuleSet(tuple(map(Applied, rules)), make_detector)
    steps = sum(len(of) for _, of in loaded)
    sizes = [len(step.input[:HEAD]) + len(step.output[:HEAD]) for _, of in loaded for step, _ in of]
    gc.collect()
    # The best of five: other processes only ever add to the time.
    best = min(_read_all(loaded, applied) for _ in range(ROUNDS))
    return best * 1e6 / max(1, steps), steps, int(median(sizes))


def _merged(runs: list[list[StepEvent]]) -> Loaded:
    rules = RuleBook((), make_detector)
    loaded: Loaded = []
    for run in runs:
        merged = Run(run[0].trace_id, run[0].start_time, rules.rules_for("p", "", "a", "", ""))
        read = [_decode(step.model_dump_json(exclude_defaults=True).encode()) for step in run]
        infos = [
            (step, merged.merge(step, PRICES.cost(step, None), step.end_time or 0, 20_000))
            for step in read
        ]
        loaded.append((merged, [(step, info) for step, info in infos if step.input or step.output]))
    return loaded


def _read_all(loaded: Loaded, rules: RuleSet) -> float:
    for run, _ in loaded:
        # Each round reads as if for the first time: what was found before would be left out.
        run.detector_state.clear()
    # CPU, not wall time: the machine has other work.
    began = time.process_time()
    for run, steps in loaded:
        for step, info in steps:
            readers = rules.readers(step.kind)
            contents = Contents(step) if readers else None
            for detector in readers:
                if seen := detector.on_content(run, info, contents, info.end_us):
                    list(seen)
    return time.process_time() - began
