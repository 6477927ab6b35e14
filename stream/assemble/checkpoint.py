"""The checkpoint protocol of one run: outputs acknowledged, then the state record, then the offset.

A run's state record contains the offset up to which its records are merged. A worker that restarts
from it ignores those records, so their outputs are not sent again. Three rules follow, and every
method here keeps them:

1. A state record is sent only while no output of the run is unacknowledged. Otherwise a crash
   between the two could leave a state that contains records whose outputs were never stored.
2. The run's records are needed until a state record that contains them is acknowledged: only then
   may the committed offset pass them.
3. A deferred output (a finding that time or a baseline has shown, which a replay of the log might
   not show again) is sent only once a state record that names it is acknowledged. Otherwise a crash
   after it would leave an alert that the next worker does not know and never resolves.

    state          event                              next state
    CLEAN          record_merged()                    DIRTY, the record's offset is needed
    CLEAN, DIRTY   request_state()                    WAITING
    WAITING        start_writing(), nothing pending   WRITING
    WRITING        request_state()                    WRITING_AGAIN
    WRITING        state_acknowledged(), nothing      CLEAN, no offset is needed
                   merged since start_writing()
    WRITING        state_acknowledged(), records      DIRTY, offsets after the state record's
                   merged since start_writing()       last one are needed
    WRITING_AGAIN  state_acknowledged()               WAITING, needed offsets as for WRITING
    any            fail()                             FAILED, no offset is needed
"""

from __future__ import annotations

from enum import Enum

from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import Output


class CheckpointState(Enum):
    """What is still to be done until an acknowledged state record contains the whole run."""

    CLEAN = "every merged record is in an acknowledged state record"
    DIRTY = "a merged record is in no acknowledged state record, and none is requested"
    WAITING = "a state record is to be written once every output is acknowledged"
    WRITING = "a state record is sent and not acknowledged"
    WRITING_AGAIN = "a state record is sent and not acknowledged, and another is to follow it"
    FAILED = "processing the run raised: acknowledgements are ignored"


_NONE: tuple[Output, ...] = ()


class RunCheckpoint:
    """One run's checkpoint.

    It is an ``OffsetDependent``: ``needed_from``, its first offset that is in no acknowledged state
    record, keeps the partition's safe offset back (-1: it needs none).
    """

    __slots__ = (
        "_in_state",
        "_writing_through",
        "checkpointed_through",
        "deferred",
        "merged_through",
        "needed_from",
        "pending",
        "state",
    )

    def __init__(self, through: int = -1) -> None:
        """``through``: an acknowledged state record contains the run's records up to this offset;
        -1: there is none.
        """
        self.state = CheckpointState.CLEAN
        self.checkpointed_through = self.merged_through = through
        self.needed_from = -1
        self.pending = 0
        """Outputs sent and not acknowledged."""
        self.deferred: tuple[Output, ...] = _NONE
        """Outputs to be sent once a state record that names them is acknowledged."""
        self._in_state = 0  # how many of ``deferred`` the unacknowledged state record names
        self._writing_through = -1

    def record_merged(self, offset: int, offsets: OffsetTracker) -> bool:
        """The run's record at ``offset`` was merged. Returns whether it is the first one that no
        state record contains.
        """
        self.merged_through = offset
        if self.needed_from >= 0:
            return False
        offsets.hold(self, offset)
        if self.state is CheckpointState.CLEAN:
            self.state = CheckpointState.DIRTY
        return True

    def output_sent(self) -> None:
        """An output of the run was sent."""
        self.pending += 1

    def output_acknowledged(self) -> None:
        """One of the outputs was acknowledged."""
        self.pending -= 1

    def defer_output(self, output: Output) -> None:
        """Send the output once a state record that names it is acknowledged; request it."""
        self.deferred += (output,)
        self.request_state()

    def request_state(self) -> None:
        """Have a state record written as soon as every output is acknowledged."""
        if self.state is CheckpointState.WRITING:
            self.state = CheckpointState.WRITING_AGAIN
        elif self.state is CheckpointState.CLEAN or self.state is CheckpointState.DIRTY:
            self.state = CheckpointState.WAITING

    @property
    def may_write(self) -> bool:
        """Whether the state record that was requested may be sent now."""
        return self.state is CheckpointState.WAITING and not self.pending

    def start_writing(self) -> int:
        """The state record is about to be sent. Returns the last offset that it contains."""
        self.state = CheckpointState.WRITING
        self._in_state = len(self.deferred)
        self._writing_through = self.merged_through
        return self.merged_through

    def state_acknowledged(self, offsets: OffsetTracker) -> tuple[Output, ...]:
        """The state record is acknowledged. Returns the deferred outputs that it names: they may be
        sent now.
        """
        through = self._writing_through
        self.checkpointed_through = max(self.checkpointed_through, through)
        ready, self.deferred = self.deferred[: self._in_state], self.deferred[self._in_state :]
        self._in_state = 0
        is_wanted_again = self.state is CheckpointState.WRITING_AGAIN
        if self.merged_through > through:
            offsets.hold(self, max(self.needed_from, through + 1))
            self.state = CheckpointState.DIRTY
        else:
            offsets.release(self)
            self.state = CheckpointState.CLEAN
        if is_wanted_again:
            self.state = CheckpointState.WAITING
        return ready

    def fail(self, offsets: OffsetTracker) -> None:
        """End the checkpoint. The caller dead-letters the records that no state record contains."""
        offsets.release(self)
        self.state = CheckpointState.FAILED

    @property
    def has_failed(self) -> bool:
        return self.state is CheckpointState.FAILED
