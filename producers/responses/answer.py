"""What a model answered, whichever client it came through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stepstream.schemas.usage import TokenUsage

if TYPE_CHECKING:
    from stepstream.producers.filling import Fills


@dataclass(slots=True)
class ToolCall:
    """A tool that the model chose, and its arguments: JSON where they are, text where they are not."""

    name: str
    arguments: Any = None
    id: str = ""


@dataclass(slots=True)
class Answer:
    """What a model answered. ``charged_usd`` is what the provider says that it charged."""

    text: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    usage: TokenUsage | None = None
    model: str = ""
    provider: str = ""
    finish_reason: str = ""
    charged_usd: float | None = None
    service_tier: str = ""

    @property
    def output(self) -> object:
        """The text; with tool calls, ``{"text": ..., "tool_calls": [{"name", "arguments", "id"}]}``."""
        if not self.tool_calls:
            return self.text or None
        calls = [
            {"name": call.name, "arguments": call.arguments, **({"id": call.id} if call.id else {})}
            for call in self.tool_calls
        ]
        return {**({"text": self.text} if self.text else {}), "tool_calls": calls}

    def record_on(self, step: Fills) -> None:
        """Put it onto a step. The model that answered replaces the one that was asked for."""
        if self.output is not None:
            step.set_output(self.output)
        record = step._record
        if self.usage is not None:
            record.usage = self.usage
        if self.model and self.model != record.model:
            if record.model:
                step.set_attribute("request_model", record.model)
            record.model = self.model
        record.provider = record.provider or self.provider
        if self.finish_reason:
            step.set_attribute("finish_reason", self.finish_reason)
        if self.service_tier:
            step.set_attribute("service_tier", self.service_tier)
        if self.charged_usd is not None and record.cost_usd is None:
            step.set_cost(self.charged_usd)
