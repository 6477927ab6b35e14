"""Every detector that reads contents passes the behaviour suite that users get too."""

from __future__ import annotations

import pytest

from benchmarks.detection.shapes import evaluated
from stepstream.schemas.rules import RULES
from stepstream.testing import (
    DetectorCase,
    check_duplicates,
    check_findings,
    check_order,
    check_restart,
    check_state,
    check_time,
)
from tests.support.content_cases import CASES

each = pytest.mark.parametrize("tested", CASES, ids=[tested.name for tested in CASES])


def test_every_rule_about_contents_has_a_case() -> None:
    """A new rule comes with a run that breaks it and one that does not."""
    rules = {name for name, kind in RULES.items() if kind.model.reads_contents}
    assert rules == {tested.rule.rule for tested in CASES}


@each
def test_it_finds_what_it_should_and_nothing_else(tested: DetectorCase) -> None:
    """It fires where it should, with evidence and a sentence, and not on a similar run."""
    check_findings(tested)


@each
def test_duplicates_change_nothing(tested: DetectorCase) -> None:
    """Records may come twice."""
    check_duplicates(tested)


@each
def test_restarts_change_nothing(tested: DetectorCase) -> None:
    """What a detector knows of a run is in the run's state."""
    check_restart(tested)


@each
def test_it_knows_no_clock(tested: DetectorCase) -> None:
    """The same log gives the same findings at any time."""
    check_time(tested)


@each
def test_any_order_finds_the_same(tested: DetectorCase) -> None:
    """Records of the same moment may come in any order."""
    check_order(tested)


@each
def test_what_it_keeps_is_bounded(tested: DetectorCase) -> None:
    """A long run neither grows the state without end nor the evidence."""
    check_state(tested)


@pytest.mark.parametrize(
    ("number", "rule", "known"),
    [
        (1, "tool_error_ignored", []),
        (1, "repetition", ["facts of many films"]),
        (
            2,
            "tool_error_ignored",
            ["ticket not closed, reported as closed", "backup then delete by other means"],
        ),
        (2, "repetition", []),
        (3, "repetition", []),
        (4, "repetition", []),
        (5, "tool_error_ignored", []),
        (6, "tool_error_ignored", ["second of three uploads fails"]),
    ],
)
def test_made_runs_give_the_same_findings_as_before(
    number: int, rule: str, known: list[str]
) -> None:
    """Errors handled or ignored; waste or bulk work. The known ones are still mistakes."""
    assert set(evaluated(number, rule)[1]) <= set(known)
