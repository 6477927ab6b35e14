"""Repairs of steps: impossible values are corrected or dropped, and reported. Rejects nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from stepstream.schemas.content_limits import (
    USUAL_BYTES,
    USUAL_RECORD_BYTES,
)
from stepstream.schemas.ids import STEP_ID, STEP_ID_DIGITS, TRACE_ID_DIGITS
from stepstream.schemas.normalise import (
    CONVERTED,
    COST,
    DROPPED,
    MAX_ATTEMPT,
    TEXT,
    USAGE,
    Repair,
    Repairs,
    note,
)
from stepstream.schemas.step import (
    COST_SOURCES,
    KINDS,
    PHASES,
    SHORT_TEXTS,
    STATUSES,
    USUAL_ATTRIBUTES,
    USUAL_DOCUMENTS,
    USUAL_MESSAGE_CHARS,
    USUAL_TEXT_CHARS,
    Step,
)
from stepstream.schemas.times import DAY_US

CLAMPS: Final[dict[str, str]] = {
    "end_before_start": "end_time preceded start_time and was set to it",
    "unknown_kind": "kind was unknown and counts as other",
    "unknown_status": "status was unknown: it was mapped by its word, or by whether an error "
    "is given",
    "own_parent": "the step named itself as its parent; it counts as a root",
    "content_truncated": "input or output was longer than the limit",
    "text_truncated": "a name or message was longer than the limit",
    "attributes_dropped": "more attributes than the limit",
    "documents_dropped": "more documents than the limit",
    COST: "cost_usd was impossible; the step is priced as if it had none",
    "unknown_cost_source": "cost_source was unknown and was dropped",
    "invalid_reference": "retry_of or fallback_of was not a step id and was dropped, or "
    "parent_step_id was not one and refers to no step",
    "first_token_out_of_range": "first_token_time was outside the step and was dropped",
    CONVERTED: "a value had another form (12 as text, an id in upper case) and was converted",
    DROPPED: "a value that is impossible for the field was dropped",
    USAGE: "a usage count was impossible; if the true count is unknown, so is the step's cost",
    TEXT: "the record had bytes or characters that no text may have; they were replaced",
}
"""Repairs of an accepted step: their names (also in the store and in metrics) and meaning."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a record. Worker and sink must use the same."""

    max_record_bytes: int = USUAL_RECORD_BYTES
    max_content_bytes: int = USUAL_BYTES
    content_bytes_by_kind: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Limits of an input or output for some kinds of step, instead of ``max_content_bytes``."""
    max_text_chars: int = USUAL_TEXT_CHARS
    max_message_chars: int = USUAL_MESSAGE_CHARS
    max_attributes: int = USUAL_ATTRIBUTES
    max_documents: int = USUAL_DOCUMENTS
    max_age_us: int = 30 * DAY_US
    """Steps younger than this are accepted for every project."""
    project_ages_us: tuple[tuple[str, int], ...] = ()
    """Maximum age by project; the empty name is the maximum age of all other projects."""
    max_future_us: int = DAY_US
    usual: bool = field(init=False, repr=False)
    """Whether every record that decodes as ``Step`` is within these limits."""
    unmeasured_chars: int = field(init=False, repr=False)
    """A text of this many characters is within the limit of every kind, whatever its characters."""

    def __post_init__(self) -> None:
        usual = (
            self.max_text_chars >= USUAL_TEXT_CHARS
            and self.max_message_chars >= USUAL_MESSAGE_CHARS
            and self.max_attributes >= USUAL_ATTRIBUTES
            and self.max_documents >= USUAL_DOCUMENTS
        )
        object.__setattr__(self, "usual", usual)
        # A character has at most 4 bytes of UTF-8.
        least = min([self.max_content_bytes, *self.content_bytes_by_kind.values()])
        object.__setattr__(self, "unmeasured_chars", least // 4)

    def content_bytes(self, kind: str) -> int:
        """The limit of an input or output of a step of this kind."""
        return self.content_bytes_by_kind.get(kind, self.max_content_bytes)

    def age_us(self, project: str) -> int:
        """Maximum age of a step of the project."""
        if not self.project_ages_us:
            return self.max_age_us
        ages_us = dict(self.project_ages_us)
        return ages_us.get(project, ages_us.get("", self.max_age_us))


DEFAULT_LIMITS: Final = Limits()
ANY_TIME: Final = Limits(max_age_us=2**62, max_future_us=2**62)
"""For recorded events, which are read at any time after they happened."""
_KINDS: Final = frozenset(KINDS)
_FAILED: Final = frozenset(
    ["error", "errored", "fail", "failed", "failure", "exception", "timeout", "timed_out"]
)
_CANCELLED: Final = frozenset(["cancelled", "canceled", "cancel", "aborted", "interrupted"])
_HEX = re.compile(r"[0-9a-f]+")
_IDS: Final = (
    ("trace_id", TRACE_ID_DIGITS),
    ("step_id", STEP_ID_DIGITS),
    ("parent_step_id", STEP_ID_DIGITS),
    ("retry_of", STEP_ID_DIGITS),
    ("fallback_of", STEP_ID_DIGITS),
)
_UNITS: Final = (("seconds", 1_000_000, 1), ("milliseconds", 1_000, 1), ("nanoseconds", 1, 1_000))


def hex_id(text: str, digits: int) -> str:
    """An id in upper case, with the hyphens of a UUID or without leading zeros, in standard form.

    Anything else is returned unchanged. At least half of the digits must be there: a shorter text
    is not an id without its leading zeros.
    """
    plain = text.strip().lower().replace("-", "")
    if digits // 2 <= len(plain) <= digits and _HEX.fullmatch(plain):
        return plain.rjust(digits, "0")
    return text


def repair_identity(step: Step, clamped: Repairs) -> None:
    """Correct ids, phase, name, project and attempt.

    A parent that is not a step id becomes the id of a step that does not exist: the step then has
    an unknown parent and is not taken for a root.
    """
    for name, digits in _IDS:
        sent = getattr(step, name)
        if not sent:
            continue
        made = hex_id(sent, digits)
        if made != sent:
            setattr(step, name, made)
            clamped.append(Repair(CONVERTED, note(name, sent, f"became {made}")))
    parent = step.parent_step_id
    if parent and not STEP_ID.fullmatch(parent):
        step.parent_step_id = hashlib.sha256(parent.encode("utf-8", "replace")).hexdigest()[
            :STEP_ID_DIGITS
        ]
        clamped.append(
            Repair(
                "invalid_reference",
                note("parent_step_id", parent, "is not a step id: the step has no known parent"),
            )
        )
    if step.phase not in PHASES:
        made = step.phase.strip().lower()
        if made not in PHASES:
            made = "start" if step.end_time is None else "end"
        clamped.append(Repair(CONVERTED, note("phase", step.phase, f"became {made}")))
        step.phase = made
    if not step.name:
        step.name = step.tool or step.model or step.kind or "other"
        clamped.append(Repair(CONVERTED, f"name: it was empty and became {step.name[:80]}"))
    if not step.project:
        step.project = "default"
        clamped.append(Repair(CONVERTED, "project: it was empty and became default"))
    if not 1 <= step.attempt <= MAX_ATTEMPT:
        clamped.append(
            Repair(
                DROPPED,
                note("attempt", step.attempt, "is not the number of an attempt and was dropped"),
            )
        )
        step.attempt = 1


def clamp(step: Step, latest_us: int, limits: Limits, clamped: Repairs) -> None:
    """Correct times, kind, status, references and cost source."""
    if step.end_time is not None and step.end_time < step.start_time:
        unit = likely_unit(step.end_time, step.start_time)
        clamped.append(
            Repair(
                "end_before_start",
                f"end_time: {step.end_time} became start_time {step.start_time}{unit}",
            )
        )
        step.end_time = step.start_time
    if step.kind not in _KINDS:
        kind = step.kind.strip().lower()
        if kind in _KINDS:
            clamped.append(Repair(CONVERTED, note("kind", step.kind, f"became {kind}")))
            step.kind = kind
        else:
            clamped.append(Repair("unknown_kind", note("kind", step.kind, "counts as other")))
            # The word is kept as an attribute, so that a producer's own kinds can still be queried.
            step.attributes = {**step.attributes, "kind": step.kind[: limits.max_text_chars]}
            step.kind = "other"
    if step.status not in STATUSES:
        status = _status(step)
        clamped.append(Repair("unknown_status", note("status", step.status, f"became {status}")))
        step.status = status
    if step.parent_step_id == step.step_id:
        clamped.append(
            Repair(
                "own_parent",
                note(
                    "parent_step_id", step.parent_step_id, "is the step itself: it counts as a root"
                ),
            )
        )
        step.parent_step_id = ""
    for name in ("retry_of", "fallback_of"):
        reference = getattr(step, name)
        if reference and not STEP_ID.fullmatch(reference):
            clamped.append(
                Repair(
                    "invalid_reference", note(name, reference, "is not a step id and was dropped")
                )
            )
            setattr(step, name, "")
    if step.cost_source not in COST_SOURCES:
        clamped.append(
            Repair("unknown_cost_source", note("cost_source", step.cost_source, "was dropped"))
        )
        step.cost_source = ""
    first = step.first_token_time
    if first is not None and not step.start_time <= first <= (
        latest_us if step.end_time is None else step.end_time
    ):
        clamped.append(
            Repair(
                "first_token_out_of_range",
                f"first_token_time: {first} is outside the step and was dropped",
            )
        )
        step.first_token_time = None


def _status(step: Step) -> str:
    """The status that an unknown one means."""
    word = step.status.strip().lower()
    if word in STATUSES:
        return word
    if word in _CANCELLED:
        return "cancelled"
    return "error" if word in _FAILED or step.error_type or step.error_message else "ok"


def clamp_texts(step: Step, limits: Limits, clamped: Repairs) -> None:
    """Truncate names and the error message."""
    for name in SHORT_TEXTS:
        text = getattr(step, name)
        if len(text) > limits.max_text_chars:
            setattr(step, name, text[: limits.max_text_chars])
            clamped.append(
                Repair(
                    "text_truncated",
                    f"{name}: {len(text)} characters became {limits.max_text_chars}",
                )
            )
    size = len(step.error_message)
    if size > limits.max_message_chars:
        step.error_message = step.error_message[: limits.max_message_chars]
        clamped.append(
            Repair(
                "text_truncated",
                f"error_message: {size} characters became {limits.max_message_chars}",
            )
        )


def clamp_contents(step: Step, limits: Limits, clamped: Repairs) -> None:
    """Truncate input and output; drop attributes and documents beyond the limits."""
    if (
        # Shorter texts need not be encoded.
        len(step.input) > limits.unmeasured_chars or len(step.output) > limits.unmeasured_chars
    ):
        _clamp_content(step, limits.content_bytes(step.kind), clamped)
    count = len(step.attributes)
    if count > limits.max_attributes:
        # The first ones stay: JSON objects keep the order in which producers wrote them.
        step.attributes = dict(list(step.attributes.items())[: limits.max_attributes])
        clamped.append(
            Repair("attributes_dropped", f"attributes: {count} became {limits.max_attributes}")
        )
    count = len(step.documents)
    if count > limits.max_documents:
        step.documents = step.documents[: limits.max_documents]
        clamped.append(
            Repair("documents_dropped", f"documents: {count} became {limits.max_documents}")
        )


def _clamp_content(step: Step, max_bytes: int, clamped: Repairs) -> None:
    for name in ("input", "output"):
        text, size = truncated(getattr(step, name), max_bytes)
        if size > max_bytes:
            setattr(step, name, text)
            # A producer that truncated the text itself has sent the size before.
            if getattr(step, f"{name}_bytes") is None:
                setattr(step, f"{name}_bytes", size)
            clamped.append(Repair("content_truncated", f"{name}: {size} bytes became {max_bytes}"))


def truncated(text: str, max_bytes: int) -> tuple[str, int]:
    """The text truncated to ``max_bytes`` of UTF-8, and its size in bytes before."""
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text, len(data)
    # "ignore" drops the character that the limit cuts in two.
    return data[:max_bytes].decode("utf-8", "ignore"), len(data)


def likely_unit(time_us: int, timestamp_us: int) -> str:
    """A hint about the unit of a time: the one in which it is near the timestamp."""
    for unit, us, times in _UNITS:
        if abs(time_us * us // times - timestamp_us) < 3_650 * DAY_US:
            return f": it looks like {unit}, and times are microseconds since 1970"
    return ""
