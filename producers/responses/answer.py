"""A model's answer, in one shape for all clients."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stepstream.schemas.usage import TokenUsage


@dataclass(slots=True)
class ToolCall:
    """A tool call that the model asked for. ``arguments`` are parsed JSON, or text if they are not
    JSON."""

    name: str
    arguments: Any = None
    id: str = ""


@dataclass(slots=True)
class Answer:
    """A model's answer. ``charged_usd`` is the charge that the provider reported, if it did."""

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
        """The text; with tool calls ``{"text", "tool_calls": [{"name", "arguments", "id"}]}``."""
        if not self.tool_calls:
            return self.text or None
        calls = [
            {"name": call.name, "arguments": call.arguments, **({"id": call.id} if call.id else {})}
            for call in self.tool_calls
        ]
        return {**({"text": self.text} if self.text else {}), "tool_calls": calls}
