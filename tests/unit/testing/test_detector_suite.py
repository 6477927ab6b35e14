"""The behaviour suite over detectors that read no contents, and faulty detectors that it finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest

from stepstream.schemas.rule_base import RuleBase
from stepstream.stream.detectors.base import DetectorBase, Observation, Observations
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo
from stepstream.testing import (
    DetectorCase,
    check_detector,
    check_duplicates,
    check_findings,
    check_order,
    check_restart,
    check_state,
    ended,
    root,
)
from tests.support.suite_cases import CASES


@pytest.mark.parametrize("tested", CASES, ids=[tested.name for tested in CASES])
def test_built_in_detectors_keep_the_promises_of_detectors(tested: DetectorCase) -> None:
    """All of the suite's checks, as a user would run them."""
    check_detector(tested)


class Chatty(RuleBase):
    """A rule outside of the project that no policy names."""

    rule: Literal["chatty"]


class Good(DetectorBase):
    """Fires once a run has three steps that speak of cats."""

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        seen: list[str] = self.state(run, {}).setdefault("seen", [])
        if "cat" in contents.output and len(seen) < 5:
            seen.append(step.step_id)
        return (
            (Observation("three cats", "info", step_ids=tuple(seen[:3])),) if len(seen) >= 3 else ()
        )


class Forgetful(Good):
    """Keeps its state in itself."""

    def __init__(self, applied: Applied) -> None:
        # A detector serves many runs and is made anew at each restart: what it keeps is lost, and
        # mixed.
        super().__init__(applied)
        self.seen = 0

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        self.seen += "cat" in contents.output
        return (Observation("three cats", "info"),) if self.seen == 3 else ()


class Hoarder(Good):
    """Keeps every text for ever."""

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        # The state of a run has to fit into a record of Kafka.
        self.state(run, {})[step.step_id] = contents.output * 100
        return super().on_content(run, step, contents, now_us)


class Impatient(Good):
    """Depends on whether a dog arrived before a cat."""

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        state = self.state(run, {})
        state["dog"] = state.get("dog", False) or "dog" in contents.output
        return (
            (Observation("a cat without a dog", "info"),)
            if "cat" in contents.output and not state["dog"]
            else ()
        )


class Repeating(Good):
    """Repeats a finding under another name."""

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        return (
            # Findings differ by subject and level, so each of these is another one.
            (Observation("a cat", "info", subject=f"{now_us}"),) if "cat" in contents.output else ()
        )


def own(make: Callable[[Applied], DetectorBase], **more: Any) -> DetectorCase:
    """The same run for each of them."""
    cats = [ended(number, number, output="a cat") for number in range(2, 5)]
    dogs = [ended(number, number, output="a dog") for number in range(2, 5)]
    return DetectorCase(
        "cats",
        Chatty(rule="chatty"),
        make,
        [root(), *cats, root(9)],
        [root(), *dogs, root(9)],
        **more,
    )


def test_a_detector_of_one_s_own_can_be_checked_by_it() -> None:
    """A rule that no policy knows and a detector that keeps the promises."""
    check_detector(own(Good))


@pytest.mark.parametrize(
    ("make", "check", "why"),
    [
        (Forgetful, check_restart, "changes what is found|finds something else"),
        (Hoarder, check_state, "keeps \\d+ bytes"),
        (Repeating, check_findings, "3 findings instead of 1"),
    ],
)
def test_a_bad_detector_is_found_out(
    make: Callable[[Applied], DetectorBase], check: Callable[[DetectorCase], None], why: str
) -> None:
    """A check that no detector fails would be worth nothing."""
    with pytest.raises(AssertionError, match=why):
        check(own(make))


def test_a_detector_that_depends_on_arrival_fails() -> None:
    """Where order counts, a detector must wait or use the steps' own times."""
    steps = [ended(2, 2, output="a dog"), ended(3, 3, output="a cat"), ended(4, 4, output="a cat")]
    quiet = DetectorCase(
        "dogs first",
        Chatty(rule="chatty"),
        Impatient,
        [root(), *steps, root(9)],
        [root()],
        findings=0,
    )
    check_duplicates(quiet)
    with pytest.raises(AssertionError, match="another order"):
        check_order(quiet)
