"""Encodes step records for the wire: shortens, redacts, prices and serialises them.

Runs in the sender's thread. ``stepstream.schemas.accept`` takes every result without repairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from stepstream.producers.exit_summary import Totals
from stepstream.producers.transport.background_sender import RECORD_BYTES
from stepstream.producers.transport.base import Record
from stepstream.producers.transport.redactor import UNHOOKED, Redactor
from stepstream.producers.user_ids import UserIds
from stepstream.producers.values.shortening import cut_middle, cut_to_bytes
from stepstream.schemas.accept import DEFAULT_LIMITS, Limits
from stepstream.schemas.money import nanos_from_usd, usd_from_nanos
from stepstream.schemas.step import SHORT_TEXTS, Document, DocumentStruct
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.usage import NO_TOKENS

if TYPE_CHECKING:
    from stepstream.schemas.prices import PriceBook

MOST_OPEN_INPUTS: Final = 4_096
MOST_OPEN_INPUT_BYTES: Final = 8_388_608
ATTRIBUTE_CHARS: Final = 4_096


class Encoder:
    """Makes transport records of step records. Not thread-safe.

    The cleaned input of an open step is cached, because its end event has the same input.
    ``cached_bytes`` is the memory of that cache. ``capture`` has the limits of contents by kind of
    step.
    """

    def __init__(
        self,
        redactor: Redactor,
        prices: Callable[[], PriceBook],
        max_content_bytes: int,
        totals: Totals,
        limits: Limits = DEFAULT_LIMITS,
        *,
        capture: Mapping[str, int] = MappingProxyType({}),
        user_ids: UserIds | None = None,
        max_cached_bytes: int = MOST_OPEN_INPUT_BYTES,
    ) -> None:
        self._redactor = redactor
        self._make_prices = prices
        self._prices: PriceBook | None = None
        self._limits = limits
        self._max_content_bytes = min(max_content_bytes, limits.max_content_bytes)
        self._by_kind = {**limits.content_bytes_by_kind, **capture}
        # The limit that was given with the record in progress.
        self._max_bytes: int | None = None
        self._user_ids = user_ids
        self._inputs: dict[str, tuple[str, str, int | None]] = {}
        self._max_cached_bytes = max_cached_bytes
        self.cached_bytes = 0
        self._encode = msgspec.json.Encoder().encode
        self.totals = totals

    def __call__(self, record: StepRecord, max_bytes: int | None = None) -> Record:
        """The record on the wire. ``record`` itself is changed to what is sent.

        ``max_bytes`` limits its contents instead of the limits by kind.
        """
        self._max_bytes = max_bytes
        if self._user_ids is not None:
            self._user_ids.replace(record)
        self._shorten(record)
        self._redact(record)
        if record.phase == "end":
            self._price(record)
        value = self._bytes(record)
        if record.phase == "end":
            self._count(record)
        return Record(record.trace_id.encode(), value)

    def _shorten(self, record: StepRecord) -> None:
        limit, label = self._limits.max_text_chars, self._redactor.label
        for field in SHORT_TEXTS:
            text = getattr(record, field)
            if text:
                clean = label(text, hooked=field not in UNHOOKED)
                # Redacted first, so that no half of a secret is left.
                if len(clean) > limit:
                    clean = cut_middle(clean, limit)
                if clean is not text:
                    setattr(record, field, clean)
        # The limits of ``accept``: what is longer would be cut there and counted as a repair.
        if len(record.documents) > self._limits.max_documents:
            record.documents = record.documents[: self._limits.max_documents]
        if len(record.attributes) > self._limits.max_attributes:
            record.attributes = dict(list(record.attributes.items())[: self._limits.max_attributes])

    def _redact(self, record: StepRecord) -> None:
        if record.input:
            self._set_input(record)
        if record.output:
            record.output, record.output_bytes = self._content(
                record.output, record.output_bytes, self._limit(record.kind)
            )
        if record.error_message:
            record.error_message = cut_middle(
                self._redactor.text(record.error_message), self._limits.max_message_chars
            )
        if record.attributes:
            record.attributes = {
                cut_middle(self._redactor.label(key), ATTRIBUTE_CHARS): cut_middle(
                    self._redactor.named(key, value), ATTRIBUTE_CHARS
                )
                for key, value in record.attributes.items()
            }
        if record.documents:
            record.documents = self._documents(record.documents, self._limit(record.kind))

    def _set_input(self, record: StepRecord) -> None:
        raw = record.input
        cached = self._pop_cached(record.step_id)
        if cached is None or cached[0] is not raw:
            cached = (raw, *self._content(raw, record.input_bytes, self._limit(record.kind)))
        if record.phase == "start":
            self._inputs[record.step_id] = cached
            self.cached_bytes += _memory(cached)
            while (
                len(self._inputs) > MOST_OPEN_INPUTS or self.cached_bytes > self._max_cached_bytes
            ):
                self._pop_cached(next(iter(self._inputs)))
        _, record.input, record.input_bytes = cached

    def _pop_cached(self, step_id: str) -> tuple[str, str, int | None] | None:
        cached = self._inputs.pop(step_id, None)
        if cached is not None:
            self.cached_bytes -= _memory(cached)
        return cached

    def _limit(self, kind: str) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        return self._by_kind.get(kind, self._max_content_bytes)

    def _content(self, text: str, size: int | None, limit: int) -> tuple[str, int | None]:
        clean, clean_size = cut_to_bytes(self._redactor.text(text), limit)
        if size is None and clean_size > limit:
            size = clean_size
        return clean, size

    def _documents(self, documents: list[Document], left: int) -> list[Document]:
        out: list[Document] = []
        for document in documents:
            content = ""
            if document.content and left > 0:
                content, size = cut_to_bytes(self._redactor.text(document.content), left)
                left -= min(size, left)
            out.append(
                DocumentStruct(
                    id=self._redactor.text(document.id)[: self._limits.max_text_chars],
                    score=document.score,
                    content=content,
                )
            )
        return out

    def _price(self, record: StepRecord) -> None:
        given = None if record.cost_usd is None else nanos_from_usd(record.cost_usd)
        if given is None and record.usage is None and record.kind != "llm_call":
            return
        if self._prices is None:
            self._prices = self._make_prices()
        cost = self._prices.cost(record, given)
        record.cost_usd = None if cost.nanos is None else cast(Decimal, usd_from_nanos(cost.nanos))
        record.cost_source, record.price_version = cost.source, cost.price_version
        self.totals.cost_nanos += cost.nanos or 0
        if cost.source == "unpriced":
            metered = record.usage is not None and record.usage != NO_TOKENS
            self.totals.unpriced += metered
            self.totals.unmetered += not metered

    def _bytes(self, record: StepRecord) -> bytes:
        try:
            value = self._encode(record)
        except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot encode
            _repair(record)
            value = self._encode(record)
        # A half, an eighth, a 32nd ... until the record fits: few rounds for any text. Not of less
        # than the usual limit: attributes are sent also where contents are not.
        share, limit = 2, max(self._limit(record.kind), self._limits.max_content_bytes)
        while len(value) > self._limits.max_record_bytes and share < limit:
            self._cut(record, limit // share)
            value = self._encode(record)
            share *= 4
        return value

    def _cut(self, record: StepRecord, max_bytes: int) -> None:
        """Shorten the contents: JSON's escapes made the record larger than the limit."""
        for field in ("input", "output"):
            text, size = cut_to_bytes(getattr(record, field), max_bytes)
            if size > max_bytes:
                setattr(record, field, text)
                if getattr(record, f"{field}_bytes") is None:
                    setattr(record, f"{field}_bytes", size)
        share = max_bytes // max(1, len(record.documents))
        record.documents = [
            DocumentStruct(id=d.id, score=d.score, content=cut_to_bytes(d.content, share)[0])
            for d in record.documents
        ]
        share = max_bytes // max(1, len(record.attributes))
        record.attributes = {
            cut_middle(key, share): cut_middle(value, share)
            for key, value in record.attributes.items()
        }

    def _count(self, record: StepRecord) -> None:
        totals = self.totals
        totals.steps += 1
        if not record.parent_step_id:
            totals.runs += 1
            totals.last_trace_id = record.trace_id


def _memory(cached: tuple[str, str, int | None]) -> int:
    raw, clean, _ = cached
    return RECORD_BYTES + raw.__sizeof__() + (0 if clean is raw else clean.__sizeof__())


def _repair(record: StepRecord) -> None:
    for field in (*SHORT_TEXTS, "error_message", "input", "output", "retry_of", "fallback_of"):
        setattr(record, field, _clean(getattr(record, field)))
    record.attributes = {_clean(key): _clean(value) for key, value in record.attributes.items()}
    record.documents = [
        DocumentStruct(id=_clean(d.id), score=d.score, content=_clean(d.content))
        for d in record.documents
    ]


def _clean(text: Any) -> str:
    return str(text).encode("utf-8", "replace").decode("utf-8")
