"""The state record of a run: what the assemble stage needs to go on with it after a restart.

Written to the state topic, on the partition of the run's steps; ``checkpoint.py`` describes when. A
record is one version byte and MessagePack. A worker reads its own version and the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stepstream.schemas.control import ControlStep
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.stream.run.baseline import Normal
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import (
    NO_RANK,
    NO_TASK,
    NONE_OFF,
    Fired,
    Identity,
    Rank,
    Run,
    TaskAttempt,
)
from stepstream.stream.run.steps import StepInfo

STATE_VERSION: Final = 2
OLDEST_VERSION: Final = 1
"""The fields that version 2 adds are at the end and have defaults, so one decoder reads both."""

HIGHEST_VERSION: Final = 31
"""A record that begins with a higher byte is text or something else, not the state of a newer
worker.
"""


class UnknownStateVersion(Exception):
    """The record was written by a newer worker: start that one."""


class RunState(msgspec.Struct, array_like=True, gc=False):
    """Version 2. New fields are added at the end, with defaults."""

    trace_id: str
    through: int
    """Every record of the run up to this offset is merged."""
    phases: int
    closed: bool
    closed_at_us: int
    first_append_us: int
    last_append_us: int
    live: bool
    started_late: bool
    duplicates: int
    over_limit: int
    late_steps: int
    rank: Rank
    identity: Identity
    root_step_id: str
    rules: str
    fired: list[tuple[str, Fired]]
    detector_state: dict[str, Any]
    steps: list[StepInfo]
    deferred: list[tuple[str, bytes, bytes]] = []
    """Topic, key and value of findings and commands that are sent once this record is acknowledged.
    """
    normal: Normal | None = None
    """Since version 2: the baseline that the run is compared with."""
    off: list[str] = []
    """Detectors that have raised in this run. A worker of version 2 that does not know this field
    ignores it.
    """
    session_rank: Rank = NO_RANK
    user_rank: Rank = NO_RANK
    """Ranks of the steps that named session and user."""
    controls: dict[str, ControlStep] = {}
    """What its control steps report, by step id; ignored by a worker that does not know it."""
    release: str = ""
    """The release that the root names; likewise."""
    task: TaskAttempt = NO_TASK
    """The task that the root names; likewise."""

    @property
    def order(self) -> tuple[int, int, int]:
        """Of two states of one run the one with the higher order is newer, in whatever order they
        were written.
        """
        return (self.phases, int(self.closed), self.through)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RunState).decode
_VERSION_BYTE = bytes([STATE_VERSION])


def encode_state(
    run: Run, through: int, deferred: Sequence[tuple[str, bytes, bytes]] = ()
) -> bytes:
    """The record of a run whose records up to ``through`` are merged."""
    return encode(
        RunState(
            trace_id=run.trace_id,
            through=through,
            phases=run.merged_events,
            closed=run.closed,
            closed_at_us=run.closed_at_us,
            first_append_us=run.first_append_us,
            last_append_us=run.last_append_us,
            live=run.live,
            started_late=run.started_late,
            duplicates=run.duplicates,
            over_limit=run.over_limit,
            late_steps=run.late_steps,
            rank=run.rank,
            identity=run.identity,
            root_step_id=run.root.step_id if run.root is not None else "",
            rules=run.rules.pinned,
            fired=list(run.fired.items()),
            detector_state=run.detector_state,
            steps=list(run.steps.values()),
            deferred=list(deferred),
            normal=run.normal,
            off=sorted(run.off) if run.off else [],
            session_rank=run.session_rank,
            user_rank=run.user_rank,
            controls=run.controls,
            release=run.release,
            task=run.task,
        )
    )


def encode(state: RunState) -> bytes:
    """The record of a state."""
    return _VERSION_BYTE + _encode(state)


def decode_state(record: bytes) -> RunState:
    """The state in a record. Raises ``UnknownStateVersion``, and ``ValueError`` for what is no
    state record.
    """
    if not record:
        raise ValueError("an empty state record")
    if not OLDEST_VERSION <= record[0] <= HIGHEST_VERSION:
        raise ValueError(f"no state record: it begins with {record[0]}")
    if record[0] > STATE_VERSION:
        raise UnknownStateVersion(
            f"state version {record[0]}; this worker reads {OLDEST_VERSION} to {STATE_VERSION}"
        )
    return _decode(record[1:])


def checked_state(state: RunState, latest_us: int) -> RunState:
    """The state, if its counts and times are possible. Raises ``ValueError``.

    Times after ``latest_us`` are not: a run that closes in some other year would keep the committed
    offset from moving.
    """
    for name in ("closed_at_us", "first_append_us", "last_append_us"):
        if not 0 <= getattr(state, name) <= latest_us:
            raise ValueError(
                f"{name} of run {state.trace_id} is not a possible time: {getattr(state, name)}"
            )
    for name in ("through", "phases", "duplicates", "over_limit", "late_steps"):
        if not 0 <= getattr(state, name) <= MAX_COUNT:
            raise ValueError(
                f"{name} of run {state.trace_id} is not a possible count: {getattr(state, name)}"
            )
    return state


def restore_run(state: RunState, rules: RuleBook) -> Run:
    """The run as it was when the state was written."""
    run = Run(state.trace_id, state.first_append_us, rules.restored(state.rules))
    run.last_append_us = state.last_append_us
    run.live = state.live
    run.started_late = state.started_late
    run.merged_events = state.phases
    run.closed = state.closed
    run.closed_at_us = state.closed_at_us
    run.duplicates = state.duplicates
    run.over_limit = state.over_limit
    run.late_steps = state.late_steps
    run.rank = state.rank
    run.identity = state.identity
    run.steps = {info.step_id: info for info in state.steps}
    run.root = run.steps.get(state.root_step_id)
    run.fired = dict(state.fired)
    run.detector_state = state.detector_state
    run.normal = state.normal
    run.off = frozenset(state.off) if state.off else NONE_OFF
    run.session_rank, run.user_rank = state.session_rank, state.user_rank
    run.controls = dict(state.controls)
    run.release = state.release
    run.task = state.task
    run.recount()
    run.wake_timers(0)
    return run
