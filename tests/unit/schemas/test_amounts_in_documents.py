"""Amounts in policies and prices: every accepted one can be computed with, others are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stepstream.schemas.documents import Prices
from stepstream.schemas.money import MAX_AMOUNT_USD, amount_nanos, nanos_from_usd
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.usage import TokenUsageStruct
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.rules import Applied, RuleBook
from stepstream.stream.usage.windows.rules import WindowRules
from tests.support.stream_world import START_US, event, record_of
from tests.support.usage_world import play, progress, records, used

TAKEN = ["0.000000001", "1000000", "1000001", "2e6", str(MAX_AMOUNT_USD)]
REFUSED = [
    "1e13",
    "1e300",
    "1e3000000",
    "1e-3000000",
    "1e300000000",
    "0E-300000000",
    "NaN",
    "Infinity",
    "-1",
]
RULES: list[dict[str, Any]] = [
    {"rule": "run_cost", "limit_usd": ...},
    {"rule": "run_cost", "limit_usd": str(MAX_AMOUNT_USD), "warn_usd": ...},
    {"rule": "run_cost_spike", "at_least_usd": ...},
    {"rule": "spend", "limit_usd": ...},
    {"rule": "spend_spike", "min_usd": ...},
]


def policy(rule: dict[str, Any], amount: str) -> Policy:
    return Policy.model_validate(
        {"name": "p", "rules": [{k: amount if v is ... else v for k, v in rule.items()}]}
    )


@pytest.mark.parametrize("amount", TAKEN[:-1])
@pytest.mark.parametrize("rule", RULES, ids="-".join)
def test_an_accepted_limit_is_evaluated(rule: dict[str, Any], amount: str) -> None:
    """A budget of millions is valid: it must not stop the worker at every run in its scope."""
    made = policy(rule, amount)
    stage = AssemblePartition(0, 1, rules=RuleBook((made,), make_detector), prices=PriceBook())
    stage.process(record_of(0, event("ab" * 16, "cd" * 8, "", "end", START_US, cost_usd="1")))
    assert len(stage.runs) == 1
    # Through the stages: an amount that overflows does so where it is compared.
    log = records([used("a", 0, 1, cost=5), progress(1), progress(100)])
    assert play(log, 1, window_rules=WindowRules([made]))[0].windows()


@pytest.mark.parametrize("amount", REFUSED)
@pytest.mark.parametrize("rule", RULES, ids="-".join)
def test_a_limit_that_cannot_be_is_refused(rule: dict[str, Any], amount: str) -> None:
    with pytest.raises(ValidationError):
        policy(rule, amount)


@pytest.mark.parametrize("amount", REFUSED)
@pytest.mark.parametrize(
    "field", ["input_per_million", "cached_input_per_million", "audio_per_hour", "per_million"]
)
def test_a_price_that_cannot_be_is_refused(field: str, amount: str) -> None:
    """Exact arithmetic with so many digits would take far too long."""
    price = {"model": "m", "input_per_million": "1", "output_per_million": "1"}
    given: Any = {"input_audio_tokens": amount} if field == "per_million" else amount
    with pytest.raises(ValidationError):
        Prices.model_validate({"name": "own", "models": [price | {field: given}]})


@pytest.mark.parametrize("amount", TAKEN)
def test_a_price_that_is_taken_prices(amount: str) -> None:
    price = {"model": "m", "input_per_million": amount, "output_per_million": "1"}
    book = PriceBook((Prices.model_validate({"name": "own", "models": [price]}),))
    assert book.price("", "m", TokenUsageStruct(input_tokens=5), START_US).source == "priced"


def test_a_rule_whose_detector_cannot_be_made_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    made = policy(RULES[0], "5")

    def make(applied: Applied) -> Any:
        if applied.policy:
            raise ValueError("no such limit")
        return make_detector(applied)

    rules = RuleBook((made,), make).rules_for("shop", "", "a", "", "")
    assert len(rules.detectors) == len(rules.applied) - 1
    assert "rule run_cost of policy p is left out" in caplog.text


@pytest.mark.parametrize("rule", [RULES[0], RULES[1], RULES[3]], ids="-".join)
def test_a_limit_below_what_is_counted_is_refused(rule: dict[str, Any]) -> None:
    """It would be a limit of nothing, of which no share can be used."""
    with pytest.raises(ValidationError):
        policy(rule, "1e-12")


def test_sums_go_beyond_the_bound_of_one_step() -> None:
    assert amount_nanos("2500000.5") == 2_500_000_500_000_000
    with pytest.raises(ValueError, match="1,000,000"):
        nanos_from_usd("2500000.5")
    with pytest.raises(ValueError, match="9,000,000,000"):
        amount_nanos("9000000000.1")
