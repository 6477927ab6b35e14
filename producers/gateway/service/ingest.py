"""Request bodies as records for Kafka, with what was refused and why. No network; the time of a
request is passed in.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stepstream.producers.gateway.mapping import secrets
from stepstream.producers.gateway.mapping.dropped_spans import DroppedSpans
from stepstream.producers.gateway.mapping.log_records import LogMapper
from stepstream.producers.gateway.mapping.logged_contents import LoggedContents
from stepstream.producers.gateway.mapping.mapper import Mapper, Origin, Refused
from stepstream.producers.gateway.mapping.options import Options
from stepstream.producers.gateway.mapping.privacy import Privacy
from stepstream.producers.gateway.mapping.published_calls import PublishedCalls, SpanKey
from stepstream.producers.gateway.mapping.spans import LogRecord, Span, Unreadable
from stepstream.producers.gateway.otlp import answers, otlp_json, protobuf
from stepstream.producers.gateway.otlp.malformed import (
    MAX_ITEMS,
    Malformed,
    TooMany,
    check_json,
)
from stepstream.producers.gateway.service.kafka_writer import Letter, Record
from stepstream.producers.values.content import SLACK_CHARS
from stepstream.schemas.accept import Accepted, Limits, accept_value
from stepstream.schemas.deadletter import letter_headers
from stepstream.schemas.step import AnyStep

MAX_LETTERS: Final = 100
"""Refused items of one request that the dead letter keeps; the others are counted."""
MAX_LETTER_BYTES: Final = 262_144
SLICE: Final = 256
SLICE_S: Final = 0.02
"""Items that are decoded and mapped before other requests get their turn, and the longest time."""
TURN_S: Final = 0.002
"""Time after which other requests get their turn."""
LETTER_TOPIC: Final = "otlp"
BY: Final = "gateway"

_encode = msgspec.json.Encoder().encode


@dataclass
class Batch:
    """The items of one request."""

    records: list[Record] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    taken: int = 0
    """Items that are steps now."""
    ignored: int = 0
    """Items that are no steps: spans that a setting drops, log records of other programs."""
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: str = ""
    """The first refusal, in words."""
    details: list[dict[str, Any]] = field(default_factory=list)
    projects: dict[str, str] = field(default_factory=dict)
    """The projects of the traces in it."""
    contents_of: dict[SpanKey, None] = field(default_factory=dict)
    """The spans that its log records have contents of."""
    keeps_originals: bool = True
    """Whether the dead letter gets refused items, without secrets, or only their ids."""

    @property
    def items(self) -> int:
        """Number of items in the request."""
        return self.taken + self.ignored + self.refused

    def refuse(self, name: str, refused: Refused, original: Any, key: str = "") -> None:
        """Note an item that is not taken; keep it for the dead letter."""
        self.refused += 1
        self.reasons[refused.reason] += 1
        what = f"{secrets.cleared(name)[:80]!r}: " if name else ""
        if not self.first:
            self.first = f"{what}{refused.detail}"
        if len(self.details) < MAX_LETTERS:
            self.details.append({"reason": refused.reason, "detail": f"{what}{refused.detail}"})
        if len(self.letters) < MAX_LETTERS:
            self.letters.append(_letter(original if self.keeps_originals else {}, refused, key))

    @property
    def sentence(self) -> str:
        """Why items were refused, for the answer."""
        more = self.refused - 1
        return self.first + (f" (and {more} more refused)" if more > 0 else "")


def _letter(original: Any, refused: Refused, key: str) -> Letter:
    try:
        value = original if isinstance(original, bytes) else _encode(original)
    except (TypeError, ValueError, RecursionError):
        value = str(original).encode("utf-8", "replace")
    # Cut first, because of the time; a bit more, so that no half of a secret is left.
    text = value[: MAX_LETTER_BYTES + SLACK_CHARS].decode("utf-8", "replace")
    value = secrets.cleared(text).encode("utf-8", "replace")[:MAX_LETTER_BYTES]
    # A letter is counted once by where it came from. What was never in Kafka has no offset, so its
    # contents stand for one: sent again, it is the same letter.
    digest = hashlib.sha256(value + refused.detail.encode("utf-8", "replace")).digest()
    place = int.from_bytes(digest[:7], "big")
    headers = letter_headers((), (LETTER_TOPIC, 0, place), refused.reason, refused.detail, BY)
    return Letter(key.encode("utf-8", "replace")[:64], value, [*headers])


@dataclass(frozen=True)
class Memory:
    """What is remembered of earlier requests: a program may send logs by gRPC and spans by HTTP."""

    logged: LoggedContents = field(default_factory=LoggedContents)
    dropped: DroppedSpans = field(default_factory=DroppedSpans)
    published: PublishedCalls = field(default_factory=PublishedCalls)


class Ingest:
    """Turns bodies into batches. Not to be used by several threads at a time."""

    def __init__(self, options: Options, memory: Memory | None = None) -> None:
        """``memory``: what all ways in remember."""
        memory = memory or Memory()
        self._options = options
        self._spans = Mapper(options, memory.logged, memory.dropped, memory.published)
        self._logs = LogMapper(options, memory.logged)
        self._privacy = Privacy(options)

    def traces(self, body: bytes, form: str, origin: Origin) -> Iterator[Batch]:
        """The batch of a trace request; yielded after each slice, so that the caller can let
        others run.

        Raises ``Malformed`` and ``TooMany``.
        """
        read = otlp_json.spans if form == answers.JSON else protobuf.spans
        batch = self.new_batch()
        try:
            yield from self._in_slices(read(body), batch, origin)
        except Malformed as error:
            raise Malformed(_hint(body, form, "traces", error)) from None
        if batch.refused and batch.refused == batch.items and _looks_like_logs(body, form):
            batch.first = "these are log records: send them to /v1/logs"
        yield batch

    def logs(self, body: bytes, form: str, origin: Origin) -> Iterator[Batch]:
        """The batch of a logs request, as ``traces``."""
        read = otlp_json.log_records if form == answers.JSON else protobuf.log_records
        batch = self.new_batch()
        try:
            yield from self._in_slices(read(body), batch, origin)
        except Malformed as error:
            raise Malformed(_hint(body, form, "logs", error)) from None
        # Once a request: the messages of a call usually come together.
        for key in batch.contents_of:
            self._add_amended(key, batch)
        yield batch

    def _add_amended(self, key: SpanKey, batch: Batch) -> None:
        """Send a call again whose contents came after it."""
        steps = self._spans.amended(key)
        values = [_encode(step) for step in steps]
        if values and max(map(len, values)) <= self._options.limits.max_record_bytes:
            batch.records += [(steps[0].trace_id.encode(), value) for value in values]

    def new_batch(self) -> Batch:
        """An empty batch, which keeps as much of refused items as the options allow."""
        return Batch(keeps_originals=self._privacy.keeps_originals)

    def _in_slices(
        self, items: Iterable[Span | LogRecord | Unreadable], batch: Batch, origin: Origin
    ) -> Iterator[Batch]:
        rest = iter(items)
        # Decoding a slice and mapping it after that takes 12 % less than item by item: the same
        # code stays in the CPU's cache.
        while part := _slice(rest):
            until_s = time.monotonic() + SLICE_S
            for item in part:
                self._add(item, batch, origin)
                if time.monotonic() > until_s:
                    yield batch
                    until_s = time.monotonic() + SLICE_S
            if batch.items > MAX_ITEMS:
                raise TooMany
            yield batch

    def _add(self, item: Span | LogRecord | Unreadable, batch: Batch, origin: Origin) -> None:
        found: list[AnyStep] | Refused
        if isinstance(item, Span):
            name = item.name
            found = self._spans.steps(item, origin)
        elif isinstance(item, Unreadable):
            batch.refuse(item.name, Refused("invalid_field", item.why), item)
            return
        else:
            name = item.event_name
            found = self._logs.steps(item, origin)
        if isinstance(found, Refused):
            batch.refuse(name, found, item, item.trace_id)
            return
        if not found:
            batch.ignored += 1
            return
        key = found[0].trace_id.encode()
        # A span and its tool selections are stored together or refused together.
        values = [_encode(step) for step in found]
        largest = len(values[0]) if len(values) == 1 else max(map(len, values))
        if largest > self._options.limits.max_record_bytes:
            most = self._options.limits.max_record_bytes
            batch.refuse(
                name,
                Refused("too_large", f"its step has {largest} bytes, and at most {most} are kept"),
                {"name": name[:200], "trace_id": item.trace_id, "span_id": item.span_id},
                item.trace_id,
            )
            return
        batch.taken += 1
        batch.projects[item.trace_id] = found[0].project
        if isinstance(item, LogRecord):
            batch.contents_of[(found[0].project, item.trace_id, item.span_id)] = None
        batch.records += [(key, value) for value in values]

    def steps(self, body: bytes, origin: Origin) -> Iterator[Batch]:
        """The batch of steps that were sent as JSON: one object, a list, or one object a line.
        Raises ``Malformed`` and ``TooMany``.
        """
        batch = self.new_batch()
        for number, raw in enumerate(_events(body), 1):
            self._add_step(raw, number, batch, origin)
            if number > MAX_ITEMS:
                raise TooMany
            if number % SLICE == 0:
                yield batch
        yield batch

    def _add_step(self, raw: Any, number: int, batch: Batch, origin: Origin) -> None:
        limits = self._options.limits
        try:
            if not isinstance(raw, dict):
                raise ValueError("it is not a JSON object")
            if raw.get("project") in (None, ""):
                raw["project"] = origin.project
            value = _encode(raw)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            batch.refuse(f"event {number}", Refused("malformed_json", str(error)), str(raw)[:4_096])
            return
        verdict = accept_value(value, timestamp_us=origin.now_us, limits=limits)
        key = raw.get("trace_id")
        if not isinstance(verdict, Accepted):
            refused = Refused(verdict.reason, verdict.detail)
            batch.refuse(f"event {number}", refused, value, key if isinstance(key, str) else "")
            return
        step = verdict.step
        if origin.projects and step.project not in origin.projects:
            refused = Refused("invalid_field", f"the key may not send for {step.project[:64]!r}")
            batch.refuse(f"event {number}", refused, value, step.trace_id)
            return
        if self._privacy.clean_event(step) or verdict.clamped:
            value = _encode(step)
        self._take(step, value, batch, limits)

    @staticmethod
    def _take(step: AnyStep, value: bytes, batch: Batch, limits: Limits) -> None:
        if len(value) > limits.max_record_bytes:
            batch.refuse(step.name, Refused("too_large", f"it has {len(value)} bytes"), {})
            return
        batch.taken += 1
        batch.projects[step.trace_id] = step.project
        batch.records.append((step.trace_id.encode(), value))


async def mapped(slices: Iterator[Batch]) -> Batch:
    """The whole batch; between two slices other requests have their turn."""
    whole = Batch()
    since_s = time.monotonic()
    for batch in slices:
        whole = batch
        # Mapping a large request takes long enough to delay the answers to all others. A small one
        # does not: another turn of the loop costs it as much as its mapping.
        if time.monotonic() - since_s > TURN_S:
            await asyncio.sleep(0)
            since_s = time.monotonic()
    return whole


def _slice(items: Iterator[Span | LogRecord | Unreadable]) -> list[Span | LogRecord | Unreadable]:
    """The next items: fewer where decoding them takes long."""
    until_s = time.monotonic() + SLICE_S
    part: list[Span | LogRecord | Unreadable] = []
    for item in items:
        part.append(item)
        if len(part) == SLICE or time.monotonic() > until_s:
            break
    return part


def _events(body: bytes) -> Iterator[Any]:
    """The events of a body. Raises ``TooMany``, and ``Malformed`` for what is no JSON at all; a
    line that is none is yielded as text.
    """
    text = body.strip()
    if not text:
        return
    check_json(text)
    try:
        whole = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        # One line that is not JSON is a wrong body; of several lines each is checked on its own.
        if b"\n" not in text:
            raise Malformed(f"the body is not valid JSON: {error}") from None
        # One after the other: as a list, millions of short lines would take gigabytes.
        yield from map(_line, filter(None, map(bytes.strip, io.BytesIO(text))))
        return
    if isinstance(whole, list):
        yield from whole
    else:
        yield whole


def _line(line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (ValueError, RecursionError):
        return line.decode("utf-8", "replace")


def _hint(body: bytes, form: str, signal: str, error: Malformed) -> str:
    """Why a body is refused, with what was probably meant."""
    if form == answers.JSON:
        return str(error) or "the body is not OTLP/JSON"
    # Common mistakes get a hint: a wrong content type and a wrong path.
    if body[:1] in b"{[" and body[-1:] in b"}]":
        return "the body is JSON: send it with Content-Type: application/json"
    if signal == "traces" and _looks_like_logs(body, form):
        return "these are log records: send them to /v1/logs"
    return f"the body is not an OTLP request for {signal} in protobuf"


def _looks_like_logs(body: bytes, form: str) -> bool:
    """Whether a body that was sent as traces holds log records, whose messages have the same
    numbers.
    """
    if form == answers.JSON:
        return b'"resourceLogs"' in body[:4_096]
    try:
        found = next(protobuf.log_records(body), None)
    except (Malformed, ValueError):
        return False
    return isinstance(found, LogRecord) and 0 < found.time_ns < 1 << 62
