"""The step event, version 1: what an agent publishes when a step starts and when it ends.

``StepEvent`` is the contract (validation, JSON Schema, docs); ``Step`` is the struct derived from it that hot paths use.
Both accept the same records: leniency lives in ``normalise``, meaning in ``stepstream.schemas.accept``.
Version 1 only grows: fields are added with defaults, none is renamed, removed or given another meaning.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from msgspec import Meta
from pydantic import BaseModel, ConfigDict, Field, JsonValue, PlainSerializer, model_validator

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.normalise import MAX_ATTEMPT, MAX_COUNT, normalised
from stepstream.schemas.usage import TokenUsage, TokenUsageStruct

SCHEMA_NAME: Final = "step"
SCHEMA_VERSION: Final = 1
HEADER_SCHEMA: Final = "stepstream-schema"
HEADER_CONTENT_TYPE: Final = "content-type"

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
    """An amount as people write it (``0.0000004``, not ``4E-7``); exponents only where the digits would run on for pages."""
    return (
        format(amount, "f") if amount.is_finite() and -40 < amount.adjusted() < 40 else str(amount)
    )


Usd = Annotated[Decimal, PlainSerializer(decimal_text, return_type=str, when_used="json")]


class Document(BaseModel):
    """One document that a retrieval returned."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    id: str = Field("", description="the document's id in its store")
    score: float | None = Field(
        None, allow_inf_nan=False, description="the retriever's own score; higher is better"
    )
    content: str = Field("", description="text, truncated; empty where content is not captured")


def _pattern(regex: str) -> dict[str, JsonValue]:
    return {"pattern": regex}


# For the exported JSON Schema alone: what accept demands is said there, but judged in one place only.
_STEP_ID = _pattern("^[0-9a-f]{16}$")
_STEP_REF = _pattern("^([0-9a-f]{16})?$")
_END_HAS_END_TIME: dict[str, JsonValue] = {
    "if": {"properties": {"phase": {"const": "end"}}},
    "then": {"required": ["end_time"], "properties": {"end_time": {"type": "integer"}}},
}


class StepEvent(BaseModel):
    """One step of a run, as it starts (``phase: start``) or as it ended (``phase: end``, the complete record)."""

    model_config = ConfigDict(extra="ignore", strict=True, json_schema_extra=_END_HAS_END_TIME)

    schema_version: int = Field(
        1, description="major version of this schema", json_schema_extra={"const": 1}
    )
    # identity
    trace_id: str = Field(
        description="the run: 32 lower-case hex digits; also the record's key",
        json_schema_extra=_pattern("^[0-9a-f]{32}$"),
    )
    step_id: str = Field(
        description="the step: 16 lower-case hex digits", json_schema_extra=_STEP_ID
    )
    parent_step_id: str = Field(
        "",
        description="the step that caused it; empty for the root, which is the run itself",
        json_schema_extra=_STEP_REF,
    )
    parent_remote: bool = Field(
        False,
        description="the parent is a span of another process, which may never report to Stepstream:"
        " where no such step has come when this one has ended, this one is the run's root",
    )
    phase: str = Field(
        "end",
        description="start, or end (the complete record; a step known only at its end is one end)",
        json_schema_extra={"enum": ["start", "end"]},
    )
    # what
    kind: str = Field(description=f"one of {', '.join(KINDS)}; anything else counts as other")
    name: str = Field(description="what people call the step", json_schema_extra={"minLength": 1})
    tool: str = Field("", description="the tool that was called or chosen")
    model: str = Field("", description="the model that answered")
    provider: str = Field("", description="the model's provider, e.g. openai")
    # whose
    project: str = Field(
        "default",
        description="owner of the run; alerts and windows are kept per project",
        json_schema_extra={"minLength": 1},
    )
    environment: str = Field("", description="prod, staging, dev ...")
    agent: str = Field("", description="the agent's name")
    agent_version: str = Field("", description="the agent's version")
    task: str = Field("", description="task type, e.g. refund; never a prompt")
    session_id: str = Field("", description="conversation that the run belongs to")
    user_id: str = Field("", description="the user it was done for")
    # when
    start_time: TimeUs
    end_time: TimeUs | None = Field(
        None, description="microseconds since 1970-01-01 UTC; required when phase is end"
    )
    first_token_time: TimeUs | None = Field(
        None, description="when the first streamed output arrived"
    )
    # how it went
    status: str = Field("ok", description="ok, error or cancelled; says nothing in a start")
    error_type: str = Field("", description="exception class or error code")
    error_message: str = Field("", description="the error in words")
    attempt: int = Field(
        1,
        description="1 for the first try",
        json_schema_extra={"minimum": 1, "maximum": MAX_ATTEMPT},
    )
    retry_of: str = Field(
        "", description="step_id of the try that this one repeats", json_schema_extra=_STEP_REF
    )
    fallback_of: str = Field(
        "", description="step_id of the step that this one replaces", json_schema_extra=_STEP_REF
    )
    # what it used
    usage: TokenUsage | None = Field(
        None, description="the step's own tokens, never its children's"
    )
    usage_may_repeat: bool = Field(
        False,
        description="usage and cost may repeat those of model calls below this one, as spans of"
        " nested instrumentations do: only the innermost call counts for the run",
    )
    cost_usd: Annotated[Usd, Field(allow_inf_nan=True)] | None = Field(
        None, description="the step's own cost, a decimal string; absent where unknown"
    )
    cost_source: str = Field(
        "", description="given, priced or unpriced; empty: decided by whoever reads it"
    )
    price_version: str = Field("", description="version of the prices that a priced cost came from")
    # content
    input: str = Field("", description="text or JSON text, truncated")
    output: str = Field("", description="text or JSON text, truncated")
    input_bytes: Count | None = Field(None, description="size of the input before it was truncated")
    output_bytes: Count | None = Field(
        None, description="size of the output before it was truncated"
    )
    tool_schema: str = Field("", description="reference of the tool's declared parameter schema")
    documents: list[Document] = Field(
        default_factory=list, description="what a retrieval returned, best first"
    )
    attributes: dict[str, str] = Field(default_factory=dict, description="anything else")

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        return normalised(data)


USUAL_TEXT_CHARS: Final = 512
USUAL_MESSAGE_CHARS: Final = 4_096
USUAL_ATTRIBUTES: Final = 64
USUAL_DOCUMENTS: Final = 256
SHORT_TEXTS: Final = (
    "name", "tool", "model", "provider", "project", "environment", "agent", "agent_version", "task", "session_id",
    "user_id", "error_type", "tool_schema", "price_version",
)  # fmt: skip

if TYPE_CHECKING:  # a derived struct has the model's fields; to a type checker it is the model
    DocumentStruct: TypeAlias = Document
    Step: TypeAlias = StepEvent
    AnyStep: TypeAlias = StepEvent
else:
    DocumentStruct = derive_struct(Document)
    _NESTED = {TokenUsage: TokenUsageStruct, Document: DocumentStruct}
    AnyStep = derive_struct(StepEvent, name="AnyStep", nested=_NESTED)
    _SHORT = Annotated[str, Meta(max_length=USUAL_TEXT_CHARS)]
    _NAME = Annotated[str, Meta(min_length=1, max_length=USUAL_TEXT_CHARS)]
    # Most of what ``accept`` demands is known once this is decoded: the decoder's checks cost nothing, and of what has few
    # values it makes the same objects each time. Steps that it refuses may be made sane: they are read as AnyStep first.
    Step = derive_struct(
        StepEvent,
        name="Step",
        nested=_NESTED,
        narrowed=dict.fromkeys(SHORT_TEXTS, _SHORT)
        | {
            "schema_version": Literal[SCHEMA_VERSION],
            "trace_id": Annotated[str, Meta(min_length=32, max_length=32)],
            "step_id": Annotated[str, Meta(min_length=16, max_length=16)],
            "phase": Literal[tuple(sorted(PHASES))],
            "kind": Literal[KINDS],
            "name": _NAME,
            "project": _NAME,
            "start_time": Annotated[int, Meta(ge=0)],
            "status": Literal[tuple(sorted(STATUSES))],
            "error_message": Annotated[str, Meta(max_length=USUAL_MESSAGE_CHARS)],
            "attempt": Annotated[int, Meta(ge=1, le=MAX_ATTEMPT)],
            "cost_source": Literal[tuple(sorted(COST_SOURCES))],
            "documents": Annotated[list[DocumentStruct], Meta(max_length=USUAL_DOCUMENTS)],
            "attributes": Annotated[dict[str, str], Meta(max_length=USUAL_ATTRIBUTES)],
        },
    )
