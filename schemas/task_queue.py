"""The document ``kind: Queue``: limits of the tasks that it matches."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Glob
from stepstream.schemas.times import MINUTE_US

Count = Annotated[int, Field(gt=0, le=1_000_000, description="to run nothing, write paused: true")]


class QueueMatch(BaseModel):
    """Which tasks a queue limits: every field that is given must match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: Glob = "*"
    agent: Glob = "*"
    version: Glob = "*"

    def matches(self, project: str, agent: str, version: str) -> bool:
        """Whether attempts of this agent are limited."""
        return (
            fnmatchcase(project, self.project)
            and fnmatchcase(agent, self.agent)
            and fnmatchcase(version, self.version)
        )


class TaskRate(BaseModel):
    """A number of attempts in a time. They may come at once; after that they are spread."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    attempts: Count
    per: DurationUs = MINUTE_US


class Breaker(BaseModel):
    """Pauses the queue while too many attempts fail."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    failures: float = Field(0.5, gt=0, le=1, description="share of the attempts within the time")
    at_least: int = Field(10, gt=0, le=10_000, description="attempts, before the share counts")
    within: DurationUs = MINUTE_US
    pause: DurationUs = Field(MINUTE_US, description="after it one attempt is tried")


class Queue(BaseModel):
    """Limits of the tasks that match, in each project for itself.

    A task that matches several queues keeps the limits of all of them. For the limit of a model
    provider match the agents that call it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Queue"] = "Queue"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)
    match: QueueMatch = QueueMatch()
    concurrency: Count | None = Field(None, description="attempts at a time; default: no limit")
    per_agent: Count | None = Field(None, description="attempts of each agent at a time")
    rate: TaskRate | None = None
    breaker: Breaker | None = None
    paused: bool = Field(False, description="nothing is bound; running attempts go on")

    @model_validator(mode="after")
    def _has_a_limit(self) -> Queue:
        if not (self.concurrency or self.per_agent or self.rate or self.breaker or self.paused):
            raise ValueError(
                "without a limit: give concurrency, per_agent, rate, breaker or paused"
            )
        if self.concurrency and self.per_agent and self.per_agent > self.concurrency:
            raise ValueError("per_agent is more than concurrency and has no effect")
        return self
