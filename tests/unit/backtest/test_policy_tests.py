"""Tests in policies: what is described becomes a run, and is evaluated as a worker would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stepstream.backtest.policy_tests import evaluate_tests
from stepstream.cli.app import run as stepstream
from stepstream.schemas.policy import Policy
from tests.support.paths import DOCS

RULES: list[dict[str, Any]] = [
    {"rule": "run_cost", "limit_usd": "0.25", "action": "stop"},
    {"rule": "expr", "alert": "many-refunds", "when": "run.calls['refund'] > 2"},
]


def policy(*tests: dict[str, Any], **more: Any) -> Policy:
    base = {"name": "p", "match": {"agent": "support-*"}, "rules": RULES, "tests": list(tests)}
    return Policy.model_validate({**base, **more})


def problems(*tests: dict[str, Any], **more: Any) -> list[tuple[str, ...]]:
    return [result.problems for result in evaluate_tests(policy(*tests, **more))]


def paid(times: int) -> dict[str, Any]:
    return {"model": "m", "cost_usd": 0.1, "times": times}


def test_what_is_expected_passes_and_its_absence_fails() -> None:
    found = problems(
        # Ten calls of $0.10 exceed the limit of $0.25, two do not.
        {"name": "a", "steps": [paid(10)], "expect": [{"alert": "run-cost"}]},
        {"name": "b", "steps": [paid(2)], "expect": [{"alert": "run-cost"}]},
        {"name": "c", "steps": [paid(2)]},
        {"name": "d", "steps": [paid(10)]},
    )
    assert found[0] == found[2] == ()
    assert found[1] == ("run-cost was not raised",)
    assert found[3][0].startswith("run-cost was raised and is not expected: cost $0.30 so far")


def test_it_states_step_and_share_of_the_cost() -> None:
    """The third call of ten exceeds the limit; the root is the first step."""
    expect = [{"alert": "run-cost", "by_cost_share": 0.3, "by_step": 4}]
    (result,) = evaluate_tests(policy({"name": "a", "steps": [paid(10)], "expect": expect}))
    (found,) = result.found
    assert (found.alert, found.steps, found.cost_share, result.problems) == ("run-cost", 4, 0.3, ())
    late = [{"alert": "run-cost", "by_cost_share": 0.2}]
    early = [{"alert": "run-cost", "by_step": 3}]
    assert problems(
        {"name": "a", "steps": [paid(10)], "expect": late},
        {"name": "b", "steps": [paid(10)], "expect": early},
    ) == [
        ("run-cost came when 30% of the cost was spent, wanted by 20%",),
        ("run-cost came at step 4, wanted by step 3",),
    ]


def test_an_expression_sees_a_call_when_it_starts() -> None:
    refunds = {"tool": "refund", "times": 3}
    expect = [{"alert": "many-refunds", "by_step": 4}]
    assert problems({"name": "a", "steps": [refunds], "expect": expect}) == [()]


def test_alerts_of_default_rules_are_not_the_policys() -> None:
    """Six equal calls are a loop, which no rule of the policy is about."""
    # The rule loop is on by default and would raise an alert of its own.
    same = {"tool": "search", "input": "q", "output": "a", "times": 6}
    assert problems({"name": "a", "steps": [same]}) == [()]


def test_a_hanging_step_and_time_are_tested() -> None:
    rules = [{"rule": "step_duration", "limit": "30s"}]
    hangs = {"tool": "search", "ends": False}
    slow = {"tool": "search", "took": "40s"}
    expect = [{"alert": "step-duration"}]
    found = problems(
        {"name": "a", "steps": [{"tool": "x"}, hangs], "expect": expect},
        {"name": "b", "steps": [slow], "expect": expect},
        {"name": "c", "steps": [{"tool": "search", "took": "20s", "after": "50s"}]},
        rules=rules,
    )
    assert found == [(), (), ()]


def test_a_rule_without_a_result_fails_the_test() -> None:
    # Valid as an expression: only the evaluation fails.
    rules = [{"rule": "expr", "when": "1 / (run.steps - run.steps) > 0"}]
    ((problem,),) = problems({"name": "a", "steps": [{"tool": "x"}]}, rules=rules)
    assert "division by zero" in problem


def test_a_run_that_the_policy_does_not_match_is_a_problem() -> None:
    """The run has the labels of the match, unless the test gives others."""
    steps = [{"tool": "x"}]
    good, wrong = problems(
        {"name": "a", "steps": steps, "agent": "support-2"},
        {"name": "b", "steps": steps, "agent": "buyer"},
    )
    assert good == ()
    assert wrong == ("the policy does not match this run: agent is buyer, not support-*",)


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"name": "a", "steps": []}, "at least 1"),
        ({"name": "a", "steps": [{"tool": "x", "ends": False}, {"tool": "y"}]}, "only the last"),
        ({"name": "a", "steps": [{"tool": "x", "times": 2000}] * 6}, "at most 10000 steps"),
        ({"name": "a", "steps": [{"tool": "x", "after": "8d"}]}, "at most a week"),
        ({"name": "a", "steps": [{"tol": "x"}]}, "tol"),
    ],
)
def test_a_wrong_test_is_refused(test: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        policy(test)


def test_the_command_prints_results_and_fails_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example of docs/policies.md passes; with a higher limit it fails, and the code is 1."""
    page = (DOCS / "policies.md").read_text()
    (example,) = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.S) if "tests:" in text]
    file = tmp_path / "refunds.yaml"
    file.write_text(example)
    assert stepstream(["policy", "check", str(file)]) == 0
    assert stepstream(["policy", "test", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    assert f"passed  two refunds are allowed  ({file}:1, policy refund-limits)" in shown.out
    assert "run-cost at step 7, 30% of its cost: cost $0.60" in shown.out
    assert "3 of 3 tests passed" in shown.err
    loose = yaml.safe_load(example)
    # A test must fail when the policy no longer does what the test describes.
    loose["rules"][1]["limit_usd"] = 5
    file.write_text(yaml.safe_dump(loose))
    assert stepstream(["policy", "test", str(file), "--format", "json"]) == 1
    shown = capsys.readouterr()
    assert "run-cost was not raised" in shown.out
    assert "2 of 3 tests passed" in shown.err


def test_a_misspelt_field_of_a_test_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "kind: Policy\nname: p\nrules: [{rule: run_steps, limit: 3}]\n"
        "tests:\n  - name: a\n    stpes: [{tool: x}]\n"
    )
    assert stepstream(["policy", "test", str(file)]) == 1
    assert f"{file}:6: tests.0.stpes is unknown; did you mean steps?" in capsys.readouterr().err


def test_an_expression_is_refused_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong, too large, or with a name that does not exist."""
    file = tmp_path / "p.yaml"
    for text, reason in (
        ("run.cost > 1", "at character 1: run.cost is unknown; did you mean run.cost_usd?"),
        ("open('x') == 1", "there is no function open"),
        # The limit bounds what one evaluation costs the worker.
        (" || ".join(["run.steps > 1"] * 60), "more than 200 names"),
    ):
        file.write_text(f'kind: Policy\nname: p\nrules:\n  - rule: expr\n    when: "{text}"\n')
        assert stepstream(["policy", "check", str(file)]) == 1
        error = capsys.readouterr().err
        assert f"{file}:5: " in error
        assert reason in error


GUARDRAILS = [
    {"name": "never", "check": "forbidden", "tools": ["delete"]},
    {"name": "large", "check": "approval", "tools": ["refund"], "when": "args.usd > 100"},
    {"name": "left", "check": "budget_left", "models": ["*"], "usd": 0.05},
]


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_decisions_of_guardrails_are_compared_with_those_expected(mode: str) -> None:
    """In mode observe with what they would have done; each must be listed."""
    refund = {"tool": "refund", "input": {"usd": 150}}
    found = problems(
        {"name": "a", "steps": [refund], "decisions": [{"guardrail": "large"}]},
        {
            "name": "b",
            "steps": [{"tool": "x"}, {"tool": "delete", "times": 2}],
            "decisions": [
                {"guardrail": "never", "decision": "refused", "step": 2},
                {"guardrail": "never", "step": 3},
            ],
        },
        {"name": "c", "steps": [refund]},
        {
            "name": "d",
            "steps": [{"tool": "refund", "input": "{}"}, {"tool": "refund", "input": "text"}],
            "decisions": [{"guardrail": "large", "decision": "suspended"}],
        },
        {
            "name": "e",
            "budget": {"usd": "0.1", "steps": 5},
            "steps": [paid(2)],
            "decisions": [{"guardrail": "left", "step": 2}],
        },
        guardrails=GUARDRAILS,
        mode=mode,
    )
    assert found[0] == found[1] == found[4] == ()
    assert found[2] == (
        "guardrail large suspended step 1, which is not expected: it needs an approval",
    )
    assert [text.split(":")[0] for text in found[3]] == [
        "guardrail large did not decide",
        "guardrail large failed step 1, which is not expected",
        "guardrail large failed step 2, which is not expected",
    ]


def test_a_refused_call_is_no_step_of_the_run() -> None:
    """Rules do not see it, where the policy enforces."""
    test = {
        "name": "a",
        "steps": [{"tool": "delete", "times": 5}],
        "decisions": [{"guardrail": "never"}] * 5,
    }
    many = {"rule": "expr", "alert": "many", "when": "run.calls['delete'] > 2"}
    for mode, wanted in (("enforce", 0), ("observe", 1)):
        (result,) = evaluate_tests(policy(test, rules=[many], guardrails=GUARDRAILS, mode=mode))
        assert len(result.found) == wanted
