"""What a step cost, from what it used: one pure function of (provider, model, usage, service tier,
day, prices).

Unit prices come from Prices documents first, then from the genai-prices package. They are looked up
once per model, tier and day and kept. Unknown is unknown: a model without a price, a tier without a
price, a model call that names no usage and a cost beyond ``MAX_COST_USD`` are unpriced, never free
and never guessed.
"""

from __future__ import annotations

import hashlib
from datetime import date
from decimal import Decimal
from typing import Final

import msgspec

from stepstream.schemas.documents import ModelPrice, Prices
from stepstream.schemas.listed_prices import listed_prices, listed_provider, tier_of
from stepstream.schemas.model_names import possible_names, provider_id, undated
from stepstream.schemas.money import MAX_COST_NANOS
from stepstream.schemas.step import Step
from stepstream.schemas.times import DAY_US
from stepstream.schemas.unit_prices import LIST_UNITS, UnitPrices, from_price_keys
from stepstream.schemas.usage import NO_TOKENS, TokenUsage

SERVICE_TIER: Final = "service_tier"
"""The attribute with the tier of its service that the provider charged."""
REQUEST_MODEL: Final = "request_model"
"""The attribute that holds the model that was asked for, where another one answered."""
_TIER_ATTRIBUTES: Final = (
    SERVICE_TIER,
    "gen_ai.openai.response.service_tier",
    "openai.response.service_tier",
)
_MAX_KNOWN: Final = 50_000


class Cost(msgspec.Struct, frozen=True, gc=False):
    """A step's cost. ``nanos`` is None if unknown; ``source`` is empty if nothing was used."""

    nanos: int | None
    source: str
    price_version: str = ""


NOTHING_USED: Final = Cost(None, "")
UNPRICED: Final = Cost(None, "unpriced")


class PriceBook:
    """All prices: those of the documents, then the built-in list. Immutable."""

    def __init__(self, documents: tuple[Prices, ...] = ()) -> None:
        self._own: dict[tuple[str, str, str], list[tuple[date, UnitPrices]]] = {}
        # Sorted, so that of two documents for a model and day the same one wins in every process.
        for document in sorted(documents, key=lambda d: d.name):
            digest = hashlib.sha256(document.model_dump_json().encode()).hexdigest()
            label = f"{document.name}@{digest[:8]}"
            for price in document.models:
                prices, tier = _from_document(price, label), tier_of(price.service_tier)
                if prices is None:
                    continue
                named = (provider_id(price.provider), price.model.strip().lower())
                for owner, model in {named, *possible_names(price.provider, price.model)}:
                    self._own.setdefault((owner, model, tier), []).append(
                        (price.valid_from or date.min, prices)
                    )
        for entries in self._own.values():
            entries.sort(key=lambda entry: entry[0])
        self._memo: dict[tuple[str, str, str, str, int], UnitPrices | None] = {}

    def cost(self, step: Step, given_nanos: int | None) -> Cost:
        """The cost of an accepted step: the one it came with, or its usage at the prices of its
        day.

        A cost that the producer computed from a price list is replaced if a Prices document has the
        model.
        """
        usage = step.usage
        if given_nanos is not None and given_nanos <= MAX_COST_NANOS:
            overridden = (
                bool(self._own)
                and step.cost_source == "priced"
                and usage is not None
                and self._has_own(step)
            )
            if not overridden:
                return Cost(given_nanos, step.cost_source or "given", step.price_version)
        if usage is None or usage == NO_TOKENS:
            return UNPRICED if _is_answered_call(step) else NOTHING_USED
        if not step.model or usage.incomplete:
            return UNPRICED
        attributes = step.attributes
        if not attributes:
            return self.price(step.provider, step.model, usage, step.start_time)
        return self.price(
            step.provider,
            step.model,
            usage,
            step.start_time,
            asked=attributes.get(REQUEST_MODEL, ""),
            tier=tier_in(attributes),
        )

    def _has_own(self, step: Step) -> bool:
        """Whether a document prices the step's model on the day it started."""
        asked, tier = step.attributes.get(REQUEST_MODEL, ""), tier_in(step.attributes)
        on = _date_of(step.start_time // DAY_US)
        return (
            bool(step.model)
            and self._documented(step.provider, step.model, asked, tier, on) is not None
        )

    def price(
        self,
        provider: str,
        model: str,
        usage: TokenUsage,
        time_us: int,
        *,
        asked: str = "",
        tier: str = "",
    ) -> Cost:
        """The cost of ``usage`` of a model on the UTC day of ``time_us``.

        ``asked`` is the model that was asked for where another one answered, ``tier`` the service
        tier as ``tier_of`` has it.
        """
        key = (provider, model, asked, tier, time_us // DAY_US)
        try:
            prices = self._memo[key]
        except KeyError:
            # Model names come from agents and could fill the memory. Cleared as a whole: an
            # LRU would cost more on every hit than the few lookups that follow.
            if len(self._memo) > _MAX_KNOWN:
                self._memo.clear()
            prices = self._memo[key] = self._look_up(*key)
        if prices is None:
            return UNPRICED
        nanos = prices.nanos(usage)
        return UNPRICED if nanos is None else Cost(nanos, "priced", prices.version)

    def _look_up(
        self, provider: str, model: str, asked: str, tier: str, day: int
    ) -> UnitPrices | None:
        on = _date_of(day)
        own = self._documented(provider, model, asked, tier, on)
        if own is not None:
            return own
        for wanted in _by_precision(provider, model, asked):
            for name in possible_names(provider, wanted):
                listed = listed_prices(name.provider, name.model, on, tier)
                if listed is not None:
                    return listed
        return None

    def _documented(
        self, provider: str, model: str, asked: str, tier: str, on: date
    ) -> UnitPrices | None:
        if not self._own:
            return None
        names = _names_in_documents(model, asked, provider)
        for name in names + [
            (owner, wanted) for _, wanted in names if (owner := _maker(provider, wanted, on))
        ]:
            # From the most precise on: the step's provider, that in the name, any provider.
            for owner in (provider_id(provider), name[0], ""):
                # Even without a price for the tier a document goes before the list.
                for wanted in dict.fromkeys((tier, "")):
                    valid = [
                        prices
                        for since, prices in self._own.get((owner, name[1], wanted), ())
                        if since <= on
                    ]
                    if valid:
                        return valid[-1]
        return None


def tier_in(attributes: dict[str, str]) -> str:
    """The service tier in a step's attributes, as the price list names it; empty for standard."""
    for name in _TIER_ATTRIBUTES:
        written = attributes.get(name)
        if written:
            return tier_of(written)
    return ""


def _is_answered_call(step: Step) -> bool:
    """Whether a step without usage must have had a cost: a call that may have been answered."""
    if step.kind != "llm_call" or not step.model or step.phase != "end":
        return False
    return step.status != "error" or bool(step.output) or step.first_token_time is not None


def _names_in_documents(model: str, asked: str, provider: str) -> list[tuple[str, str]]:
    """What a document may call the model, by provider and name.

    As it stands first, then without the date of a snapshot, last without the server that stands
    before it, though the list knows none of that name (``ollama/llama3``).
    """
    names: list[tuple[str, str]] = []
    for wanted in filter(None, (model, asked)):
        names.append(("", wanted.strip().lower()))
        names += possible_names(provider, wanted)
    names += [(owner, shorter) for owner, name in names if (shorter := undated(name))]
    return names + [
        (server, rest)
        for _, name in names
        for server, slash, rest in [name.partition("/")]
        if slash
    ]


def _maker(provider: str, model: str, on: date) -> str:
    """The provider that the list assumes for a model without one; empty if the name has one."""
    return "" if provider_id(provider) else listed_provider(model, on)


def _by_precision(provider: str, model: str, asked: str) -> tuple[str, str]:
    """The names to find in the list. Bedrock's prices depend on the region in the requested id."""
    return (asked, model) if asked and provider_id(provider) == "aws" else (model, asked)


def _date_of(day: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + min(max(day, 0), 2_000_000))


def _from_document(price: ModelPrice, label: str) -> UnitPrices | None:
    from genai_prices.data_units import unit_data

    cheaper = (
        ("cached_input_tokens", price.cached_input_per_million),
        ("cache_write_tokens", price.cache_write_per_million),
    )
    amounts: dict[str, Decimal] = {
        "input_tokens": price.input_per_million,
        "output_tokens": price.output_per_million,
        **price.per_million,
        **price.per_thousand,
    }
    amounts |= {name: amount for name, amount in cheaper if amount is not None}
    by_key = {
        unit_data[LIST_UNITS.get(name, name)]["price_key"]: amount
        for name, amount in amounts.items()
    }
    if price.audio_per_hour is not None:
        by_key["audio_hours"] = price.audio_per_hour
    return from_price_keys(by_key, label)
