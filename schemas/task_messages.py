"""The topic ``tasks``: what callers and executors send to the scheduler. Pure.

The key of each record is its project, so that one partition, and one worker, has all tasks of a
project, in order. ``kind`` names the kind of record. A record that is not valid, also one of an
unknown kind, goes to the dead letter topic with the reason that ``decode_message`` raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, Union

import msgspec
from pydantic import Field, RootModel

from stepstream.schemas.derive import derive_struct
from stepstream.schemas.step import TimeUs
from stepstream.schemas.task_common import (
    MAX_AFTER,
    MAX_AGENTS,
    MAX_DELAY_US,
    MAX_JSON_BYTES,
    MAX_MESSAGE_CHARS,
    MAX_PRIORITY,
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
    Reason,
    RunningAttempt,
    Slots,
    TaskId,
    TaskRecord,
)

MAX_REASON: Final = 300
EndStatus = Literal["ok", "failed", "timed_out", "cancelled", "lease_lost", "refused"]
"""How an attempt ended. ``lease_lost``: the executor stopped it because it could not renew its
lease. ``refused``: it did not start, and does not count as an attempt."""


class Submit(TaskRecord):
    """Request a run of an agent."""

    kind: Literal["submit"] = "submit"
    project: Name
    task_id: TaskId = Field(
        description="chosen by the sender; a second submit with it is the same task"
    )
    agent: Name
    version: OptionalName = Field("", description="only this version of the agent; empty: any")
    input: Json = Field(None, description=f"any JSON value of at most {MAX_JSON_BYTES:,} bytes")
    input_ref: OptionalName = Field("", description="where a larger input is, e.g. a URL")
    priority: int = Field(0, ge=0, le=MAX_PRIORITY, description="higher ones run first")
    delay_us: int = Field(0, ge=0, le=MAX_DELAY_US, description="time before it may run")
    deadline_us: DurationUs = Field(
        0, description="it expires when it has not ended this long after its submit; 0: never"
    )
    after: list[TaskId] = Field(
        default_factory=list, max_length=MAX_AFTER, description="tasks that must have ended ok"
    )
    key: OptionalName = Field(
        "", description="tasks with the same key run one at a time, in the sequence of submits"
    )
    on_busy: MaybeOnBusy = ""
    environment: OptionalName = ""
    user_id: OptionalName = ""
    session_id: OptionalName = ""
    parent_task_id: OptionalTaskId = Field("", description="the task that submitted it")
    attempts: int = Field(0, ge=0, le=100, description="attempts at most; 0: the agent's")
    timeout_us: DurationUs = Field(0, description="limit of one attempt; 0: the agent's")
    budget_usd: Amount = Field("", description="limit of its cost; empty: the agent's")
    by: OptionalName = Field("", description="who submitted it")
    submitted_at_us: TimeUs = Field(0, description="the sender's clock; for information only")


class Hello(TaskRecord):
    """An executor offers its slots. Sent when it starts and when its agents change."""

    kind: Literal["hello"] = "hello"
    project: Name
    executor_id: TaskId = Field(description="unique for each start of an executor")
    agents: list[AgentSpec] = Field(max_length=MAX_AGENTS)
    slots: Slots = Field(description="attempts at a time")
    host: OptionalName = ""
    pid: int = Field(0, ge=0, lt=2**31)
    ready: bool = Field(True, description="whether it takes attempts at once")


class Ready(TaskRecord):
    """An executor takes attempts (again)."""

    kind: Literal["ready"] = "ready"
    project: Name
    executor_id: TaskId


class NotReady(TaskRecord):
    """An executor takes no new attempts until it sends ``ready``; running ones go on."""

    kind: Literal["not_ready"] = "not_ready"
    project: Name
    executor_id: TaskId
    reason: Reason = ""


class Beat(TaskRecord):
    """An executor's heartbeat: renews the leases of the attempts that it names."""

    kind: Literal["beat"] = "beat"
    project: Name
    executor_id: TaskId
    seq: int = Field(ge=0, lt=2**53)
    running: list[RunningAttempt] = Field(default_factory=list)


class Claim(TaskRecord):
    """The body of an attempt starts, as soon as Kafka has acknowledged this record.

    An executor that waits for that never starts an attempt that the scheduler believes not started
    and gives to another executor.
    """

    kind: Literal["claim"] = "claim"
    project: Name
    executor_id: TaskId
    task_id: TaskId
    attempt: Attempt
    fence: Fence


class Once(TaskRecord):
    """A value that later attempts of the task get instead of computing it again."""

    kind: Literal["once"] = "once"
    project: Name
    executor_id: TaskId
    task_id: TaskId
    attempt: Attempt
    fence: Fence
    key: Name
    value: Json = None


class End(TaskRecord):
    """An attempt has ended."""

    kind: Literal["end"] = "end"
    project: Name
    executor_id: TaskId
    task_id: TaskId
    attempt: Attempt
    fence: Fence
    status: EndStatus
    result: Json = Field(None, description=f"any JSON value of at most {MAX_JSON_BYTES:,} bytes")
    error_type: OptionalName = Field("", description="class name of the exception")
    error_message: str = Field("", max_length=MAX_MESSAGE_CHARS)
    reason: Reason = Field("", description="why it was refused or cancelled")
    side_effect_free: bool = Field(
        False, description="the body did not start, or reports that it has changed nothing"
    )


class Cancel(TaskRecord):
    """End a task: a waiting one at once, a running one by stopping its attempt."""

    kind: Literal["cancel"] = "cancel"
    project: Name
    task_id: TaskId
    reason: Reason = ""
    by: OptionalName = ""


class Extend(TaskRecord):
    """Move the time-out of a running attempt."""

    kind: Literal["extend"] = "extend"
    project: Name
    executor_id: TaskId
    task_id: TaskId
    attempt: Attempt
    fence: Fence
    by_us: DurationUs


class Retry(TaskRecord):
    """Run a task again that has ended in another way than ok."""

    kind: Literal["retry"] = "retry"
    project: Name
    task_id: TaskId
    by: OptionalName = ""
    reason: Reason = ""


class Drain(TaskRecord):
    """Give an executor no new attempts; after the deadline what it runs is handed over."""

    kind: Literal["drain"] = "drain"
    project: Name
    executor_id: TaskId
    deadline_us: DurationUs = Field(0, description="time for running attempts; 0: no limit")
    by: OptionalName = ""


class Bye(TaskRecord):
    """An executor has ended; what it was running is lost."""

    kind: Literal["bye"] = "bye"
    project: Name
    executor_id: TaskId


class TaskMessage(
    RootModel[
        Annotated[
            Union[  # noqa: UP007  the members of a long union, one a line
                Submit,
                Hello,
                Ready,
                NotReady,
                Beat,
                Claim,
                Once,
                End,
                Cancel,
                Extend,
                Retry,
                Drain,
                Bye,
            ],
            Field(discriminator="kind"),
        ]
    ]
):
    """A record of the topic ``tasks``, chosen by ``kind``. Its key is the project."""


def _struct(model: type[TaskRecord], *raw: str) -> Any:
    narrowed: dict[str, Any] = dict.fromkeys(raw, msgspec.Raw)
    return derive_struct(model, nested=STRUCTS, narrowed=narrowed, tag_field="kind")


if TYPE_CHECKING:
    SubmitStruct: TypeAlias = Submit
    HelloStruct: TypeAlias = Hello
    ReadyStruct: TypeAlias = Ready
    NotReadyStruct: TypeAlias = NotReady
    BeatStruct: TypeAlias = Beat
    ClaimStruct: TypeAlias = Claim
    OnceStruct: TypeAlias = Once
    EndStruct: TypeAlias = End
    CancelStruct: TypeAlias = Cancel
    ExtendStruct: TypeAlias = Extend
    RetryStruct: TypeAlias = Retry
    DrainStruct: TypeAlias = Drain
    ByeStruct: TypeAlias = Bye
else:
    SubmitStruct = _struct(Submit, "input")
    HelloStruct = _struct(Hello)
    ReadyStruct = _struct(Ready)
    NotReadyStruct = _struct(NotReady)
    BeatStruct = _struct(Beat)
    ClaimStruct = _struct(Claim)
    OnceStruct = _struct(Once, "value")
    EndStruct = _struct(End, "result")
    CancelStruct = _struct(Cancel)
    ExtendStruct = _struct(Extend)
    RetryStruct = _struct(Retry)
    DrainStruct = _struct(Drain)
    ByeStruct = _struct(Bye)

Message: TypeAlias = (
    SubmitStruct
    | HelloStruct
    | ReadyStruct
    | NotReadyStruct
    | BeatStruct
    | ClaimStruct
    | OnceStruct
    | EndStruct
    | CancelStruct
    | ExtendStruct
    | RetryStruct
    | DrainStruct
    | ByeStruct
)
"""A decoded record of ``tasks``."""

MAX_RECORD_BYTES: Final = 1_000_000
_decode: Final[Any] = msgspec.json.Decoder(Message).decode
_encode: Final = msgspec.json.Encoder().encode


class WrongTaskRecord(ValueError):
    """A record that cannot be used. ``reason`` is a word for machines."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def encode_message(message: Message) -> bytes:
    """The value of a record of ``tasks``; its key is ``message.project.encode()``."""
    return _encode(message)


def decode_message(value: bytes | None, key: bytes | None = None) -> Message:
    """Read a record of ``tasks``. Without a key only the value is checked.

    Raises ``WrongTaskRecord`` with the reason ``empty``, ``too_large``, ``malformed_json``,
    ``invalid_field`` or ``foreign_key``.
    """
    if not value:
        raise WrongTaskRecord("empty", "the record has no value")
    if len(value) > MAX_RECORD_BYTES:
        raise WrongTaskRecord("too_large", f"{len(value):,} of {MAX_RECORD_BYTES:,} bytes")
    try:
        message: Message = _decode(value)
    except msgspec.ValidationError as error:
        raise WrongTaskRecord("invalid_field", str(error)[:MAX_REASON]) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WrongTaskRecord("malformed_json", str(error)[:MAX_REASON]) from error
    if key is not None and key != message.project.encode():
        raise WrongTaskRecord(
            "foreign_key", f"the key is not the project {message.project[:100]!r}"
        )
    _check_sizes(message)
    return message


def _check_sizes(message: Message) -> None:
    for name in ("input", "result", "value"):
        raw = getattr(message, name, None)
        if raw is not None and len(bytes(raw)) > MAX_JSON_BYTES:
            raise WrongTaskRecord(
                "too_large", f"{name} has {len(bytes(raw)):,} of {MAX_JSON_BYTES:,} bytes"
            )
