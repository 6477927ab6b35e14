"""What a step cost, from its tokens: one pure function of (provider, model, tokens, day, prices).

Unit prices come from Prices documents first, then from the genai-prices package (its bundled list; nothing is fetched).
They are looked up once per (provider, model, day) and kept, as integers of femto-dollars per token, so that a price is
multiplications and one rounding. Unknown is unknown: a model without a price is unpriced, never free.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import msgspec

from stepstream.schemas.documents import ModelPrice, Prices
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.step import Step, TokenUsage

DAY_US: Final = 86_400_000_000
_FEMTO_PER_USD_PER_MILLION = 10**9
_FEMTO_PER_NANO = 10**6


class Cost(msgspec.Struct, frozen=True, gc=False):
    """A step's cost: ``nanos`` is None when unknown; ``source`` is given, priced, unpriced or empty (nothing was used)."""

    nanos: int | None
    source: str
    price_version: str = ""


NOTHING_USED: Final = Cost(None, "")
UNPRICED: Final = Cost(None, "unpriced")


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """Femto-dollars (1e-15 USD) per token and per call, and where they come from."""

    input_femto: int
    output_femto: int
    cached_input_femto: int
    cache_write_femto: int
    version: str
    reasoning_femto: int | None = None
    request_femto: int = 0

    def nanos(self, usage: TokenUsage) -> int:
        """The cost of one call in nano-dollars, rounded once, half to even.

        Cached and cache-written tokens are part of the input, reasoning is part of the output.
        """
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        written = min(usage.cache_write_tokens, usage.input_tokens - cached)
        plain = usage.input_tokens - cached - written
        femto = (
            plain * self.input_femto
            + cached * self.cached_input_femto
            + written * self.cache_write_femto
            + usage.output_tokens * self.output_femto
            + self.request_femto
        )
        if self.reasoning_femto is not None:
            femto += min(usage.reasoning_tokens, usage.output_tokens) * (self.reasoning_femto - self.output_femto)
        whole, rest = divmod(femto, _FEMTO_PER_NANO)
        half = _FEMTO_PER_NANO // 2
        return whole + (rest > half or (rest == half and whole % 2 == 1))


class PriceBook:
    """All prices in force: the documents given, over the built-in list. Immutable; make a new one when a document changes."""

    def __init__(self, documents: tuple[Prices, ...] = ()) -> None:
        self._own: dict[tuple[str, str], list[tuple[date, UnitPrices]]] = {}
        for document in sorted(documents, key=lambda d: d.name):
            label = f"{document.name}@{hashlib.sha256(document.model_dump_json().encode()).hexdigest()[:8]}"
            for price in document.models:
                entry = (price.valid_from or date.min, _from_document(price, label))
                self._own.setdefault((price.provider.lower(), price.model.lower()), []).append(entry)
        for entries in self._own.values():
            entries.sort(key=lambda entry: entry[0])
        self._memo: dict[tuple[str, str, int], UnitPrices | _Tiered | None] = {}

    def cost(self, step: Step, given_nanos: int | None) -> Cost:
        """The cost of an accepted step: what it came with, or its tokens at the unit prices of the day it started.

        A cost that the producer itself worked out from a price list gives way to a Prices document for that model.
        """
        usage = step.usage
        if given_nanos is not None:
            overridden = bool(self._own) and step.cost_source == "priced" and usage is not None and self._has_own(step)
            if not overridden:
                return Cost(given_nanos, step.cost_source or "given", step.price_version)
        if usage is None or not (usage.input_tokens or usage.output_tokens):
            return NOTHING_USED
        if not step.model:
            return UNPRICED
        return self.price(step.provider, step.model, usage, step.start_time)

    def _has_own(self, step: Step) -> bool:
        """Whether a document prices the step's model on the day it started."""
        return bool(step.model) and bool(
            self._documented(step.provider.lower(), step.model.lower(), _date_of(step.start_time // DAY_US))
        )

    def price(self, provider: str, model: str, usage: TokenUsage, time_us: int) -> Cost:
        """The cost of ``usage`` tokens of a model on the UTC day of ``time_us``."""
        day = time_us // DAY_US
        key = (provider, model, day)
        try:
            prices = self._memo[key]
        except KeyError:
            if len(self._memo) > 50_000:
                self._memo.clear()
            prices = self._memo[key] = self._look_up(provider.lower(), model.lower(), day)
        if prices is None:
            return UNPRICED
        if isinstance(prices, _Tiered):
            return prices.cost(usage)
        return Cost(prices.nanos(usage), "priced", prices.version)

    def _look_up(self, provider: str, model: str, day: int) -> UnitPrices | _Tiered | None:
        on = _date_of(day)
        return self._documented(provider, model, on) or _built_in(provider, model, on)

    def _documented(self, provider: str, model: str, on: date) -> UnitPrices | None:
        for owner in (provider, ""):
            valid = [prices for since, prices in self._own.get((owner, model), ()) if since <= on]
            if valid:
                return valid[-1]
        return None


def _date_of(day: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + min(max(day, 0), 2_000_000))


@dataclass(frozen=True, slots=True)
class _Tiered:
    """A built-in price that depends on the amount, or is finer than femto-dollars: asked anew for each usage."""

    price: Any
    version: str

    def cost(self, usage: TokenUsage) -> Cost:
        nanos = _tiered_nanos(self.price, usage)
        return Cost(nanos, "priced", self.version)


def _tiered_nanos(price: Any, usage: TokenUsage) -> int:
    from genai_prices import Usage

    cached = min(usage.cached_input_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    used = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    if cached and getattr(price, "cache_read_mtok", None) is not None:
        used["cache_read_tokens"] = cached
    if written and getattr(price, "cache_write_mtok", None) is not None:
        used["cache_write_tokens"] = written
    return nanos_from_usd(price.calc_price(Usage(**used))["total_price"])


def _from_document(price: ModelPrice, label: str) -> UnitPrices:
    cached = price.cached_input_per_million
    written = price.cache_write_per_million
    return UnitPrices(
        _femto(price.input_per_million),
        _femto(price.output_per_million),
        _femto(price.input_per_million if cached is None else cached),
        _femto(price.input_per_million if written is None else written),
        label,
    )


def _femto(usd_per_million: Decimal) -> int:
    return int((usd_per_million * _FEMTO_PER_USD_PER_MILLION).to_integral_value())


def _is_whole_femto(usd_per_million: Decimal | int) -> bool:
    return usd_per_million * _FEMTO_PER_USD_PER_MILLION % 1 == 0


@lru_cache(maxsize=1)
def _list_version() -> str:
    return f"genai-prices {version('genai-prices')}"


def _built_in(provider: str, model: str, on: date) -> UnitPrices | _Tiered | None:
    from genai_prices import Usage, calc_price

    noon = datetime(on.year, on.month, on.day, 12, tzinfo=UTC)
    try:
        found = calc_price(
            Usage(input_tokens=1, output_tokens=1), model, provider_id=provider or None, genai_request_timestamp=noon
        ).model_price
    except (LookupError, ValueError):
        return None
    given = {key: value for key, value in vars(found).items() if value is not None}
    if "input_mtok" not in given and "output_mtok" not in given:
        return None
    plain = [given.get(key, 0) for key in ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")]
    if not all(isinstance(value, Decimal | int) and _is_whole_femto(value) for value in plain):
        return _Tiered(found, _list_version())
    per_input, per_output = Decimal(plain[0]), Decimal(plain[1])
    return UnitPrices(
        _femto(per_input),
        _femto(per_output),
        _femto(Decimal(given.get("cache_read_mtok", per_input))),
        _femto(Decimal(given.get("cache_write_mtok", per_input))),
        _list_version(),
        _femto(Decimal(given["output_reasoning_mtok"])) if "output_reasoning_mtok" in given else None,
        _femto(Decimal(given.get("requests_kcount", 0)) * 1_000),
    )
