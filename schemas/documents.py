"""Documents that people write and ``stepstream apply`` puts on the config topic: policies, subscriptions, prices."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stepstream.schemas.alert import Severity
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.policy import Policy
from stepstream.schemas.rule_base import Glob
from stepstream.schemas.step import Usd

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class AlertMatch(BaseModel):
    """Which alerts: every field that is given must match; ``severity`` lists those that do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: tuple[Severity, ...] = ()
    alert: Glob = "*"
    rule: Glob = "*"
    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    task: Glob = "*"


class Subscription(BaseModel):
    """Who wants which alerts, and how they get there. ``to`` names one channel and its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Subscription"] = "Subscription"
    name: Name
    match: AlertMatch = AlertMatch()
    group_by: tuple[str, ...] = ()
    group_wait: DurationUs | None = None
    repeat_interval: DurationUs | None = None
    send_resolved: bool = True
    to: dict[str, Any] = Field(min_length=1, max_length=1, description="e.g. {webhook: {url: ...}}")
    link_template: str = ""


class ModelPrice(BaseModel):
    """Unit prices of one model, in dollars per million tokens, from a day on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = ""
    model: str
    valid_from: date | None = None
    input_per_million: Usd = Field(ge=0, strict=False)
    output_per_million: Usd = Field(ge=0, strict=False)
    cached_input_per_million: Usd | None = Field(None, ge=0, strict=False, description="default: the input price")
    cache_write_per_million: Usd | None = Field(None, ge=0, strict=False, description="default: the input price")


class Prices(BaseModel):
    """Prices that override the built-in list, or add to it; the newest ``valid_from`` not after the step's day holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Prices"] = "Prices"
    name: Name
    models: tuple[ModelPrice, ...]


AnyDocument = Annotated[Policy | Subscription | Prices, Field(discriminator="kind")]
DOCUMENT: TypeAdapter[Policy | Subscription | Prices] = TypeAdapter(AnyDocument)


def document_key(document: Policy | Subscription | Prices) -> str:
    """The key on the config topic: ``policy/support-refunds``."""
    return f"{document.kind.lower()}/{document.name}"
