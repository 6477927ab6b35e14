"""Writes the state records of one partition's runs, and tracks which offsets they need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.assemble.checkpoint import CheckpointState
from stepstream.stream.assemble.state import encode_state
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import Output
from stepstream.stream.run.limits import SMALL_RUN_STEPS, AssembleLimits


class CheckpointWriter:
    """The checkpoints of one partition's runs."""

    def __init__(
        self,
        partition: int,
        runs: dict[str, ActiveRun],
        offsets: OffsetTracker,
        clock: PartitionClock,
        limits: AssembleLimits,
        *,
        counters: Counters,
        outbox: list[Output],
        drop_unencodable: Callable[[ActiveRun], bool],
    ) -> None:
        """``drop_unencodable`` removes from a run what cannot be encoded, and returns whether there
        was anything to remove.
        """
        self._partition = partition
        self._runs = runs
        self._offsets = offsets
        self._clock = clock
        self._limits = limits
        self._counters = counters
        self._outbox = outbox
        self._drop_unencodable = drop_unencodable
        # (offset, append time, trace id) of the first record that each run needs, oldest first.
        # Entries are not removed when a checkpoint makes them obsolete: ``_needing`` returns None
        # for those.
        self._needed: deque[tuple[int, int, str]] = deque()
        # The same entries until they are as old as a small run may need its records.
        self._timed: deque[tuple[int, int, str]] = deque()

    def record_merged(self, active: ActiveRun, offset: int, append_us: int) -> None:
        """The run's record at this offset was merged."""
        checkpoint = active.checkpoint
        if checkpoint.record_merged(offset, self._offsets):
            self._note_need(offset, append_us, active.run.trace_id)
        if active.run.closed:
            # A closed run leaves memory, and a later record is merged into its stored state, which
            # must therefore contain this one.
            checkpoint.request_state()

    def write_if_ready(self, active: ActiveRun) -> None:
        """Send the run's state record if one is requested and everything that it contains is
        published.
        """
        if not active.checkpoint.may_write:
            return
        # An open run is published again after a restart, a closed one is not. So the state of a
        # closed run may be written only after its newest revision was published, which ``flush``
        # does at the end of the batch.
        if active.run.closed and active.is_unpublished:
            return
        self._write(active)

    def _write(self, active: ActiveRun) -> None:
        run, checkpoint = active.run, active.checkpoint
        self._counters.states += 1
        through = checkpoint.start_writing()
        deferred = [(out.topic, out.key or b"", out.value or b"") for out in checkpoint.deferred]
        try:
            value = encode_state(run, through, deferred)
        except Exception:
            if not self._drop_unencodable(active):
                raise
            value = encode_state(run, through, deferred)
        self._outbox.append(
            Output(
                "state",
                run.trace_id.encode(),
                value,
                partition=self._partition,
                owner=active,
                through=through,
                urgent=bool(deferred),  # deferred findings are sent only after it
            )
        )

    def state_acknowledged(self, active: ActiveRun) -> tuple[Output, ...]:
        """The run's state record is acknowledged. Returns the outputs that may be sent now."""
        checkpoint = active.checkpoint
        ready = checkpoint.state_acknowledged(self._offsets)
        if checkpoint.needed_from >= 0:
            self._note_need(checkpoint.needed_from, self._clock.now_us, active.run.trace_id)
            if active.run.closed:
                checkpoint.request_state()
        return ready

    def is_finished(self, active: ActiveRun) -> bool:
        """Whether the run is closed and an acknowledged state record contains all of it."""
        checkpoint = active.checkpoint
        if not active.run.closed or checkpoint.state is not CheckpointState.CLEAN:
            return False
        if checkpoint.pending or active.is_unpublished:
            checkpoint.request_state()  # again, after the outputs that are still to be acknowledged
            return False
        return True

    def request_overdue(self, now_us: int) -> Iterator[ActiveRun]:
        """Request state records of the runs that keep the safe offset back for too long, and yield
        those runs: by more records than ``replay_length``, or by more time than
        ``checkpoint_after_us``; runs of few steps after ``checkpoint_small_after_us``.
        """
        yield from self._overdue_small_runs(now_us)
        lowest = self._offsets.position - self._limits.replay_length(len(self._runs))
        earliest_us = now_us - self._limits.checkpoint_after_us
        needed = self._needed
        while needed:
            offset, append_us, trace_id = needed[0]
            active = self._needing(trace_id, offset)
            if active is not None and offset >= lowest and append_us >= earliest_us:
                return
            needed.popleft()
            if active is not None:
                active.checkpoint.request_state()
                yield active

    def _overdue_small_runs(self, now_us: int) -> Iterator[ActiveRun]:
        limits, timed = self._limits, self._timed
        latest = self._offsets.position - limits.shortest_replay(len(self._runs))
        latest_us = now_us - limits.checkpoint_small_after_us
        while timed and timed[0][1] <= latest_us and timed[0][0] <= latest:
            offset, _, trace_id = timed.popleft()
            active = self._needing(trace_id, offset)
            if active is not None and len(active.run.steps) <= SMALL_RUN_STEPS:
                active.checkpoint.request_state()
                yield active

    def _note_need(self, offset: int, append_us: int, trace_id: str) -> None:
        entry = offset, append_us, trace_id
        self._needed.append(entry)
        self._timed.append(entry)

    @property
    def oldest_append_us(self) -> int | None:
        """Append time of the oldest record that a run needs; None where no run needs any."""
        return next(
            (
                append_us
                for offset, append_us, trace_id in self._needed
                if self._needing(trace_id, offset) is not None
            ),
            None,
        )

    def _needing(self, trace_id: str, offset: int) -> ActiveRun | None:
        active = self._runs.get(trace_id)
        return active if active is not None and active.checkpoint.needed_from == offset else None
