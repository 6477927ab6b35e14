"""Checks of a scenario: its events through the worker's stages, and what it expects to be found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import msgspec

from stepstream.backtest.pipeline import OfflinePipeline, Outcome
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.policy import Policy
from stepstream.schemas.times import DAY_US
from stepstream.simulate.generate import events
from stepstream.simulate.scenario import Expectation, Scenario

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Checked:
    """What came of a scenario."""

    scenario: Scenario
    events: int
    runs: int
    alerts: dict[str, int]
    """Number of alerts by name."""
    faults: dict[str, int]
    """Number of runs by fault."""
    problems: tuple[str, ...]


def check(scenario: Scenario, policies: Iterable[Policy], start_us: int) -> Checked:
    """Evaluate the scenario's events with these policies, and compare with what it expects."""
    pipeline = OfflinePipeline(policies)
    number, faulty, runs = 0, defaultdict[str, set[str]](set), set[str]()
    for timed in events(scenario, start_us):
        trace_id = timed.event["trace_id"]
        pipeline.event(trace_id, _encode(timed.event), timed.at_us)
        number += 1
        runs.add(trace_id)
        for fault in timed.faults:
            faulty[fault].add(trace_id)
    # A day is longer than any limit after which a run without an end is closed.
    pipeline.finish(DAY_US)
    found = pipeline.outcome
    # All alerts count here, incidents too: it is what a reader of the alerts would see.
    counts: dict[str, int] = defaultdict(int)
    for alert in found.alerts.values():
        counts[alert.alert] += 1
    problems = [
        problem
        for expected in scenario.expect
        for problem in _problems(expected, found, faulty, start_us)
    ]
    by_fault = {fault: len(traces) for fault, traces in sorted(faulty.items())}
    alerts = dict(sorted(counts.items()))
    return Checked(scenario, number, len(runs), alerts, by_fault, tuple(problems))


def _problems(
    expected: Expectation, found: Outcome, faulty: dict[str, set[str]], start_us: int
) -> Iterator[str]:
    alerts = [one for one in found.alerts.values() if _is_meant(expected, one)]
    least = expected.at_least
    if least is None:
        least = 0 if expected.at_most is not None else 1
    if len(alerts) < least:
        yield f"{expected.alert} was raised {len(alerts)} times, expected at least {least}"
    if expected.at_most is not None and len(alerts) > expected.at_most:
        times = len(alerts)
        yield f"{expected.alert} was raised {times} times, expected at most {expected.at_most}"
    if expected.by is not None and alerts:
        first_us = min(one.opened_at for one in alerts) - start_us
        if first_us > expected.by:
            yield (
                f"{expected.alert} came after {format_duration(first_us)}, expected by "
                f"{format_duration(expected.by)}"
            )
    hit = {one.trace_id for one in alerts if one.trace_id}
    of_fault = faulty.get(expected.fault, set())
    yield from _share_problem(expected.recall, "recall", expected, len(hit & of_fault), of_fault)
    yield from _share_problem(expected.precision, "precision", expected, len(hit & of_fault), hit)


def _share_problem(
    wanted: float | None, name: str, expected: Expectation, right: int, whole: set[str]
) -> Iterator[str]:
    if wanted is None or not whole:
        return
    share = right / len(whole)
    if share < wanted:
        yield (
            f"{expected.alert} has a {name} of {share:.0%} for {expected.fault} ({right} of "
            f"{len(whole)} runs), expected at least {wanted:.0%}"
        )


def _is_meant(expected: Expectation, alert: AlertStruct) -> bool:
    # Alerts over many runs that repeat those of single runs count once, with their runs.
    is_incident = bool(alert.runs)
    return (
        alert.alert == expected.alert
        and fnmatchcase(alert.agent, expected.agent)
        and not is_incident
    )
