"""The built-in price list: the genai-prices package with its bundled data. Nothing is fetched."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

from stepstream.schemas.money import NANOS_PER_USD
from stepstream.schemas.unit_prices import (
    AUDIO_SECONDS,
    UnitPrices,
    free_of_charge,
    from_price_keys,
)

ORDINARY_TIERS: Final = frozenset(
    ("", "auto", "default", "standard", "standard_only", "on_demand", "traffic_type_unspecified")
)
"""Service tiers that are charged at the standard price."""
_TIER_NAMES: Final = {"on_demand_flex": "flex", "on_demand_priority": "priority"}
"""Google's names for what the list calls otherwise."""

_FREE: Final = ":free"
"""How OpenRouter, and the list, mark the variants of models that cost nothing."""


def tier_of(written: str) -> str:
    """A service tier as the price list calls it; empty for the standard one."""
    tier = written.strip().lower()
    return "" if tier in ORDINARY_TIERS else _TIER_NAMES.get(tier, tier)


def listed_prices(provider: str, model: str, on: date, tier: str) -> UnitPrices | None:
    """The list's prices of a model on a day, for a service tier; None where it has none, or none
    for that tier.
    """
    from genai_prices import Usage, calc_price

    noon = datetime(on.year, on.month, on.day, 12, tzinfo=UTC)
    try:
        found = calc_price(
            Usage(input_tokens=1, output_tokens=1),
            model,
            provider_id=provider or None,
            genai_request_timestamp=noon,
        )
    except (LookupError, ValueError):
        return None
    context = _context(found.model, noon, tier) if tier else {}
    if context is None or (
        context and not any(found.model is known for known in found.provider.models)
    ):
        return None  # another provider's model has no prices of its own for this provider's tiers
    prices = found.model.get_prices(noon, context)
    by_key = {key: value for key, value in vars(prices).items() if value is not None}
    if not by_key and model.endswith(_FREE):
        return free_of_charge(_list_version())
    charges_by_duration = "audio_hours" in by_key or "input_audio_hours" in by_key
    listed = _Durations(found.model, found.provider, noon, context) if charges_by_duration else None
    return from_price_keys(by_key, _list_version(), listed)


def listed_provider(model: str, on: date) -> str:
    """The provider that the list finds by a model's name alone; empty where it finds none."""
    from genai_prices import Usage, calc_price

    noon = datetime(on.year, on.month, on.day, 12, tzinfo=UTC)
    try:
        return str(
            calc_price(Usage(input_tokens=1), model, genai_request_timestamp=noon).provider.id
        )
    except (LookupError, ValueError):
        return ""


def _context(model: Any, noon: datetime, tier: str) -> dict[str, str] | None:
    """The argument by which the list prices a tier; None if it has no such tier of the model."""
    wanted = {"service_tier": tier, "processing": tier, "speed": tier}
    for variant in model.price_variants or ():
        if variant.constraint is not None and not variant.constraint.active(noon):
            continue
        if variant.when and all(wanted.get(key) == value for key, value in variant.when.items()):
            return dict(variant.when)
    return None


@dataclass(frozen=True, slots=True)
class _Durations:
    """A model that is charged by the duration of audio: the list is asked each time, for it knows
    least durations.
    """

    model: Any
    provider: Any
    noon: datetime
    context: dict[str, str]

    def nanos_of_audio(self, milliseconds: int) -> int:
        """The price of so much audio in nano-dollars."""
        from genai_prices import Usage

        used = Usage(**dict.fromkeys(AUDIO_SECONDS, milliseconds / 1_000))
        # Not from unit prices, because the list has a minimum duration that is charged.
        price = self.model.calc_price(
            used,
            self.provider,
            genai_request_timestamp=self.noon,
            price_context=self.context or None,
        )
        return int((price.total_price * NANOS_PER_USD).to_integral_value(ROUND_HALF_EVEN))


@lru_cache(maxsize=1)
def _list_version() -> str:
    return f"genai-prices {version('genai-prices')}"
