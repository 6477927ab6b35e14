"""Scenarios: documents that describe agents, their traffic, faults, and what should be found."""

from __future__ import annotations

import math
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Dollars, Glob
from stepstream.schemas.times import HOUR_US, MINUTE_US, SECOND_US

MAX_RUNS: Final = 1_000_000
"""Runs of one scenario."""
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=1_000)]
Offset = Annotated[DurationUs, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Version(_Document):
    """A version of an agent and when it takes part."""

    version: str = Field(min_length=1)
    begins: Offset = Field(0, alias="from", description="since the start of the scenario")
    share: Share = Field(1.0, description="of the runs from then on; earlier versions do the rest")


class Agent(_Document):
    """An agent whose runs call a model and tools in turn."""

    agent: str = Field(min_length=1)
    project: str = "default"
    environment: str = ""
    task: str = ""
    versions: tuple[Version, ...] = ()
    users: int = Field(0, ge=0, le=100_000, description="number of different user ids; 0: none")
    runs_per_minute: float = Field(6.0, gt=0, le=60_000)
    traffic: Literal["steady", "ramp", "bursts", "daily"] = Field(
        "steady",
        description="ramp: from none to twice the rate; bursts: ten runs at a time; daily: a wave "
        "of 24 hours",
    )
    least_calls: int = Field(3, ge=1, le=1_000, description="pairs of a model and a tool call")
    most_calls: int = Field(8, ge=1, le=1_000)
    tools: tuple[str, ...] = Field(("search", "lookup", "mail"), min_length=1)
    model: str = "large"
    cost_usd: Dollars = Field(default="0.01", validate_default=True, description="of a model call")
    step_takes: DurationUs = Field(800_000, gt=0, description="median duration of a step")
    error_rate: Share = Field(0.0, description="runs that end with status error")

    @model_validator(mode="after")
    def _calls_are_a_range(self) -> Agent:
        if self.most_calls < self.least_calls:
            raise ValueError("most_calls must be at least least_calls")
        return self


class _Fault(_Document):
    """A fault of some runs: a share of those that begin within a time."""

    agent: Glob = "*"
    share: Share = Field(0.1, description="of the agent's runs in that time")
    begins: Offset = Field(0, alias="from")
    ends: Offset | None = Field(None, alias="to", description="default: the scenario's end")


class ToolTimeout(_Fault):
    """A tool call takes long and fails; the agent goes on as if it had not."""

    fault: Literal["tool_timeout"]
    tool: str = Field("", description="default: any")
    takes: DurationUs = 30 * SECOND_US
    retried: bool = Field(False, description="the call is made again and succeeds")


class CostBlowup(_Fault):
    """Every model call of the run costs a multiple."""

    fault: Literal["cost_blowup"]
    factor: Factor = 10.0


class LoopFault(_Fault):
    """The same tool call again and again, with the same answer."""

    fault: Literal["loop"]
    repeats: int = Field(8, ge=2, le=500)


class SilentError(_Fault):
    """A tool call is marked ok although its output reports a failure; the agent answers anyway."""

    fault: Literal["silent_error"]


class HungStep(_Fault):
    """A tool call never ends, and nothing else happens in the run."""

    fault: Literal["hung_step"]


class VersionRegression(_Fault):
    """Runs of a version fail more often, or cost or take more."""

    fault: Literal["version_regression"]
    share: Share = Field(1.0, description="of the version's runs")
    version: str = Field(min_length=1)
    error_rate: Share = 0.3
    cost_factor: Factor = 1.0
    duration_factor: Factor = 1.0


class TrafficSpike(_Fault):
    """A multiple of the usual traffic."""

    fault: Literal["traffic_spike"]
    factor: Factor = 5.0


class TrafficStop(_Fault):
    """No runs at all."""

    fault: Literal["traffic_stop"]


Fault = Annotated[
    ToolTimeout
    | CostBlowup
    | LoopFault
    | SilentError
    | HungStep
    | VersionRegression
    | TrafficSpike
    | TrafficStop,
    Field(discriminator="fault"),
]


class Expectation(_Document):
    """What should be found, for ``--check``."""

    alert: str = Field(min_length=1, description="the alert's name")
    agent: Glob = "*"
    at_least: int | None = Field(None, ge=0, description="alerts; default: 1")
    at_most: int | None = Field(None, ge=0)
    fault: str = Field("", description="with recall or precision: the fault of the runs")
    recall: Share | None = Field(
        None, description="at least this share of the runs with the fault has the alert"
    )
    precision: Share | None = Field(
        None, description="at least this share of the alert's runs has the fault"
    )
    by: Offset | None = Field(
        None, description="the first alert comes at the latest then, since the start"
    )

    @model_validator(mode="after")
    def _names_the_fault(self) -> Expectation:
        if (self.recall is not None or self.precision is not None) and not self.fault:
            raise ValueError("recall and precision need the fault that they are about")
        if self.at_most is not None and (self.at_least or 0) > self.at_most:
            raise ValueError("at_least must not be more than at_most")
        return self


class Scenario(_Document):
    """Agents, their faults, and what should be found. Equal seeds give equal runs."""

    kind: Literal["Scenario"] = "Scenario"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    seed: int = 1
    duration: DurationUs = Field(10 * MINUTE_US, gt=0, le=31 * 24 * HOUR_US)
    start: datetime | None = Field(None, description="for files and checks; default: now")
    agents: tuple[Agent, ...] = Field(min_length=1)
    faults: tuple[Fault, ...] = ()
    expect: tuple[Expectation, ...] = ()

    def applies(self, fault: Fault, agent: Agent, at_us: float) -> bool:
        """Whether runs of the agent that begin at this moment can have the fault."""
        ends = self.duration if fault.ends is None else fault.ends
        return fnmatchcase(agent.agent, fault.agent) and fault.begins <= at_us < ends

    def spike(self, agent: Agent, at_us: float) -> float:
        """The product of the factors of the traffic spikes of this moment."""
        return math.prod(
            fault.factor
            for fault in self.faults
            if isinstance(fault, TrafficSpike) and self.applies(fault, agent, at_us)
        )

    def highest_spike(self, agent: Agent) -> float:
        """The largest value of ``spike``."""
        return max(self.spike(agent, at_us) for at_us in self._turns()[:-1])

    def _turns(self) -> list[int]:
        """The times between which no spike begins or ends; the first is 0, the last the end."""
        spikes = [fault for fault in self.faults if isinstance(fault, TrafficSpike)]
        times = {0, *(one.begins for one in spikes), *(one.ends or 0 for one in spikes)}
        return [*sorted(time for time in times if time < self.duration), self.duration]

    @model_validator(mode="after")
    def _is_bounded(self) -> Scenario:
        runs = sum(
            agent.runs_per_minute * self.spike(agent, begins) * (ends - begins) / MINUTE_US
            for begins, ends in pairwise(self._turns())
            for agent in self.agents
        )
        if runs > MAX_RUNS:
            raise ValueError(f"it has about {runs:,.0f} runs, {MAX_RUNS:,} are the most")
        used = {fault.fault for fault in self.faults}
        for one in self.expect:
            if one.fault and one.fault not in used:
                raise ValueError(
                    f"expect: no fault {one.fault} is in this scenario; there are: "
                    f"{', '.join(sorted(used)) or 'none'}"
                )
        return self
