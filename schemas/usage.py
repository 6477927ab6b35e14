"""The usage of a step, as producers count it and as prices are looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from msgspec.structs import astuple
from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.derive import derive_struct

MAX_USAGE_COUNT: Final = 1_000_000_000
"""A higher count in one step is taken for a mistake; sums of a run stay exact in JSON."""

UsageCount = Annotated[int, Field(ge=0, le=MAX_USAGE_COUNT)]


class TokenUsage(BaseModel):
    """The usage of one step: tokens, and other things that providers charge for.

    Input includes cached input, cache writes and all modalities; output includes reasoning and all
    modalities, as in OpenTelemetry. The first five fields are summed over runs; the others are
    needed for the price of the step.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    input_tokens: UsageCount = Field(
        0, description="all input tokens, cached and cache-written ones included"
    )
    output_tokens: UsageCount = Field(0, description="all output tokens, reasoning included")
    cached_input_tokens: UsageCount = Field(
        0, description="input tokens read from the provider's cache"
    )
    cache_write_tokens: UsageCount = Field(
        0, description="input tokens written to the provider's cache"
    )
    reasoning_tokens: UsageCount = Field(0, description="output tokens spent on reasoning")
    cache_write_1h_tokens: UsageCount = Field(
        0, description="the part of cache_write_tokens that is kept for an hour"
    )
    input_audio_tokens: UsageCount = Field(0, description="the part of input_tokens that is audio")
    input_image_tokens: UsageCount = Field(0, description="the part of input_tokens that is images")
    input_video_tokens: UsageCount = Field(0, description="the part of input_tokens that is video")
    cached_audio_tokens: UsageCount = Field(
        0, description="the part of cached_input_tokens that is audio"
    )
    cached_image_tokens: UsageCount = Field(
        0, description="the part of cached_input_tokens that is images"
    )
    output_audio_tokens: UsageCount = Field(
        0, description="the part of output_tokens that is audio"
    )
    output_image_tokens: UsageCount = Field(
        0, description="the part of output_tokens that is images"
    )
    output_video_tokens: UsageCount = Field(
        0, description="the part of output_tokens that is video"
    )
    citation_tokens: UsageCount = Field(
        0, description="the part of output_tokens that is citations"
    )
    input_characters: UsageCount = Field(
        0, description="characters, where speech is charged by them"
    )
    audio_ms: UsageCount = Field(
        0, description="milliseconds of audio, where transcription is charged by duration"
    )
    document_pages: UsageCount = Field(
        0, description="pages read, where document recognition is charged by them"
    )
    annotated_pages: UsageCount = Field(
        0, description="the part of document_pages that was annotated"
    )
    text_messages: UsageCount = Field(
        0, description="text messages, where voice sessions are charged by them"
    )
    web_searches: UsageCount = Field(0, description="web searches that the provider made")
    social_searches: UsageCount = Field(
        0, description="searches of social networks that the provider made"
    )
    storage_searches: UsageCount = Field(
        0, description="searches of stored files that the provider made"
    )
    code_executions: UsageCount = Field(0, description="runs of code at the provider's")
    rerank_searches: UsageCount = Field(
        0, description="searches that were ranked anew, where they are charged by number"
    )
    incomplete: bool = Field(
        False,
        description="counts are missing or were wrong: they are a lower bound and the cost is "
        "unknown",
    )


TOTALLED: Final = (
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
)
"""The counts that are summed over runs, minutes and windows, in this order."""
DETAILS: Final = tuple(
    name for name in TokenUsage.model_fields if name not in (*TOTALLED, "incomplete")
)
"""The other counts: they are used for the price of their step only."""

if TYPE_CHECKING:
    TokenUsageStruct: TypeAlias = TokenUsage
else:
    TokenUsageStruct = derive_struct(TokenUsage)

NO_TOKENS: Final = TokenUsageStruct()
"""The usage of a step without usage."""

_FIRST_DETAIL: Final = len(TOTALLED)
# One tuple instead of 20 attributes: the worker asks for every priced step.
_fields: Any = astuple
_NO_DETAILS: Final = _fields(NO_TOKENS)[_FIRST_DETAIL:]


def has_details(usage: TokenUsage) -> bool:
    """Whether any count besides the totalled ones is set."""
    try:
        return bool(_fields(usage)[_FIRST_DETAIL:] != _NO_DETAILS)
    except TypeError:  # the public model, not the struct that hot paths use
        return usage.incomplete or any(getattr(usage, name) for name in DETAILS)


def details_of(usage: TokenUsage) -> dict[str, int] | None:
    """The counts besides the totalled ones that are not zero; None if there are none."""
    if not has_details(usage):
        return None
    return {name: count for name in DETAILS if (count := getattr(usage, name))}
