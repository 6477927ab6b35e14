"""Which rules apply to a run: defaults, matching policies, and what it keeps after changes."""

from __future__ import annotations

from typing import Any

import pytest

from stepstream.schemas.policy import Policy
from stepstream.schemas.rules import default_rules
from stepstream.stream.detectors import make_detector
from stepstream.stream.detectors.loop import Loop
from stepstream.stream.run.rules import Applied, RuleBook, RuleSet

OWNER = ("shop", "prod", "support", "1.4", "refund")


def book(*policies: dict[str, Any]) -> RuleBook:
    return RuleBook((Policy.model_validate(item) for item in policies), make_detector)


def names(rules: RuleSet) -> list[tuple[str, str, bool]]:
    """Policy, alert and whether its action may be ordered, for each rule that is no default."""
    return [
        (item.policy, item.rule.alert_name, item.enforce) for item in rules.applied if item.policy
    ]


COST = {"rule": "run_cost", "limit_usd": "1"}


def test_without_policies_the_defaults_apply_to_every_run() -> None:
    """Rules that need no limit are on for all; their set is shared and pinned to nothing."""
    rules = book().rules_for(*OWNER)
    assert tuple(item.rule for item in rules.applied) == default_rules("run")
    # An empty text in the state means the defaults: most runs have no policy.
    assert rules.pinned == ""
    assert len(rules.detectors) == len(default_rules("run"))
    assert book().rules_for("", "", "", "", "").pinned == ""


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({}, True),
        ({"agent": "support"}, True),
        ({"agent": "sup*", "task": "ref?nd"}, True),
        ({"agent": "Support"}, False),
        ({"agent": "support", "environment": "staging"}, False),
        ({"project": "shop", "agent_version": "1.*"}, True),
        ({"task": ""}, False),
    ],
)
def test_every_field_that_is_given_must_match(match: dict[str, str], matches: bool) -> None:
    """Patterns are globs; case counts."""
    rules = book({"name": "p", "match": match, "rules": [COST]}).rules_for(*OWNER)
    assert names(rules) == ([("p", "run-cost", False)] if matches else [])


def test_a_policy_that_names_a_default_rule_replaces_it() -> None:
    """For the runs that it matches there is one such rule, and it is the policy's."""
    rules = book({"name": "p", "rules": [{"rule": "loop", "repeats": 9}]}).rules_for(*OWNER)
    loops = [item for item in rules.applied if item.rule.rule == "loop"]
    assert [(item.policy, item.rule) for item in loops] == [("p", Loop(rule="loop", repeats=9))]
    assert len(rules.applied) == len(default_rules("run"))


def test_a_default_rule_can_be_turned_off_for_some_runs() -> None:
    """``enabled: false`` takes it away where the policy matches, and nowhere else."""
    rules = book(
        {"name": "p", "match": {"agent": "support"}, "rules": [{"rule": "loop", "enabled": False}]}
    )
    assert "loop" not in [item.rule.rule for item in rules.rules_for(*OWNER).applied]
    assert "loop" in [
        item.rule.rule for item in rules.rules_for("shop", "prod", "other", "", "").applied
    ]


def test_all_matching_policies_apply_in_order_of_their_names() -> None:
    """Each keeps its own mode."""
    rules = book(
        {"name": "b", "mode": "enforce", "rules": [{**COST, "alert": "cost"}]},
        {"name": "a", "rules": [COST]},
        {"name": "c", "match": {"agent": "other"}, "rules": [COST]},
    ).rules_for(*OWNER)
    assert names(rules) == [("a", "run-cost", False), ("b", "cost", True)]


def test_runs_of_one_owner_share_their_detectors() -> None:
    """Detectors keep nothing of a run, so one set serves all runs with the same rules."""
    rules = book({"name": "p", "rules": [COST]})
    assert rules.rules_for(*OWNER) is rules.rules_for(*OWNER)
    assert rules.rules_for(*OWNER) is rules.rules_for("shop", "prod", "another", "", "")


@pytest.mark.parametrize(
    "rule",
    [
        {
            "rule": "run_cost",
            "limit_usd": "0.0000004",
            "warn_usd": "0.0000001",
            "severity": "critical",
            "action": "stop",
        },
        {"rule": "run_tokens", "limit": 5},
        {"rule": "run_steps", "limit": 5, "alert": "too-long"},
        {"rule": "run_duration", "limit": "90s"},
        {"rule": "step_duration", "limit": "250ms", "kind": "tool*", "tool": "s?", "model": "*"},
        {"rule": "hung_step", "after": "1h30m"},
        {"rule": "stuck_run", "after": "2d"},
        {"rule": "loop", "repeats": 3},
        {"rule": "tool_error_ignored", "severity": "info"},
        {"rule": "unpriced_model"},
    ],
)
def test_a_run_keeps_its_rules_through_a_restart_and_a_change_of_policies(
    rule: dict[str, Any],
) -> None:
    """What was in force at its begin: the text in its state gives the same rules in any book."""
    rules = book({"name": "p", "mode": "enforce", "rules": [rule]}).rules_for(*OWNER)
    # A book without the policy, as after its removal.
    again = book({"name": "else", "rules": []}).restored(rules.pinned)
    assert again.applied == rules.applied
    assert again.pinned == rules.pinned
    assert [type(detector) for detector in again.detectors] == [
        type(detector) for detector in rules.detectors
    ]


def test_an_empty_text_means_the_defaults() -> None:
    """Runs that no policy matched carry no text."""
    assert book({"name": "p", "rules": [COST]}).restored("").applied == tuple(
        Applied(rule) for rule in default_rules("run")
    )


def test_a_policy_without_rules_is_no_rule() -> None:
    """It matches, and changes nothing."""
    rules = book({"name": "p", "rules": []}).rules_for(*OWNER)
    assert (rules.applied, rules.pinned) == (
        tuple(Applied(rule) for rule in default_rules("run")),
        "",
    )


def test_many_owners_do_not_grow_without_end() -> None:
    """Every version and task is another owner; the memory is bounded, the sets are shared."""
    rules = book({"name": "p", "rules": [COST]})
    # 25,000 versions of an agent, as a build number in the version gives.
    sets = {id(rules.rules_for("shop", "prod", "a", str(number), "")) for number in range(25_000)}
    assert len(sets) == 1
    assert len(rules._by_owner) <= 10_001


def test_a_run_keeps_the_revision_of_its_policy() -> None:
    """Through a state record too; those of older workers name none."""
    rules = book({"name": "p", "revision": 7, "rules": [COST]}).rules_for(*OWNER)
    assert [item.revision for item in rules.applied if item.policy] == [7]
    restored = book().restored(rules.pinned)
    assert [item.revision for item in restored.applied if item.policy] == [7]
    old = '[["p",false,{"rule":"run_cost","limit_usd":"1"}]]'
    assert [(item.policy, item.revision) for item in book().restored(old).applied] == [("p", 0)]
