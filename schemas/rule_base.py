"""What the rules of all detectors have in common: the base model, and the types of their fields."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.alert import FindingSeverity
from stepstream.schemas.money import MAX_AMOUNT_USD, amount_nanos
from stepstream.schemas.step import Usd

MAX_DECIMALS: Final = 30


def _with_few_decimals(amount: Decimal) -> Decimal:
    # 1e-3000000 is a valid decimal; arithmetic with that many digits takes minutes.
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
        raise ValueError(f"an amount has at most {MAX_DECIMALS} digits after the point")
    return amount


def _at_least_one_nano(limit: Decimal) -> Decimal:
    # Amounts are summed in nano-dollars: a smaller limit would be 0, which every run exceeds.
    if not amount_nanos(limit):
        raise ValueError(
            "a limit must be at least 0.000000001: costs are counted in billionths of a dollar"
        )
    return limit


Dollars = Annotated[
    Usd, Field(ge=0, le=MAX_AMOUNT_USD, strict=False), AfterValidator(_with_few_decimals)
]
"""An amount in a document: a limit or a price."""
Limit = Annotated[Dollars, Field(gt=0), AfterValidator(_at_least_one_nano)]
"""An amount above zero, at least one nano-dollar."""
Glob = Annotated[str, Field(description="exact text, or a pattern with * and ?")]
Positive = Annotated[int, Field(gt=0)]


Scope = Literal["run", "window", "store"]
"""What a rule is evaluated on: one run as its steps arrive, windows of time over many runs, or the
store on a schedule."""


class RuleBase(BaseModel):
    """A rule of a policy. Subclasses add ``rule: Literal["my_rule"]`` and the rule's own fields.

    What is known about the rule without a policy is declared by class variables of the subclass.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    scope: ClassVar[Scope] = "run"
    on_by_default: ClassVar[bool] = False
    """Whether it applies to every run without any policy. Then every field needs a default."""
    actionable: ClassVar[bool] = True
    """Whether a policy may give it an action: warn, pause or stop the run."""
    about_one_run: ClassVar[bool] = False
    """Whether its subject has a meaning only within one run, as a step's id has.

    Alerts of other rules with a subject, such as a tool, are counted over runs and become
    incidents."""
    reads_contents: ClassVar[bool] = False
    """Whether it needs the inputs and outputs of steps; off where the setting ``content_detectors``
    is."""
    fires_when: ClassVar[str] = ""
    """For the list of rules in the documentation, after "fires when"."""
    usual_severity: ClassVar[str] = "warning"
    """For the list of rules in the documentation: the severity unless the policy gives one."""

    rule: str
    alert: str = Field(
        "",
        pattern=r"^[a-z0-9][a-z0-9_.-]*$|^$",
        description="the alert's name; default: the rule's name with hyphens",
    )
    enabled: bool = True
    severity: FindingSeverity | None = Field(
        None, description="default: by consequence; a note opens no alert"
    )
    action: Literal["none", "warn", "pause", "stop"] = Field(
        "none", description="sent to the run as a command, only in mode enforce"
    )

    @property
    def alert_name(self) -> str:
        """The name of its alerts: the field ``alert``, or the rule's name with hyphens."""
        return self.alert or self.rule.replace("_", "-")

    @model_validator(mode="after")
    def _has_an_allowed_action(self) -> RuleBase:
        if self.action != "none" and not self.actionable:
            raise ValueError(
                "a rule over windows only reports: it concerns no single run that could be stopped"
                if self.scope == "window"
                else f"the rule {self.rule} only reports: its action must be none"
            )
        return self


class WindowRuleBase(RuleBase):
    """A rule over windows of time.

    It only reports: there is no single run that could be stopped.
    """

    scope: ClassVar[Scope] = "window"
    actionable: ClassVar[bool] = False
