"""Explained is what applies: the same rules as the worker's rule book gives a run."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stepstream.backtest.explain import Owner, explained
from stepstream.schemas.policy import Policy
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import RuleBook

RULES = (
    {"rule": "run_cost", "limit_usd": "1", "action": "stop"},
    {"rule": "loop", "enabled": False},
    {"rule": "run_steps", "limit": 9},
    {"rule": "repetition", "repeats": 5},
    {"rule": "spend", "limit_usd": "5"},
)
policies = st.builds(
    lambda agent, mode, rules: {"agent": agent, "mode": mode, "rules": rules},
    st.sampled_from(["*", "support", "b*"]),
    st.sampled_from(["observe", "enforce"]),
    st.lists(st.sampled_from(RULES), max_size=4, unique_by=lambda rule: rule["rule"]),
)


@given(st.lists(policies, max_size=3), st.sampled_from(["support", "buyer", ""]))
def test_it_is_what_the_rule_book_applies(drawn: list[dict[str, Any]], agent: str) -> None:
    """By rule, policy and whether an action is taken; window rules are explained in addition."""
    made = [
        Policy.model_validate(
            {
                "name": f"p{n}",
                "match": {"agent": one["agent"]},
                "mode": one["mode"],
                "rules": one["rules"],
            }
        )
        for n, one in enumerate(drawn)
    ]
    owner: Owner = ("default", "", agent, "", "")
    # What the worker applies: an explanation that is computed in another way would drift.
    applied = RuleBook(made, make_detector).rules_for(*owner).applied
    wanted = sorted(
        (item.rule.rule, item.policy, item.rule.action if item.enforce else "") for item in applied
    )
    rows = [row for row in explained(made, owner) if row.applies]
    windows = {"spend", "silence", "spend_spike", "success_drop", "version_worse"}
    found = sorted((r.rule, r.policy, r.action) for r in rows if r.rule not in windows)
    assert found == [(rule, policy, "" if a == "none" else a) for rule, policy, a in wanted]


def test_it_states_why_a_policy_does_not_match() -> None:
    """Each field of the match that differs, with what the run has."""
    policy = Policy.model_validate(
        {
            "name": "prod",
            "match": {"environment": "prod", "agent": "support"},
            "rules": [{"rule": "run_steps", "limit": 9}],
        }
    )
    rows = explained([policy], ("default", "", "support", "", ""))
    (row,) = [row for row in rows if row.policy == "prod"]
    assert row.why == "does not match: environment is empty, it wants prod"


def test_a_replaced_default_names_the_policy() -> None:
    """And the policy's own rule shows its limits and its action."""
    policy = Policy.model_validate(
        {
            "name": "p",
            "mode": "enforce",
            "rules": [{"rule": "loop", "repeats": 7, "action": "stop"}],
        }
    )
    loops = [row for row in explained([policy], ("default",) * 5) if row.rule == "loop"]
    assert [(row.applies, row.policy, row.action, row.limits) for row in loops] == [
        (True, "p", "stop", "repeats=7"),
        (False, "", "", ""),
    ]
    assert loops[1].why == "replaced by policy p"


def test_durations_are_shown_as_documents_have_them() -> None:
    rule = {"rule": "run_duration", "limit": "90s"}
    policy = Policy.model_validate({"name": "p", "rules": [rule]})
    rows = explained([policy], ("default", "", "support", "", ""))
    (row,) = [row for row in rows if row.policy == "p"]
    assert row.limits == "limit=90s"


def test_guardrails_are_explained_with_their_policy() -> None:
    """What they do, and for which calls."""
    policy = Policy.model_validate(
        {
            "name": "p",
            "mode": "enforce",
            "guardrails": [
                {"name": "never", "check": "forbidden", "tools": ["delete_*"]},
                {"name": "off", "check": "approval", "tools": ["x"], "enabled": False},
            ],
        }
    )
    rows = explained([policy], ("default", "", "support", "", ""))
    found = [(row.rule, row.alert, row.applies, row.action, row.limits) for row in rows
             if row.rule.startswith("guardrail ")]  # fmt: skip
    assert found == [
        ("guardrail forbidden", "never", True, "refuse", "tools=['delete_*']"),
        ("guardrail approval", "off", False, "", "tools=['x']"),
    ]
