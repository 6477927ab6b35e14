"""Verdicts on results: what fails, what passes, what stays open, and what is reported with it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from stepstream.evals.gate.output import side_text
from stepstream.evals.gate.policy import GatePolicy, policy_of
from stepstream.evals.gate.trials import (
    MOST_VALUE,
    Header,
    Results,
    ResultsError,
    Trial,
    lines_of,
    parse_results,
    results_of,
)
from stepstream.evals.gate.verdict import Verdict, gate, side_of
from tests.support.eval_results import MIXED, made

POLICY = GatePolicy()


def test_the_same_agent_passes() -> None:
    verdict = gate(made("a", MIXED), made("b", MIXED, seed=5), POLICY)
    assert verdict.outcome == "pass"
    assert abs(verdict.metrics[0].change) < 0.1
    assert "cost is not compared: fewer than 10 cases have it on both sides" in verdict.notes


def test_a_loss_fails_and_names_the_cases_that_moved() -> None:
    # A fifth of the cases fails always: each of them is named, and no other.
    worse = [0.0 if place % 5 == 4 else rate for place, rate in enumerate(MIXED)]
    verdict = gate(made("a", MIXED), made("b", worse, seed=5), POLICY)
    assert verdict.outcome == "fail"
    assert verdict.reasons[0].startswith("success is worse: -")
    assert {moved.case for moved in verdict.moved} == {f"case-{p}" for p in range(4, 50, 5)}
    low, high = verdict.metrics[0].low, verdict.metrics[0].high
    assert low is not None
    assert high is not None
    assert low < -0.2 < high < 0


def test_a_rise_of_cost_fails_alone() -> None:
    verdict = gate(
        made("a", MIXED, cost=lambda place: place + 1),
        made("b", MIXED, seed=5, cost=lambda place: 1.5 * (place + 1)),
        POLICY,
    )
    assert verdict.outcome == "fail"
    assert [one.metric for one in verdict.metrics if one.failed] == ["cost"]


def test_a_ratio_beyond_all_numbers_is_still_a_verdict() -> None:
    """The greatest value that results may have, and the smallest that there is."""
    verdict = gate(
        made("a", MIXED, cost=lambda _place: MOST_VALUE),
        made("b", MIXED, seed=5, cost=lambda _place: 5e-324),
        POLICY,
    )
    assert all(math.isfinite(one.change) for one in verdict.metrics)


def test_a_tolerated_rise_of_cost_does_not_fail() -> None:
    policy = policy_of(
        {
            "metrics": {
                "success": {"weight": 0.6, "margin": 0.1},
                "cost": {"margin": 1.25, "tolerance": 0.2},
            }
        }
    )
    before = made("a", MIXED, cost=lambda place: place + 1)
    after = made("b", MIXED, seed=5, cost=lambda place: 1.1 * (place + 1))
    assert gate(before, after, POLICY).outcome == "fail"
    assert gate(before, after, policy).outcome == "pass"


def test_few_trials_are_inconclusive_and_report_what_they_could_find() -> None:
    # One trial of 20 cases cannot exclude a loss of ten points, even if there is none.
    verdict = gate(made("a", MIXED[:20], 1), made("b", MIXED[:20], 1, seed=5), POLICY)
    assert verdict.outcome == "inconclusive"
    assert "may be worse by more than its margin (-10.0 points)" in verdict.reasons[0]
    assert any("of the pass rate is found with a probability" in note for note in verdict.notes)


def test_a_policy_decides_what_inconclusive_counts_as() -> None:
    sides = made("a", MIXED[:20], 1), made("b", MIXED[:20], 1, seed=5)
    verdict = gate(*sides, POLICY.model_copy(update={"inconclusive": "fail"}))
    assert (verdict.outcome, verdict.decided) == ("fail", "inconclusive")


def test_few_cases_fail_or_stay_open_but_never_pass() -> None:
    # Nine pairs without a difference are compatible with a loss that matters.
    assert gate(made("a", [1.0] * 9), made("b", [1.0] * 9), POLICY).outcome == "inconclusive"
    lost = gate(made("a", [0.9] * 5), made("b", [0.2] * 5), POLICY)
    assert lost.outcome == "fail"
    one = gate(made("a", [1.0]), made("b", [1.0]), POLICY)
    assert one.outcome == "inconclusive"
    assert any(note.startswith("one case: the verdict is about") for note in one.notes)


def test_a_crashed_trial_is_a_failure() -> None:
    good = made("a", [1.0] * 20)
    crashed = [
        # success was set before the crash; the crash decides.
        Trial(trial.case, trial.trial, True, crashed=trial.trial < 4)
        for trials in good.cases.values()
        for trial in trials
    ]
    verdict = gate(good, results_of("b", crashed), POLICY)
    assert verdict.outcome == "fail"
    assert verdict.candidate.crashed == 80
    assert verdict.candidate.pass_rate == 0.5


def unknown(results: Results, share: float) -> Results:
    source = random.Random(3)
    trials = [
        Trial(one.case, one.trial, None if source.random() < share else one.success)
        for trials in results.cases.values()
        for one in trials
    ]
    return results_of(results.name, trials)


def test_unknown_outcomes_neither_fail_nor_pass_a_candidate() -> None:
    same = made("a", MIXED), unknown(made("b", MIXED, seed=5), 0.5)
    verdict = gate(*same, POLICY)
    assert verdict.outcome == "inconclusive"
    assert any("outcomes are unknown" in note for note in verdict.notes)
    assert gate(made("a", [1.0] * 20), unknown(made("b", [1.0] * 20), 1.0), POLICY).candidate == (
        replace(verdict.candidate, pass_rate=None, interval=None, all_passed={}, without_cost=160)
    )


def test_the_summary_counts_trials_without_a_cost() -> None:
    """Their cost is not 0: the sum alone would be read as the whole cost."""
    trials = [Trial("a", 0, True, cost_usd=0.5), Trial("a", 1, True)]
    assert side_text(side_of(results_of("v1", trials))).endswith(
        "cost $0.50 + 1 trial without a known cost"
    )


def test_a_loss_that_unknown_outcomes_cannot_undo_fails() -> None:
    # Even if every unknown outcome were a success, the candidate would be worse.
    verdict = gate(made("a", [1.0] * 20), unknown(made("b", [0.2] * 20), 0.1), POLICY)
    assert verdict.outcome == "fail"


def test_planned_rounds_are_decided_at_the_first_that_is_certain() -> None:
    header = Header(1, planned=(1, 2, 3, 5, 8))
    verdict = gate(
        made("a", [1.0] * 30, header=header), made("b", [0.1] * 30, header=header), POLICY
    )
    assert (verdict.outcome, verdict.trials) == ("fail", 1)
    # Five rounds share the 5 %: the first, with one of eight trials, has an eighth of it.
    assert verdict.level == pytest.approx(0.00625, abs=1e-5)


def test_only_cases_of_both_sides_are_compared() -> None:
    verdict = gate(made("a", MIXED), made("b", MIXED[:40], seed=5), POLICY)
    assert len(verdict.pairing.cases) == 40
    assert any("10 are only in the baseline" in note for note in verdict.notes)
    apart = POLICY.model_copy(update={"quarantine": ("case-3",)})
    verdict = gate(made("a", MIXED), made("b", MIXED, seed=5), apart)
    assert "case-3" not in verdict.pairing.cases
    assert "in quarantine and not compared: case-3" in verdict.notes


def test_the_trials_that_every_case_has_are_used() -> None:
    short = made("b", MIXED, 8, seed=5)
    trials = [t for c in short.cases.values() for t in c if t.case != "case-7" or t.trial < 3]
    verdict = gate(made("a", MIXED), results_of("b", trials), POLICY)
    assert verdict.trials == 3
    assert any("trials are not used" in note for note in verdict.notes)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (Header(1, suite_version="1a"), Header(1, suite_version="2b"), "is of version 1a of the"),
        (Header(1), Header(1), "no case in common"),
    ],
)
def test_what_cannot_be_compared_is_refused(before: Header, after: Header, words: str) -> None:
    baseline = made("a", [1.0], header=before)
    candidate = results_of("b", [Trial("another", 0, True)], after)
    with pytest.raises(ResultsError, match=words):
        gate(baseline, candidate, POLICY)


def test_results_are_read_as_they_were_written() -> None:
    results = made("a", MIXED[:3], 2, cost=lambda place: place + 0.5)
    text = "\n".join(lines_of(results))
    assert parse_results("a", text) == results


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no trials"),
        ('{"results": 1}', "no trials"),
        ('{"results": 9}\n', "line 1: results of version 9"),
        ('{"results": 1, "planned": [0, 8]}\n', "line 1: planned must be at most 20 rising"),
        ('{"results": 1, "planned": [3, 1]}\n', "line 1: planned must be"),
        (f'{{"results": 1, "planned": {[*range(1, 22)]}}}\n', "line 1: planned must be"),
        ('{"case": "a", "trial": 0, "cost_usd": NaN}', "line 1: NaN or Infinity is not a result"),
        ('\n{"case": "a", "trial": 0, "cost_usd": -1}', "line 2: cost_usd is -1"),
        ('{"case": "a", "trial": 0, "cost_usd": 1e308}', "number from 0 to 1e[+]15"),
        ('{"case": "a", "trial": "x"}', "line 1: Expected `int`"),
        ('{"case": "", "trial": 0}', "line 1: the case has no name"),
        ('{"case": "a", "trial": 0}\n{"case": "a", "trial": 0}', "trial 0 of case 'a' stands"),
        # Deeper than Python's stack allows.
        ("[" * 5_000, "line 1"),
    ],
)
def test_results_that_cannot_be_read_have_their_line(text: str, words: str) -> None:
    with pytest.raises(ResultsError, match=words):
        parse_results("r.jsonl", text)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rounds": [3, 2]}, "rounds must rise"),
        ({"rounds": [0]}, "rounds"),
        ({"metrics": {"cost": {"margin": 0.9}}}, "ratio above 1"),
        ({"metrics": {"success": {"margin": 10}}}, "0.1 allows a loss of 10 points"),
        ({"metrics": {"sucess": {"margin": 0.1}}}, "success"),
        ({"metrics": {}}, "metrics"),
        ({"alhpa": 0.05}, "alpha"),
        ([1], "GatePolicy|object|mapping"),
    ],
)
def test_policies_that_contradict_themselves_are_refused(data: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        policy_of(data)


def decided(seed: int, loss: float) -> Verdict:
    lowered = [max(0.0, rate - loss) for rate in MIXED]
    policy = policy_of({"metrics": {"success": {"weight": 1, "margin": 0.1}}})
    return gate(made("a", MIXED, 5, seed=seed), made("b", lowered, 5, seed=seed + 10_000), policy)


def test_unchanged_agents_fail_rarely_and_losses_are_found() -> None:
    """benchmarks/evals has the exact shares; here a procedure with 77 % of false fails is found."""
    # With a true rate of 5 % more than 12 of 100 have a probability of 0.15 %.
    assert sum(decided(seed, 0.0).outcome == "fail" for seed in range(100)) <= 12
    assert sum(decided(seed, 0.2).outcome == "fail" for seed in range(30)) >= 28
