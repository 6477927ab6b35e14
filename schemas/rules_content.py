"""Rules about what steps say: failures that look like answers, arguments, retrieval, repetition, what must not be said.

They look at the first and the last 4,096 characters of the inputs and outputs of ended steps. The setting
``content_detectors`` turns all of them off; ``enabled: false`` turns off one.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stepstream.schemas.rule_base import Glob, RuleBase

Share = Annotated[float, Field(gt=0, le=1)]
Sensitive = Literal["key", "card", "iban", "email", "phone", "us_ssn"]

MAX_PATTERN: Final = 500


class HiddenToolError(RuleBase):
    """A tool failed and says so only in its output: the step is marked ok. A note: ``failure_not_retried`` raises the alert."""

    rule: Literal["hidden_tool_error"]
    tool: Glob = "*"


class FailureNotRetried(RuleBase):
    """A tool failed, openly or in its output, and the agent's next words were an answer, not another try.

    It is a note where the answer speaks of the failure or asks for something, an error where it does neither. A later call
    that makes good for the failure withdraws it.
    """

    rule: Literal["failure_not_retried"]
    open_errors: bool = Field(
        False,
        description="also failures that the step's status shows, which tool_error_ignored judges",
    )


class DeclaredTool(BaseModel):
    """The schema of a tool's parameters, as a policy gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = Field(
        min_length=1, description="the tool's name, or what its steps say in tool_schema"
    )
    parameters: str = Field(description="JSON Schema: an object, or its JSON text")

    @field_validator("parameters", mode="before")
    @classmethod
    def _kept_as_text(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        try:
            read = json.loads(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters is no JSON: {error}") from error
        if not isinstance(read, dict):
            raise ValueError("parameters must be a JSON object")
        return value


class ToolArguments(RuleBase):
    """A call's arguments break the tool's schema, name a parameter it does not have, or an identifier from nowhere."""

    rule: Literal["tool_arguments"]
    schemas: tuple[DeclaredTool, ...] = Field(
        (), description="schemas of tools whose steps do not bring their own"
    )
    identifiers: bool = Field(
        True, description="report identifiers that neither the user nor any step has named before"
    )
    numbers: bool = Field(
        False, description="report numbers of three digits and more that nobody has named before"
    )
    rejected: bool = Field(
        False, description="report calls that the tool itself refused for what it was given"
    )


class IrrelevantRetrieval(RuleBase):
    """A retrieval came back empty, or with documents that share next to nothing with its query."""

    rule: Literal["irrelevant_retrieval"]
    min_overlap: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="weighted share of the query's words that what came back must hold; 0: only empty ones are reported",
    )
    min_score: float | None = Field(
        None, description="report when no document's score reaches this"
    )
    empty: bool = Field(True, description="report retrievals that bring nothing")
    asked_again: bool = Field(
        True, description="report retrievals whose query is asked again in other words"
    )


class UnsupportedAnswer(RuleBase):
    """The run's answer shares nothing with what was retrieved for it."""

    rule: Literal["unsupported_answer"]
    min_overlap: Share = Field(
        0.1, description="share of the answer's words that were retrieved, beyond chance"
    )


class Repetition(RuleBase):
    """A tool is called again and again with nearly the same arguments, or fails the same way each time, or two alternate."""

    rule: Literal["repetition"]
    repeats: Annotated[int, Field(ge=2, le=50)] = 3
    similarity: Share = Field(
        0.6, description="share of words that two arguments have in common (Jaccard)"
    )
    exact: bool = Field(
        False, description="also calls that are the same to the letter, which the rule loop judges"
    )


class Forbidden(RuleBase):
    """A tool that must not be called was called, or a pattern appears in what went in or came out."""

    rule: Literal["forbidden"]
    tools: tuple[Glob, ...] = Field((), description="names of tools, or patterns with * and ?")
    patterns: tuple[str, ...] = Field(
        (), description="regular expressions, searched without regard to case"
    )
    where: tuple[Literal["input", "output"], ...] = ("input", "output")
    kinds: tuple[str, ...] = Field((), description="kinds of steps to search; none named: all")

    @field_validator("patterns")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if len(pattern) > MAX_PATTERN:
                raise ValueError(
                    f"a pattern has {len(pattern)} characters, {MAX_PATTERN} are the most"
                )
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"pattern {pattern!r} cannot be read: {error}") from error
        return patterns


class SensitiveData(RuleBase):
    """A secret or personal data in what an agent says: API keys, private keys, cards, account numbers."""

    rule: Literal["sensitive_data"]
    look_for: tuple[Sensitive, ...] = ("key", "card", "iban")
    kinds: tuple[str, ...] = Field(
        ("llm_call", "output", "agent"), description="kinds of steps whose output is searched"
    )


ContentRule = (
    HiddenToolError
    | FailureNotRetried
    | ToolArguments
    | IrrelevantRetrieval
    | UnsupportedAnswer
    | Repetition
    | Forbidden
    | SensitiveData
)

CONTENT_DEFAULTS: Final[tuple[ContentRule, ...]] = (
    HiddenToolError(rule="hidden_tool_error"),
    FailureNotRetried(rule="failure_not_retried"),
    Repetition(rule="repetition"),
    SensitiveData(rule="sensitive_data"),
)
"""On for every run: what needs no limit and is seldom wrong. ``tool_arguments`` is not: see docs/detection.md."""
