"""Costs end to end against calculations by hand: right, or unknown; never free or guessed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import yaml
from genai_prices import Usage, calc_price, data
from genai_prices.data_units import unit_data

from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.documents import Prices
from stepstream.schemas.model_names import possible_names, provider_id, undated
from stepstream.schemas.money import MAX_COST_NANOS, nanos_from_usd
from stepstream.schemas.prices import UNPRICED, Cost, PriceBook
from stepstream.schemas.step import Step
from stepstream.schemas.unit_prices import AUDIO_SECONDS, LIST_UNITS
from stepstream.schemas.usage import DETAILS, TokenUsageStruct
from tests.support.paths import DOCS
from tests.support.step_events import NOW_US, STEP_ID, TRACE_ID, value

DAY_US = int(datetime(2026, 3, 3, 12, tzinfo=UTC).timestamp()) * 1_000_000
BOOK = PriceBook()
LLAMA = "accounts/fireworks/models/llama-v3p1-8b-instruct"
used = TokenUsageStruct


def step(**changes: Any) -> Step:
    base: dict[str, Any] = {
        "trace_id": TRACE_ID,
        "step_id": STEP_ID,
        "kind": "llm_call",
        "name": "x",
        "start_time": DAY_US,
    }
    return Step(**(base | changes))


def cost(provider: str, model: str, tier: str = "", **counts: Any) -> Cost:
    attributes = {"service_tier": tier} if tier else {}
    return BOOK.cost(
        step(provider=provider, model=model, usage=used(**counts), attributes=attributes), None
    )


def usd(amount: str) -> int:
    return nanos_from_usd(Decimal(amount))


# --- what the list prices ---


def test_every_unit_that_the_list_prices_has_a_count() -> None:
    """A newer list with another kind of charge fails here."""
    ours = {*LIST_UNITS.values(), *AUDIO_SECONDS, "requests"}
    keys = {unit["price_key"]: name for name, unit in unit_data.items()}
    priced = set()
    for provider in data.providers:
        for model in provider.models:
            variants = [variant.prices for variant in model.price_variants or ()]
            usual = (
                [model.prices]
                if not isinstance(model.prices, list)
                else [one.prices for one in model.prices]
            )
            for prices in [*usual, *variants]:
                priced |= {keys[key] for key, amount in vars(prices).items() if amount is not None}
    assert priced - ours == set()
    assert set(DETAILS) - set(LIST_UNITS) == {"audio_ms"}


@pytest.mark.parametrize(
    ("provider", "model", "counts", "expected"),
    [
        # 100k written, 80k of them for an hour, 20k for five minutes; 3 / 3.75 / 6 / 15 dollars a
        # million
        (
            "anthropic",
            "claude-sonnet-4-5",
            {
                "input_tokens": 100_010,
                "output_tokens": 100,
                "cache_write_tokens": 100_000,
                "cache_write_1h_tokens": 80_000,
            },
            "0.55653",
        ),
        # 19,200 of 19,220 tokens are audio: 1 dollar a million, text 0.3, output 2.5
        (
            "google",
            "gemini-2.5-flash",
            {"input_tokens": 19_220, "output_tokens": 100, "input_audio_tokens": 19_200},
            "0.019456",
        ),
        # 1,290 of 1,296 tokens out are an image
        (
            "google",
            "gemini-2.5-flash-image",
            {"input_tokens": 0, "output_tokens": 1_296, "output_image_tokens": 1_290},
            "0.038715",
        ),
        (
            "anthropic",
            "claude-sonnet-4-5",
            {"input_tokens": 1_000, "output_tokens": 100, "web_searches": 3},
            "0.0345",
        ),
        (
            "openai",
            "gpt-4o",
            {"input_tokens": 1_000, "web_searches": 2, "storage_searches": 4},
            "0.0325",
        ),
        (
            "openai",
            "gpt-image-1.5",
            {
                "input_tokens": 600,
                "input_image_tokens": 400,
                "output_tokens": 1_000,
                "output_image_tokens": 1_000,
            },
            "0.0362",
        ),
        ("openai", "tts-1", {"input_characters": 2_000}, "0.03"),
        ("openai", "whisper-1", {"audio_ms": 90_000}, "0.009"),
        ("mistral", "mistral-ocr-2505", {"document_pages": 10}, "0.01"),
        ("mistral", "mistral-ocr-2505", {"document_pages": 10, "annotated_pages": 10}, "0.03"),
        (
            "perplexity",
            "sonar-deep-research",
            {
                "input_tokens": 100,
                "output_tokens": 1_000,
                "reasoning_tokens": 300,
                "citation_tokens": 200,
                "web_searches": 5,
            },
            "0.0305",
        ),
    ],
)
def test_what_is_priced_by_itself(
    provider: str, model: str, counts: dict[str, Any], expected: str
) -> None:
    """Audio, images, cache writes for an hour, searches, characters, durations and pages have
    their own prices.
    """
    assert cost(provider, model, **counts) == Cost(
        usd(expected),
        "priced",
        BOOK.price("openai", "gpt-4o", used(input_tokens=1), DAY_US).price_version,
    )


def test_all_models_with_all_tokens_agree_with_the_list() -> None:
    """Every model: audio, images, video and one-hour cache writes cost the same as in
    genai-prices.
    """
    counts: dict[str, Any] = {
        "input_tokens": 100_000,
        "output_tokens": 50_000,
        "cached_input_tokens": 20_000,
        "cache_write_tokens": 10_000,
        "cache_write_1h_tokens": 4_000,
        "input_audio_tokens": 8_000,
        "input_image_tokens": 7_000,
        "input_video_tokens": 6_000,
        "cached_audio_tokens": 3_000,
        "cached_image_tokens": 2_000,
        "output_audio_tokens": 9_000,
        "output_image_tokens": 5_000,
        "output_video_tokens": 3_000,
        "reasoning_tokens": 1_000,
        "citation_tokens": 500,
    }
    # The package's own calculation is the oracle; only our rounding differs.
    theirs = Usage(**{LIST_UNITS[name]: count for name, count in counts.items()})
    noon = datetime(2026, 3, 3, 12, tzinfo=UTC)
    wrong, seen = [], 0
    for provider in data.providers:
        for model in provider.models:
            prices = vars(model.get_prices(noon))
            if not any(prices.get(key) is not None for key in ("input_mtok", "output_mtok")):
                continue
            try:
                found = calc_price(
                    theirs, model.id, provider_id=provider.id, genai_request_timestamp=noon
                )
            except (
                LookupError,
                ValueError,
            ):  # not known by its id, or counts are wanted that no client gives
                continue
            expected = found.total_price
            ours = BOOK.price(provider.id, model.id, used(**counts), DAY_US)
            seen += 1
            if ours.nanos is None or abs(ours.nanos - expected * 10**9) > 1:
                wrong.append((provider.id, model.id, ours.nanos, expected))
    assert seen > 1_500
    assert wrong == []


def test_parts_beyond_their_whole_never_cost_more_than_all_of_it() -> None:
    """Counts that contradict each other are cut to what they are a part of."""
    whole = cost("google", "gemini-2.5-flash", input_tokens=1_000, input_audio_tokens=1_000)
    beyond = cost(
        "google",
        "gemini-2.5-flash",
        input_tokens=1_000,
        input_audio_tokens=9_000,
        input_video_tokens=7,
    )
    assert beyond == whole
    both = cost(
        "google",
        "gemini-2.5-flash",
        input_tokens=1_000,
        input_audio_tokens=1_000,
        cached_input_tokens=400,
    )
    # What is cached must be audio: 600 at 1, 400 at 0.1 dollars a million.
    assert both.nanos == usd("0.00064")


@pytest.mark.parametrize(
    "name",
    ["web_searches", "storage_searches", "code_executions", "rerank_searches", "social_searches"],
)
def test_a_search_without_a_price_makes_the_cost_unknown(name: str) -> None:
    """Nothing else stands for it: the tokens alone would be too little."""
    counts: dict[str, Any] = {"input_tokens": 100, name: 1}
    assert cost("groq", "llama-3.3-70b-versatile", **counts) == UNPRICED


# --- service tiers ---


@pytest.mark.parametrize("tier", ["flex", "FLEX", "batch"])
def test_half_price(tier: str) -> None:
    """o3 by flex processing or in a batch costs half."""
    usage, autumn = used(input_tokens=10_000, output_tokens=1_000), DAY_US + 250 * 86_400_000_000
    o3 = {"provider": "openai", "model": "o3", "usage": usage, "start_time": autumn}
    standard = BOOK.cost(step(**o3), None)
    half = BOOK.cost(step(**o3, attributes={"service_tier": tier}), None)
    assert standard.nanos is not None
    assert half.nanos is not None
    assert half.nanos * 2 == standard.nanos


@pytest.mark.parametrize("tier", ["", "auto", "default", "standard", "on_demand", "ON_DEMAND"])
def test_ordinary_tiers_cost_the_standard_price(tier: str) -> None:
    """Names of the standard tier change nothing."""
    assert cost("openai", "gpt-4o", tier, input_tokens=10) == cost(
        "openai", "gpt-4o", input_tokens=10
    )


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("openai", "gpt-4o", "scale"),
        ("openai", "gpt-3.5-turbo", "flex"),
        ("anthropic", "claude-sonnet-4-5", "priority"),
        ("google", "gemini-2.5-flash", "PROVISIONED_THROUGHPUT"),
        ("aws", "us.amazon.nova-lite-v1:0", "optimized"),
        ("azure", "gpt-4o", "batch"),
        ("anthropic", "claude-sonnet-4-5", "geo_us"),
    ],
)
def test_a_tier_without_a_price_is_unknown(provider: str, model: str, tier: str) -> None:
    """Prepaid capacity and tiers that the list does not know are not charged at the standard
    price.
    """
    assert cost(provider, model, tier, input_tokens=10) == UNPRICED


def test_a_document_may_price_a_tier() -> None:
    """A price without a tier holds for every tier that has none of its own."""
    document = Prices.model_validate(
        {
            "name": "ours",
            "models": [
                {"model": "gpt-4o", "input_per_million": 4, "output_per_million": 8},
                {
                    "model": "gpt-4o",
                    "service_tier": "scale",
                    "input_per_million": 1,
                    "output_per_million": 1,
                },
            ],
        }
    )
    book = PriceBook((document,))
    million = used(input_tokens=1_000_000)
    for tier, expected in (("", "4"), ("flex", "4"), ("scale", "1")):
        found = book.cost(
            step(model="gpt-4o", usage=million, attributes={"service_tier": tier}), None
        )
        assert found.nanos == usd(expected)


# --- unknown is not free ---


@pytest.mark.parametrize("usage", [None, used()])
@pytest.mark.parametrize("status", ["ok", "cancelled"])
def test_a_model_call_without_usage_is_unpriced(usage: Any, status: str) -> None:
    """A call that was answered cost something, whether or not the client sent its usage."""
    assert BOOK.cost(step(model="gpt-4o", usage=usage, status=status), None) == UNPRICED


def test_what_used_nothing_is_not_unpriced() -> None:
    """Tools, calls without a model, and calls that failed before they answered."""
    for changes in (
        {"kind": "tool_call", "model": "gpt-4o"},
        {},
        {"model": "gpt-4o", "status": "error"},
        {"phase": "start", "model": "m"},
    ):
        assert BOOK.cost(step(**changes), None) == Cost(None, "")
    broken = step(model="gpt-4o", status="error", first_token_time=DAY_US + 1)
    assert BOOK.cost(broken, None) == UNPRICED


def test_a_given_cost_needs_no_usage() -> None:
    """A bill stands, also of 0."""
    assert BOOK.cost(step(model="gpt-4o"), 0) == Cost(0, "given")


def test_incomplete_usage_is_unpriced() -> None:
    """A lower bound is no cost; a bill is one."""
    assert cost("openai", "gpt-4o", input_tokens=10, incomplete=True) == UNPRICED
    # 5 nano-dollars that the provider charged.
    assert BOOK.cost(step(model="gpt-4o", usage=used(incomplete=True)), 5) == Cost(5, "given")


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
@pytest.mark.parametrize("absurd", [2**53, 2**53 - 1, -320, True, "many", 10**30])
def test_an_absurd_count_is_no_cost(field: str, absurd: Any) -> None:
    """Whatever was counted wrongly: the step stays, its cost is unknown, for worker and sink
    alike.
    """
    raw = value(
        kind="llm_call",
        model="gpt-4o",
        provider="openai",
        usage={"input_tokens": 5, "output_tokens": 5, field: absurd},
    )
    accepted = accept_value(raw, timestamp_us=NOW_US)
    assert isinstance(accepted, Accepted)
    assert BOOK.cost(accepted.step, accepted.cost_nanos) == UNPRICED


def test_one_bound_for_costs_priced_and_given() -> None:
    """A billion tokens of an expensive model fit the counts and are implausible."""
    expensive = Prices.model_validate(
        {
            "name": "expensive",
            "models": [{"model": "m", "input_per_million": 1_001, "output_per_million": 0}],
        }
    )
    book = PriceBook((expensive,))
    assert (
        book.cost(step(model="m", usage=used(input_tokens=999_000_999)), None).nanos
        == 999_999_999_999_000
    )
    assert book.cost(step(model="m", usage=used(input_tokens=1_000_000_000)), None) == UNPRICED
    assert book.cost(step(model="m"), MAX_COST_NANOS) == Cost(MAX_COST_NANOS, "given")
    assert book.cost(step(model="m"), MAX_COST_NANOS + 1) == UNPRICED


# --- names ---


@pytest.mark.parametrize(
    ("provider", "model", "same_as"),
    [
        ("", "models/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("", "gemini/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("", "publishers/google/models/gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        (
            "gcp.vertex_ai",
            "projects/p/locations/eu/publishers/google/models/gemini-2.5-pro",
            ("google", "gemini-2.5-pro"),
        ),
        ("", "vertex_ai/claude-sonnet-4-5@20250929", ("google", "claude-sonnet-4-5")),
        ("", "anthropic/claude-3-7-sonnet-latest", ("anthropic", "claude-3-7-sonnet-latest")),
        ("", "openai/gpt-4o-mini", ("openai", "gpt-4o-mini")),
        ("", "openai/responses/gpt-4o", ("openai", "gpt-4o")),
        ("", "openai:gpt-4o", ("openai", "gpt-4o")),
        ("", "google-gla:gemini-2.5-pro", ("google", "gemini-2.5-pro")),
        ("openai", "anthropic/claude-sonnet-4-5", ("anthropic", "claude-sonnet-4-5")),
        ("litellm", "openai/gpt-4o", ("openai", "gpt-4o")),
        ("", "litellm_proxy/openai/gpt-4o", ("openai", "gpt-4o")),
        ("", "azure/gpt-4o", ("azure", "gpt-4o")),
        ("", "azure/global-standard/gpt-4o", ("azure", "gpt-4o")),
        ("azure_ai", "gpt-4o", ("azure", "gpt-4o")),
        ("azure.ai.inference", "gpt-4o", ("azure", "gpt-4o")),
        ("azure-openai.chat", "gpt-4o", ("azure", "gpt-4o")),
        ("gcp.gen_ai", "gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("google.generative-ai", "gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("gcp.vertex.agent", "gemini-2.5-flash", ("google", "gemini-2.5-flash")),
        ("x_ai", "grok-4", ("x-ai", "grok-4")),
        ("", "xai/grok-4", ("x-ai", "grok-4")),
        (
            "anthropic_bedrock",
            "anthropic.claude-3-haiku-20240307-v1:0",
            ("aws", "anthropic.claude-3-haiku-20240307-v1:0"),
        ),
        (
            "",
            "us.anthropic.claude-3-haiku-20240307-v1:0",
            ("aws", "anthropic.claude-3-haiku-20240307-v1:0"),
        ),
        ("", "apac.amazon.nova-lite-v1:0", ("aws", "amazon.nova-lite-v1:0")),
        ("", "bedrock/us.amazon.nova-lite-v1:0", ("aws", "amazon.nova-lite-v1:0")),
        ("", "bedrock/converse/eu.amazon.nova-lite-v1:0", ("aws", "amazon.nova-lite-v1:0")),
        ("", "bedrock/us-east-1/amazon.nova-lite-v1:0", ("aws", "amazon.nova-lite-v1:0")),
        (
            "",
            "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0",
            ("aws", "amazon.nova-lite-v1:0"),
        ),
        (
            "",
            "openrouter/anthropic/claude-sonnet-4.5",
            ("openrouter", "anthropic/claude-sonnet-4.5"),
        ),
        ("", "groq/llama-3.3-70b-versatile", ("groq", "llama-3.3-70b-versatile")),
        (
            "",
            "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo",
            ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ),
        ("", "ft:gpt-4o-mini-2024-07-18:acme::x1", ("openai", "ft:gpt-4o-mini-2024-07-18:x")),
        ("", "deepseek/deepseek-chat", ("deepseek", "deepseek-chat")),
        ("", "mistral/mistral-large-latest", ("mistral", "mistral-large-latest")),
        ("", f"fireworks_ai/{LLAMA}", ("fireworks", LLAMA)),
    ],
)
def test_names_as_frameworks_write_them(
    provider: str, model: str, same_as: tuple[str, str]
) -> None:
    """Each costs what the model costs under the list's own names."""
    million = used(input_tokens=1_000_000, output_tokens=1_000_000)
    expected = BOOK.price(*same_as, million, DAY_US)
    assert expected.nanos
    assert BOOK.price(provider, model, million, DAY_US) == expected


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-2099-01-01"),
        ("", "openai/gpt-4o-next"),
        ("no-provider", "gpt-4o"),
        ("", "no-provider/gpt-4o"),
        ("ollama", "llama3:8b"),
        ("", "mistral:7b"),
        ("", "us.anthropic.claude-99"),
        ("openrouter", "openai/gpt-4o-next"),
        ("azure", "my-deployment"),
        ("", "meta-llama/llama-3"),
        ("", "/"),
        ("", ":"),
        ("", "openai/"),
        ("", "a/" * 50),
    ],
)
def test_no_version_and_no_server_is_guessed(provider: str, model: str) -> None:
    """What the list does not know by a name of its own stays unpriced."""
    assert BOOK.price(provider, model, used(input_tokens=1), DAY_US) == UNPRICED


@pytest.mark.parametrize("form", ["{0}/{1}", "{0}:{1}", "gateway/{0}/{1}", "litellm_proxy/{0}/{1}"])
def test_every_provider_of_the_list_may_stand_before_a_model(form: str) -> None:
    """Also before the names of those who serve other makers' models:
    ``groq:openai/gpt-oss-120b``.
    """
    from genai_prices.data import providers

    assert [provider.id for provider in providers if provider_id(provider.id) != provider.id] == []
    tokens = used(input_tokens=1_000, output_tokens=10)
    wrong = [
        (provider.id, model.id)
        for provider in providers
        for model in provider.models[:3]
        if BOOK.price("", form.format(provider.id, model.id), tokens, DAY_US)
        != BOOK.price(provider.id, model.id, tokens, DAY_US)
    ]
    assert wrong == []


def test_a_reseller_s_price_is_not_its_maker_s() -> None:
    """openai/ before a model of Groq's names who made it."""
    assert [name.provider for name in possible_names("groq", "openai/gpt-oss-120b")] == ["groq"]
    assert (
        BOOK.price("openrouter", "deepseek/deepseek-chat:free", used(input_tokens=9), DAY_US).nanos
        == 0
    )


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        ("Azure OpenAI", "azure"),
        ("az.ai.openai", "azure"),
        ("openai.chat", "openai"),
        ("ChatOpenAI", "openai"),
        ("AzureChatOpenAI", "azure"),
        ("ChatBedrockConverse", "aws"),
        ("chat", "chat"),
        ("ChatMystery", "chatmystery"),
        ("spring_ai", ""),
        ("acme", "acme"),
        ("", ""),
    ],
)
def test_providers_have_one_id(written: str, listed: str) -> None:
    """Aliases become the list's id, frameworks no provider, others stay."""
    assert provider_id(written) == listed


@pytest.mark.parametrize(
    ("model", "shorter"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet"),
        ("gpt-4-0613", "gpt-4"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("gpt-4o", ""),
        ("gemini-2.5-flash", ""),
        ("llama-3.1-405b", ""),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet"),
    ],
)
def test_dates_of_snapshots(model: str, shorter: str) -> None:
    """Only a date goes away; sizes and versions stay."""
    assert undated(model) == shorter


# --- own prices ---


@pytest.mark.parametrize(
    ("model", "attributes"),
    [
        ("gpt-4o", {}),
        ("GPT-4o", {}),
        ("gpt-4o-2024-08-06", {"request_model": "gpt-4o"}),
        ("gpt-4o-2024-08-06", {}),
        ("openai/gpt-4o", {}),
        ("my-deployment", {"request_model": "openai/gpt-4o"}),
        ("unheard-of", {"request_model": "gpt-4o"}),
    ],
)
def test_a_document_holds_for_the_name_asked_for_and_the_one_answered(
    model: str, attributes: dict[str, str]
) -> None:
    """With a prefix, with a date, in the answer or in the question: before the built-in list."""
    document = Prices.model_validate(
        {
            "name": "ours",
            "models": [{"model": "gpt-4o", "input_per_million": 1, "output_per_million": 1}],
        }
    )
    found = PriceBook((document,)).cost(
        step(
            provider="openai",
            model=model,
            attributes=attributes,
            usage=used(input_tokens=1_000_000),
        ),
        None,
    )
    assert (found.nanos, found.price_version.partition("@")[0]) == (usd("1"), "ours")


@pytest.mark.parametrize(
    ("document", "provider", "model"),
    [
        ({"model": "openai/gpt-4o"}, "openai", "gpt-4o-2024-08-06"),
        ({"model": "bedrock/us.amazon.nova-lite-v1:0"}, "aws.bedrock", "us.amazon.nova-lite-v1:0"),
        ({"provider": "azure", "model": "gpt-4o"}, "azure.ai.openai", "gpt-4o"),
        ({"provider": "Azure OpenAI", "model": "GPT-4o"}, "", "azure/gpt-4o"),
    ],
)
def test_a_document_may_write_names_as_frameworks_do(
    document: dict[str, str], provider: str, model: str
) -> None:
    """Its names are read as those of steps are."""
    models = [document | {"input_per_million": 7, "output_per_million": 7}]
    book = PriceBook((Prices.model_validate({"name": "ours", "models": models}),))
    assert book.price(provider, model, used(input_tokens=1_000_000), DAY_US).nanos == usd("7")


@pytest.mark.parametrize(
    ("document", "provider", "model"),
    [
        ({"model": "gpt-4o", "provider": "openai"}, "", "gpt-4o"),
        ({"model": "gpt-4o", "provider": "openai"}, "litellm", "gpt-4o-2024-08-06"),
        ({"model": "claude-sonnet-4-5", "provider": "anthropic"}, "", "claude-sonnet-4-5-20250929"),
        ({"model": "llama3", "provider": "ollama"}, "", "ollama/llama3"),
        ({"model": "my-model"}, "", "hosted_vllm/my-model"),
        ({"model": "my-model"}, "vllm", "org/my-model"),
    ],
)
def test_a_document_holds_where_the_server_is_known_by_the_name(
    document: dict[str, str], provider: str, model: str
) -> None:
    """Of a provider found by the model alone, and of one before the name that no list has."""
    prices = {"input_per_million": "7", "output_per_million": "7"}
    book = PriceBook((Prices.model_validate({"name": "own", "models": [document | prices]}),))
    cost = book.price(provider, model, used(input_tokens=1_000_000), DAY_US)
    assert (cost.nanos, cost.price_version.partition("@")[0]) == (7 * 10**9, "own")
    assert (
        book.price("azure", "gpt-4o", used(input_tokens=1_000_000), DAY_US).nanos == 2_500_000_000
    )


def test_a_document_for_the_snapshot_goes_before_one_for_the_model() -> None:
    """The most exact name wins."""
    models = [
        {"model": "gpt-4o", "input_per_million": 1, "output_per_million": 1},
        {"model": "gpt-4o-2024-08-06", "input_per_million": 2, "output_per_million": 2},
    ]
    book = PriceBook((Prices.model_validate({"name": "ours", "models": models}),))
    million = used(input_tokens=1_000_000)
    assert book.price("openai", "gpt-4o-2024-08-06", million, DAY_US, asked="gpt-4o").nanos == usd(
        "2"
    )
    assert book.price("openai", "gpt-4o-2024-11-20", million, DAY_US, asked="gpt-4o").nanos == usd(
        "1"
    )


def test_the_model_asked_for_is_priced_where_the_answer_is_unknown() -> None:
    """A gateway's own name in the answer does not hide the price of what was asked for."""
    asked = step(
        provider="openai",
        model="router-7",
        attributes={"request_model": "gpt-4o"},
        usage=used(input_tokens=1_000_000),
    )
    assert BOOK.cost(asked, None).nanos == usd("2.5")


def test_bedrock_s_price_is_that_of_the_region_that_was_asked_for() -> None:
    """Its answers name the model without the region; the worldwide price is a tenth lower."""
    for asked, expected in (
        ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
    ):
        call = step(
            provider="aws",
            model="claude-sonnet-4-5-20250929",
            attributes={"request_model": asked},
            usage=used(input_tokens=1_000_000),
        )
        assert BOOK.cost(call, None).nanos == usd(expected)


def test_a_document_prices_whatever_can_be_counted() -> None:
    """Per million, per thousand, per hour; what it leaves out costs what the wider count costs."""
    model = {
        "model": "house",
        "input_per_million": 1,
        "output_per_million": 2,
        "audio_per_hour": "0.36",
        "per_million": {"input_audio_tokens": 10, "cache_write_1h_tokens": 4},
        "per_thousand": {"web_searches": 5, "requests": 1},
    }
    book = PriceBook((Prices.model_validate({"name": "ours", "models": [model]}),))
    counts = used(
        input_tokens=1_000_000, input_audio_tokens=500_000, web_searches=2, audio_ms=10_000
    )
    assert book.price("", "house", counts, DAY_US).nanos == usd("0.5") + usd("5") + usd(
        "0.01"
    ) + usd("0.001") + usd("0.001")
    # A misspelt count would be a price that is never applied.
    with pytest.raises(ValueError, match="no such count: 'audio'"):
        Prices.model_validate({"name": "ours", "models": [model | {"per_million": {"audio": 1}}]})


def test_the_example_in_the_docs_is_a_document() -> None:
    """docs/costs.md shows prices that ``apply`` takes, and they give the costs on the page."""
    text = (DOCS / "costs.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    book = PriceBook((Prices.model_validate(yaml.safe_load(example)),))
    million = used(input_tokens=1_000_000)
    assert book.price("openai", "gpt-4o-2024-08-06", million, DAY_US).nanos == usd("2")
    assert book.price("openai", "gpt-4o", million, DAY_US, tier="batch").nanos == usd("1")
    assert book.price("vllm", "house-7b", used(web_searches=1), DAY_US).nanos == usd("0.0051")
