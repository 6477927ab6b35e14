"""The topic ``bindings``: what the scheduler sends to executors. Pure.

The key of each record is the executor's id: an executor reads only the partition of its id, and
there only its own records. A record of an unknown kind comes from a newer worker and is ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, Union

import msgspec
from pydantic import Field, RootModel

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import TimeUs
from stepstream.schemas.task_common import (
    Amount,
    Attempt,
    DurationUs,
    Fence,
    Json,
    LeaseUs,
    Name,
    OptionalName,
    OptionalTaskId,
    Reason,
    TaskId,
    TaskRecord,
)


class RunAttempt(TaskRecord):
    """Run an attempt. It may arrive twice: task, attempt and fence are then the same."""

    kind: Literal["run"] = "run"
    executor_id: TaskId
    project: Name
    task_id: TaskId
    attempt: Attempt
    fence: Fence = Field(
        description="refused by the executor if its epoch is older than the newest it has seen"
    )
    trace_id: str = Field(
        description="the trace id of the run: derived from project, task, attempt"
    )
    agent: Name
    version: OptionalName = ""
    input: Json = None
    input_ref: OptionalName = ""
    once: dict[str, Json] = Field(
        default_factory=dict, description="values that earlier attempts kept, by their key"
    )
    lease_us: LeaseUs
    timeout_us: DurationUs = Field(0, description="limit of this attempt from its start; 0: none")
    deadline_at_us: TimeUs = Field(0, description="log time at which the task expires; 0: never")
    budget_usd: Amount = ""
    attempts: int = Field(1, ge=1, description="attempts at most, this one included")
    priority: int = 0
    key: OptionalName = ""
    environment: OptionalName = ""
    user_id: OptionalName = ""
    session_id: OptionalName = ""
    parent_task_id: OptionalTaskId = ""
    bound_at_us: TimeUs = Field(0, description="log time at which it was bound")


class ReleaseAttempt(TaskRecord):
    """The attempt is no longer the executor's: stop it, its result is not taken."""

    kind: Literal["release"] = "release"
    executor_id: TaskId
    project: Name
    task_id: TaskId
    attempt: Attempt
    fence: Fence
    reason: Reason = ""


class DrainExecutor(TaskRecord):
    """Take no new attempts, end when the running ones have ended, at the deadline at the latest."""

    kind: Literal["drain"] = "drain"
    executor_id: TaskId
    project: Name
    deadline_us: DurationUs = Field(0, description="time for running attempts; 0: no limit")
    by: OptionalName = ""


class NewEpoch(TaskRecord):
    """The partition of the project has a new owner: attempts of earlier epochs that arrive after
    this are refused.
    """

    kind: Literal["epoch"] = "epoch"
    executor_id: TaskId
    project: Name
    epoch: int = Field(ge=1)


class TaskBinding(
    RootModel[
        Annotated[
            Union[RunAttempt, ReleaseAttempt, DrainExecutor, NewEpoch],  # noqa: UP007
            Field(discriminator="kind"),
        ]
    ]
):
    """A record of the topic ``bindings``, chosen by ``kind``. Its key is the executor's id."""


if TYPE_CHECKING:
    RunAttemptStruct: TypeAlias = RunAttempt
    ReleaseAttemptStruct: TypeAlias = ReleaseAttempt
    DrainExecutorStruct: TypeAlias = DrainExecutor
    NewEpochStruct: TypeAlias = NewEpoch
else:
    RunAttemptStruct = derive_struct(
        RunAttempt,
        narrowed={"input": msgspec.Raw, "once": dict[str, msgspec.Raw]},
        tag_field="kind",
    )
    ReleaseAttemptStruct = derive_struct(ReleaseAttempt, tag_field="kind")
    DrainExecutorStruct = derive_struct(DrainExecutor, tag_field="kind")
    NewEpochStruct = derive_struct(NewEpoch, tag_field="kind")

Binding: TypeAlias = RunAttemptStruct | ReleaseAttemptStruct | DrainExecutorStruct | NewEpochStruct
"""A decoded record of ``bindings``."""

_decode: Final[Any] = msgspec.json.Decoder(Binding).decode
_encode: Final = msgspec.json.Encoder().encode


def encode_binding(binding: Binding) -> bytes:
    """The value of a record of ``bindings``; its key is ``binding.executor_id.encode()``."""
    return _encode(binding)


def decode_binding(value: bytes | None) -> Binding | None:
    """Read a record of ``bindings``; None where it is not one that this version knows."""
    try:
        return _decode(value or b"")  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
