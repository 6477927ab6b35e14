"""What the worker publishes about a run: its trajectory and its running totals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import Count, TimeUs

Success = Literal["", "true", "false", "unknown"]
RunStatus = Literal["running", "ok", "error", "cancelled", "stopped", "incomplete"]
# A trajectory is published many times as it grows, so its largest part is bounded.
MAX_PATH_BYTES: Final = 32_768
MAX_REPEATED: Final = 5_000


class PathStep(BaseModel):
    """One step in a trajectory's path: enough to draw the tree, no contents."""

    model_config = ConfigDict(extra="ignore")

    step_id: str
    parent_step_id: str = ""
    kind: str
    name: str
    status: str = Field("ok", description="running, ok, error or cancelled")


class Trajectory(BaseModel):
    """A run, put together from its step events.

    Published again as the run grows; readers keep the highest ``revision``. The revision is twice
    the number of distinct (step, phase) that are merged, plus 1 once the run is closed. A replay or
    a worker that has only a part of the run therefore never publishes a higher revision than the
    complete run has.
    """

    model_config = ConfigDict(extra="ignore")

    trace_id: str
    revision: int
    status: RunStatus = Field(
        description="running until the root has ended and no step is open; incomplete: closed "
        "without an ended root"
    )
    success: Success = Field(
        "",
        description="whether the closed run meets its Criteria documents: true, false or unknown; "
        "empty while it is open, and where no document matches it",
    )
    success_reason: str = Field("", description="which checks failed, or are unknown and why")
    closed: bool = False
    project: str = "default"
    environment: str = ""
    agent: str = Field(
        "", description="the root's agent; until the root is known the earliest step's"
    )
    agent_version: str = ""
    task: str = ""
    session_id: str = ""
    user_id: str = ""
    root_step_id: str = ""
    name: str = Field("", description="the root's name")
    start_time: TimeUs = Field(
        0,
        description="start of the root, else of the earliest step; microseconds since 1970-01-01 "
        "UTC",
    )
    end_time: TimeUs = Field(
        0, description="end of the root; until it ended, the latest time seen in a step"
    )
    duration_us: Count = Field(
        0, description="end_time - start_time: by one host's clock once the root has ended"
    )
    first_append_time: TimeUs = Field(0, description="Kafka timestamp of the run's first record")
    last_append_time: TimeUs = Field(0, description="Kafka timestamp of the run's newest record")
    steps: Count = Field(0, description="distinct steps")
    ended_steps: Count = 0
    open_steps: Count = Field(0, description="steps started and not ended")
    error_steps: Count = 0
    cancelled_steps: Count = 0
    llm_calls: Count = 0
    tool_calls: Count = 0
    retrievals: Count = 0
    unpriced_steps: Count = Field(
        0,
        description="steps whose cost is unknown: no price is known, or a model call named no "
        "usage",
    )
    orphan_steps: Count = Field(0, description="steps whose parent was never seen")
    extra_roots: Count = Field(0, description="steps without a parent in addition to the root")
    duplicates: Count = Field(
        0, description="records dropped because the same (step, phase) had come before"
    )
    late_steps: Count = Field(0, description="steps merged after the run had been closed")
    steps_over_limit: Count = Field(
        0, description="records beyond the limit of steps per run; stored, not merged"
    )
    skewed_steps: Count = Field(
        0,
        description="steps outside their parents by more than the log explains: clocks differ; "
        "counted once closed",
    )
    input_tokens: Count = 0
    output_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    cost_usd: str = Field("0", description="sum of the priced steps' own costs, a decimal string")
    tools: list[str] = Field(
        default_factory=list, description="tools called, in order of their first call"
    )
    models: list[str] = Field(default_factory=list)
    failed_step_id: str = Field(
        "", description="the earliest ended step with an error that no child explains"
    )
    failed_kind: str = ""
    failed_tool: str = ""
    error_type: str = ""
    error_message: str = ""
    findings: Count = Field(0, description="findings raised about the run so far")
    path: list[PathStep] = Field(
        default_factory=list, description="steps by start time, at most 32 KB of them"
    )
    path_truncated: bool = False
    release: str = Field(
        "", description="hash of the release that the root names; empty: none was used"
    )
    config_drift: list[str] = Field(
        default_factory=list,
        description="how the run differs from the published releases of its agent: none (no "
        "release was used), unknown, version, tools, models; empty: it does not, or its agent has "
        "no releases",
    )
    task_id: str = Field(
        "",
        description="the durable task that the run is an attempt at, as its root names it; empty: "
        "the run belongs to none",
    )
    attempt: Count = Field(
        0, description="which attempt at its task the run is; 0: the run belongs to no task"
    )
    repeated_step_ids: list[str] = Field(
        default_factory=list,
        description="model calls whose usage repeats that of calls below them and is not in the "
        "run's sums; at most 5,000",
    )
    provisional: bool = Field(
        False,
        description="closed, and its root is a step whose parent is in another process and has not "
        "come: a root that comes later takes the run over",
    )


class UsedAmounts(BaseModel):
    """The counts that usage records, run summaries and windows have in common."""

    model_config = ConfigDict(extra="ignore")

    steps: Count = Field(0, description="ended steps")
    error_steps: Count = 0
    llm_calls: Count = 0
    tool_calls: Count = 0
    unpriced_steps: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    cached_input_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0


USED_AMOUNTS: Final[tuple[str, ...]] = tuple(UsedAmounts.model_fields)
"""The names of the counts, in the order in which windows sum them. The cost follows them, in
nano-dollars."""


class Usage(UsedAmounts):
    """A run's totals so far of one agent, for the steps that ended in one minute.

    Totals and not differences, so a replay changes nothing.

    Readers keep the highest ``revision`` per (trace_id, agent, agent_version, minute). The usage
    topic also holds records with a ``kind``: ``RunSummary`` and ``Progress``.
    """

    model_config = ConfigDict(extra="ignore")

    project: str
    trace_id: str
    revision: int
    minute: TimeUs = Field(
        description="the minute that the steps ended in, microseconds since 1970-01-01 UTC"
    )
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    cost_usd: str = "0"
    repeated: bool = Field(False, description="nothing in it is new since the record before it")


class RunSummary(UsedAmounts):
    """A closed run in one record on the usage topic.

    What windows and baselines learn about whole runs.

    Published with every revision of a closed run. Readers keep the highest ``revision`` per
    trace_id.
    """

    model_config = ConfigDict(extra="ignore")

    kind: Literal["run"]
    project: str
    trace_id: str
    revision: int
    status: RunStatus
    time: TimeUs = Field(
        description="when it counts: the end of its root; without one, log time of its closing"
    )
    reopened: bool = Field(False, description="it had been closed before, and late steps came")
    provisional: bool = Field(
        False,
        description="its root may still come from another process: it counts after a minute",
    )
    success: Success = Field("", description="as in the trajectory")
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""
    user_id: str = ""
    start_time: TimeUs = 0
    end_time: TimeUs = 0
    duration_us: Count = 0
    first_append_time: TimeUs = Field(0, description="Kafka timestamp of the run's first record")
    cost_usd: str = "0"


class Progress(BaseModel):
    """How far a partition of the steps topic is processed.

    All usage of records that were appended before ``time`` precedes this record on its partition.

    The lowest ``time`` of all partitions is the watermark of the windows, so usage is not late only
    because a worker is behind.
    """

    model_config = ConfigDict(extra="ignore")

    kind: Literal["progress"]
    partition: int
    time: TimeUs


if TYPE_CHECKING:
    PathStepStruct: TypeAlias = PathStep
    TrajectoryStruct: TypeAlias = Trajectory
    UsageStruct: TypeAlias = Usage
    RunSummaryStruct: TypeAlias = RunSummary
    ProgressStruct: TypeAlias = Progress
else:
    PathStepStruct = derive_struct(PathStep)
    TrajectoryStruct = derive_struct(Trajectory, nested={PathStep: PathStepStruct})
    UsageStruct = derive_struct(Usage)
    RunSummaryStruct = derive_struct(RunSummary)
    ProgressStruct = derive_struct(Progress)
