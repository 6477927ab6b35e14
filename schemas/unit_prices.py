"""Unit prices of one model and the arithmetic on them: exact integers, one rounding, the same
amounts as genai-prices.

What a step used is divided into parts that do not overlap: audio that came from the cache is
neither counted as plain input nor as plain cached input. Each part has the price of the narrowest
unit that the list has for it, so audio without a price of its own costs what text costs. Calls that
are charged by number (web searches) have no wider unit: without a price of their own they make the
cost unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any, Final, Protocol

from stepstream.schemas.money import MAX_COST_NANOS
from stepstream.schemas.usage import DETAILS, TOTALLED, TokenUsage, has_details

LIST_UNITS: Final[dict[str, str]] = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_audio_tokens": "input_audio_tokens",
    "input_image_tokens": "input_image_tokens",
    "input_video_tokens": "input_video_tokens",
    "cached_audio_tokens": "cache_audio_read_tokens",
    "cached_image_tokens": "cache_image_read_tokens",
    "output_audio_tokens": "output_audio_tokens",
    "output_image_tokens": "output_image_tokens",
    "output_video_tokens": "output_video_tokens",
    "citation_tokens": "output_citation_tokens",
    "input_characters": "input_characters",
    "document_pages": "input_document_pages",
    "annotated_pages": "input_annotated_document_pages",
    "text_messages": "input_text_messages",
    "web_searches": "web_searches",
    "social_searches": "social_searches",
    "storage_searches": "storage_searches",
    "code_executions": "code_executions",
    "rerank_searches": "rerank_searches",
}
"""Our counts and what genai-prices calls them; ``audio_ms`` stands for its seconds of audio."""
FIELDS: Final = {unit: name for name, unit in LIST_UNITS.items()}
AUDIO_SECONDS: Final = ("audio_seconds", "input_audio_seconds")
PER_THOUSAND: Final = (
    "document_pages", "annotated_pages", "text_messages", "web_searches", "social_searches",
    "storage_searches",
    "code_executions", "rerank_searches",
)  # fmt: skip
"""What the list charges by the thousand; the rest of ``LIST_UNITS`` goes by the million."""
# A search costs as much as thousands of tokens: without it a sum would be far too low.
MUST_BE_PRICED: Final = (
    "web_searches",
    "social_searches",
    "storage_searches",
    "code_executions",
    "rerank_searches",
)
"""What nothing else stands for: where the list has no price for it, the cost is unknown."""


@dataclass(frozen=True, slots=True)
class _Unit:
    """A priced unit: ``price`` in fractions of a nano-dollar, with higher prices above input
    lengths.
    """

    field: str
    price: int
    tiers: tuple[tuple[int, int], ...] = ()
    """Above this many input tokens, in rising order: that price for all of them."""
    narrower: tuple[int, ...] = ()
    """Units before this one that count a part of what this one counts."""

    def at(self, input_tokens: int) -> int:
        """The price for a step with so much input."""
        price = self.price
        for start, higher in self.tiers:
            if input_tokens > start:
                price = higher
        return price


class ByDuration(Protocol):
    """The prices of a model that is charged by the duration of audio."""

    def nanos_of_audio(self, milliseconds: int, /) -> int:
        """The price of so much audio in nano-dollars."""


@dataclass(frozen=True, slots=True)
class UnitPrices:
    """The prices of a model on a day, as integers; ``denominator`` of them are a nano-dollar."""

    denominator: int
    units: tuple[_Unit, ...]
    request: int
    """The price of a call as such."""
    version: str
    plain: tuple[int, int, int, int, int] | None
    """Input, output, cached, cache write, reasoning prices; None if the model has price tiers."""
    listed: ByDuration | None = None
    """The list's model and provider if it charges by duration."""

    def nanos(self, usage: TokenUsage) -> int | None:
        """The cost in nano-dollars, rounded once, half to even; None if something used has no
        price.
        """
        if self.plain is not None and not has_details(usage):
            amount = _plain_amount(self.plain, usage)
        elif usage.incomplete:
            return None
        else:
            found = self._amount(usage)
            if found is None:
                return None
            amount = found
        nanos = rounded(amount + self.request, self.denominator)
        return nanos if nanos <= MAX_COST_NANOS else None

    def _amount(self, usage: TokenUsage) -> int | None:
        counts = parts_within_bounds(usage)
        fields = {unit.field for unit in self.units}
        if any(counts.get(name) and name not in fields for name in MUST_BE_PRICED):
            return None
        amount = 0
        used = False
        own: list[int] = []
        for unit in self.units:
            left = max(0, counts.get(unit.field, 0) - sum(own[index] for index in unit.narrower))
            own.append(left)
            used = used or left > 0
            amount += left * unit.at(usage.input_tokens)
        if usage.audio_ms and self.listed is not None:
            seconds = self.listed.nanos_of_audio(usage.audio_ms)
            return amount + seconds * self.denominator
        return amount if used or not counts else None


def _plain_amount(prices: tuple[int, int, int, int, int], usage: TokenUsage) -> int:
    per_input, per_output, per_cached, per_written, per_reasoning = prices
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
    cached = min(usage.cached_input_tokens, tokens_in)
    written = min(usage.cache_write_tokens, tokens_in - cached)
    reasoning = min(usage.reasoning_tokens, tokens_out)
    return (
        (tokens_in - cached - written) * per_input
        + cached * per_cached
        + written * per_written
        + (tokens_out - reasoning) * per_output
        + reasoning * per_reasoning
    )


def rounded(amount: int, denominator: int) -> int:
    """``amount / denominator``, half to even."""
    whole, rest = divmod(amount, denominator)
    return whole + (rest * 2 > denominator or (rest * 2 == denominator and whole % 2 == 1))


def parts_within_bounds(usage: TokenUsage) -> dict[str, int]:
    """The counts by name, none larger than what it is a part of.

    Where parts add up to more than their whole, cached input is audio or image as far as it must
    be, then the last are cut.
    """
    counts = {name: value for name in (*TOTALLED, *DETAILS) if (value := getattr(usage, name))}
    tokens_in, tokens_out = usage.input_tokens, usage.output_tokens
    cached = _cut(counts, "cached_input_tokens", tokens_in)
    written = _cut(counts, "cache_write_tokens", tokens_in - cached)
    _cut(counts, "cache_write_1h_tokens", written)
    left_in = tokens_in
    for name in ("input_audio_tokens", "input_image_tokens", "input_video_tokens"):
        left_in -= _cut(counts, name, left_in)
    # More cached input than text is left: at least the excess must be cached audio or images.
    overlap = max(0, cached + written - left_in)
    left_cached = cached
    for name, whole in (
        ("cached_audio_tokens", "input_audio_tokens"),
        ("cached_image_tokens", "input_image_tokens"),
    ):
        most = min(left_cached, counts.get(whole, 0))
        given = min(counts.pop(name, 0), most)
        least = min(overlap, most)
        if part := max(given, least):
            counts[name] = part
        overlap -= min(overlap, part)
        left_cached -= part
    left_out = tokens_out
    for name in (
        "reasoning_tokens",
        "output_audio_tokens",
        "output_image_tokens",
        "output_video_tokens",
        "citation_tokens",
    ):
        left_out -= _cut(counts, name, left_out)
    _cut(counts, "annotated_pages", usage.document_pages)
    return counts


def _cut(counts: dict[str, int], name: str, most: int) -> int:
    value = counts.get(name, 0)
    if value > most:
        value = counts[name] = max(0, most)
    return value


def free_of_charge(version: str) -> UnitPrices:
    """The prices of a model that costs nothing."""
    return UnitPrices(
        1, (_Unit("input_tokens", 0), _Unit("output_tokens", 0)), 0, version, (0, 0, 0, 0, 0)
    )


@lru_cache(maxsize=1)
def _list_units() -> Mapping[str, Any]:
    """The list's units by the key of their price."""
    from genai_prices.data_units import unit_data

    return {
        unit["price_key"]: (key, unit["per"], unit["dimensions"]) for key, unit in unit_data.items()
    }


def from_price_keys(
    prices: Mapping[str, Any], version: str, listed: ByDuration | None = None
) -> UnitPrices | None:
    """Unit prices from amounts by the list's price keys (``input_mtok``); None if none is known."""
    known = _list_units()
    request = Fraction(0)
    rows: list[tuple[str, Mapping[str, str], Fraction, list[tuple[int, Fraction]]]] = []
    for key, value in prices.items():
        if value is None or key not in known:
            continue
        unit, per, dimensions = known[key]
        base, tiers = getattr(value, "base", value), getattr(value, "tiers", ())
        scale = Fraction(10**9, per)
        if unit == "requests":
            request = Fraction(base) * scale
        elif unit in AUDIO_SECONDS and listed is None:
            rows.append(("audio_ms", dimensions, Fraction(base) * scale / 1_000, []))
        elif unit in FIELDS:
            rows.append(
                (
                    FIELDS[unit],
                    dimensions,
                    Fraction(base) * scale,
                    [(t.start, Fraction(t.price) * scale) for t in tiers],
                )
            )
    if not rows and listed is None:
        return None
    # Narrow units first (more dimensions), so that a wide one can subtract what they count.
    rows.sort(key=lambda row: (-len(row[1]), row[0]))
    amounts = [request, *(row[2] for row in rows), *(price for row in rows for _, price in row[3])]
    # Integers over one denominator: floats would make sums depend on their order.
    denominator = lcm(*(amount.denominator for amount in amounts))

    def whole(amount: Fraction) -> int:
        return int(amount * denominator)

    units = tuple(
        _Unit(
            field,
            whole(price),
            tuple((start, whole(higher)) for start, higher in tiers),
            tuple(
                index
                for index, other in enumerate(rows[:place])
                if dimensions.items() <= other[1].items()
            ),
        )
        for place, (field, dimensions, price, tiers) in enumerate(rows)
    )
    return UnitPrices(denominator, units, whole(request), version, _plain_prices(units), listed)


def _plain_prices(units: tuple[_Unit, ...]) -> tuple[int, int, int, int, int] | None:
    by_field = {unit.field: unit for unit in units}
    if any(unit.tiers for unit in units) or not by_field.keys() & {"input_tokens", "output_tokens"}:
        return None

    def price(name: str, wider: int = 0) -> int:
        return by_field[name].price if name in by_field else wider

    per_input, per_output = price("input_tokens"), price("output_tokens")
    return (
        per_input,
        per_output,
        price("cached_input_tokens", per_input),
        price("cache_write_tokens", per_input),
        price("reasoning_tokens", per_output),
    )
