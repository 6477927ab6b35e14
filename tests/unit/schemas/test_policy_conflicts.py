"""Contradictions between rules of policies."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product
from typing import Any

import pytest

from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_conflicts import conflicts, is_part


def policy(name: str, *rules: dict[str, Any], mode: str = "enforce", **match: str) -> Policy:
    return Policy.model_validate({"name": name, "mode": mode, "match": match, "rules": rules})


def cost(limit: float, action: str = "none", **more: Any) -> dict[str, Any]:
    return {"rule": "run_cost", "limit_usd": limit, "action": action, **more}


def found(*policies: Policy) -> list[tuple[str, str, str]]:
    """The policy and alert of each rule without effect, and why."""
    return [(one.at.policy.name, one.at.rule.alert_name, one.why) for one in conflicts(policies)]


def test_an_action_above_a_stop_has_no_effect() -> None:
    """Of one policy or of two, in any order."""
    why = "limit_usd: 0.5 has no effect: {other} stops the run at limit_usd: 0.2"
    low, high = cost(0.2, "stop", alert="low"), cost(0.5, "warn", alert="high")
    assert found(policy("p", low, high)) == [("p", "high", why)]
    assert found(policy("p", high), policy("q", low)) == [("p", "high", why)]
    assert found(policy("p", low), policy("q", high)) == [("q", "high", why)]


def test_a_lower_limit_for_fewer_runs_is_no_contradiction() -> None:
    """The higher one has an effect on the others; the other way round it has none."""
    everyone, support = cost(1, "stop"), cost(0.2, "stop")
    assert not found(policy("all", everyone), policy("support", support, agent="support"))
    for agent in ("support", "support-*", "s?pport"):
        (one,) = found(policy("all", support), policy("more", everyone, agent=agent))
        assert one[0] == "more"


@pytest.mark.parametrize(
    ("low", "high"),
    [
        # Only one of them acts, or none does.
        (cost(0.2), cost(0.5, "stop", alert="b")),
        (cost(0.2, "warn"), cost(0.5, "stop", alert="b")),
        # A person may let a paused run go on.
        (cost(0.2, "pause"), cost(0.5, "stop", alert="b")),
        # An alert above the stop is raised if the run does not stop.
        (cost(0.2, "stop"), cost(0.5, alert="b", severity="critical")),
        # Limits of different things.
        (
            {"rule": "step_duration", "limit": "1m", "tool": "a", "action": "stop"},
            {"rule": "step_duration", "limit": "2m", "tool": "b", "action": "stop", "alert": "b"},
        ),
        ({"rule": "run_steps", "limit": 5, "action": "stop"}, cost(9, "stop")),
        # Turned off for now.
        (cost(0.2, "stop", enabled=False), cost(0.5, "stop", alert="b")),
    ],
)
def test_rules_that_go_together(low: dict[str, Any], high: dict[str, Any]) -> None:
    assert not found(policy("p", low, high))


def test_a_policy_that_observes_contradicts_none() -> None:
    """Its actions are not taken."""
    low = policy("low", cost(0.2, "stop"), mode="observe")
    assert not found(low, policy("high", cost(0.5, "stop")))


def test_two_actions_at_one_limit() -> None:
    """The weaker one has no effect. Equal actions are one rule written twice."""
    stops, pauses = policy("a", cost(0.5, "stop")), policy("b", cost(0.5, "pause"))
    assert [name for name, _, _ in found(stops, pauses)] == ["b"]
    assert not found(stops, policy("c", cost(0.5, "stop")))


def test_a_warning_above_a_stop() -> None:
    """``warn_usd`` of another rule counts as a limit."""
    why = "warn_usd: 0.7 has no effect: {other} stops the run at limit_usd: 0.5"
    high = policy("high", cost(1, warn_usd=0.7))
    assert found(policy("low", cost(0.5, "stop")), high) == [("high", "run-cost", why)]


def test_a_limit_of_time_is_named_as_it_was_written() -> None:
    rules = [
        {"rule": "run_duration", "limit": "90s", "action": "stop"},
        {"rule": "run_duration", "limit": "2m", "action": "pause", "alert": "b"},
    ]
    ((_, _, why),) = found(policy("p", *rules))
    assert why == "limit: 2m has no effect: {other} stops the run at limit: 90s"


def test_a_day_with_a_higher_budget_than_its_month() -> None:
    """Of the same owners; an equal one is exceeded on a single day."""
    month = {"rule": "spend", "window": "month", "limit_usd": 100}
    day = {"rule": "spend", "window": "day", "limit_usd": 150, "alert": "day"}
    why = "limit_usd: 150 a day has no effect: the limit of {other} is 100 a month"
    assert found(policy("p", month, day)) == [("p", "day", why)]
    assert not found(policy("p", month, day | {"limit_usd": 100}))
    assert not found(policy("p", month, day | {"per": "agent"}))


def test_a_rule_that_is_off_in_one_policy_and_on_in_another() -> None:
    """Off for some runs, on for all: it is applied. Off for all, on for some is as intended."""
    off, on = {"rule": "loop", "enabled": False}, {"rule": "loop", "repeats": 6}
    why = "it is turned off here, and {other} applies it"
    assert found(policy("all", on), policy("few", off, agent="a")) == [("few", "loop", why)]
    assert not found(policy("all", off), policy("few", on, agent="a"))
    assert not found(policy("p", off, on | {"alert": "b"}))


def test_patterns_within_patterns() -> None:
    """Compared with all texts of three letters: never True where a text is matched by one only."""
    patterns = [
        "*",
        "?",
        "a",
        "a*",
        "*a",
        "a?b",
        "*b*",
        "[ab]",
        "[ab]*",
        "?*",
        "**",
        "",
        "[",
        "a[b",
    ]
    texts = ["".join(text) for n in range(4) for text in product("ab[", repeat=n)]
    for narrow, wide in product(patterns, repeat=2):
        if is_part(narrow, wide):
            assert all(fnmatchcase(t, wide) for t in texts if fnmatchcase(t, narrow)), (
                narrow,
                wide,
            )
    for narrow, wide in [("ab", "a*"), ("a*", "*"), ("a?", "a*"), ("a", "[ab]"), ("a*b", "a*")]:
        assert is_part(narrow, wide)
        assert not is_part(wide, narrow)
