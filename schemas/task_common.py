"""What the records of tasks share: limits, ids, fencing numbers, and how an agent is executed.

A **task** is one requested agent run. An **attempt** is one execution of it, and one run (trace).
The topics are ``tasks`` (``task_messages``), ``taskstate`` (``task_state``) and ``bindings``
(``task_bindings``). Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.ids import derived_id
from stepstream.schemas.times import DAY_US, MINUTE_US, SECOND_US

MAX_JSON_BYTES: Final = 256 * 1024
"""The largest input, result or kept value; larger ones are stored elsewhere and passed by
reference."""
MAX_NAME_CHARS: Final = 512
MAX_TASK_ID_CHARS: Final = 256
MAX_REASON_CHARS: Final = 2_000
MAX_MESSAGE_CHARS: Final = 4_096
MAX_PRIORITY: Final = 9
MAX_AFTER: Final = 100
MAX_AGENTS: Final = 200
MAX_SLOTS: Final = 10_000
MAX_ATTEMPTS: Final = 100
MAX_DURATION_US: Final = 30 * DAY_US
MAX_DELAY_US: Final = 6 * DAY_US
"""Less than the retention of ``tasks``."""
DEFAULT_LEASE_US: Final = 45 * SECOND_US
MIN_LEASE_US: Final = 3 * SECOND_US
MAX_LEASE_US: Final = 60 * MINUTE_US
BEAT_INTERVAL_US: Final = 5 * SECOND_US
"""Time between two heartbeats of an executor, or a ninth of its shortest lease if that is less."""
ID_MEMORY_US: Final = 7 * DAY_US
"""How long after its end a task's id is known: a second submit with it returns the first task."""

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
OptionalName = Annotated[str, Field(max_length=MAX_NAME_CHARS)]
TaskId = Annotated[str, Field(min_length=1, max_length=MAX_TASK_ID_CHARS)]
OptionalTaskId = Annotated[str, Field(max_length=MAX_TASK_ID_CHARS)]
Reason = Annotated[str, Field(max_length=MAX_REASON_CHARS)]
DurationUs = Annotated[int, Field(ge=0, le=MAX_DURATION_US)]
LeaseUs = Annotated[int, Field(ge=MIN_LEASE_US, le=MAX_LEASE_US)]
Slots = Annotated[int, Field(ge=0, le=MAX_SLOTS)]
Attempt = Annotated[int, Field(ge=1, le=1_000_000)]
Fence = Annotated[int, Field(ge=0, lt=2**53)]
Amount = Annotated[str, Field(max_length=40)]
Json: TypeAlias = Any
"""Any JSON value. The structs keep its bytes (``msgspec.Raw``): the worker does not decode it."""

OnBusy = Literal["reject", "enqueue", "interrupt", "replace"]
"""What a task does while another one with its key is waiting or running. ``reject``: it is refused.
``enqueue``: it waits its turn. ``interrupt``: it cancels the others and waits for the end of the
running one. ``replace``: it cancels the waiting ones and waits for the running one. Empty in a
submit: what the agent declares; there: enqueue."""
MaybeOnBusy = Literal["", "reject", "enqueue", "interrupt", "replace"]

_EPOCH_SHIFT: Final = 32


class TaskRecord(BaseModel):
    """The base of all records about tasks: fields of newer versions are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


class RetrySpec(TaskRecord):
    """When an attempt that did not end well is followed by another one."""

    attempts: int = Field(
        1, ge=1, le=MAX_ATTEMPTS, description="attempts at most, the first one included"
    )
    on: list[OptionalName] = Field(
        default_factory=list,
        max_length=50,
        description="causes: exception (any), timeout, lost_lease, criteria_failed, alert, or the"
        " class name of an exception",
    )
    wait_min_us: DurationUs = Field(2 * SECOND_US, description="upper limit of the first wait")
    wait_max_us: DurationUs = Field(
        MINUTE_US,
        description="upper limit of any wait; waits are drawn between 0 and the limit,"
        " which doubles with each attempt",
    )


class AgentSpec(TaskRecord):
    """An agent that an executor can run, and how."""

    name: Name
    version: OptionalName = ""
    slots: Slots = Field(0, description="attempts of this agent at a time; 0: the executor's slots")
    max_running: int = Field(
        0, ge=0, le=1_000_000, description="attempts at a time over all executors; 0: no limit"
    )
    timeout_us: DurationUs = Field(0, description="limit of one attempt; 0: none")
    lease_us: LeaseUs = Field(
        DEFAULT_LEASE_US,
        description="an attempt is lost this long after the last heartbeat of its executor",
    )
    retry: RetrySpec = Field(default_factory=RetrySpec)
    fallback: OptionalName = Field(
        "", description="the agent (or agent@version) that runs the task when no attempt is left"
    )
    budget_usd: Amount = Field("", description="limit of one task's cost; empty: none")
    key_field: OptionalName = Field(
        "",
        description="the key of a task that is submitted without one: session_id, user_id or"
        " input.NAME",
    )
    on_busy: OnBusy = "enqueue"
    idempotent: bool = Field(
        False, description="an attempt may be repeated after it has started and its lease was lost"
    )


class RunningAttempt(TaskRecord):
    """An attempt that an executor runs now."""

    task_id: TaskId
    attempt: Attempt
    fence: Fence


if TYPE_CHECKING:  # a derived struct has the model's fields; to a type checker it is the model
    RetrySpecStruct: TypeAlias = RetrySpec
    AgentSpecStruct: TypeAlias = AgentSpec
    RunningAttemptStruct: TypeAlias = RunningAttempt
else:
    RetrySpecStruct = derive_struct(RetrySpec)
    AgentSpecStruct = derive_struct(AgentSpec, nested={RetrySpec: RetrySpecStruct})
    RunningAttemptStruct = derive_struct(RunningAttempt)

STRUCTS: Final[dict[type, type]] = {
    RetrySpec: RetrySpecStruct,
    AgentSpec: AgentSpecStruct,
    RunningAttempt: RunningAttemptStruct,
}


def task_trace_id(project: str, task_id: str, attempt: int) -> str:
    """The trace id of an attempt: the same on every machine, another one for each attempt."""
    return derived_id("task", project, task_id, attempt).replace("-", "")


def fence_of(epoch: int, counter: int) -> int:
    """The fencing number of the ``counter``-th attempt that was bound in an epoch.

    Every assignment of a partition of ``tasks`` to a worker begins a new epoch, so that the numbers
    of one partition only grow.
    """
    return (epoch << _EPOCH_SHIFT) | counter


def epoch_of(fence: int) -> int:
    """The epoch in which a fencing number was given."""
    return fence >> _EPOCH_SHIFT


def json_bytes(value: Any) -> msgspec.Raw:
    """A value as the structs keep it. Raises ``TypeError`` where it is not JSON."""
    return msgspec.Raw(msgspec.json.encode(value))


def json_value(raw: msgspec.Raw | None) -> Any:
    """The value of a ``Json`` field of a struct; None where it is absent."""
    return None if raw is None else msgspec.json.decode(raw)
