"""Real runs through the worker's own logic: their records one by one, as they would have come, and
what it found when.

Records carry the times of the source. A run's clock begins at its first record, and each record is
appended when it happened, so that "how early" is a share of the run's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from benchmarks.cases import lifecycle
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.rules import default_rules
from stepstream.schemas.step import StepEvent
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.records import LogRecord
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook

_decode_summary = msgspec.json.Decoder(RunSummaryStruct).decode
# Longer than any timer of the default rules after the end of a run.
SETTLE_US: Final = MINUTE_US
TICK_US: Final = 500_000
CHUNK: Final = 200
PRICES: Final = PriceBook()


@dataclass(slots=True)
class Replayed:
    """A run of the source and what was found about it."""

    steps: list[StepEvent]
    findings: list[dict[str, Any]] = field(default_factory=list)
    # Findings and their resolutions, as they were published.
    records: list[dict[str, Any]] = field(default_factory=list)
    # The summary of the run, as it is published when the run has closed.
    summary: RunSummaryStruct | None = None

    @property
    def started_us(self) -> int:
        return min(step.start_time for step in self.steps)

    @property
    def ended_us(self) -> int:
        return max(step.end_time or step.start_time for step in self.steps)

    @property
    def standing(self) -> list[dict[str, Any]]:
        """The findings that were not withdrawn."""
        withdrawn = {_about(record) for record in self.records if record.get("withdrawn")}
        return [finding for finding in self.findings if _about(finding) not in withdrawn]

    def of(self, *alerts: str) -> list[dict[str, Any]]:
        """Findings under these alerts' names."""
        return [finding for finding in self.findings if finding["alert"] in alerts]

    def steps_found(self, *alerts: str) -> set[str]:
        """The first step of the evidence of each finding."""
        return {finding["step_ids"][0] for finding in self.of(*alerts) if finding.get("step_ids")}

    def share_of_time(self, finding: dict[str, Any]) -> float:
        """How much of the run's time had passed when it was found."""
        # Some recorded runs have the same time for all steps.
        whole = max(1, self.ended_us - self.started_us)
        return min(1.0, max(0.0, (int(finding["time"]) - self.started_us) / whole))


def _about(finding: dict[str, Any]) -> tuple[str, str, str]:
    """What a finding and its withdrawal have in common: the alert, the subject and the step."""
    return finding["alert"], finding.get("subject", ""), next(iter(finding.get("step_ids", ())), "")


def only(*rules: dict[str, Any], name: str = "measured") -> Policy:
    """A policy with these rules, and none of those that are on by default."""
    named = {rule["rule"] for rule in rules}
    off = [
        {"rule": rule.rule, "enabled": False}
        for rule in default_rules("run")
        if rule.rule not in named
    ]
    return Policy.model_validate({"name": name, "rules": [*rules, *off]})


def replay(
    runs: Iterable[list[StepEvent]],
    policy: Policy | None = None,
    change: Callable[[StepEvent], StepEvent] | None = None,
    baselines: Baselines | None = None,
) -> list[Replayed]:
    """Each run alone through a partition, its starts and ends in the order of their times, then
    time until it has closed."""
    rules = RuleBook((policy,) if policy else (), make_detector)
    return [_replay_one(run, rules, change, baselines) for run in runs]


def _replay_one(
    run: list[StepEvent],
    rules: RuleBook,
    change: Callable[[StepEvent], StepEvent] | None,
    baselines: Baselines | None,
) -> Replayed:
    steps = [change(step) for step in run] if change else run
    replayed = Replayed(steps)
    stage = AssemblePartition(0, 1, rules=rules, prices=PRICES, baselines=baselines)
    last_us = 0
    for offset, event in enumerate(lifecycle(steps)):
        at_us = (event.end_time or event.start_time) if event.phase == "end" else event.start_time
        # Timers fire in between, as in a worker; without ticks hung steps were found by the next
        # record.
        if last_us and at_us - last_us > TICK_US:
            _pass_time(stage, replayed, last_us, at_us)
        value = event.model_dump_json(exclude_defaults=True).encode()
        stage.process(LogRecord(offset, at_us // 1000, event.trace_id.encode(), value))
        _turn(stage, replayed)
        last_us = at_us
    _pass_time(stage, replayed, last_us, last_us + SETTLE_US)
    return replayed


def _pass_time(stage: AssemblePartition, replayed: Replayed, from_us: int, to_us: int) -> None:
    """Tick every half second; in a long silence its first half seconds and a few of the rest."""
    watched = list(range(from_us + TICK_US, min(to_us, from_us + 20 * TICK_US), TICK_US))
    if to_us - from_us > 20 * TICK_US:
        stride = (to_us - from_us) // 40 + 1
        watched += list(range(from_us + 20 * TICK_US, to_us, min(stride, 1_900_000)))[:400]
    for now_us in watched:
        stage.tick(now_us)
        _turn(stage, replayed)


def _turn(stage: AssemblePartition, replayed: Replayed) -> None:
    stage.flush()
    while outputs := stage.take_outputs():
        for output in outputs:
            _take(replayed, output)
            stage.acknowledged(output)


def _take(replayed: Replayed, output: Output) -> None:
    if output.topic == "findings":
        finding = msgspec.json.decode(output.value or b"")
        replayed.records.append(finding)
        if finding.get("state", "firing") == "firing":
            replayed.findings.append(finding)
    elif output.topic == "usage" and b'"kind":"run"' in (output.value or b""):
        replayed.summary = _decode_summary(output.value or b"")
