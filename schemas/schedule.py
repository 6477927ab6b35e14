"""Schedules: documents that request a task at the times of a cron expression. Pure.

The id of each task is that of its schedule and time, so that a time that is requested twice is one
task: neither a restart nor a second worker can run it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.rule_base import Dollars
from stepstream.schemas.task_common import MAX_JSON_BYTES, MAX_PRIORITY
from stepstream.schemas.task_messages import SubmitStruct
from stepstream.schemas.times import DAY_US, MINUTE_US

GRACE_US: Final = MINUTE_US
"""A time that is this long ago is not missed: the worker may have been restarted in between."""
LOOKBACK_US: Final = DAY_US
"""Times that are longer ago are never made up for. Task ids are known for seven days."""
MAX_AT_ONCE: Final = 100
"""Missed times that ``missed: run_all`` makes up for; the newest ones."""
_FIELDS: Final = 5


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"there is no time zone {name!r} (write Europe/Berlin, UTC)") from None
    return name


def _cron(text: str) -> str:
    if len(text.split()) != _FIELDS:
        raise ValueError(
            f"{text!r} is no cron expression of five fields: minute, hour, day of the month, "
            "month, day of the week, such as 30 6 * * mon-fri"
        )
    try:
        # From a fixed time: a document that is valid once is so always.
        next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        raise ValueError(f"{text!r} is no cron expression, or never occurs: {error}") from None
    except StopIteration:
        raise ValueError(f"{text!r} never occurs: no month has such a day") from None
    return text


class Schedule(BaseModel):
    """When an agent is to run, and what the requested tasks have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Schedule"] = "Schedule"
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=100)
    enabled: bool = True
    cron: Annotated[str, AfterValidator(_cron)] = Field(
        max_length=200, description="minute, hour, day of the month, month, day of the week"
    )
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    missed: Literal["run_last", "skip", "run_all"] = Field(
        "run_last",
        description="times that passed while no worker ran, within the last day: the newest, none, "
        "or all",
    )
    project: str = Field("default", min_length=1, max_length=200)
    agent: str = Field(min_length=1, max_length=200)
    version: str = ""
    environment: str = ""
    input: Any = None
    priority: int = Field(0, ge=0, le=MAX_PRIORITY)
    deadline: DurationUs | None = Field(None, description="default: none")
    timeout: DurationUs | None = Field(None, description="of an attempt; default: the agent's")
    attempts: int = Field(0, ge=0, le=100, description="0: the agent's")
    budget_usd: Dollars | None = None
    key: str = Field("", description="tasks with the same key run one at a time")
    user_id: str = ""
    session_id: str = ""
    applied_us: int = Field(
        0, ge=0, description="given by `stepstream apply`: earlier times are not made up for"
    )

    @model_validator(mode="after")
    def _input_fits(self) -> Schedule:
        try:
            size = len(json.dumps(self.input))
        except (TypeError, ValueError):
            raise ValueError("input is no JSON value") from None
        if size > MAX_JSON_BYTES:
            raise ValueError(f"input has {size:,} characters, {MAX_JSON_BYTES:,} are the most")
        return self


def times(schedule: Schedule, after_us: int, until_us: int) -> Iterator[int]:
    """The schedule's times after one moment, up to and including another, in microseconds.

    In daylight saving time, as Debian's cron: a time that is skipped occurs right after the change,
    one that exists twice occurs once; expressions with ``*`` in hour or minute follow real time.
    """
    start = datetime.fromtimestamp(after_us / 1e6, ZoneInfo(schedule.timezone))
    for moment in CronSim(schedule.cron, start):
        at_us = round(moment.timestamp() * 1e6)
        if at_us > until_us:
            return
        if at_us > after_us:
            yield at_us


def due(schedule: Schedule, checked_us: int, now_us: int) -> list[int]:
    """The times for which a task is to be requested now.

    ``checked_us`` is when the schedule was checked last by this process, 0 at its first time.
    """
    if not schedule.enabled:
        return []
    since_us = max(checked_us, schedule.applied_us, now_us - LOOKBACK_US)
    if checked_us:
        return list(times(schedule, since_us, now_us))
    if schedule.missed == "skip":
        return list(times(schedule, max(since_us, now_us - GRACE_US), now_us))
    # A minute has at most one time: a day has 1,440.
    passed = list(islice(times(schedule, since_us, now_us), 2_000))
    return passed[-1:] if schedule.missed == "run_last" else passed[-MAX_AT_ONCE:]


def request(schedule: Schedule, at_us: int) -> SubmitStruct:
    """The request of the task for one time."""
    moment = datetime.fromtimestamp(at_us / 1e6, UTC)
    return SubmitStruct(
        project=schedule.project,
        task_id=f"{schedule.name}@{moment:%Y-%m-%dT%H:%MZ}",
        agent=schedule.agent,
        version=schedule.version,
        input=schedule.input,
        priority=schedule.priority,
        deadline_us=schedule.deadline or 0,
        key=schedule.key,
        environment=schedule.environment,
        user_id=schedule.user_id,
        session_id=schedule.session_id,
        attempts=schedule.attempts,
        timeout_us=schedule.timeout or 0,
        budget_usd="" if schedule.budget_usd is None else str(schedule.budget_usd),
        by=f"schedule:{schedule.name}",
        submitted_at_us=at_us,
    )
