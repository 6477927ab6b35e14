"""Tests in a policy document: runs in a few words, the alerts that they raise, and what guardrails
decide about their calls.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Dollars
from stepstream.schemas.times import WEEK_US

MAX_TIMES: Final = 2_000
MAX_TEST_STEPS: Final = 10_000
"""Steps of the run of one test."""
Share = Annotated[float, Field(gt=0, le=1)]


class ExpectedAlert(BaseModel):
    """An alert that the policies should raise about a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alert: str = Field(min_length=1, description="the alert's name")
    subject: str | None = Field(None, description="the tool, step or model; None: any")
    severity: str | None = Field(None, description="None: any")
    by_cost_share: Share | None = Field(
        None, description="at the latest when this share of the run's cost was spent"
    )
    by_step: int | None = Field(
        None, gt=0, description="at the latest when the run had this many steps, the root included"
    )


class ExpectedDecision(BaseModel):
    """What a guardrail of the policy should decide about a call."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guardrail: str = Field(min_length=1, description="the guardrail's name")
    decision: Literal["refused", "repaired", "suspended", "failed"] | None = Field(
        None,
        description="in mode observe what it would have done; None: any",
    )
    step: int | None = Field(
        None, gt=0, description="the number of the call among the test's steps, from 1; None: any"
    )


def _as_text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict | list) else value


class TestBudget(BaseModel):
    """The budget of a test's run, as the program would give it."""

    __test__ = False
    model_config = ConfigDict(extra="forbid", frozen=True)

    usd: Dollars | None = None
    tokens: int | None = Field(None, ge=0)
    steps: int | None = Field(None, ge=0)


class TestStep(BaseModel):
    """A step of a test's run; steps follow one another."""

    __test__ = False  # pytest collects classes of this name
    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = ""
    model: str = ""
    kind: str = Field("", description="default: tool_call with a tool, llm_call with a model")
    name: str = Field("", description="default: the tool or model")
    status: Literal["ok", "error", "cancelled"] = "ok"
    error_type: str = ""
    error_message: str = ""
    input: Annotated[str, BeforeValidator(_as_text)] = Field(
        "", description="a text, or arguments by name"
    )
    output: str = ""
    cost_usd: Dollars | None = None
    tokens: int = Field(0, ge=0, description="input tokens")
    took: DurationUs = Field(1_000_000, ge=0, description="default: 1s")
    after: DurationUs = Field(0, ge=0, description="time between the step before and this one")
    ends: bool = Field(True, description="false: the step hangs, and no step follows it")
    times: int = Field(1, gt=0, le=MAX_TIMES, description="number of such steps in a row")


class PolicyTest(BaseModel):
    """A run, and the alerts that the policy should raise about it; no others of this policy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    project: str = Field("", description="default for this and the next: what the policy matches")
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    status: Literal["ok", "error", "cancelled"] = Field("ok", description="how the run ends")
    steps: tuple[TestStep, ...] = Field(min_length=1)
    budget: TestBudget | None = Field(None, description="for guardrails about what is left of it")
    expect: tuple[ExpectedAlert, ...] = Field((), description="empty: the policy raises nothing")
    decisions: tuple[ExpectedDecision, ...] = Field(
        (), description="what guardrails decide; empty: they let every call through"
    )

    @model_validator(mode="after")
    def _is_bounded(self) -> PolicyTest:
        count = sum(step.times for step in self.steps)
        if count > MAX_TEST_STEPS:
            raise ValueError(f"a test's run has at most {MAX_TEST_STEPS} steps, not {count}")
        lasts_us = sum(step.times * (step.after + step.took) for step in self.steps)
        if lasts_us > WEEK_US:
            raise ValueError("a test's run lasts at most a week")
        if any(not step.ends for step in self.steps[:-1]):
            raise ValueError("only the last step may hang (ends: false)")
        return self
