"""A verdict as text, JSON, Markdown and JUnit XML."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from stepstream.evals.gate.paired import RATIOS
from stepstream.evals.gate.verdict import MetricResult, Side, Verdict, change_text
from stepstream.schemas.printable import printable


def lines(verdict: Verdict) -> Iterator[str]:
    """The verdict for a terminal or a job's log, a line each."""
    # A line break in the name of a case would begin a line of its own: in the log of a GitHub job
    # that could be a command.
    for line in _lines(verdict):
        yield line.replace("\r", " ").replace("\n", " ")


def _lines(verdict: Verdict) -> Iterator[str]:
    yield f"{verdict.outcome.upper()}: {'; '.join(verdict.reasons)}"
    cases = len(verdict.pairing.cases)
    yield f"  {verdict.trials} trials of {_number(cases, 'case')} on each side"
    yield f"  baseline   {side_text(verdict.baseline)}"
    yield f"  candidate  {side_text(verdict.candidate)}"
    for one in verdict.metrics:
        change = change_text(one.metric, one.change)
        yield f"  {one.metric:11} {change:>14}  {_range(one)}{_state(one)}"
    for case in verdict.moved:
        yield f"  moved: {case.case}  {case.baseline:.0%} -> {case.candidate:.0%}"
    for note in verdict.notes:
        yield f"  note: {note}"


def side_text(side: Side) -> str:
    """Pass rate with its interval, pass^k, crashes and cost of one side."""
    rate = "unknown" if side.pass_rate is None else f"{side.pass_rate:.1%}"
    parts = [f"{side.name}: passed {rate}"]
    if side.interval is not None:
        parts.append(f"({side.interval[0]:.0%} to {side.interval[1]:.0%})")
    powers = {k: share for k, share in side.all_passed.items() if k > 1}
    parts += [f"pass^{k} {share:.0%}" for k, share in powers.items()]
    if side.crashed:
        parts.append(f"{_number(side.crashed, 'trial')} crashed")
    if side.cost_usd:
        missing = _number(side.without_cost, "trial") + " without a known cost"
        parts.append(f"cost ${side.cost_usd:.2f}" + (f" + {missing}" if side.without_cost else ""))
    return ", ".join(parts).replace(", (", " (")


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data. Ratios are ``candidate / baseline``."""
    plain = asdict(verdict)
    plain["metrics"] = [_metric(one) for one in verdict.metrics]
    return plain


def markdown(verdict: Verdict) -> str:
    """The verdict for a comment or for the summary of a GitHub job."""
    found = [
        f"## Gate: {verdict.outcome}",
        "",
        *(f"- {_cell(reason)}" for reason in verdict.reasons),
        "",
        "| | trials | pass rate | interval |",
        "|---|---|---|---|",
    ]
    for label, side in (("baseline", verdict.baseline), ("candidate", verdict.candidate)):
        rate = "unknown" if side.pass_rate is None else f"{side.pass_rate:.1%}"
        span = "–" if side.interval is None else "{:.0%} to {:.0%}".format(*side.interval)
        trials = verdict.trials * len(verdict.pairing.cases)
        found.append(f"| {label} {_cell(side.name)} | {trials} | {rate} | {span} |")
    found += ["", "| metric | change | 95 % interval | verdict |", "|---|---|---|---|"]
    for one in verdict.metrics:
        change = change_text(one.metric, one.change)
        found.append(f"| {one.metric} | {change} | {_range(one).strip()} | {_state(one)} |")
    if verdict.moved:
        found += ["", "| case | before | after |", "|---|---|---|"]
        found += [
            f"| {_cell(one.case)} | {one.baseline:.0%} | {one.candidate:.0%} |"
            for one in verdict.moved
        ]
    if verdict.notes:
        found += ["", *(f"- {_cell(note)}" for note in verdict.notes)]
    return "\n".join(found) + "\n"


def github(verdict: Verdict) -> Iterator[str]:
    """Annotations of a GitHub job, and the lines for its log."""
    level = {"pass": "notice", "fail": "error"}.get(verdict.outcome, "warning")
    for reason in verdict.reasons:
        yield f"::{level} title=Gate {verdict.outcome}::{_data(reason)}"
    for case in verdict.moved:
        text = f"{case.case}: {case.baseline:.0%} -> {case.candidate:.0%}"
        yield f"::{'warning' if level != 'notice' else level} title=Case moved::{_data(text)}"
    yield from lines(verdict)


def _data(text: str) -> str:
    """The text of a workflow command: a line break would begin another one."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML: one test case a metric, one for the whole."""
    suite = ElementTree.Element("testsuite", name="stepstream gate")
    counts = {"tests": 0, "failures": 0, "skipped": 0}

    def case(name: str, outcome: str, message: str) -> None:
        one = ElementTree.SubElement(suite, "testcase", classname="gate", name=printable(name))
        counts["tests"] += 1
        if outcome == "fail":
            counts["failures"] += 1
            ElementTree.SubElement(one, "failure", message=printable(message))
        elif outcome == "inconclusive":
            counts["skipped"] += 1
            ElementTree.SubElement(one, "skipped", message=printable(message))

    for metric in verdict.metrics:
        text = f"{change_text(metric.metric, metric.change)} {_range(metric).strip()}"
        case(metric.metric, _state(metric), text)
    case("verdict", verdict.outcome, "; ".join(verdict.reasons))
    suite.attrib |= {name: str(count) for name, count in counts.items()}
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _metric(one: MetricResult) -> dict[str, Any]:
    plain = asdict(one)
    if one.metric in RATIOS:
        # Infinite bounds cannot occur: the differences are logarithms of finite positive ratios.
        low, high = one.low, one.high
        plain |= {
            "change": math.exp(-one.change),
            "low": None if high is None else math.exp(-high),
            "high": None if low is None else math.exp(-low),
        }
    return plain


def _range(one: MetricResult) -> str:
    if one.low is None or one.high is None:
        return ""
    low, high = change_text(one.metric, one.low), change_text(one.metric, one.high)
    # Of a ratio the larger difference is the smaller rise.
    first, second = (low, high) if one.metric == "success" else (high, low)
    return f"({first} to {second})  "


def _state(one: MetricResult) -> str:
    return "fail" if one.failed else "pass" if one.passed else "inconclusive"


def _cell(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line.translate({ord(char): f"\\{char}" for char in "|<>[]`*_\\"})


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
