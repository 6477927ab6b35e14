"""What the rules of a policy have in common."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.alert import FindingSeverity

Glob = Annotated[str, Field(description="exact text, or a pattern with * and ?")]
Positive = Annotated[int, Field(gt=0)]


class RuleBase(BaseModel):
    """What every rule has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alert: str = Field("", pattern=r"^[a-z0-9][a-z0-9_.-]*$|^$", description="the alert's name; default: the rule's")
    enabled: bool = True
    severity: FindingSeverity | None = Field(None, description="default: by consequence; a note opens no alert")
    action: Literal["none", "warn", "pause", "stop"] = Field("none", description="ordered only in mode enforce")

    @property
    def alert_name(self) -> str:
        """What its alerts are called."""
        return self.alert or str(self.rule).replace("_", "-")  # type: ignore[attr-defined]
