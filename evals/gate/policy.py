"""What a gate compares, and how much worse a candidate may be: the file of ``--policy``."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stepstream.schemas.wording import sentences

MetricName = Literal["success", "cost", "tokens", "latency", "tool_errors"]
Outcome = Literal["pass", "fail", "inconclusive"]
ROUNDS: Final = (1, 2, 3, 5, 8)
MOST_TRIALS: Final = 1_000
MOST_ROUNDS: Final = 20


class MetricPolicy(BaseModel):
    """One metric of the gate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(
        0.1, gt=0, le=1, description="its part of alpha among the metrics that are compared"
    )
    margin: float = Field(
        gt=0,
        le=100,
        description="passes where it is shown that the candidate is not worse by this or more: a "
        "difference of pass rates (0.1), a ratio of cost, tokens and latency (1.25), errors per "
        "trial",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        le=10,
        description="a rise of a ratio up to this share does not fail, however certain it is",
    )


def _defaults() -> dict[MetricName, MetricPolicy]:
    ratio = MetricPolicy(margin=1.25)
    return {
        "success": MetricPolicy(weight=0.6, margin=0.10),
        "cost": ratio,
        "tokens": ratio,
        "latency": ratio,
        "tool_errors": MetricPolicy(margin=0.25),
    }


class GatePolicy(BaseModel):
    """How a candidate is compared with its baseline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Gate"] = "Gate"
    alpha: float = Field(
        0.05,
        gt=0.0001,
        le=0.2,
        description="how often an unchanged agent may fail, over all rounds",
    )
    rounds: tuple[Annotated[int, Field(ge=1, le=MOST_TRIALS)], ...] = Field(
        ROUNDS,
        min_length=1,
        max_length=MOST_ROUNDS,
        description="trials of each case and side after which the gate may decide; fixed before "
        "the first trial",
    )
    metrics: dict[MetricName, MetricPolicy] = Field(default_factory=_defaults, min_length=1)
    quarantine: tuple[str, ...] = Field(
        (), description="ids of cases that are run and reported but not compared"
    )
    inconclusive: Outcome = Field(
        "inconclusive", description="the verdict where the trials show neither pass nor fail"
    )

    @model_validator(mode="after")
    def _fits(self) -> GatePolicy:
        if not is_rising(self.rounds):
            raise ValueError("rounds must rise: [1, 2, 3, 5, 8]")
        for name in ("cost", "tokens", "latency"):
            metric = self.metrics.get(name)
            if metric is not None and metric.margin <= 1:
                raise ValueError(
                    f"the margin of {name} is a ratio above 1: 1.25 allows a rise of 25 %"
                )
            if metric is not None and 1 + metric.tolerance >= metric.margin:
                raise ValueError(f"the tolerance of {name} must be below its margin")
        success = self.metrics.get("success")
        if success is not None and success.margin >= 1:
            raise ValueError("the margin of success is a share: 0.1 allows a loss of 10 points")
        return self


def is_rising(rounds: tuple[int, ...]) -> bool:
    """Whether each round has more trials than the one before."""
    return list(rounds) == sorted(set(rounds))


def policy_of(data: Any) -> GatePolicy:
    """The policy that plain data describe. Raises ``ValueError`` with a sentence for each error."""
    try:
        return GatePolicy.model_validate(data if data is not None else {})
    except ValidationError as error:
        raise ValueError(sentences(error, GatePolicy, data)) from None
