"""What a step cost: the built-in list to the nano-dollar, documents over it, unknown never free."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

import pytest
from genai_prices import Usage, calc_price, data
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.documents import Prices
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.prices import NOTHING_USED, UNPRICED, Cost, PriceBook
from stepstream.schemas.step import Step
from stepstream.schemas.usage import TokenUsage, TokenUsageStruct
from tests.support.operations import lines_executed
from tests.support.step_events import NOW_US, STEP_ID, TRACE_ID, value

DAY = datetime(2026, 3, 3, 12, tzinfo=UTC)
DAY_US = int(DAY.timestamp()) * 1_000_000
BOOK = PriceBook()
MODELS = [(provider.id, model.id) for provider in data.providers for model in provider.models]

# Plain, tiered, priced per request, reasoning apart, without cache prices, prices of sixteen
# decimals.
KNOWN = [
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-mini"),
    ("openai", "o3-mini"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-pro"),
    ("mistral", "mistral-large-latest"),
    ("perplexity", "sonar"),
    ("perplexity", "sonar-deep-research"),
    ("openrouter", "google/gemini-3.6-flash"),
]


def usage(**tokens: Any) -> TokenUsage:
    return TokenUsageStruct(**tokens)


@st.composite
def usages(draw: st.DrawFn) -> TokenUsage:
    """Tokens that add up: cached and written ones are part of the input, reasoning is part of
    the output.
    """
    cached, written, plain, reasoning, answer = (draw(st.integers(0, 2_000_000)) for _ in range(5))
    return usage(
        input_tokens=plain + cached + written,
        output_tokens=answer + reasoning,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=reasoning,
    )


def listed(provider: str, model: str, used: TokenUsage) -> int | None:
    """What genai-prices itself asks, in nano-dollars; None where it has no price for tokens."""
    counts = Usage(
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cache_read_tokens=used.cached_input_tokens,
        cache_write_tokens=used.cache_write_tokens,
        output_reasoning_tokens=used.reasoning_tokens,
    )
    try:
        result = calc_price(counts, model, provider_id=provider, genai_request_timestamp=DAY)
    except LookupError:
        return None
    if result.model_price.input_mtok is None and result.model_price.output_mtok is None:
        return 0 if model.endswith(":free") else None
    return int((result.total_price * 10**9).to_integral_value(ROUND_HALF_EVEN))


@pytest.mark.parametrize(("provider", "model"), KNOWN, ids=lambda part: part)
@settings(max_examples=25)
@given(used=usages())
def test_known_models_cost_the_price_of_the_list(
    provider: str, model: str, used: TokenUsage
) -> None:
    """Our cost is that of genai-prices, after one rounding half to even, for any tokens."""
    expected = listed(provider, model, used)
    assert expected is not None
    assert BOOK.price(provider, model, used, DAY_US).nanos == expected


def test_every_model_of_the_list_agrees() -> None:
    """All models, all providers: the same nano-dollars, unpriced where the list has no token
    price.
    """
    used = usage(
        input_tokens=123_457,
        output_tokens=7_919,
        cached_input_tokens=40_009,
        cache_write_tokens=1_013,
        reasoning_tokens=2_003,
    )
    wrong = [
        (provider, model)
        for provider, model in MODELS
        if BOOK.price(provider, model, used, DAY_US).nanos != listed(provider, model, used)
    ]
    # The list was read: an empty one would agree as well.
    assert len(MODELS) > 1_000
    assert wrong == []


def test_more_cached_than_input_is_taken_as_all_cached() -> None:
    """Counts that contradict each other never make the input negative."""
    most = BOOK.price(
        "openai", "gpt-4o", usage(input_tokens=1_000, cached_input_tokens=1_000), DAY_US
    )
    beyond = BOOK.price(
        "openai",
        "gpt-4o",
        usage(input_tokens=1_000, cached_input_tokens=9_000, cache_write_tokens=5),
        DAY_US,
    )
    assert beyond == most
    assert most.nanos is not None
    assert most.nanos > 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [("no-provider", "gpt-4o"), ("openai", "gpt-none"), ("", "no-such-model"), ("", "")],
)
def test_unknown_is_unpriced(provider: str, model: str) -> None:
    """A model without a price is unpriced, not free."""
    assert BOOK.price(provider, model, usage(input_tokens=1), DAY_US) == UNPRICED


@settings(max_examples=60)
@given(st.text(max_size=20), st.text(max_size=20), st.integers(-(2**62), 2**62))
def test_no_name_and_no_day_makes_it_raise(provider: str, model: str, time_us: int) -> None:
    """Whatever producers call their models, and whenever: priced or unpriced."""
    assert BOOK.price(provider, model, usage(input_tokens=1), time_us).source in {
        "priced",
        "unpriced",
    }


def prices(name: str = "negotiated", **models: Any) -> Prices:
    return Prices.model_validate({"name": name, "models": models.pop("models", [models])})


MILLION = usage(input_tokens=1_000_000, output_tokens=1_000_000)


def test_documents_override_and_add() -> None:
    """A Prices document precedes the list and may add models; case does not matter."""
    book = PriceBook(
        (
            prices(
                models=[
                    {
                        "provider": "openai",
                        "model": "gpt-4o",
                        "input_per_million": 2,
                        "output_per_million": "8.5",
                    },
                    {
                        "provider": "ours",
                        "model": "House-1",
                        "input_per_million": "0.1",
                        "output_per_million": 0,
                    },
                ]
            ),
        )
    )
    assert book.price("OpenAI", "gpt-4o", MILLION, DAY_US).nanos == 10_500_000_000
    assert book.price("ours", "house-1", MILLION, DAY_US).nanos == 100_000_000
    assert book.price("openai", "gpt-4o-mini", MILLION, DAY_US) == BOOK.price(
        "openai", "gpt-4o-mini", MILLION, DAY_US
    )
    assert book.price("openai", "gpt-4o", MILLION, DAY_US).price_version.startswith("negotiated@")


def test_a_document_without_provider_is_for_any_provider() -> None:
    """A price without a provider applies to the model everywhere, unless the provider has its
    own.
    """
    book = PriceBook(
        (
            prices(
                models=[
                    {"model": "llama", "input_per_million": 1, "output_per_million": 1},
                    {
                        "provider": "expensive",
                        "model": "llama",
                        "input_per_million": 5,
                        "output_per_million": 5,
                    },
                ]
            ),
        )
    )
    assert book.price("", "llama", MILLION, DAY_US).nanos == 2_000_000_000
    assert book.price("cheap", "llama", MILLION, DAY_US).nanos == 2_000_000_000
    assert book.price("expensive", "llama", MILLION, DAY_US).nanos == 10_000_000_000


def test_valid_from_picks_the_price_of_the_day() -> None:
    """The newest price not after the step's UTC day holds.

    Before the first one the built-in list does.
    """
    at = {"provider": "openai", "model": "gpt-4o", "output_per_million": 0}
    book = PriceBook(
        (
            prices(
                models=[
                    at | {"valid_from": "2026-03-02", "input_per_million": 2},
                    at | {"valid_from": "2026-03-01", "input_per_million": 1},
                    at | {"valid_from": "2026-04-01", "input_per_million": 3},
                ]
            ),
        )
    )
    midnight = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp()) * 1_000_000
    used = usage(input_tokens=1_000_000)
    assert book.price("openai", "gpt-4o", used, midnight - 1).nanos == 1_000_000_000
    assert book.price("openai", "gpt-4o", used, midnight).nanos == 2_000_000_000
    assert book.price("openai", "gpt-4o", used, DAY_US).nanos == 2_000_000_000
    before = midnight - 90 * 86_400_000_000
    assert book.price("openai", "gpt-4o", used, before) == BOOK.price(
        "openai", "gpt-4o", used, before
    )


def test_cached_and_written_tokens_have_their_own_prices() -> None:
    """They default to the input price; a price of zero is a price."""
    own: dict[str, Any] = {
        "provider": "p",
        "model": "m",
        "input_per_million": 10,
        "output_per_million": 0,
    }
    used = usage(input_tokens=1_000_000, cached_input_tokens=400_000, cache_write_tokens=100_000)
    assert PriceBook((prices(**own),)).price("p", "m", used, DAY_US).nanos == 10_000_000_000
    # 0 is a price here, and must not be taken for "no price".
    cheaper = prices(**own, cached_input_per_million=0, cache_write_per_million="12.5")
    assert PriceBook((cheaper,)).price("p", "m", used, DAY_US).nanos == 6_250_000_000


@given(usages(), *[st.decimals(0, 1_000, places=6)] * 4)
def test_document_prices_are_exact(
    used: TokenUsage, per_in: Decimal, per_out: Decimal, cached: Decimal, written: Decimal
) -> None:
    """Tokens times unit prices, in exact decimals, rounded once."""
    document = prices(
        provider="p",
        model="m",
        input_per_million=per_in,
        output_per_million=per_out,
        cached_input_per_million=cached,
        cache_write_per_million=written,
    )
    plain = used.input_tokens - used.cached_input_tokens - used.cache_write_tokens
    usd = (
        plain * per_in
        + used.cached_input_tokens * cached
        + used.cache_write_tokens * written
        + used.output_tokens * per_out
    )
    assert PriceBook((document,)).price("p", "m", used, DAY_US).nanos == nanos_from_usd(
        usd / 1_000_000
    )


def step(**changes: Any) -> Step:
    base: dict[str, Any] = {
        "trace_id": TRACE_ID,
        "step_id": STEP_ID,
        "kind": "llm_call",
        "name": "x",
        "start_time": DAY_US,
    }
    return Step(**(base | changes))


def test_a_step_has_one_cost_and_its_source() -> None:
    """Given, priced, unpriced, or nothing used: four answers, and only the first two are
    amounts.
    """
    used = usage(input_tokens=10)
    priced = BOOK.cost(step(provider="openai", model="gpt-4o", usage=used), None)
    assert priced.nanos == listed("openai", "gpt-4o", used)
    assert priced.source == "priced"
    assert BOOK.cost(step(provider="openai", model="gpt-4o", usage=used), 5) == Cost(5, "given")
    assert BOOK.cost(step(cost_source="priced", price_version="v1"), 5) == Cost(5, "priced", "v1")
    assert BOOK.cost(step(model="mystery", usage=used), None) == UNPRICED
    assert BOOK.cost(step(usage=used), None) == UNPRICED
    assert BOOK.cost(step(kind="tool_call", model="gpt-4o", usage=usage()), None) == NOTHING_USED
    assert BOOK.cost(step(kind="tool_call", model="gpt-4o"), None) == NOTHING_USED
    assert BOOK.cost(step(), None) == NOTHING_USED


def test_prices_are_looked_up_once() -> None:
    """The price list, which takes thousands of steps, is read once for each model and day."""
    book = PriceBook()
    used = usage(input_tokens=1_000, output_tokens=50, cached_input_tokens=10)
    book.price("openai", "gpt-4o", used, DAY_US)
    assert lines_executed(lambda: book.price("openai", "gpt-4o", used, DAY_US)) < 100


def test_a_document_overrides_a_list_price_of_the_producer_but_not_a_given_cost() -> None:
    """Negotiated prices apply to every agent, whichever list its SDK had; a given cost stays."""
    document = Prices.model_validate(
        {
            "name": "negotiated",
            "models": [{"model": "gpt-4o", "input_per_million": 1, "output_per_million": 2}],
        }
    )
    usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
    raw = value(
        kind="llm_call",
        model="gpt-4o",
        provider="openai",
        usage=usage,
        cost_usd="12.5",
        cost_source="priced",
    )
    for source, expected in (
        ("priced", 3_000_000_000),
        ("given", 12_500_000_000),
        ("", 12_500_000_000),
    ):
        accepted = accept_value(
            raw.replace(b'"priced"', f'"{source}"'.encode()), timestamp_us=NOW_US
        )
        assert isinstance(accepted, Accepted)
        assert PriceBook((document,)).cost(accepted.step, accepted.cost_nanos).nanos == expected
        assert PriceBook().cost(accepted.step, accepted.cost_nanos).nanos == 12_500_000_000
