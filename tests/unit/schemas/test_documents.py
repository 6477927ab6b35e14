"""Policies, subscriptions and prices: what people write is checked, explained and kept exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stepstream.schemas import rules as rule_registry
from stepstream.schemas.documents import DOCUMENT, Prices, Subscription, document_key
from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_match import Match
from stepstream.schemas.rules import default_rules
from stepstream.stream.detectors.budgets import RunCost

# One of each kind of rule, as people write it, with every field of its own.
RULES: list[dict[str, Any]] = [
    {
        "alert": "too-expensive",
        "rule": "run_cost",
        "warn_usd": 0.3,
        "limit_usd": 0.5,
        "action": "stop",
        "severity": "critical",
    },
    {"rule": "run_tokens", "limit": 200_000},
    {"rule": "run_steps", "limit": 100},
    {"rule": "run_duration", "limit": "90s"},
    {
        "rule": "step_duration",
        "limit": "1m30s",
        "kind": "tool_call",
        "tool": "search_*",
        "model": "*",
    },
    {"rule": "hung_step", "after": "2m"},
    {"rule": "stuck_run", "after": "1h"},
    {"rule": "loop", "repeats": 5},
    {"rule": "tool_error_ignored", "enabled": False},
    {"rule": "tool_error_recovered", "severity": "note"},
    {"rule": "unpriced_model", "severity": "info"},
    {"rule": "stop_ignored", "after": "30s"},
    {"rule": "run_cost_spike", "above": "p99", "factor": 4, "min_runs": 50, "at_least_usd": 0.2},
    {"rule": "run_tokens_spike", "above": "p95", "factor": 2.5, "min_runs": 10, "at_least": 5_000},
    {"rule": "run_steps_spike", "above": "p90", "factor": 5, "min_runs": 20, "at_least": 50},
    {"rule": "run_duration_spike", "above": "p75", "factor": 4, "min_runs": 30, "at_least": "1m"},
    {
        "rule": "spend",
        "per": "user_id",
        "window": "month",
        "timezone": "Europe/Berlin",
        "limit_usd": 20,
    },
    {"rule": "spend_spike", "factor": 5, "min_usd": "0.5"},
    {"rule": "error_slo", "objective": 0.99, "window": "28d"},
    {"rule": "latency_slo", "objective": 0.99, "limit": "60s", "window": "30d"},
    {"rule": "success_slo", "objective": 0.9, "min_runs": 50},
    {"rule": "success_drop", "window": "30m", "min_runs": 50},
    {"rule": "silence", "after": "30m"},
    {"rule": "version_worse", "min_runs": 100},
    {"rule": "hidden_tool_error", "tool": "search*"},
    {"rule": "failure_not_retried", "open_errors": True},
    {
        "rule": "tool_arguments",
        "schemas": [{"tool": "t", "parameters": {"type": "object"}}],
        "identifiers": False,
        "rejected": True,
    },
    {"rule": "irrelevant_retrieval", "min_overlap": 0.2, "min_score": 0.5, "empty": False},
    {"rule": "unsupported_answer", "min_overlap": 0.2},
    {
        "rule": "forbidden",
        "tools": ["delete_*"],
        "patterns": ["drop table"],
        "where": ["input"],
        "kinds": ["tool_call"],
    },
    {"rule": "sensitive_data", "look_for": ["card", "email"], "kinds": ["output"]},
    {"rule": "repetition", "repeats": 2, "similarity": 0.7, "exact": True},
]
# A rule without required fields needs no entry: it is tried as a policy names it in the shortest
# way.
RULES += [{"rule": "criteria_failed", "checks": [{"check": "never", "tools": ["refund"]}]}]
RULES += [{"rule": "sql", "alert": "rows", "query": "SELECT 1", "every": "1m", "max_rows": 5}]
RULES += [{"rule": "expr", "alert": "odd", "when": "run.steps > 9", "per": "tool"}]
RULES += [
    {"rule": name}
    for name, kind in rule_registry.RULES.items()
    if name not in {rule["rule"] for rule in RULES}
    and not any(
        field.is_required() for key, field in kind.model.model_fields.items() if key != "rule"
    )
]
RULE_KINDS = set(rule_registry.RULES.names())

DOCUMENTS = """
kind: Policy
name: support-refunds
match: {project: shop, environment: prod, agent: "support-*", task: refund}
mode: enforce
rules:
  - {alert: too-expensive, rule: run_cost, warn_usd: 0.30, limit_usd: 0.50, action: stop,
     severity: critical}
  - {alert: slow-refund, rule: run_duration, limit: 90s}
---
kind: Subscription
name: oncall
match: {severity: [error, critical], environment: prod}
group_by: [project, agent, alert]
repeat_interval: 4h
to: {webhook: {url: "https://hooks.example.org/x"}}
link_template: "https://traces.example.org/{trace_id}"
---
kind: Prices
name: negotiated
models:
  - {provider: openai, model: gpt-4o, valid_from: 2026-01-01, input_per_million: 2.0,
     output_per_million: 8.0}
"""


def policy(*rules: dict[str, Any], **changes: Any) -> Policy:
    return Policy.model_validate({"name": "p", "rules": list(rules)} | changes)


def complaint(document: Any) -> str:
    with pytest.raises(ValidationError) as error:
        DOCUMENT.validate_python(document)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.value.errors())


def test_every_kind_of_rule_is_tried_here() -> None:
    """A rule that is added is added here too."""
    assert {rule["rule"] for rule in RULES} == RULE_KINDS


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])
def test_rules_are_kept_exactly(rule: dict[str, Any]) -> None:
    """A rule written to the config topic and read there is the same rule."""
    document = policy(rule)
    assert DOCUMENT.validate_json(document.model_dump_json()) == document
    assert Policy.model_validate(document.model_dump()) == document


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["rule"])
def test_a_misspelt_field_of_a_rule_is_refused(rule: dict[str, Any]) -> None:
    """A field that a rule does not have is named in the error, with the rule's place."""
    assert "limit_euros" in complaint(
        {"kind": "Policy", "name": "p", "rules": [rule | {"limit_euros": 1}]}
    )


def test_documents_of_the_guide_are_valid() -> None:
    """The three kinds as YAML, together in one file; each has its key on the config topic."""
    documents = [DOCUMENT.validate_python(raw) for raw in yaml.safe_load_all(DOCUMENTS)]
    assert [document_key(d) for d in documents] == [
        "policy/support-refunds",
        "subscription/oncall",
        "prices/negotiated",
    ]
    for document in documents:
        assert DOCUMENT.validate_json(document.model_dump_json()) == document


def test_amounts_in_policies_are_exact() -> None:
    """0.30 in a file is thirty cents, not the nearest double."""
    rule = policy(RULES[0]).rules[0]
    assert isinstance(rule, RunCost)
    assert (rule.warn_usd, rule.limit_usd) == (Decimal("0.3"), Decimal("0.5"))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"rule": "run_costs", "limit_usd": 1},
            "there is no rule 'run_costs'; did you mean run_cost?",
        ),
        ({"limit_usd": 1}, "Unable to extract tag using discriminator 'rule'"),
        ({"rule": "run_cost"}, "rules.0.run_cost.limit_usd: Field required"),
        ({"rule": "run_cost", "limit_usd": 0}, "greater than 0"),
        ({"rule": "run_cost", "limit_usd": "NaN"}, "finite"),
        ({"rule": "run_cost", "limit_usd": "inf"}, "finite"),
        ({"rule": "run_cost", "limit_usd": "fifty"}, "decimal"),
        (
            {"rule": "run_cost", "limit_usd": 1, "warn_usd": 1},
            "warn_usd must be lower than limit_usd",
        ),
        ({"rule": "run_duration", "limit": "90 parsecs"}, "write 90s, 1h30m, 250ms, 2d"),
        ({"rule": "run_duration", "limit": "0s"}, "greater than 0"),
        ({"rule": "run_duration", "limit": float("inf")}, "not a duration: inf"),
        ({"rule": "run_tokens", "limit": 0}, "greater than 0"),
        ({"rule": "run_steps", "limit": "many"}, "integer"),
        ({"rule": "loop", "repeats": 2}, "greater than or equal to 3"),
        ({"rule": "hung_step", "severity": "fatal"}, "'info', 'warning', 'error' or 'critical'"),
        ({"rule": "hung_step", "action": "explode"}, "'none', 'warn', 'pause' or 'stop'"),
        ({"rule": "hung_step", "alert": "Not A Name"}, "match pattern"),
    ],
)
def test_a_wrong_rule_gets_an_explanation(rule: dict[str, Any], message: str) -> None:
    """The error names the place and what would be right."""
    text = complaint({"kind": "Policy", "name": "p", "rules": [rule]})
    assert message in text
    assert "rules.0" in text


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"name": "p"}, "Unable to extract tag using discriminator 'kind'"),
        ({"kind": "Polici", "name": "p"}, "'Policy', 'Subscription', 'Prices'"),
        ({"kind": "Policy"}, "name: Field required"),
        ({"kind": "Policy", "name": "Two Words"}, "match pattern"),
        ({"kind": "Policy", "name": "p", "mode": "maybe"}, "'observe' or 'enforce'"),
        ({"kind": "Policy", "name": "p", "match": {"agents": "x"}}, "match.agents"),
        (
            {"kind": "Policy", "name": "p", "rules": [RULES[1], RULES[1]]},
            "two rules share the alert name run-tokens",
        ),
        ({"kind": "Subscription", "name": "s"}, "to: Field required"),
        ({"kind": "Subscription", "name": "s", "to": {}}, "at least 1"),
        ({"kind": "Subscription", "name": "s", "to": {"webhook": {}, "chat": {}}}, "at most 1"),
        (
            {"kind": "Subscription", "name": "s", "to": {"x": 1}, "match": {"severity": ["loud"]}},
            "match.severity",
        ),
        (
            {"kind": "Prices", "name": "x", "models": [{"model": "m", "input_per_million": 1}]},
            "output_per_million: Field required",
        ),
        (
            {
                "kind": "Prices",
                "name": "x",
                "models": [{"model": "m", "input_per_million": -1, "output_per_million": 1}],
            },
            "greater than or equal to 0",
        ),
        (
            {
                "kind": "Prices",
                "name": "x",
                "models": [{"model": "m", "input_per_million": "NaN", "output_per_million": 1}],
            },
            "finite",
        ),
        ([], "dictionary"),
        (None, "dictionary"),
    ],
)
def test_a_wrong_document_gets_an_explanation(document: Any, message: str) -> None:
    """The error names the field and what would be right."""
    assert message in complaint(document)


@pytest.mark.parametrize(
    ("match", "run", "matches"),
    [
        ({}, {}, True),
        ({"agent": "support-*"}, {"agent": "support-refunds"}, True),
        ({"agent": "support-*"}, {"agent": "sales"}, False),
        ({"agent": "Support"}, {"agent": "support"}, False),
        ({"project": "shop", "task": "refund"}, {"project": "shop", "task": "refund"}, True),
        ({"project": "shop", "task": "refund"}, {"project": "shop", "task": ""}, False),
        ({"agent_version": "v1?"}, {"agent_version": "v12"}, True),
        ({"environment": ""}, {"environment": "prod"}, False),
    ],
)
def test_a_policy_matches_when_every_field_given_does(
    match: dict[str, str], run: dict[str, str], matches: bool
) -> None:
    """Fields left out match anything; patterns are case-sensitive."""
    fields = dict.fromkeys(("project", "environment", "agent", "agent_version", "task"), "") | run
    assert Match.model_validate(match).matches(**fields) is matches


def test_rules_without_limits_are_on_by_default_and_stop_nothing() -> None:
    """With no document at all only rules that need no limit fire, and none of them acts."""
    assert {rule.rule for rule in default_rules("run")} == {
        "hung_step",
        "stuck_run",
        "loop",
        "tool_error_ignored",
        "tool_error_recovered",
        "unpriced_model",
        "run_cost_spike",
        "stop_ignored",
        "hidden_tool_error",
        "failure_not_retried",
        "repetition",
        "sensitive_data",
        "guardrail",
    }
    assert {rule.action for rule in default_rules("run")} == {"none"}
    assert policy().mode == "observe"


def test_an_alert_is_named_after_its_rule_unless_it_has_a_name() -> None:
    """``run_steps`` raises ``run-steps``; ``alert`` overrides it, for two rules of one kind."""
    both = policy(
        {"rule": "run_steps", "limit": 10},
        {"rule": "run_steps", "limit": 99, "alert": "far-too-long"},
    )
    assert [rule.alert_name for rule in both.rules] == ["run-steps", "far-too-long"]


def test_documents_cannot_be_changed_in_place() -> None:
    """A document in force is shared by all readers; a change is a new document."""
    document = policy(*RULES)
    with pytest.raises(ValidationError):
        document.mode = "enforce"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        document.rules[0].enabled = False  # type: ignore[misc]
    # Readers keep documents in sets and as keys.
    assert isinstance(hash(document), int)


def test_prices_default_cached_and_written_to_the_input_price() -> None:
    """Absent is absent: the default is applied where prices are used, so that documents
    round-trip.
    """
    document = Prices.model_validate(
        {
            "name": "x",
            "models": [{"model": "m", "input_per_million": "0.1", "output_per_million": 2}],
        }
    )
    # A default written into the document would stay when the input price changes.
    assert document.models[0].cached_input_per_million is None
    assert document.models[0].input_per_million == Decimal("0.1")


def test_subscriptions_keep_their_channel_as_written() -> None:
    """A channel's options are checked, and kept as they were written."""
    document = Subscription.model_validate(
        {
            "name": "s",
            "to": {"webhook": {"url": "https://h/x", "headers": {"X": "1"}, "timeout": "3s"}},
        }
    )
    assert DOCUMENT.validate_json(document.model_dump_json()) == document
