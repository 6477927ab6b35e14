"""What the fleet topic holds: windows of what was used, baselines of what is normal.

Compacted: the newest record per key.

Keys are parts joined with ``|``; inside a part ``%`` and ``|`` are written ``%25`` and ``%7C``. The
second part names what a record is: ``window``, ``budget``, ``baseline`` or ``learnt``. Keys that
begin with ``!`` are the worker's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import Count, TimeUs
from stepstream.schemas.trajectory import UsedAmounts


class WindowMinute(UsedAmounts):
    """What was used in one minute; absent minutes had nothing."""

    model_config = ConfigDict(extra="ignore")

    minute: int = Field(ge=0, le=59, description="of the hour")
    cost_nanos: Count = Field(0, description="billionths of a dollar")
    runs: Count = Field(0, description="runs ended")
    failed_runs: Count = Field(0, description="of them: error or incomplete")
    cancelled_runs: Count = Field(0, description="of them: cancelled or stopped")
    success_true_runs: Count = Field(0, description="of them: meet their Criteria documents")
    success_false_runs: Count = Field(0, description="of them: fail their Criteria documents")
    latency: dict[str, int] = Field(
        default_factory=dict,
        description="runs by duration; a bucket is named by the number that "
        "`stepstream.schemas.latency` gives",
    )


class FleetWindow(BaseModel):
    """What one owner used between two times, minute by minute. Sealed: it does not change any more.

    Key: ``project|window|environment|agent|agent_version|task|user_id|start|end``. There is one
    record for each hour (UTC), once that is over and sealed, and until then one for each part of
    it. Readers that find an hour ignore its parts. Days and months, of any time zone, are sums of
    minutes.

    ``user_id`` is empty for an owner's total; windows of single users are kept only where a policy
    asks, and are parts of that total, not additions to it.
    """

    model_config = ConfigDict(extra="ignore")

    project: str
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    start: TimeUs
    end: TimeUs
    through: int = Field(
        description="it contains the usage records of its partition before this offset"
    )
    cost_usd: str = Field("0", description="the total")
    minutes: list[WindowMinute] = Field(default_factory=list)


class FleetBudget(BaseModel):
    """What was spent within a limit so far. Key: ``project|budget|policy|alert|group|start``."""

    model_config = ConfigDict(extra="ignore")

    project: str
    policy: str
    alert: str
    per: str = Field(description="what the limit is for each of: project, agent, user_id ...")
    group: str = Field("", description="which one of them")
    window: Literal["hour", "day", "month"]
    timezone: str = "UTC"
    start: TimeUs
    end: TimeUs
    as_of: TimeUs
    spent_usd: str = "0"
    limit_usd: str


class BaselineValues(BaseModel):
    """What was normal at one time.

    ``values`` gives, for each amount, the values at the baseline's ``shares``.
    """

    model_config = ConfigDict(extra="ignore")

    as_of: TimeUs = Field(
        description="it contains runs closed before this time, and applies to runs that began later"
    )
    runs: Count = Field(0, description="runs it was learnt from")
    priced_runs: Count = Field(
        0, description="of them: runs whose whole cost is known; cost_nanos is learnt from these"
    )
    values: dict[str, list[float]] = Field(default_factory=dict)


class FleetBaseline(BaselineValues):
    """What runs of an agent and task usually use. Key: ``project|baseline|environment|agent|task``.

    Agent and task are empty for what is normal in all the project, the task alone for all that an
    agent does. The amounts are cost_nanos, duration_us, tokens, steps and llm_calls.
    """

    model_config = ConfigDict(extra="ignore")

    project: str
    environment: str = ""
    agent: str = ""
    task: str = ""
    days: Count = Field(0, description="days on which they ended")
    wanted_runs: Count = Field(0, description="runs it needs before rules use it")
    shares: list[float] = Field(default_factory=list, description="e.g. 0.5, 0.9, 0.95, 0.99")
    earlier: BaselineValues | None = Field(
        None, description="what it was some minutes ago, for runs that began before"
    )


class LearntAmounts(BaseModel):
    """How many amounts fell into each bucket from ``low`` on.

    Buckets are defined in ``stream/baselines/sketch.py``.
    """

    model_config = ConfigDict(extra="ignore")

    low: int = 0
    counts: list[int] = Field(default_factory=list)


class LearntDay(BaseModel):
    """What the learner of baselines keeps of one day.

    Key: ``project|learnt|environment|agent|task|day``.

    It contains the runs that count for the day and were settled before ``settled_until``, each
    once.
    """

    model_config = ConfigDict(extra="ignore")

    project: str
    environment: str = ""
    agent: str = ""
    task: str = ""
    day: int = Field(description="days since 1970-01-01, UTC")
    settled_until: TimeUs
    runs: Count = 0
    amounts: dict[str, LearntAmounts] = Field(default_factory=dict)


if TYPE_CHECKING:
    WindowMinuteStruct: TypeAlias = WindowMinute
    FleetWindowStruct: TypeAlias = FleetWindow
    FleetBudgetStruct: TypeAlias = FleetBudget
    BaselineValuesStruct: TypeAlias = BaselineValues
    FleetBaselineStruct: TypeAlias = FleetBaseline
    LearntAmountsStruct: TypeAlias = LearntAmounts
    LearntDayStruct: TypeAlias = LearntDay
else:
    WindowMinuteStruct = derive_struct(WindowMinute)
    FleetWindowStruct = derive_struct(FleetWindow, nested={WindowMinute: WindowMinuteStruct})
    FleetBudgetStruct = derive_struct(FleetBudget)
    BaselineValuesStruct = derive_struct(BaselineValues)
    FleetBaselineStruct = derive_struct(
        FleetBaseline, nested={BaselineValues: BaselineValuesStruct}
    )
    LearntAmountsStruct = derive_struct(LearntAmounts)
    LearntDayStruct = derive_struct(LearntDay, nested={LearntAmounts: LearntAmountsStruct})


def fleet_key(*parts: str | int) -> bytes:
    """The key of a record on the fleet topic."""
    # The percent sign first: otherwise the ones that stand for a separator would be escaped again.
    return "|".join(str(part).replace("%", "%25").replace("|", "%7C") for part in parts).encode()
