"""``accept``: the one function that decides what a valid step is.

The worker dead-letters what it rejects; the sink skips and counts the same records. It looks at the record alone (key,
partition, headers, value and Kafka timestamp), never at now, so that a replay decides as the first reading did.

Three outcomes: ``Accepted`` (perhaps with ``clamped`` reasons: the step was made sane and counts), ``Misrouted`` (a valid
step on a wrong partition: re-produce it) and ``Rejected`` (with a reason from ``REASONS``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, TypedDict

import msgspec

from stepstream.schemas.ids import STEP_ID, TRACE_ID, ZERO_STEP_ID, ZERO_TRACE_ID
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.step import (
    COST_SOURCES,
    HEADER_SCHEMA,
    KINDS,
    MAX_ATTEMPT,
    PHASES,
    RECORD_HEADERS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    SHORT_TEXTS,
    STATUSES,
    USUAL_ATTRIBUTES,
    USUAL_DOCUMENTS,
    USUAL_MESSAGE_CHARS,
    USUAL_TEXT_CHARS,
    AnyStep,
    Step,
    StepEvent,
    normalised,
)

DAY_US: Final = 86_400_000_000

REASONS: Final[dict[str, str]] = {
    "empty": "the record has no value",
    "too_large": "the value is larger than the limit",
    "malformed_json": "the value is not one JSON object",
    "unknown_version": "the schema is not step/1",
    "missing_field": "a required field is absent",
    "invalid_field": "a field has a wrong type or an impossible value",
    "missing_key": "the record has no key; it must be the trace_id",
    "foreign_key": "the record's key is not its trace_id",
    "time_out_of_range": "a time is negative, too far in the future or older than what is kept",
}
"""Why a record is rejected: the reason's slug and what it means."""

CLAMPS: Final[dict[str, str]] = {
    "end_before_start": "end_time preceded start_time and was set to it",
    "unknown_kind": "kind was none of ours and counts as other",
    "unknown_status": "status was none of ours and counts as ok, or as error where an error_type is given",
    "own_parent": "the step named itself as its parent; it counts as a root",
    "content_truncated": "input or output was longer than the limit",
    "text_truncated": "a name or message was longer than the limit",
    "attributes_dropped": "more attributes than the limit",
    "documents_dropped": "more documents than the limit",
    "invalid_cost": "cost_usd was no possible cost; the step is priced as if it had none",
    "unknown_cost_source": "cost_source was none of ours and was dropped",
    "invalid_reference": "retry_of or fallback_of was no step id and was dropped",
    "first_token_out_of_range": "first_token_time lay outside the step and was dropped",
}
"""What was made sane in an accepted step: the clamp's slug and what it means."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a record may be. Worker and sink are given the same."""

    max_record_bytes: int = 1_048_576
    max_content_bytes: int = 65_536
    max_text_chars: int = USUAL_TEXT_CHARS
    max_message_chars: int = USUAL_MESSAGE_CHARS
    max_attributes: int = USUAL_ATTRIBUTES
    max_documents: int = USUAL_DOCUMENTS
    max_age_us: int = 30 * DAY_US
    """No step is too old that is younger than this,"""
    project_ages_us: tuple[tuple[str, int], ...] = ()
    """but steps of some projects may be older; the empty name stands for all others."""
    max_future_us: int = DAY_US
    usual: bool = field(init=False, repr=False)
    """Whether nothing that decodes as ``Step`` has too long a text, or too many of anything."""

    def __post_init__(self) -> None:
        usual = (
            self.max_text_chars >= USUAL_TEXT_CHARS
            and self.max_message_chars >= USUAL_MESSAGE_CHARS
            and self.max_attributes >= USUAL_ATTRIBUTES
            and self.max_documents >= USUAL_DOCUMENTS
        )
        object.__setattr__(self, "usual", usual)

    def age_us(self, project: str) -> int:
        """How old a step of the project may be."""
        ages_us = dict(self.project_ages_us)
        return ages_us.get(project, ages_us.get("", self.max_age_us))


DEFAULT_LIMITS: Final = Limits()
MAX_SIZE_BYTES: Final = 2**62
MAX_NESTING: Final = 200
"""Arrays and objects within each other, in fields of ours: what lies deeper is malformed, whoever reads it."""


class Accepted(msgspec.Struct, gc=False):
    """A valid step; ``cost_nanos`` is the cost it came with, None where it named none."""

    step: Step
    cost_nanos: int | None
    clamped: tuple[str, ...] = ()


class Misrouted(msgspec.Struct, gc=False):
    """A valid step on the wrong partition."""

    step: Step
    partition: int


class Rejected(msgspec.Struct, gc=False):
    """Not a step: ``reason`` is a key of ``REASONS``, ``detail`` says where and what."""

    reason: str
    detail: str


Headers = Sequence[tuple[str, bytes]] | None

_decode = msgspec.json.Decoder(Step).decode
_decode_any = msgspec.json.Decoder(AnyStep).decode
_Known: Any = TypedDict("_Known", dict.fromkeys(StepEvent.model_fields, Any), total=False)  # type: ignore[misc]
_decode_known = msgspec.json.Decoder(_Known).decode
_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # takes what never ends too: else quadratic
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HEX_DIGITS: Final = "0123456789abcdef"
_KINDS = frozenset(KINDS)
_partition_for = lru_cache(maxsize=262_144)(partition_for)


def accept(
    value: bytes | None,
    *,
    key: bytes | None,
    partition: int,
    partitions: int,
    timestamp_us: int,
    headers: Headers = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Accepted | Misrouted | Rejected:
    """Judge one record of the steps topic. Never raises.

    ``timestamp_us`` is the record's Kafka timestamp, ``partitions`` the topic's partition count.
    """
    if headers and tuple(headers) != RECORD_HEADERS and (wrong := _wrong_version(headers)):
        return Rejected("unknown_version", wrong)
    result = accept_value(value, timestamp_us=timestamp_us, limits=limits)
    if isinstance(result, Rejected):
        return result
    trace_id = result.step.trace_id
    if not key:
        return Rejected("missing_key", f"key is empty, trace_id is {trace_id}")
    if key != trace_id.encode():
        return Rejected("foreign_key", f"key is {key[:64]!r}, trace_id is {trace_id}")
    right = _partition_for(trace_id, partitions)
    if right != partition:
        return Misrouted(result.step, right)
    return result


def accept_value(value: bytes | None, *, timestamp_us: int, limits: Limits = DEFAULT_LIMITS) -> Accepted | Rejected:
    """The same judgement of a value alone: for gateways, files and tests, where there is no key yet. Never raises."""
    if not value:
        return Rejected("empty", "the value is empty")
    size_bytes = len(value)
    if size_bytes > limits.max_record_bytes:
        return Rejected("too_large", f"{size_bytes} bytes, the limit is {limits.max_record_bytes}")
    try:
        step = _decode(value)
    except (ValueError, RecursionError):
        return judge_at_length(value, timestamp_us, limits)
    if _is_sane(step, timestamp_us, limits):
        cost = step.cost_usd
        if cost is None:
            return Accepted(step, None)
        if type(cost) is Decimal:
            try:
                return Accepted(step, nanos_from_usd(cost))
            except ValueError:
                pass  # said below, with what was wrong
    return look_closer(step, timestamp_us, limits, size_bytes)


def _is_sane(step: Step, timestamp_us: int, limits: Limits) -> bool:
    """Whether nothing has to be looked at closer: true of nearly every step, and decided in one pass.

    May be wrong in one direction only: what it lets through, ``look_closer`` would accept as it is.
    """
    start, end, first, parent = step.start_time, step.end_time, step.first_token_time, step.parent_step_id
    latest = timestamp_us + limits.max_future_us
    return (
        (step.phase == "start" if end is None else step.phase == "end" and start <= end <= latest)
        and timestamp_us - limits.max_age_us <= start <= latest
        and limits.usual
        and len(step.input) + len(step.output) <= limits.max_content_bytes // 4
        and not step.retry_of
        and not step.fallback_of
        and (first is None or start <= first <= (latest if end is None else end))
        and (not parent or (len(parent) == 16 and parent != step.step_id))
        and not f"{step.trace_id}{step.step_id}{parent}".strip(_HEX_DIGITS)  # half of what three patterns cost
        and step.trace_id != ZERO_TRACE_ID
        and step.step_id != ZERO_STEP_ID
    )


def judge_at_length(value: bytes, timestamp_us: int, limits: Limits) -> Accepted | Rejected:
    """Judge what is no step as it is: perhaps it can be made one."""
    size_bytes = len(value)
    try:
        step = _decode_any(value)
    except (ValueError, RecursionError):
        lenient = _decode_leniently(value)
        if isinstance(lenient, Rejected):
            return lenient
        step, size_bytes = lenient, MAX_SIZE_BYTES  # JSON that became text may be longer than it was sent
    result = look_closer(step, timestamp_us, limits, size_bytes)
    if isinstance(result, Accepted):
        result.step = Step(**{name: getattr(step, name) for name in StepEvent.model_fields})
    return result


def look_closer(step: AnyStep, timestamp_us: int, limits: Limits, size_bytes: int) -> Accepted | Rejected:
    """Judge a decoded step point by point, with reasons; clamps are made in place."""
    if step.schema_version != SCHEMA_VERSION:
        return Rejected("unknown_version", f"schema_version is {step.schema_version}, this reads {SCHEMA_VERSION}")
    if wrong := _invalid(step):
        return Rejected("invalid_field", wrong)
    if step.phase == "end" and step.end_time is None:
        return Rejected("missing_field", "end_time is required when phase is end")
    if late := _time_out_of_range(step, timestamp_us, limits):
        return Rejected("time_out_of_range", late)
    clamped = _clamp(step, timestamp_us + limits.max_future_us, limits)
    if size_bytes - len(step.input) - len(step.output) > limits.max_text_chars:  # else no single text can be too long
        _clamp_texts(step, limits, clamped)
    _clamp_contents(step, limits, clamped)
    cost_nanos = None
    if step.cost_usd is not None:
        try:
            cost_nanos = nanos_from_usd(step.cost_usd)
            if isinstance(step.cost_usd, float):
                step.cost_usd = Decimal(str(step.cost_usd))
        except ValueError:
            step.cost_usd = None
            step.cost_source = ""
            clamped.append("invalid_cost")
    return Accepted(step, cost_nanos, tuple(clamped))


def _wrong_version(headers: Sequence[tuple[str, bytes]]) -> str:
    for name, value in headers:
        if name == HEADER_SCHEMA and value is not None and value.split(b".")[0] != b"step/1":
            return f"header {HEADER_SCHEMA} is {value[:64]!r}, this reads {SCHEMA_NAME}/{SCHEMA_VERSION}"
    return ""


def _nesting(value: bytes) -> int:
    """How deep arrays and objects lie in each other. Decoders stop where their stack ends, and stacks differ."""
    brackets = _STRINGS.sub(b"", value).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _decode_leniently(value: bytes) -> AnyStep | Rejected:
    if _nesting(value) > MAX_NESTING:
        return Rejected("malformed_json", f"nested more than {MAX_NESTING} levels deep")
    try:
        data = _decode_known(value)
    except (ValueError, RecursionError) as error:
        return Rejected("malformed_json", str(error)[:200])
    version = data.get("schema_version")
    if version is not None and version != SCHEMA_VERSION:
        return Rejected("unknown_version", f"schema_version is {str(version)[:40]}, this reads {SCHEMA_VERSION}")
    try:
        return msgspec.convert(normalised(data), AnyStep, strict=True)
    except (ValueError, RecursionError, OverflowError) as error:
        reason = "missing_field" if "missing required field" in str(error) else "invalid_field"
        return Rejected(reason, str(error)[:200])


def _invalid(step: Step) -> str:
    """The first impossible value, in words; empty where there is none."""
    if not TRACE_ID.fullmatch(step.trace_id) or step.trace_id == ZERO_TRACE_ID:
        return f"trace_id must be 32 lower-case hex digits and not all zero: {step.trace_id[:64]!r}"
    if not STEP_ID.fullmatch(step.step_id) or step.step_id == ZERO_STEP_ID:
        return f"step_id must be 16 lower-case hex digits and not all zero: {step.step_id[:64]!r}"
    if step.parent_step_id and not STEP_ID.fullmatch(step.parent_step_id):
        return f"parent_step_id must be 16 lower-case hex digits or empty: {step.parent_step_id[:64]!r}"
    if step.phase not in PHASES:
        return f"phase must be start or end: {step.phase[:64]!r}"
    if not step.name:
        return "name must not be empty"
    if not step.project:
        return "project must not be empty (leave it out for 'default')"
    if not 1 <= step.attempt <= MAX_ATTEMPT:
        return f"attempt must lie between 1 and {MAX_ATTEMPT}: {step.attempt}"
    return ""


def _time_out_of_range(step: Step, timestamp_us: int, limits: Limits) -> str:
    latest = timestamp_us + limits.max_future_us
    end = step.end_time
    if step.start_time < 0 or (end is not None and end < 0):
        return f"times are microseconds since 1970: start_time {step.start_time}, end_time {end}"
    if step.start_time > latest or (end is not None and end > latest):
        name, late = ("start_time", step.start_time) if step.start_time > latest else ("end_time", end or 0)
        most_s, hint = limits.max_future_us // 1_000_000, _other_unit(late, timestamp_us)
        return f"{name} {late} is more than {most_s} s after the record's timestamp {timestamp_us}{hint}"
    age_us = limits.age_us(step.project)
    if step.start_time < timestamp_us - age_us:
        hint = _other_unit(step.start_time, timestamp_us)
        return f"start_time {step.start_time} is more than {age_us // DAY_US} days before the record's timestamp{hint}"
    return ""


def _other_unit(time: int, timestamp_us: int) -> str:
    """A hint where the time would be near the record's if it were in another unit: the usual slip."""
    for unit, us in (("milliseconds", time * 1_000), ("seconds", time * 1_000_000), ("nanoseconds", time // 1_000)):
        if abs(us - timestamp_us) < 366 * DAY_US:
            return f"; it looks like {unit}, and times are microseconds since 1970"
    return ""


def _clamp(step: Step, latest_us: int, limits: Limits) -> list[str]:
    clamped: list[str] = []
    if step.end_time is not None and step.end_time < step.start_time:
        step.end_time = step.start_time
        clamped.append("end_before_start")
    if step.kind not in _KINDS:
        step.attributes = {**step.attributes, "kind": step.kind[: limits.max_text_chars]}
        step.kind = "other"
        clamped.append("unknown_kind")
    if step.status not in STATUSES:
        step.status = "error" if step.error_type or step.error_message else "ok"
        clamped.append("unknown_status")
    if step.parent_step_id == step.step_id:
        step.parent_step_id = ""
        clamped.append("own_parent")
    if step.retry_of and not STEP_ID.fullmatch(step.retry_of):
        step.retry_of = ""
        clamped.append("invalid_reference")
    if step.fallback_of and not STEP_ID.fullmatch(step.fallback_of):
        step.fallback_of = ""
        clamped.append("invalid_reference")
    if step.cost_source not in COST_SOURCES:
        step.cost_source = ""
        clamped.append("unknown_cost_source")
    first = step.first_token_time
    if first is not None and not step.start_time <= first <= (latest_us if step.end_time is None else step.end_time):
        step.first_token_time = None
        clamped.append("first_token_out_of_range")
    return clamped


def _clamp_texts(step: Step, limits: Limits, clamped: list[str]) -> None:
    for name in SHORT_TEXTS:
        text = getattr(step, name)
        if len(text) > limits.max_text_chars:
            setattr(step, name, text[: limits.max_text_chars])
            clamped.append("text_truncated")
    if len(step.error_message) > limits.max_message_chars:
        step.error_message = step.error_message[: limits.max_message_chars]
        clamped.append("text_truncated")


def _clamp_contents(step: Step, limits: Limits, clamped: list[str]) -> None:
    if len(step.input) > limits.max_content_bytes // 4 or len(step.output) > limits.max_content_bytes // 4:
        _clamp_content(step, limits.max_content_bytes, clamped)
    if len(step.attributes) > limits.max_attributes:
        step.attributes = dict(list(step.attributes.items())[: limits.max_attributes])
        clamped.append("attributes_dropped")
    if len(step.documents) > limits.max_documents:
        step.documents = step.documents[: limits.max_documents]
        clamped.append("documents_dropped")


def _clamp_content(step: Step, max_bytes: int, clamped: list[str]) -> None:
    for name in ("input", "output"):
        text, size = truncated(getattr(step, name), max_bytes)
        if size > max_bytes:
            setattr(step, name, text)
            if getattr(step, f"{name}_bytes") is None:
                setattr(step, f"{name}_bytes", size)
            clamped.append("content_truncated")


def truncated(text: str, max_bytes: int) -> tuple[str, int]:
    """The text cut to ``max_bytes`` of UTF-8 at a character's end, and its size in bytes before."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, len(data)
    return data[:max_bytes].decode("utf-8", "ignore"), len(data)
