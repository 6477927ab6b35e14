"""``accept``: the one function that decides whether a record is a valid step.

The worker dead-letters what it rejects; the sink skips and counts the same records. The decision
depends only on the record (key, partition, headers, value and Kafka timestamp), the limits and the
number of partitions, and never on the current time, so reading the record again gives the same
decision.

Three outcomes: ``Accepted``, with the names of clamps if values were repaired; ``Misrouted``, a
valid step on the wrong partition, to be sent again; ``Rejected``, with a reason from ``REASONS``.

Nearly every record takes the fast path, all of which is in ``accept`` itself: the decoder checks
most rules, one condition the others. A record that fails one of them takes the slow path: it is
decoded as ``AnyStep`` (the same fields with wider types) and checked rule by rule, which also
produces the error texts. Both paths give the same result (tests/unit/schemas/test_agreement.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

from stepstream.schemas.clamps import (
    ANY_TIME,
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
from stepstream.schemas.lenient_json import MAX_NESTING, decode_fields, nesting
from stepstream.schemas.money import nanos_from_usd
from stepstream.schemas.normalise import COST, Repair, Repairs, note
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.step import (
    HEADER_SCHEMA,
    RECORD_HEADERS,
    SCHEMA_NAME,
    SCHEMA_VERSION,
    AnyStep,
    Step,
    StepEvent,
    normalised,
)
from stepstream.schemas.times import DAY_US, SECOND_US

__all__ = [
    "ANY_TIME",
    "CLAMPS",
    "DAY_US",
    "DEFAULT_LIMITS",
    "MAX_NESTING",
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
"""Why a record is rejected: reasons (also in the dead letter) and their meaning."""

UNKNOWN_SIZE: Final = 2**62
"""Larger than every limit, so that each text is checked by itself."""


class Accepted(msgspec.Struct, gc=False):
    """A valid step; ``cost_nanos`` is the cost in its record, None if it has none.

    ``clamped`` has the names of repairs (keys of ``CLAMPS``), ``notes`` the field and the original
    value of each.
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
    """Not a valid step: ``detail`` names field and value.

    ``reason`` is a key of ``REASONS``, or ``poison`` from the worker.
    """

    reason: str
    detail: str


Headers = Sequence[tuple[str, bytes]] | None

_decode = msgspec.json.Decoder(Step).decode
_decode_any = msgspec.json.Decoder(AnyStep).decode
_HEX_DIGITS: Final = "0123456789abcdef"
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
    """Check one record of the steps topic. Never raises.

    ``timestamp_us`` is the record's Kafka timestamp, ``partitions`` the topic's partition count.
    """
    # Runs for every record of every worker and sink: a call costs as much as five comparisons.
    if (
        value
        and limits.usual
        and len(value) <= limits.max_record_bytes
        and (not headers or tuple(headers) == RECORD_HEADERS)
    ):
        try:
            step = _decode(value)
        except (ValueError, RecursionError):
            return _accept_at_length(
                value, key, (partition, partitions), timestamp_us, headers, limits
            )
        trace_id, step_id, parent = step.trace_id, step.step_id, step.parent_step_id
        start, end, first = step.start_time, step.end_time, step.first_token_time
        latest = timestamp_us + limits.max_future_us
        if (
            timestamp_us - limits.max_age_us <= start <= latest
            and (step.phase == "start" if end is None else step.phase == "end" and start <= end)
            and (end is None or end <= latest)
            and (first is None or start <= first <= (latest if end is None else end))
            and (not parent or (len(parent) == 16 and parent != step_id))
            # One strip over all ids costs half of what three regular expressions cost.
            and not f"{trace_id}{step_id}{parent}".strip(_HEX_DIGITS)
            and trace_id != ZERO_TRACE_ID
            and step_id != ZERO_STEP_ID
            and not step.retry_of
            and not step.fallback_of
            # No need to encode the texts to know that they are within the limit.
            and len(step.input) + len(step.output) <= limits.unmeasured_chars
            and key == trace_id.encode()
            and _partition_for(trace_id, partitions) == partition
        ):
            cost = step.cost_usd
            if cost is None:
                return Accepted(step, None)
            if type(cost) is Decimal:
                try:
                    return Accepted(step, nanos_from_usd(cost))
                except ValueError:
                    pass  # an impossible cost: at length it is dropped and reported
    return _accept_at_length(value, key, (partition, partitions), timestamp_us, headers, limits)


def _accept_at_length(
    value: bytes | None,
    key: bytes | None,
    place: tuple[int, int],
    timestamp_us: int,
    headers: Headers,
    limits: Limits,
) -> Accepted | Misrouted | Rejected:
    """Check a record that is not as nearly all are, point by point.

    ``place``: its partition, and how many the topic has.
    """
    partition, partitions = place
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
    """Check a value without key and partition, for gateways and files. Never raises."""
    if not value:
        return Rejected("empty", "the value is empty")
    size_bytes = len(value)
    if size_bytes > limits.max_record_bytes:
        return Rejected("too_large", f"{size_bytes} bytes, the limit is {limits.max_record_bytes}")
    try:
        step = _decode(value)
    except (ValueError, RecursionError):
        return accept_leniently(value, timestamp_us, limits)
    if _needs_no_repair(step, timestamp_us, limits):
        cost = step.cost_usd
        if cost is None:
            return Accepted(step, None)
        if type(cost) is Decimal:
            try:
                return Accepted(step, nanos_from_usd(cost))
            except ValueError:
                pass  # an impossible cost: _check_and_repair drops it and reports it
    return _check_and_repair(step, timestamp_us, limits, size_bytes)


def _needs_no_repair(step: Step, timestamp_us: int, limits: Limits) -> bool:
    """Whether the step is valid as it is: true for nearly every step.

    May return False for a valid step, but never True for one that ``_check_and_repair`` would
    reject or change.
    """
    start, end, first = step.start_time, step.end_time, step.first_token_time
    parent = step.parent_step_id
    latest = timestamp_us + limits.max_future_us
    if not timestamp_us - limits.max_age_us <= start <= latest:
        return False
    if end is None:
        if step.phase != "start":
            return False
        end = latest
    elif step.phase != "end" or not start <= end <= latest:
        return False
    if first is not None and not start <= first <= end:
        return False
    if parent and (len(parent) != 16 or parent == step.step_id):
        return False
    # One strip over all ids costs half of what three regular expressions cost.
    if f"{step.trace_id}{step.step_id}{parent}".strip(_HEX_DIGITS):
        return False
    if step.trace_id == ZERO_TRACE_ID or step.step_id == ZERO_STEP_ID:
        return False
    return (
        limits.usual
        and not step.retry_of
        and not step.fallback_of
        # No need to encode the texts to know that they are within the limit.
        and len(step.input) + len(step.output) <= limits.unmeasured_chars
    )


def accept_leniently(value: bytes, timestamp_us: int, limits: Limits) -> Accepted | Rejected:
    """Check a value that does not decode as ``Step``; it may become valid by repairs."""
    size_bytes = len(value)
    repairs: Repairs = []
    try:
        step = _decode_any(value)
    except (ValueError, RecursionError):
        converted = _decode_leniently(value, repairs)
        if isinstance(converted, Rejected):
            return converted
        step = converted
        size_bytes = UNKNOWN_SIZE  # JSON that became text may be longer than it was sent
    result = _check_and_repair(step, timestamp_us, limits, size_bytes, repairs)
    if isinstance(result, Accepted):
        result.step = Step(**{name: getattr(step, name) for name in StepEvent.model_fields})
    return result


def _check_and_repair(
    step: AnyStep,
    timestamp_us: int,
    limits: Limits,
    size_bytes: int,
    repairs: Repairs | None = None,
) -> Accepted | Rejected:
    """Check a decoded step rule by rule; repairs it in place and reports them after ``repairs``."""
    clamped = [] if repairs is None else repairs
    repair_identity(step, clamped)
    if step.schema_version != SCHEMA_VERSION:
        return Rejected(
            "unknown_version",
            f"schema_version is {step.schema_version}, supported is {SCHEMA_VERSION}",
        )
    if wrong := _invalid(step):
        return Rejected("invalid_field", wrong)
    if step.phase == "end" and step.end_time is None:
        return Rejected("missing_field", "end_time is required when phase is end")
    if late := _time_out_of_range(step, timestamp_us, limits):
        return Rejected("time_out_of_range", late)
    clamp(step, timestamp_us + limits.max_future_us, limits, clamped)
    # If the record without its contents is shorter than the limit of one text, no text is too long.
    if size_bytes - len(step.input) - len(step.output) > limits.max_text_chars:
        clamp_texts(step, limits, clamped)
    clamp_contents(step, limits, clamped)
    cost_nanos = _cost_nanos(step, clamped)
    return Accepted(
        step,
        cost_nanos,
        tuple(repair.clamp for repair in clamped),
        tuple(repair.note for repair in clamped),
    )


def _cost_nanos(step: AnyStep, clamped: Repairs) -> int | None:
    """The step's cost in nano-dollars; an impossible one is removed from the step."""
    if step.cost_usd is None:
        return None
    try:
        nanos = nanos_from_usd(step.cost_usd)
    except ValueError:
        text = note("cost_usd", str(step.cost_usd), "is an impossible cost and was dropped")
        clamped.append(Repair(COST, text))
        step.cost_usd, step.cost_source = None, ""
        return None
    if isinstance(step.cost_usd, float):
        step.cost_usd = Decimal(str(step.cost_usd))
    return nanos


def _wrong_version(headers: Sequence[tuple[str, bytes]]) -> str:
    for name, value in headers:
        if name == HEADER_SCHEMA and value is not None and value.split(b".")[0] != b"step/1":
            supported = f"{SCHEMA_NAME}/{SCHEMA_VERSION}"
            return f"header {HEADER_SCHEMA} is {value[:64]!r}, supported is {supported}"
    return ""


def _decode_leniently(value: bytes, repairs: Repairs) -> AnyStep | Rejected:
    """Decode JSON that is not a step as it is, and convert its fields."""
    if nesting(value) > MAX_NESTING:
        return Rejected("malformed_json", f"nested more than {MAX_NESTING} levels deep")
    try:
        data = decode_fields(value, repairs)
    except ValueError as error:
        return Rejected("malformed_json", str(error)[:200])
    version = data.get("schema_version")
    if version not in (None, SCHEMA_VERSION, str(SCHEMA_VERSION)):
        return Rejected(
            "unknown_version",
            f"schema_version is {str(version)[:40]}, supported is {SCHEMA_VERSION}",
        )
    try:
        return msgspec.convert(normalised(data, repairs), AnyStep, strict=True)
    except (ValueError, RecursionError, OverflowError) as error:
        reason = "missing_field" if "missing required field" in str(error) else "invalid_field"
        return Rejected(reason, str(error)[:200])


def _invalid(step: Step) -> str:
    """A text about the first impossible id; empty if both are valid."""
    if not TRACE_ID.fullmatch(step.trace_id) or step.trace_id == ZERO_TRACE_ID:
        return f"trace_id must be 32 lower-case hex digits and not all zero: {step.trace_id[:64]!r}"
    if not STEP_ID.fullmatch(step.step_id) or step.step_id == ZERO_STEP_ID:
        return f"step_id must be 16 lower-case hex digits and not all zero: {step.step_id[:64]!r}"
    return ""


def _time_out_of_range(step: Step, timestamp_us: int, limits: Limits) -> str:
    """A text about the first time that is out of range; empty if none is."""
    latest = timestamp_us + limits.max_future_us
    for name, time_us in (("start_time", step.start_time), ("end_time", step.end_time)):
        if time_us is None:
            continue
        if time_us < 0:
            return f"{name} {time_us} is negative; times are microseconds since 1970"
        if time_us > latest:
            unit = likely_unit(time_us, timestamp_us)
            return (
                f"{name} {time_us} is more than {limits.max_future_us // SECOND_US} s after the "
                f"record's timestamp {timestamp_us}{unit}"
            )
    age_us = limits.age_us(step.project)
    if step.start_time < timestamp_us - age_us:
        unit = likely_unit(step.start_time, timestamp_us)
        return (
            f"start_time {step.start_time} is more than {age_us // DAY_US} days before the "
            f"record's timestamp{unit}"
        )
    return ""
