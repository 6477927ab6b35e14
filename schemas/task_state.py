"""The topic ``taskstate``: one record for each change of a task or an executor. Pure.

A record is the whole task after the change. Readers keep, for each key, the record with the
highest ``(epoch, revision)``: a worker that was replaced may still write, with a lower epoch.
The key is ``task_id`` or ``executor_id``; the partition has the number of the project's partition
of ``tasks``. Task ids are scoped by project: two projects may use the same one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, Union

import msgspec
from pydantic import Field, RootModel

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import TimeUs
from stepstream.schemas.task_common import (
    STRUCTS,
    AgentSpec,
    Amount,
    Attempt,
    DurationUs,
    Fence,
    Json,
    MaybeOnBusy,
    Name,
    OptionalName,
    OptionalTaskId,
    Slots,
    TaskId,
    TaskRecord,
)

STATE_VERSION: Final = 1

TaskStatus = Literal[
    "waiting", "bound", "running", "ok", "failed", "cancelled", "expired", "dead", "refused"
]
"""``bound``: given to an executor that has not started it. ``refused``: it never was a task
(``on_busy: reject``, a cycle in ``after``); its id is free again."""
FINAL: Final = frozenset({"ok", "failed", "cancelled", "expired", "dead", "refused"})
WaitingFor = Literal["", "delay", "retry", "slot", "executor", "limit", "budget", "after", "key"]
"""Why a task waits. ``executor``: no executor offers its agent (or version). ``slot``: those that
offer it are busy, draining or not ready. ``limit``: the agent's or a queue's limit."""
ExecutorStatus = Literal["ready", "not_ready", "draining", "lost", "left"]


class AttemptRecord(TaskRecord):
    """One attempt of a task."""

    attempt: Attempt
    fence: Fence
    trace_id: str
    executor_id: OptionalTaskId = ""
    agent: Name
    version: OptionalName = ""
    bound_at_us: TimeUs = 0
    started_at_us: TimeUs = 0
    ended_at_us: TimeUs = 0
    status: str = Field(
        "", description="empty while it runs; else the status of its end, lost or released"
    )
    error_type: OptionalName = ""
    error_message: str = ""
    reason: str = ""


class TaskState(TaskRecord):
    """A task after a change."""

    kind: Literal["task"] = "task"
    state_version: int = STATE_VERSION
    project: Name
    task_id: TaskId
    state: TaskStatus
    waiting_for: WaitingFor = ""
    waiting_until_us: TimeUs = Field(0, description="when it goes on, where that is known; else 0")
    reason: str = Field("", description="a word for machines, e.g. retries_used, lease_lost")
    detail: str = Field("", description="the reason in words")
    event: str = Field(
        description="the change: submitted, waiting, bound, started, kept, extended, attempt_ended,"
        " attempt_lost, retrying, fallback, cancelling, ended, refused, rewritten"
    )
    by: OptionalName = Field("", description="who caused the change, where it was a person")
    at_us: TimeUs = Field(description="log time of the change")
    epoch: int = Field(ge=0)
    revision: int = Field(ge=0, description="one higher with each change")
    # What was requested
    agent: Name
    version: OptionalName = ""
    input: Json = None
    input_ref: OptionalName = ""
    input_digest: str = Field("", description="digest of what was requested, to compare submits")
    priority: int = 0
    after: list[TaskId] = Field(default_factory=list)
    key: OptionalName = ""
    on_busy: MaybeOnBusy = ""
    environment: OptionalName = ""
    user_id: OptionalName = ""
    session_id: OptionalName = ""
    parent_task_id: OptionalTaskId = ""
    max_attempts: int = Field(0, description="as submitted; 0: the agent's")
    timeout_us: DurationUs = Field(0, description="as submitted; 0: the agent's")
    budget_usd: Amount = ""
    submitted_by: OptionalName = ""
    submitted_at_us: TimeUs = Field(0, description="log time of the submit")
    not_before_us: TimeUs = 0
    deadline_at_us: TimeUs = Field(0, description="0: none")
    # The current or last attempt
    attempt: int = Field(0, ge=0, description="0: none was bound yet")
    fence: Fence = 0
    executor_id: OptionalTaskId = ""
    target: OptionalName = Field(
        "", description="the agent, or agent@version, that is to run it: a fallback, perhaps"
    )
    run_agent: OptionalName = Field("", description="the agent of the attempt")
    run_version: OptionalName = ""
    trace_id: str = ""
    bound_at_us: TimeUs = 0
    started_at_us: TimeUs = 0
    ended_at_us: TimeUs = 0
    lease_us: int = 0
    lease_until_us: TimeUs = Field(0, description="as of this record; heartbeats are not recorded")
    timeout_at_us: TimeUs = 0
    cancelling: bool = Field(False, description="it was cancelled, and its attempt stops")
    stopping: str = Field(
        "", description="why its attempt was asked to stop: cancel, timeout, deadline"
    )
    # History
    attempts: list[AttemptRecord] = Field(
        default_factory=list, description="ended attempts, the newest 20"
    )
    agent_attempts: int = Field(0, description="attempts of the current agent or fallback")
    fallbacks: list[str] = Field(
        default_factory=list, description="agents that were given up, in sequence"
    )
    executors_lost: int = Field(0, description="executors that ended while they ran it")
    once: dict[str, Json] = Field(default_factory=dict, description="values kept by key")
    result: Json = None
    error_type: OptionalName = ""
    error_message: str = ""
    source_offset: int = Field(-1, description="offset in tasks of the record that caused it")


class ExecutorState(TaskRecord):
    """An executor after a change."""

    kind: Literal["executor"] = "executor"
    state_version: int = STATE_VERSION
    project: Name
    executor_id: TaskId
    state: ExecutorStatus
    reason: str = ""
    event: str = ""
    at_us: TimeUs
    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    host: OptionalName = ""
    pid: int = 0
    slots: Slots = 0
    running: int = Field(0, description="attempts bound to it as of this record")
    agents: list[AgentSpec] = Field(default_factory=list)
    started_at_us: TimeUs = Field(0, description="log time of its hello")
    last_beat_us: TimeUs = Field(0, description="as of this record; heartbeats are not recorded")
    drain_by_us: TimeUs = Field(0, description="end of its time to drain; 0: none")
    source_offset: int = -1


class TaskRefusal(TaskRecord):
    """A record of ``tasks`` that was refused and changed nothing.

    It does not replace the state of the task: a second submit with another input leaves the first
    task as it is. The sender recognises it by ``source_offset``, the offset of its own record.
    """

    kind: Literal["refusal"] = "refusal"
    project: Name
    task_id: TaskId
    refused: str = Field(description="the kind of the refused record: submit, cancel, retry")
    reason: str = Field(description="other_input, unknown_task, not_final, is_ok or forgotten")
    detail: str = ""
    at_us: TimeUs
    source_offset: int = -1


class TaskStateRecord(
    RootModel[
        Annotated[
            Union[TaskState, ExecutorState, TaskRefusal],  # noqa: UP007
            Field(discriminator="kind"),
        ]
    ]
):
    """A record of the topic ``taskstate``, chosen by ``kind``."""


if TYPE_CHECKING:
    AttemptRecordStruct: TypeAlias = AttemptRecord
    TaskStateStruct: TypeAlias = TaskState
    ExecutorStateStruct: TypeAlias = ExecutorState
    TaskRefusalStruct: TypeAlias = TaskRefusal
else:
    AttemptRecordStruct = derive_struct(AttemptRecord)
    TaskStateStruct = derive_struct(
        TaskState,
        nested=STRUCTS | {AttemptRecord: AttemptRecordStruct},
        narrowed={
            "input": msgspec.Raw,
            "result": msgspec.Raw,
            "once": dict[str, msgspec.Raw],
        },
        tag_field="kind",
    )
    ExecutorStateStruct = derive_struct(ExecutorState, nested=STRUCTS, tag_field="kind")
    TaskRefusalStruct = derive_struct(TaskRefusal, tag_field="kind")

StateRecord: TypeAlias = TaskStateStruct | ExecutorStateStruct | TaskRefusalStruct
"""A decoded record of ``taskstate``."""

_decode: Final[Any] = msgspec.json.Decoder(StateRecord).decode
_encode: Final = msgspec.json.Encoder().encode


def encode_state(record: StateRecord) -> bytes:
    """The value of a record of ``taskstate``."""
    return _encode(record)


def decode_state(value: bytes | None) -> StateRecord | None:
    """Read a record of ``taskstate``; None where it is not one that this version knows."""
    try:
        return _decode(value or b"")  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


Change: TypeAlias = TaskStateStruct | ExecutorStateStruct


def is_newer(record: Change, other: Change | None) -> bool:
    """Whether a record replaces another one of the same task or executor."""
    return other is None or (record.epoch, record.revision) > (other.epoch, other.revision)
