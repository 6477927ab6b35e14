"""The results of a suite: one trial a line, as ``stepstream eval run`` writes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stepstream.evals.gate.policy import MOST_ROUNDS, MOST_TRIALS, is_rising

RESULTS_VERSION: Final = 1
MOST_VALUE: Final = 1e15


class ResultsError(ValueError):
    """Results that cannot be used; the message has the line and what is wrong."""


class Grade(msgspec.Struct, frozen=True):
    """What a grader or a function returned about a trial."""

    by: str
    """The grader, or the function."""
    outcome: bool | None
    score: float | None = None
    reason: str = ""
    model: str = ""
    prompt_hash: str = ""
    cost_usd: float | None = None


class Trial(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One execution of a case. None is unknown: never 0, never a failure."""

    case: str
    trial: int
    success: bool | None = None
    reason: str = ""
    cost_usd: float | None = None
    latency_s: float | None = None
    tokens: float | None = None
    tool_errors: float | None = None
    trace_id: str = ""
    crashed: bool = False
    """The agent raised, ended without an answer or was stopped at its time limit."""
    grades: tuple[Grade, ...] = ()
    """Of the checks ``grader`` and ``function``. Their costs are not part of the trial's."""

    @property
    def outcome(self) -> bool | None:
        """Whether it succeeded; a crashed trial failed."""
        return False if self.crashed else self.success


class Header(msgspec.Struct, frozen=True):
    """The first line of a file of results."""

    results: int
    """The version of the format."""
    suite: str = ""
    suite_version: str = ""
    """A digest of the cases and criteria: results of different suites are not compared."""
    agent: str = ""
    planned: tuple[int, ...] = ()
    """The rounds that were planned before the first trial; empty: one, with all trials."""


@dataclass(frozen=True)
class Results:
    """The trials of one version of an agent, by case and in their order."""

    name: str
    header: Header
    cases: Mapping[str, Sequence[Trial]] = field(default_factory=dict)

    @property
    def trials(self) -> int:
        return sum(map(len, self.cases.values()))


def results_of(name: str, trials: Iterable[Trial], header: Header | None = None) -> Results:
    """The results with these trials. Raises ``ResultsError`` for none, and for a trial twice."""
    by_case: dict[str, dict[int, Trial]] = {}
    for trial in trials:
        of_case = by_case.setdefault(trial.case, {})
        if trial.trial in of_case:
            raise ResultsError(f"{name}: trial {trial.trial} of case {trial.case!r} stands twice")
        of_case[trial.trial] = trial
    if not by_case:
        raise ResultsError(f"{name}: no trials")
    ordered = {case: [found[key] for key in sorted(found)] for case, found in by_case.items()}
    return Results(name, header or Header(RESULTS_VERSION), ordered)


def parse_results(name: str, text: str) -> Results:
    """The results in a file with this name. Raises ``ResultsError``."""
    header: Header | None = None
    trials: list[Trial] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{name}, line {number}"
        if header is None and not trials and '"results"' in line:
            header = _decoded(line, Header, place)
            if header.results != RESULTS_VERSION:
                raise ResultsError(
                    f"{place}: results of version {header.results}; this release reads "
                    f"version {RESULTS_VERSION}: run the suite again"
                )
            _check_plan(header, place)
            continue
        trials.append(_decoded(line, Trial, place))
        _check(trials[-1], place)
    return results_of(name, trials, header)


def lines_of(results: Results) -> Iterator[str]:
    """The lines of a file with these results."""
    yield msgspec.json.encode(results.header).decode()
    for case in results.cases.values():
        for trial in case:
            yield msgspec.json.encode(trial).decode()


def _decoded(line: str, kind: type[Any], place: str) -> Any:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        if any(word in line for word in ("NaN", "Infinity")):
            raise ResultsError(
                f"{place}: NaN or Infinity is not a result; leave an unknown value out, or write "
                "null"
            ) from None
        raise ResultsError(f"{place}: {error}") from None


def _check_plan(header: Header, place: str) -> None:
    planned = header.planned
    is_in_bounds = len(planned) <= MOST_ROUNDS and all(0 < n <= MOST_TRIALS for n in planned)
    if not (is_in_bounds and is_rising(planned)):
        raise ResultsError(
            f"{place}: planned must be at most {MOST_ROUNDS} rising numbers of trials, "
            f"1 to {MOST_TRIALS:,}"
        )


def _check(trial: Trial, place: str) -> None:
    if not trial.case:
        raise ResultsError(f"{place}: the case has no name")
    for name in ("cost_usd", "latency_s", "tokens", "tool_errors"):
        value = getattr(trial, name)
        # Not above: sums and ratios of such values are still finite.
        if value is not None and not 0 <= value <= MOST_VALUE:
            raise ResultsError(
                f"{place}: {name} is {value}; it must be a number from 0 to {MOST_VALUE:.0e}"
            )
