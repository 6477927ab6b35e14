"""Content detectors over real runs: promised accuracy; order, repeats, restarts change nothing."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import TypeAdapter

from benchmarks.cases import lifecycle
from benchmarks.detection.hidden import HIDDEN, NOT_RETRIED, fails, followed_by_answer
from benchmarks.detection.replayed import only, replay
from benchmarks.detection.rewordings import WAYS
from benchmarks.detection.score import Confusion
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import AnyRule
from stepstream.schemas.step import StepEvent
from stepstream.stream.detectors import make_detector
from stepstream.testing.cases import DetectorCase
from stepstream.testing.world import World, all_at_once, as_they_happen
from tests.support.data_cases import real_runs

RULE: TypeAdapter[RuleBase] = TypeAdapter(AnyRule)
RULES = (
    {"rule": "hidden_tool_error"},
    {"rule": "failure_not_retried", "open_errors": True},
    {"rule": "tool_arguments", "rejected": True, "numbers": True},
    {"rule": "irrelevant_retrieval", "asked_again": True},
    {"rule": "unsupported_answer"},
    {"rule": "repetition", "repeats": 2, "exact": True},
    {"rule": "sensitive_data", "look_for": ["key", "card", "iban", "email", "phone", "us_ssn"]},
)


@pytest.mark.parametrize("way", WAYS)
def test_hidden_failures_are_found_in_every_wording(way: str) -> None:
    """Precision and recall 0.95 as they stand, 0.8 reworded; what was not retried likewise."""
    # Of 200: enough failures for the bounds below, in a third of the time.
    runs = real_runs("tau_bench")[:70]

    def reworded(step: StepEvent) -> StepEvent:
        return step.model_copy(update={"output": WAYS[way](step.output)}) if fails(step) else step

    hidden, not_retried = Confusion(), Confusion()
    rules = only({"rule": "hidden_tool_error"}, {"rule": "failure_not_retried"})
    for run, replayed in zip(runs, replay(runs, rules, reworded), strict=True):
        found, unminded, answered = (
            replayed.steps_found(HIDDEN),
            replayed.steps_found(NOT_RETRIED),
            followed_by_answer(run),
        )
        for step in run:
            if step.kind == "tool_call":
                hidden = hidden.plus(truth=fails(step), found=step.step_id in found)
            if fails(step):
                not_retried = not_retried.plus(
                    truth=step.step_id in answered, found=step.step_id in unminded
                )
    least = 0.95 if way == "as it stands" else 0.8
    for counted, wanted in ((hidden, least), (not_retried, min(least, 0.9))):
        # Precision of few findings would be 1 by chance.
        assert counted.found > 10
        assert (counted.precision or 0) >= wanted
        assert (counted.recall or 0) >= wanted


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])
def test_order_duplicates_and_restarts_change_nothing_on_real_runs(rule: dict[str, Any]) -> None:
    """Findings are the same in any order, with each record twice, and across restarts."""
    validated = RULE.validate_python(rule)
    every = [
        run for source in ("tau_bench", "trail_gaia") for run in real_runs(source) if len(run) <= 60
    ]
    runs = (
        sorted(every, key=lambda run: -sum(fails(step) or step.status == "error" for step in run))[
            :10:2
        ]
        + every[::90]
    )
    found = 0
    for number, run in enumerate(runs):
        case = DetectorCase("real", validated, make_detector, run, [])
        calm, shaken, mixed = World(case), World(case), World(case)
        live = lifecycle(run)
        calm.play(live, as_they_happen(live))
        shaken.play(
            [step for step in live for _ in range(2)],
            [us for us in as_they_happen(live) for _ in range(2)],
            shaken.swap,
        )
        shuffled = random.Random(number).sample(live, len(live))
        mixed.play(shuffled, all_at_once(shuffled))
        assert shaken.ids() == calm.ids(), run[0].trace_id
        assert mixed.ids() == calm.ids(), run[0].trace_id
        found += len(calm.ids())
    assert found or rule["rule"] in ("sensitive_data", "unsupported_answer")
