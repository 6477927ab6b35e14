"""``accept``: the one function that decides what a valid step is.

The worker dead-letters what it rejects; the sink skips and counts the same records. It looks at the record alone (key,
partition, headers, value and Kafka timestamp), never at now, so that a replay decides as the first reading did.

Three outcomes: ``Accepted`` (perhaps with ``clamped`` reasons: the step was made sane and counts), ``Misrouted`` (a valid
step on a wrong partition: re-produce it) and ``Rejected`` (with a reason from ``REASONS``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final, TypedDict, cast

import msgspec

from stepstream.schemas.clamps import (
    CLAMPS,
    DEFAULT_LIMITS,
    Limits,
    clamp,
    clamp_contents,
    clamp_texts,
    hex_id,
    likely_unit,
    repair_identity,
    truncated,
)
from stepstream.schemas.ids import STEP_ID, TRACE_ID, TRACE_ID_DIGITS, ZERO_STEP_ID, ZERO_TRACE_ID
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.normalise import COST, TEXT, Repair, Repairs, normalised, note
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.step import (
    HEADER_SCHEMA,
    RECORD_HEADERS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    AnyStep,
    Step,
    StepEvent,
)
from stepstream.schemas.times import DAY_US

__all__ = [
    "CLAMPS",
    "DAY_US",
    "DEFAULT_LIMITS",
    "REASONS",
    "Accepted",
    "Headers",
    "Limits",
    "Misrouted",
    "Rejected",
    "accept",
    "accept_value",
    "truncated",
]

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

MAX_SIZE_BYTES: Final = 2**62
MAX_NESTING: Final = 200
"""Arrays and objects within each other, in fields of ours: what lies deeper is malformed, whoever reads it."""


class Accepted(msgspec.Struct, gc=False):
    """A valid step; ``cost_nanos`` is the cost it came with, None where it named none.

    ``clamped`` names what was made sane, ``notes`` says for each which field had which value.
    """

    step: Step
    cost_nanos: int | None
    clamped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


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
_decode_known: Any = msgspec.json.Decoder(_Known).decode
_STRINGS = re.compile(
    rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL
)  # takes what never ends too: else quadratic
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_HEX_DIGITS: Final = "0123456789abcdef"
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\\u[dD][89a-fA-F]")
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
    if (
        key != trace_id.encode()
        and hex_id(key.decode("utf-8", "replace"), TRACE_ID_DIGITS) != trace_id
    ):
        return Rejected("foreign_key", f"key is {key[:64]!r}, trace_id is {trace_id}")
    right = _partition_for(trace_id, partitions)
    if right != partition:
        return Misrouted(result.step, right)
    return result


def accept_value(
    value: bytes | None, *, timestamp_us: int, limits: Limits = DEFAULT_LIMITS
) -> Accepted | Rejected:
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
    start, end, first, parent = (
        step.start_time,
        step.end_time,
        step.first_token_time,
        step.parent_step_id,
    )
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
        and not f"{step.trace_id}{step.step_id}{parent}".strip(
            _HEX_DIGITS
        )  # half of what three patterns cost
        and step.trace_id != ZERO_TRACE_ID
        and step.step_id != ZERO_STEP_ID
    )


def judge_at_length(value: bytes, timestamp_us: int, limits: Limits) -> Accepted | Rejected:
    """Judge what is no step as it is: perhaps it can be made one."""
    size_bytes = len(value)
    repairs: Repairs = []
    try:
        step = _decode_any(value)
    except (ValueError, RecursionError):
        lenient = _decode_leniently(value, repairs)
        if isinstance(lenient, Rejected):
            return lenient
        step, size_bytes = (
            lenient,
            MAX_SIZE_BYTES,
        )  # JSON that became text may be longer than it was sent
    result = look_closer(step, timestamp_us, limits, size_bytes, repairs)
    if isinstance(result, Accepted):
        result.step = Step(**{name: getattr(step, name) for name in StepEvent.model_fields})
    return result


def look_closer(
    step: AnyStep,
    timestamp_us: int,
    limits: Limits,
    size_bytes: int,
    repairs: Repairs | None = None,
) -> Accepted | Rejected:
    """Judge a decoded step point by point, with reasons; clamps are made in place, after those in ``repairs``."""
    clamped = [] if repairs is None else repairs
    repair_identity(step, clamped)
    if step.schema_version != SCHEMA_VERSION:
        return Rejected(
            "unknown_version",
            f"schema_version is {step.schema_version}, this reads {SCHEMA_VERSION}",
        )
    if wrong := _invalid(step):
        return Rejected("invalid_field", wrong)
    if step.phase == "end" and step.end_time is None:
        return Rejected("missing_field", "end_time is required when phase is end")
    if late := _time_out_of_range(step, timestamp_us, limits):
        return Rejected("time_out_of_range", late)
    clamp(step, timestamp_us + limits.max_future_us, limits, clamped)
    if (
        size_bytes - len(step.input) - len(step.output) > limits.max_text_chars
    ):  # else no single text can be too long
        clamp_texts(step, limits, clamped)
    clamp_contents(step, limits, clamped)
    cost_nanos = None
    if step.cost_usd is not None:
        try:
            cost_nanos = nanos_from_usd(step.cost_usd)
            if isinstance(step.cost_usd, float):
                step.cost_usd = Decimal(str(step.cost_usd))
        except ValueError:
            clamped.append(
                Repair(
                    COST,
                    note("cost_usd", str(step.cost_usd), "is no possible cost and was dropped"),
                )
            )
            step.cost_usd = None
            step.cost_source = ""
    return Accepted(
        step,
        cost_nanos,
        tuple(repair.clamp for repair in clamped),
        tuple(repair.note for repair in clamped),
    )


def _wrong_version(headers: Sequence[tuple[str, bytes]]) -> str:
    for name, value in headers:
        if name == HEADER_SCHEMA and value is not None and value.split(b".")[0] != b"step/1":
            return f"header {HEADER_SCHEMA} is {value[:64]!r}, this reads {SCHEMA_NAME}/{SCHEMA_VERSION}"
    return ""


def _nesting(value: bytes) -> int:
    """How deep arrays and objects lie in each other. Decoders stop where their stack ends, and stacks differ."""
    brackets = _STRINGS.sub(b"", value).translate(None, _NOT_BRACKETS)
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)


def _decode_leniently(value: bytes, repairs: Repairs) -> AnyStep | Rejected:
    if _nesting(value) > MAX_NESTING:
        return Rejected("malformed_json", f"nested more than {MAX_NESTING} levels deep")
    try:
        data: dict[str, Any] = _decode_known(value)
    except (ValueError, RecursionError) as error:
        repaired = _decode_bad_text(value, repairs)
        if repaired is None:
            return Rejected("malformed_json", str(error)[:200])
        data = repaired
    version = data.get("schema_version")
    if version not in (None, SCHEMA_VERSION, str(SCHEMA_VERSION)):
        return Rejected(
            "unknown_version", f"schema_version is {str(version)[:40]}, this reads {SCHEMA_VERSION}"
        )
    try:
        return msgspec.convert(normalised(data, repairs), AnyStep, strict=True)
    except (ValueError, RecursionError, OverflowError) as error:
        reason = "missing_field" if "missing required field" in str(error) else "invalid_field"
        return Rejected(reason, str(error)[:200])


def _decode_bad_text(value: bytes, repairs: Repairs) -> dict[str, Any] | None:
    """The known fields of JSON that only its characters make invalid: bytes that are no UTF-8, half a surrogate pair, NaN, a
    number of thousands of digits.
    """
    text = value.decode("utf-8", "replace").removeprefix("\ufeff")
    endless: list[str] = []

    def number(digits: str) -> int | float:
        try:
            return int(digits)
        except (
            ValueError
        ):  # more digits than Python reads: an infinite number, which no field takes
            endless.append(digits)
            return float(digits)

    try:
        data = json.loads(text, strict=False, parse_int=number)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    known = {key: data[key] for key in StepEvent.model_fields if key in data}
    clean = _clean(known)
    if endless:
        repairs.append(
            Repair(
                TEXT,
                f"the record held a number of {len(endless[0]):,} characters; it counts as infinite",
            )
        )
    if "\ufffd" in text or clean != known or _CONTROL.search(value):
        repairs.append(
            Repair(
                TEXT,
                "the record held bytes or characters that no text may have; they were replaced",
            )
        )
    return cast("dict[str, Any]", clean)


def _clean(value: Any) -> Any:
    """The same value with ``?`` for each half of a surrogate pair."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value


def _invalid(step: Step) -> str:
    """The first impossible value, in words; empty where there is none."""
    if not TRACE_ID.fullmatch(step.trace_id) or step.trace_id == ZERO_TRACE_ID:
        return f"trace_id must be 32 lower-case hex digits and not all zero: {step.trace_id[:64]!r}"
    if not STEP_ID.fullmatch(step.step_id) or step.step_id == ZERO_STEP_ID:
        return f"step_id must be 16 lower-case hex digits and not all zero: {step.step_id[:64]!r}"
    return ""


def _time_out_of_range(step: Step, timestamp_us: int, limits: Limits) -> str:
    latest = timestamp_us + limits.max_future_us
    end = step.end_time
    age_us = limits.age_us(step.project)
    for name, time_us in (("start_time", step.start_time), ("end_time", end)):
        if time_us is None:
            continue
        if time_us < 0:
            return f"{name} {time_us} is negative; times are microseconds since 1970"
        if time_us > latest:
            unit = likely_unit(time_us, timestamp_us)
            most_s = limits.max_future_us // 1_000_000
            return f"{name} {time_us} is more than {most_s} s after the record's timestamp {timestamp_us}{unit}"
    if step.start_time < timestamp_us - age_us:
        unit = likely_unit(step.start_time, timestamp_us)
        return f"start_time {step.start_time} is more than {age_us // DAY_US} days before the record's timestamp{unit}"
    return ""
