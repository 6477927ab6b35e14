"""The step event, version 1: what an agent publishes when a step starts and when it ends.

Each field is listed once, in ``StepEvent``: its type, default, description, and by ``StepField``
how other producers' values are converted, its length limit and its column in the store. ``Step``,
the msgspec struct of the hot paths, and the tables below are derived from it.

Version 1 only grows: fields are added with defaults; none is renamed, removed or redefined.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, model_validator

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.normalise import (
    MAX_ATTEMPT,
    MAX_COUNT,
    Reader,
    Repairs,
    converted,
    read_attempt,
    read_attributes,
    read_content,
    read_cost,
    read_documents,
    read_flag,
    read_id,
    read_number,
    read_size,
    read_text,
    read_time,
    read_usage,
    read_version,
)
from stepstream.schemas.usage import TokenUsage, TokenUsageStruct

SCHEMA_NAME: Final = "step"
SCHEMA_VERSION: Final = 1
HEADER_SCHEMA: Final = "stepstream-schema"
HEADER_CONTENT_TYPE: Final = "content-type"
# The entry of W3C's ``tracestate`` that names a sender whose steps arrive here: its children are
# not ``parent_remote``.
TRACE_STATE_KEY: Final = "stepstream"
TRACE_STATE_VALUE: Final = "1"

RELEASE_ATTRIBUTE: Final = "stepstream.release"
"""The attribute of a run's root step: the hash of the release that the run uses."""

TASK_ATTRIBUTE: Final = "stepstream.task_id"
"""The attribute of a run's root step: the id of the task whose attempt the run is. The number of
the attempt is the step's field ``attempt``."""

RECORD_HEADERS: Final = ((HEADER_CONTENT_TYPE, b"application/json"), (HEADER_SCHEMA, b"step/1"))
"""The Kafka headers of a step record."""

PHASES: Final = frozenset({"start", "end"})
KINDS: Final = (
    "agent",
    "plan",
    "tool_selection",
    "tool_call",
    "retrieval",
    "llm_call",
    "state_update",
    "guardrail",
    "evaluation",
    "control",
    "output",
    "other",
)
STATUSES: Final = frozenset({"ok", "error", "cancelled"})
COST_SOURCES: Final = frozenset({"", "given", "priced", "unpriced"})


Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
TimeUs = Annotated[int, Field(description="microseconds since 1970-01-01 UTC")]


def decimal_text(amount: Decimal) -> str:
    """An amount without an exponent (``0.0000004``, not ``4E-7``), unless it is not finite, or 1e40
    or more, or less than 1e-39.
    """
    return (
        format(amount, "f") if amount.is_finite() and -40 < amount.adjusted() < 40 else str(amount)
    )


Usd = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str, when_used="json")]


class Document(BaseModel):
    """A document that a retrieval returned."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    id: str = Field("", description="the document's id in its store")
    score: float | None = Field(
        None,
        allow_inf_nan=False,
        description="a score by which higher is better; convert a distance",
    )
    content: str = Field("", description="text, truncated; empty where content is not captured")


def _pattern(regex: str) -> dict[str, JsonValue]:
    return {"pattern": regex}


# Only for the exported JSON Schema: ``accept`` checks these rules.
_STEP_ID = _pattern("^[0-9a-f]{16}$")
_STEP_REF = _pattern("^([0-9a-f]{16})?$")
_END_HAS_END_TIME: dict[str, JsonValue] = {
    "if": {"properties": {"phase": {"const": "end"}}},
    "then": {"required": ["end_time"], "properties": {"end_time": {"type": "integer"}}},
}


# Limits of the fast decoder, ``Step``. A record beyond them is decoded again as ``AnyStep``, which
# takes longer, and checked against the configured ``Limits`` of ``clamps``.
USUAL_TEXT_CHARS: Final = 512
USUAL_MESSAGE_CHARS: Final = 4_096
USUAL_ATTRIBUTES: Final = 64
USUAL_DOCUMENTS: Final = 256

ColumnType = Literal["", "label", "text", "time", "optional time", "number", "size", "map", "flag"]
"""How the store keeps a field.

- empty: no column of this name; the sink computes columns from it, or leaves it out
- ``label``: a text with few distinct values
- ``text``: any other text
- ``time``, ``optional time``: microseconds, the second may be absent
- ``number``: a small whole number
- ``size``: bytes, may be absent
- ``map``: texts by name
- ``flag``: a boolean
"""
LABEL: Final = "label"
TEXT: Final = "text"
TIME: Final = "time"
OPTIONAL_TIME: Final = "optional time"
NUMBER: Final = "number"
SIZE: Final = "size"
MAP: Final = "map"
FLAG: Final = "flag"

# As a default these stand for a new list and a new dict.
LIST: Final = object()
DICT: Final = object()
_NAME: Final = Annotated[str, Meta(min_length=1, max_length=USUAL_TEXT_CHARS)]


@dataclass(frozen=True, slots=True)
class StepField:
    """What the pipeline does with a field, besides its type."""

    read: Reader
    """Converts values of producers other than the SDK to the field's type."""
    is_short: bool
    """A text of at most ``Limits.max_text_chars``; the SDK and ``accept`` truncate it."""
    accepts: Any
    """The values that ``Step`` decodes; None: those of the field's type."""
    column: ColumnType
    in_start: bool
    """Whether start events contain it, and therefore the table of open steps."""


def _field(
    default: Any,
    description: str,
    *,
    # Leaves everything but whole floats as it is, so it is right for ids too.
    read: Reader = read_number,
    is_short: bool = False,
    accepts: Any = None,
    column: ColumnType = "",
    in_start: bool = True,
    schema: dict[str, JsonValue] | None = None,
) -> Any:
    """A field of ``StepEvent`` with its ``StepField``; ``schema`` is added to the JSON Schema."""
    if default is LIST or default is DICT:
        factory: Any = list if default is LIST else dict
        field = Field(default_factory=factory, description=description, json_schema_extra=schema)
    else:
        field = Field(default, description=description, json_schema_extra=schema)
    field.metadata.append(StepField(read, is_short, accepts, column, in_start))
    return field


def _label(
    description: str,
    *,
    read: Reader = read_text,
    column: ColumnType = LABEL,
    in_start: bool = True,
) -> Any:
    """A short optional text."""
    return _field("", description, read=read, is_short=True, column=column, in_start=in_start)


class StepEvent(BaseModel):
    """A step as it starts (``phase: start``) or as it ended (``phase: end``).

    An end event contains all fields of the step, also those of its start.
    """

    model_config = ConfigDict(extra="ignore", strict=True, json_schema_extra=_END_HAS_END_TIME)

    schema_version: int = _field(
        1,
        "major version of this schema",
        read=read_version,
        accepts=Literal[SCHEMA_VERSION],
        schema={"const": 1},
    )
    # Identity
    trace_id: str = _field(
        ...,
        "the run: 32 lower-case hex digits; also the record's key",
        accepts=Annotated[str, Meta(min_length=32, max_length=32)],
        column=TEXT,
        schema=_pattern("^[0-9a-f]{32}$"),
    )
    step_id: str = _field(
        ...,
        "the step: 16 lower-case hex digits",
        accepts=Annotated[str, Meta(min_length=16, max_length=16)],
        column=TEXT,
        schema=_STEP_ID,
    )
    parent_step_id: str = _field(
        "",
        "the step that started it; empty for the root step",
        column=TEXT,
        schema=_STEP_REF,
    )
    parent_remote: bool = _field(
        False,
        "the parent is a span of another process, which may not report to Stepstream: if it never"
        " arrives, this step is the run's root",
        read=read_flag,
        column=FLAG,
    )
    parent_unknown: bool = _field(
        False,
        "the sender does not state whether the parent is in another process (spans without flags):"
        " if no parent arrives within seconds, the run is shown as closed until more comes",
        read=read_flag,
        column=FLAG,
        in_start=False,
    )
    phase: str = _field(
        "end",
        "start, or end (the complete record; a step may be reported by its end alone)",
        read=read_text,
        accepts=Literal[tuple(sorted(PHASES))],
        schema={"enum": ["start", "end"]},
    )
    amends: bool = _field(
        False,
        "the step's end was sent before without some of its contents, which came apart from it:"
        " this record has them too and replaces the one before; the step counts once",
        read=read_flag,
        column=FLAG,
        in_start=False,
    )
    # What
    kind: str = _field(
        ...,
        f"one of {', '.join(KINDS)}; anything else counts as other",
        read=read_text,
        accepts=Literal[KINDS],
        column=LABEL,
    )
    name: str = _field(
        ...,
        "the step's name for display, e.g. the function's name",
        read=read_text,
        is_short=True,
        accepts=_NAME,
        column=LABEL,
        schema={"minLength": 1},
    )
    tool: str = _label("the tool that was called or selected")
    model: str = _label("the model that was called; in an end the one that answered, if known")
    provider: str = _label("the model's provider, e.g. openai")
    # Owner
    project: str = _field(
        "default",
        "the project of the run; alerts and windows are kept per project",
        read=read_text,
        is_short=True,
        accepts=_NAME,
        column=LABEL,
        schema={"minLength": 1},
    )
    environment: str = _label("prod, staging, dev ...")
    agent: str = _label("the agent's name")
    agent_version: str = _label("the agent's version", read=read_id)
    task: str = _label("task type, e.g. refund; never a prompt")
    session_id: str = _label("conversation that the run belongs to", read=read_id, column=TEXT)
    user_id: str = _label("the user that the run serves", read=read_id, column=TEXT)
    # Times
    start_time: TimeUs = _field(
        ...,
        "when the step started, in microseconds since 1970-01-01 UTC",
        read=read_time,
        accepts=Annotated[int, Meta(ge=0)],
        column=TIME,
    )
    end_time: TimeUs | None = _field(
        None,
        "when the step ended, in microseconds since 1970-01-01 UTC; required when phase is end",
        read=read_time,
        column=TIME,
        in_start=False,
    )
    first_token_time: TimeUs | None = _field(
        None,
        "when the first streamed output arrived, in microseconds since 1970-01-01 UTC",
        read=read_time,
        column=OPTIONAL_TIME,
        in_start=False,
    )
    # Result
    status: str = _field(
        "ok",
        "ok, error or cancelled; without meaning in a start",
        read=read_text,
        accepts=Literal[tuple(sorted(STATUSES))],
        column=LABEL,
        in_start=False,
    )
    error_type: str = _label("exception class or error code", read=read_id, in_start=False)
    error_message: str = _field(
        "",
        "the error as text",
        read=read_text,
        accepts=Annotated[str, Meta(max_length=USUAL_MESSAGE_CHARS)],
        column=TEXT,
        in_start=False,
    )
    attempt: int = _field(
        1,
        "1 for the first try",
        read=read_attempt,
        accepts=Annotated[int, Meta(ge=1, le=MAX_ATTEMPT)],
        column=NUMBER,
        schema={"minimum": 1, "maximum": MAX_ATTEMPT},
    )
    retry_of: str = _field(
        "",
        "step_id of the attempt that this one repeats",
        read=read_text,
        column=TEXT,
        schema=_STEP_REF,
    )
    fallback_of: str = _field(
        "",
        "step_id of the failed step to which this one is the alternative, such as another model",
        read=read_text,
        column=TEXT,
        schema=_STEP_REF,
    )
    # Usage and cost: their columns are computed by the sink
    usage: TokenUsage | None = _field(
        None, "the step's own tokens, without those of its children", read=read_usage
    )
    usage_may_repeat: bool = _field(
        False,
        "usage and cost may repeat those of model calls below this one, as spans of nested"
        " instrumentations do: only the innermost call counts for the run",
        read=read_flag,
        column=FLAG,
        in_start=False,
    )
    cost_usd: Annotated[Usd, Field(allow_inf_nan=True)] | None = _field(
        None, "the step's own cost, a decimal string; absent if unknown", read=read_cost
    )
    cost_source: str = _field(
        "",
        "given (by the producer), priced (from tokens and prices) or unpriced (unknown); empty: a"
        " cost that is present counts as given",
        read=read_text,
        accepts=Literal[tuple(sorted(COST_SOURCES))],
    )
    price_version: str = _label("version of the prices that a priced cost came from", column="")
    # Content
    input: str = _field("", "text or JSON text, truncated", read=read_content, column=TEXT)
    output: str = _field(
        "", "text or JSON text, truncated", read=read_content, column=TEXT, in_start=False
    )
    input_bytes: Count | None = _field(
        None, "size of the input before it was truncated", read=read_size, column=SIZE
    )
    output_bytes: Count | None = _field(
        None,
        "size of the output before it was truncated",
        read=read_size,
        column=SIZE,
        in_start=False,
    )
    tool_schema: str = _label("id or hash of the tool's declared parameter schema")
    documents: list[Document] = _field(
        LIST, "what a retrieval returned, best first", read=read_documents
    )
    attributes: dict[str, str] = _field(
        DICT,
        "further texts by name, at most 64",
        read=read_attributes,
        accepts=Annotated[dict[str, str], Meta(max_length=USUAL_ATTRIBUTES)],
        column=MAP,
    )

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        return normalised(data)


FIELDS: Final[dict[str, StepField]] = {
    name: next(part for part in info.metadata if isinstance(part, StepField))
    for name, info in StepEvent.model_fields.items()
}
SHORT_TEXTS: Final = tuple(name for name, field in FIELDS.items() if field.is_short)
_READERS: Final = {name: field.read for name, field in FIELDS.items()}


def normalised(data: Any, repairs: Repairs | None = None) -> Any:
    """A copy of a decoded event with each field converted to its type (``normalise.converted``).

    Each conversion that changes a value is appended to ``repairs``. Anything but a dict is returned
    as it is.
    """
    return converted(data, _READERS, [] if repairs is None else repairs)


if TYPE_CHECKING:  # a derived struct has the model's fields; to a type checker it is the model
    DocumentStruct: TypeAlias = Document
    Step: TypeAlias = StepEvent
    AnyStep: TypeAlias = StepEvent
else:
    DocumentStruct = derive_struct(Document)
    _NESTED = {TokenUsage: TokenUsageStruct, Document: DocumentStruct}
    AnyStep = derive_struct(StepEvent, name="AnyStep", nested=_NESTED)
    # Step has the limits of ``accepts``, so that the decoder, in C, checks most of what ``accept``
    # demands. A record that it refuses is decoded as AnyStep and may be repaired.
    Step = derive_struct(
        StepEvent,
        name="Step",
        nested=_NESTED,
        narrowed=dict.fromkeys(SHORT_TEXTS, Annotated[str, Meta(max_length=USUAL_TEXT_CHARS)])
        | {name: field.accepts for name, field in FIELDS.items() if field.accepts is not None}
        | {"documents": Annotated[list[DocumentStruct], Meta(max_length=USUAL_DOCUMENTS)]},
    )


def happened_us(step: Step) -> int:
    """When an event happened: a start event at the step's start, an end event at its end."""
    return step.end_time if step.phase == "end" and step.end_time is not None else step.start_time
