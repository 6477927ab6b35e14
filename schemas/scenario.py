"""What a case has apart from its input: a scripted user, and stubs that stand for tools."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.criteria import Object, Text, Texts, folded

MAX_TURNS: Final = 100
MAX_STUBS: Final = 100

Fault = Literal[
    "error", "timeout", "error_as_ok", "wrong_row", "slow", "truncated", "injected_text"
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TurnCondition(_Part):
    """What the agent's last answer must be like. Case and spaces are ignored."""

    contains: Texts = ()
    excludes: Texts = ()

    def holds(self, answer: str) -> bool:
        """Whether the answer has all texts of ``contains`` and none of ``excludes``."""
        whole = folded(answer)
        return all(folded(text) in whole for text in self.contains) and not any(
            folded(text) in whole for text in self.excludes
        )


class Turn(_Part):
    """One further message of the user. It is sent at most once."""

    message: Text
    when: TurnCondition = TurnCondition()


class Stub(_Part):
    """What stands for a tool: a result, a fault, or both. Other calls reach the tool itself."""

    tool: str = Field(min_length=1, max_length=512)
    when: Object = Field(default_factory=dict, description="only calls with these arguments")
    returns: Any = Field(None, description="the result; without it the tool is called")
    fault: Fault | None = Field(
        None,
        description="error and timeout raise; error_as_ok returns a result that reports an error; "
        "wrong_row changes the numbers of the result; slow waits; truncated returns the first "
        "half; injected_text adds text to the result",
    )
    rate: float = Field(
        1.0, gt=0, le=1, description="the share of calls, drawn by the trial's seed"
    )
    times: int | None = Field(None, ge=1, description="how often it applies at most")
    seconds: float = Field(0.0, ge=0, le=3600, description="how long it waits before it answers")
    text: Annotated[str, Field(max_length=4_000)] = Field(
        "", description="the text of an error, or the text that is injected"
    )

    @model_validator(mode="after")
    def _does_something(self) -> Stub:
        if "returns" not in self.model_fields_set and self.fault is None:
            raise ValueError(f"the stub of {self.tool} needs returns or fault")
        if self.fault == "injected_text" and not self.text:
            raise ValueError(f"the stub of {self.tool} needs text, which is injected")
        if self.fault == "slow" and not self.seconds:
            raise ValueError(f"the stub of {self.tool} needs seconds, which it waits")
        return self

    @property
    def calls_tool(self) -> bool:
        """Whether the tool itself is called."""
        return "returns" not in self.model_fields_set


Turns = Annotated[tuple[Turn, ...], Field(max_length=MAX_TURNS)]
Stubs = Annotated[tuple[Stub, ...], Field(max_length=MAX_STUBS)]
