"""What the rules of a policy have in common."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.money import MAX_AMOUNT_USD, amount_nanos
from stepstream.schemas.step import Usd

MOST_PLACES: Final = 30


def _of_some_places(amount: Decimal) -> Decimal:
    """Refuses ``1e-3000000``: what is worked out with so many digits does not end."""
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MOST_PLACES:
        raise ValueError(f"an amount has at most {MOST_PLACES} digits after the point")
    return amount


def _counted(limit: Decimal) -> Decimal:
    if not amount_nanos(limit):
        raise ValueError("a limit is 0.000000001 at least: nothing smaller is counted")
    return limit


Dollars = Annotated[
    Usd, Field(ge=0, le=MAX_AMOUNT_USD, strict=False), AfterValidator(_of_some_places)
]
"""An amount that people write in a document: a limit, a price."""
Limit = Annotated[Dollars, Field(gt=0), AfterValidator(_counted)]
"""A limit: no less than the smallest amount that is counted."""
Glob = Annotated[str, Field(description="exact text, or a pattern with * and ?")]
Positive = Annotated[int, Field(gt=0)]


class RuleBase(BaseModel):
    """What every rule has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alert: str = Field(
        "",
        pattern=r"^[a-z0-9][a-z0-9_.-]*$|^$",
        description="the alert's name; default: the rule's",
    )
    enabled: bool = True
    severity: FindingSeverity | None = Field(
        None, description="default: by consequence; a note opens no alert"
    )
    action: Literal["none", "warn", "pause", "stop"] = Field(
        "none", description="ordered only in mode enforce"
    )

    @property
    def alert_name(self) -> str:
        """What its alerts are called."""
        return self.alert or str(self.rule).replace("_", "-")  # type: ignore[attr-defined]
