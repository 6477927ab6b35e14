"""The results of one suite as text and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from xml.etree import ElementTree

from stepstream.evals.gate.output import side_text
from stepstream.evals.gate.trials import Grade, Results, Trial
from stepstream.evals.gate.verdict import side_of
from stepstream.schemas.printable import printable

MOST_SHOWN: Final = 20


def lines(results: Results) -> Iterator[str]:
    """A summary, and each case that did not always succeed; a line each, whatever cases contain."""
    for line in _lines(results):
        yield line.replace("\r", " ").replace("\n", " ")


def _lines(results: Results) -> Iterator[str]:
    yield side_text(side_of(results))
    shown = [(case, trials) for case, trials in results.cases.items() if _open(trials)]
    for case, trials in shown[:MOST_SHOWN]:
        good = sum(trial.outcome is True for trial in trials)
        yield f"  {case}: {good} of {len(trials)} succeeded: {_open(trials)[0].reason}"
    if len(shown) > MOST_SHOWN:
        yield f"  and {len(shown) - MOST_SHOWN} more cases"
    yield from _graders(results)


def _graders(results: Results) -> Iterator[str]:
    """A line for each grader and function: its grades, the unknown ones, and what they cost."""
    by_name: dict[str, list[Grade]] = {}
    for trials in results.cases.values():
        for trial in trials:
            for grade in trial.grades:
                by_name.setdefault(grade.by, []).append(grade)
    for name, grades in by_name.items():
        passed = sum(grade.outcome is True for grade in grades)
        unknown = [grade for grade in grades if grade.outcome is None]
        text = f"  {name}: {len(grades)} grades, {passed} passed, {len(unknown)} unknown"
        costs = [grade.cost_usd for grade in grades if grade.cost_usd is not None]
        if costs:
            text += f", cost ${sum(costs):.4f}"
        yield f"{text}; {unknown[0].reason}" if unknown else text


def junit(results: Results) -> str:
    """A test case for each case; it fails where a trial failed, and is skipped if none is known."""
    suite = ElementTree.Element("testsuite", name=printable(results.header.suite or results.name))
    failures = skipped = 0
    for case, trials in results.cases.items():
        seconds = sum(trial.latency_s or 0.0 for trial in trials)
        one = ElementTree.SubElement(
            suite, "testcase", classname="suite", name=printable(case), time=f"{seconds:.3f}"
        )
        failed = [trial for trial in trials if trial.outcome is False]
        if failed:
            failures += 1
            text = f"{len(failed)} of {len(trials)} trials failed: {failed[0].reason}"
            ElementTree.SubElement(one, "failure", message=printable(text))
        elif all(trial.outcome is None for trial in trials):
            skipped += 1
            ElementTree.SubElement(one, "skipped", message=printable(trials[0].reason))
    suite.attrib |= {
        "tests": str(len(results.cases)),
        "failures": str(failures),
        "skipped": str(skipped),
    }
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _open(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.outcome is not True]
