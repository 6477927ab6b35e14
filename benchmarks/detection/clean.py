"""Alerts about runs that went well: how many an on-call person would get per 1,000 of them, by rule
and severity.

Clean are the runs of tau_bench that reached their goal. They are replayed under the default rules,
twice: unchanged, where a tool reports its failure in ordinary content, and with such failures
marked as errors. Their findings go through the fleet stage, a run a minute, so that what is counted
is what is opened, incidents of several runs included.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from benchmarks.cases import tau_bench
from benchmarks.detection.hidden import fails
from benchmarks.detection.replayed import Replayed, replay
from benchmarks.detection.score import wilson
from benchmarks.harness import Goal, Report
from stepstream.schemas.alert import SEVERITIES, AlertStruct
from stepstream.schemas.step import StepEvent
from stepstream.schemas.times import MINUTE_US
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.core.records import LogRecord

BETWEEN_RUNS_US: Final = MINUTE_US
MAX_ALERTS: Final = 60.0
# Per 1,000 clean runs, over all sources together.
MAX_ERRORS: Final = 5.0
SEVERE: Final = frozenset({"error", "critical"})

# Alerts that were opened, by rule and severity.
Opened = Counter[tuple[str, str]]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AlertStruct).decode


def measure(report: Report, arguments: argparse.Namespace) -> None:
    """Both ways, and both together."""
    well = {trace_id for run, trace_id in tau_bench.recorded() if run.get("reward") == 1}
    runs = [run for run in tau_bench.runs() if run[0].trace_id in well]
    whole, number = Opened(), 0
    for name, change in (("failures in outputs", None), ("failures marked as errors", marked)):
        opened = alerts_opened(replay(runs, None, change))
        _table(report, f"{name}: {len(runs)} clean runs", opened, len(runs))
        whole, number = whole + opened, number + len(runs)
    _table(report, f"both: {number} clean runs", whole, number)
    severe = sum(count for (_, severity), count in whole.items() if severity in SEVERE)
    for name, count, most in (
        ("alerts", sum(whole.values()), MAX_ALERTS),
        ("error alerts", severe, MAX_ERRORS),
    ):
        per_1000 = 1_000 * count / number if number else 0.0
        report.goals.append(Goal(f"{name} per 1,000 clean runs", per_1000, most, ""))
        report.figures[f"clean_{name.replace(' ', '_')}_per_1000"] = per_1000


def marked(step: StepEvent) -> StepEvent:
    """A failure that hides in an output as an open one."""
    if not fails(step):
        return step
    return step.model_copy(update={"status": "error", "error_message": step.output, "output": ""})


def alerts_opened(
    replayed: Iterable[Replayed],
    where: Callable[[AlertStruct], bool] = lambda _alert: True,
    between_us: int = BETWEEN_RUNS_US,
) -> Opened:
    """The alerts that the fleet stage opens for runs that follow each other."""
    fleet, opened, offset = AlertPartition(0), Opened(), 0
    for number, run in enumerate(replayed):
        shift_us = number * between_us - run.started_us + 1_700_000_000_000_000
        for record in run.records:
            value = _encode(record | {"time": int(record["time"]) + shift_us})
            fleet.process(LogRecord(offset, (int(record["time"]) + shift_us) // 1_000, b"p", value))
            offset += 1
            for output in fleet.take_outputs():
                alert = _decode(output.value or b"")
                if alert.change == "opened" and where(alert):
                    opened[
                        f"{alert.rule} (incident)" if alert.runs else alert.rule, alert.severity
                    ] += 1
                fleet.acknowledged(output)
    return opened


def _table(report: Report, title: str, opened: Opened, runs: int) -> None:
    lines = sorted(opened.items(), key=lambda item: (-SEVERITIES.index(item[0][1]), item[0]))
    rows = [(rule, severity, *_rates(count, runs)) for (rule, severity), count in lines]
    severe = sum(count for (_, severity), count in opened.items() if severity in SEVERE)
    rows += [
        ("error and worse", "", *_rates(severe, runs)),
        ("all", "", *_rates(sum(opened.values()), runs)),
    ]
    report.table(title, ("rule", "severity", "alerts", "per 1,000 runs", "interval"), rows)


def _rates(count: int, runs: int) -> tuple[int, str, str]:
    low, high = wilson(min(count, runs), runs)
    return count, f"{1_000 * count / max(1, runs):.1f}", f"{1_000 * low:.1f}-{1_000 * high:.1f}"
