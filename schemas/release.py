"""Releases: the prompts, model parameters, tools and criteria of an agent, as one document.

A release never changes. Its hash is that of its content, so equal content is the same release, and
a release that was changed on the way is recognised. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from stepstream.schemas.wording import sentences

AGENT_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
VERSION_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$"
PROMPT_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"
HASH_PATTERN: Final = r"^[0-9a-f]{64}$"
SHOWN_HASH: Final = 12
"""Characters of a hash that are printed, and that a made version has."""
MAX_RELEASE_BYTES: Final = 900_000
"""A record of the topic ``releases`` has at most 1 MB."""

AgentName = Annotated[str, Field(pattern=AGENT_PATTERN)]
Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
PromptName = Annotated[str, Field(pattern=PROMPT_PATTERN)]
Parameters = dict[str, JsonValue]


class WrongRelease(ValueError):
    """A release is invalid, or its hash is not that of its content."""


class PromptError(ValueError):
    """A prompt does not exist, or cannot be rendered with these variables."""


class Prompt(BaseModel):
    """A prompt: a template, the variables that it takes, and model parameters of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    template: str
    variables: tuple[str, ...] = ()
    model: Parameters = Field(
        default_factory=dict, description="parameters that replace those of the release"
    )


class ReleasedTool(BaseModel):
    """A tool as the model is shown it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")
    description: str = ""
    parameters: dict[str, JsonValue] = Field(
        description="JSON Schema of the arguments, of type object"
    )

    @model_validator(mode="after")
    def _is_of_an_object(self) -> ReleasedTool:
        if self.parameters.get("type") != "object":
            raise ValueError("parameters is a JSON Schema with type: object")
        return self


class Source(BaseModel):
    """Where a release was built. Not part of its content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    revision: str = Field("", description="the commit of the repository")
    changed: bool = Field(False, description="files of the release differed from that commit")


class ReleaseContent(BaseModel):
    """What a release consists of, and what its hash is computed from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Release"] = "Release"
    agent: AgentName
    version: Version
    prompts: dict[PromptName, Prompt]
    model: Parameters = Field(
        default_factory=dict, description="e.g. provider, name, temperature, max_tokens"
    )
    # Without a default: a release that lost its tools must not pass as one without tools.
    tools: tuple[ReleasedTool, ...]
    criteria: tuple[dict[str, JsonValue], ...] = Field(
        (), description="what counts as success; kept and compared, and not evaluated"
    )

    @model_validator(mode="after")
    def _tools_are_distinct(self) -> ReleaseContent:
        names = [tool.name for tool in self.tools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two tools are named {', '.join(twice)}")
        return self


class Release(ReleaseContent):
    """One version of an agent's prompts and tool configuration."""

    source: Source = Source()
    hash: Annotated[str, Field(pattern=HASH_PATTERN)] = Field(
        description="SHA-256 of the content: all fields but source and hash"
    )

    @property
    def short_hash(self) -> str:
        """The beginning of the hash, as it is printed."""
        return self.hash[:SHOWN_HASH]

    @property
    def title(self) -> str:
        """``support@v12``."""
        return f"{self.agent}@{self.version}"

    def content_hash(self) -> str:
        """The hash that the content has."""
        return hash_of(self.model_dump(mode="json"))


def hash_of(content: Mapping[str, Any]) -> str:
    """The hash of a release's content; ``source`` and ``hash`` are left out."""
    kept = {key: value for key, value in content.items() if key not in ("source", "hash")}
    # Sorted keys and fixed separators: the same content is the same text on every machine.
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def new_release(content: ReleaseContent, source: Source = Source()) -> Release:  # noqa: B008
    """The release with this content. Raises ``WrongRelease`` where readers would refuse it."""
    plain = content.model_dump(mode="json")
    try:
        # JSON has no form for NaN and infinity: readers would find null, and another hash.
        json.dumps(plain, allow_nan=False)
    except ValueError as error:
        raise WrongRelease(f"it cannot be written as JSON: {error}") from None
    made = Release.model_validate({**plain, "source": source, "hash": hash_of(plain)})
    return decode_release(encode_release(made))


def release_of(data: Any) -> Release:
    """The release that plain data describe; its hash is checked. Raises ``WrongRelease``."""
    try:
        release = Release.model_validate(data)
    except ValidationError as error:
        raise WrongRelease(sentences(error, Release, data)) from None
    if release.content_hash() != release.hash:
        raise WrongRelease(
            f"{release.title} has the hash {release.short_hash} and content of another one "
            f"({release.content_hash()[:SHOWN_HASH]}): it was changed after it was built"
        )
    return release


def decode_release(value: bytes | str) -> Release:
    """The release in a record or file; its hash is checked. Raises ``WrongRelease``."""
    if len(value) > MAX_RELEASE_BYTES:
        raise WrongRelease(f"a release has at most {MAX_RELEASE_BYTES:,} bytes")
    try:
        data = pydantic_core.from_json(value)
    except (ValueError, RecursionError) as error:
        raise WrongRelease(f"not JSON: {error}") from None
    return release_of(data)


def encode_release(release: Release) -> bytes:
    """A release as the value of a record or the content of a file."""
    return release.model_dump_json().encode()
