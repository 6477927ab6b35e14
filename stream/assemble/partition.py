"""The assemble stage of one partition: records in, outputs out, and what holds the floor. Pure: no I/O, no clock of its own.

The shell feeds records and ticks, sends what ``drain`` returns and reports each acknowledgement with ``acknowledged``.
Order of events for a run: outputs are sent; once all are acknowledged its state may be sent; once that is acknowledged its
records no longer hold the floor. ``drain`` may return more after each acknowledgement.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from stepstream.schemas.accept import Misrouted, Rejected, accept
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.prices import NOTHING_USED, PriceBook
from stepstream.schemas.step import RECORD_HEADERS, Step
from stepstream.stream.assemble.checkpoint import RunCheckpoint
from stepstream.stream.assemble.closed_runs import ClosedRuns
from stepstream.stream.assemble.detection import Detection
from stepstream.stream.assemble.failed_runs import FailedRuns, UnreadRange
from stepstream.stream.assemble.memory_accounting import MemoryAccounting
from stepstream.stream.assemble.publish_schedule import PublishSchedule
from stepstream.stream.assemble.schedule import close_at
from stepstream.stream.assemble.state import (
    RunState,
    decode_state,
    encode,
    encode_state,
    restore_run,
)
from stepstream.stream.assemble.timers import Timers
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.contained_failures import (
    ContainedFailures,
    LogText,
    error_text,
    pipeline_output,
)
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.deadletter import dead_letter
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold, Output
from stepstream.stream.core.records import Record
from stepstream.stream.run.limits import LIVE_WITHIN_US, AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import Run


class AssemblePartition:
    """Runs of one partition of the steps topic."""

    def __init__(
        self,
        partition: int,
        partitions: int,
        *,
        rules: RuleBook,
        prices: PriceBook,
        baselines: Baselines | None = None,
        limits: AssembleLimits | None = None,
        counters: Counters | None = None,
        tell: LogText = lambda _text: None,
    ) -> None:
        """``tell`` takes what is to be logged of failures that were contained."""
        self.partition, self.partitions = partition, partitions
        self.rules = rules
        self.prices = prices
        self.baselines = baselines or Baselines()
        self.limits = limits or AssembleLimits()
        self.counters = counters or Counters()
        self.clock = PartitionClock()
        self.offsets = OffsetTracker()
        self.runs: dict[str, RunCheckpoint] = {}
        self._sizes = MemoryAccounting(self.runs)
        self.closed = ClosedRuns(self.limits.late_horizon_us, self.limits.max_closed_runs)
        self._touched: dict[str, RunCheckpoint] = {}
        self._timers = Timers(self.runs, self.clock)
        self._held: deque[tuple[int, int, RunCheckpoint]] = deque()
        self._outbox: list[Output] = []
        self.busy: RunCheckpoint | None = (
            None  # what is worked on after its records were merged: what hangs is found by it
        )
        self.given_up = FailedRuns(self.offsets)
        self._failures = ContainedFailures("steps", partition, self.counters, tell)
        self.publisher = PublishSchedule(self.limits, self.counters, self._send, self._give_up)
        self._detection = Detection(
            self.clock, self.limits, self.counters, self._failures, self._send, self._outbox
        )

    def restore(self, states: Iterable[RunState], floor: int) -> None:
        """Take over what a previous owner left: the newest state of each run, and where the log is read from."""
        self.offsets.position = floor
        for state in states:
            if state.closed:
                self.closed.put(state.trace_id, state.closed_at_us, state.through, encode(state))
                continue
            try:
                run = restore_run(state, self.rules)
            except Exception as error:  # its records are covered: it is as if it had been forgotten
                self._say(self._failures.run(state.trace_id, error, state.last_append_us))
                continue
            tracked = self._touched[state.trace_id] = self._track(run, through=state.through)
            tracked.dirty = True  # the state may know of growth that was not published yet, and windows count on it
            for topic, key, value in state.announced:
                self._send(tracked, Output(topic, key, value))

    def feed(self, record: Record) -> None:
        """Process one record. Offsets must come in order; what lies below the position was processed before."""
        offset = record.offset
        if offset < self.offsets.position:
            return
        append_us = record.timestamp * 1000
        self.clock.advance(append_us, watching=bool(self.runs))
        self.counters.records += 1
        self.offsets.position = offset + 1
        verdict = accept(
            record.value,
            key=record.key,
            partition=self.partition,
            partitions=self.partitions,
            timestamp_us=append_us,
            headers=record.headers,
            limits=self.limits.records,
        )
        if isinstance(verdict, Rejected):
            self._reject(record, verdict)
        elif isinstance(verdict, Misrouted):
            self._reroute(record, verdict)
        else:
            if verdict.clamped:
                self.counters.clamped.update(verdict.clamped)
            if self.given_up.runs and (why := self.given_up.runs.get(verdict.step.trace_id)):
                self._reject(record, Rejected("poison", why))
                return
            self._accept(verdict.step, verdict.cost_nanos, offset, append_us)

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record that processing failed on, again and again."""
        self.offsets.position = record.offset + 1
        self._reject(record, Rejected("poison", detail))

    def refuse(self, records: Iterable[Record], wanted: Iterable[UnreadRange]) -> None:
        """Dead-letter the records of runs that were given up, read again: those that no state covers hold the floor no more."""
        for record, why in self.given_up.refused(records, wanted):
            self._reject(record, Rejected("poison", why))

    def tick(self, time_us: int) -> None:
        """A fetch came back at the high watermark at this wall time, and everything fetched before has been fed."""
        self.clock.advance(time_us, watching=bool(self.runs))

    def disturb(self) -> None:
        """Brokers are in trouble: a silence may be theirs, so timers wait for producers to catch up."""
        self.clock.disturb()

    def flush(self) -> None:
        """After a batch of records, or a tick: publish what is due, let timers fire, bound what is held."""
        now_us = self.clock.now_us
        self.publisher.advance(self.offsets.position, now_us, len(self.runs))
        for tracked in self._touched.values():
            self.busy = tracked
            try:
                self._publish_if_due(tracked, now_us)
                if (
                    tracked.wants_look or tracked.scheduled_us is None
                ):  # else what is scheduled comes first
                    self._schedule(tracked)
            except Exception as error:
                self._give_up(tracked, error)
        self.busy = None
        self._touched.clear()
        self._fire_timers(now_us)
        self._timers.tidy()
        self._bound(now_us)
        self.closed.expire(now_us)

    @property
    def floor_age_us(self) -> int:
        """Log time since the oldest record that a restart would read again."""
        held = (
            append_us for offset, append_us, tracked in self._held if tracked.needed_from == offset
        )
        return max(0, self.clock.now_us - next(held, self.clock.now_us))

    @property
    def held_bytes(self) -> int:
        """About the memory that runs take, open and closed."""
        return self._sizes.size_bytes + self.closed.size_bytes

    def drain(self) -> list[Output]:
        """What is to be sent now, in order."""
        out, self._outbox[:] = self._outbox.copy(), ()
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``drain`` returned."""
        holder = output.owner
        if isinstance(holder, OffsetHold):
            self.offsets.release(holder)
            return
        if holder.has_failed:
            return
        try:
            if output.topic == "state":
                self._covered(holder, output.through, self.clock.now_us)
            else:
                holder.pending -= 1
                self._cover_if_ready(holder)
        except Exception as error:
            self._give_up(holder, error)

    def _reject(self, record: Record, verdict: Rejected) -> None:
        self.counters.rejected[verdict.reason] += 1
        self._send_held(
            record, dead_letter(record, "steps", self.partition, verdict.reason, verdict.detail)
        )

    def _reroute(self, record: Record, verdict: Misrouted) -> None:
        self.counters.misrouted += 1
        right, headers = verdict.partition, tuple(record.headers) or RECORD_HEADERS
        self._send_held(
            record, Output("steps", record.key, record.value, partition=right, headers=headers)
        )

    def _send_held(self, record: Record, output: Output) -> None:
        output.owner = OffsetHold()
        self.offsets.hold(output.owner, record.offset)
        self._outbox.append(output)

    def _accept(self, step: Step, given_nanos: int | None, offset: int, append_us: int) -> None:
        self.counters.accepted += 1
        tracked = self.runs.get(step.trace_id)
        if tracked is None:
            through = self.closed.through(step.trace_id)
            if through is None and self.closed.is_known(step.trace_id):
                self.counters.too_late += 1
                return
            if through is not None and offset <= through:
                return
            tracked = (
                self._open(step, append_us) if through is None else self._reopen(step.trace_id)
            )
        elif offset <= tracked.through:
            return
        run = tracked.run
        tracked.last_offset = offset
        if tracked.needed_from < 0:
            self._hold(tracked, offset, append_us)
        self._touched[run.trace_id] = tracked
        had_root = run.root is not None
        cost = NOTHING_USED if step.phase == "start" else self.prices.cost(step, given_nanos)
        info = run.merge(step, cost, append_us, self.limits.max_steps_per_run)
        if info is None:
            self.counters.duplicates += step.step_id in run.steps
            self.counters.over_limit += step.step_id not in run.steps
            return
        tracked.dirty = True
        self._sizes.weigh(tracked)
        if run.closed:
            run.late_steps += 1
            self.counters.late += 1
        if run.root is not None and not had_root:
            self._adopt_root_rules(tracked)
        if run.phases == 1:
            self._detection.begin(tracked)
        self._detection.step(tracked, info, step)

    def _open(self, step: Step, append_us: int) -> RunCheckpoint:
        self.counters.runs_opened += 1
        rules = self.rules.rules_for(
            step.project, step.environment, step.agent, step.agent_version, step.task
        )
        run = Run(step.trace_id, append_us, rules)
        run.normal = self.baselines.pin(step, append_us, rules.wanted_runs)
        own_time_us = step.end_time or step.start_time
        run.live = append_us - own_time_us <= LIVE_WITHIN_US
        run.started_late = append_us - own_time_us > self.limits.late_horizon_us
        return self._track(run, through=-1)

    def _track(self, run: Run, *, through: int) -> RunCheckpoint:
        tracked = self.runs[run.trace_id] = RunCheckpoint(run, through)
        self._sizes.put(tracked)
        self._schedule(tracked)
        return tracked

    def _reopen(self, trace_id: str) -> RunCheckpoint:
        """A record reached a closed run: take its state up again. It stays closed; a new revision may follow."""
        state = decode_state(self.closed.take(trace_id))
        return self._track(restore_run(state, self.rules), through=state.through)

    def _hold(self, tracked: RunCheckpoint, offset: int, append_us: int) -> None:
        self.offsets.hold(tracked, offset)
        self._held.append((offset, append_us, tracked))

    def _adopt_root_rules(self, tracked: RunCheckpoint) -> None:
        """A run is judged by the rules for its root's owner, once the root is known."""
        run = tracked.run
        tracked.scheduled_us = None  # their deadlines count from its first record
        run.rules = self.rules.rules_for(*run.identity[:5])
        run.normal = self.baselines.pin(run.identity, run.first_append_us, run.rules.wanted_runs)
        if run.phases > 1:
            run.wake_timers(self.clock.now_us)

    def _give_up(self, tracked: RunCheckpoint, error: Exception) -> None:
        """What is done for a run beside merging its records raised: it closes here, and its records are dead-lettered.

        Those that no state covers must be read again for that; they hold the floor until then.
        """
        run = tracked.run
        if tracked.has_failed:
            return
        tracked.has_failed = True
        self._say(self._failures.run(run.trace_id, error, self.clock.now_us))
        first = tracked.needed_from if tracked.needed_from >= 0 else tracked.last_offset
        self.given_up.add(
            run.trace_id,
            first,
            tracked.last_offset,
            error_text(error),
            holds=tracked.needed_from >= 0,
        )
        self.offsets.release(tracked)
        self.runs.pop(run.trace_id, None)
        tracked.dirty = True
        self._set_closed(tracked, self.clock.now_us)
        self._sizes.gone(tracked)
        with suppress(
            Exception
        ):  # its alerts are over, and people see that it is: as far as that can be told at all
            self._detection.resolve_all(tracked)
            self.publisher.publish_if_due(tracked, self.clock.now_us)

    def _say(self, finding: FindingStruct | None) -> None:
        self._outbox.extend([pipeline_output(finding)] if finding is not None else ())

    def _send(self, tracked: RunCheckpoint, output: Output) -> None:
        output.appended_us = self.clock.now_us
        output.owner = tracked
        tracked.pending += 1
        self._outbox.append(output)

    def _schedule(self, tracked: RunCheckpoint) -> None:
        """Note when the run wants to be looked at next, unless an earlier look is noted already."""
        if tracked.run.root_ended:
            tracked.scheduled_us = (
                None  # it closes soon: what is scheduled may wait behind looks at very many others
            )
        look_us = self._detection.next_look(tracked)
        if look_us is not None:
            self._timers.put(tracked, look_us)

    def _fire_timers(self, now_us: int) -> None:
        for tracked in self._timers.due(now_us):
            self.busy = tracked
            try:
                self._look_at(tracked, now_us)
                self._schedule(tracked)
            except Exception as error:
                self._give_up(tracked, error)
        self.busy = None

    def _look_at(self, tracked: RunCheckpoint, now_us: int) -> None:
        run = tracked.run
        if not run.closed:
            self._detection.time(tracked)
        if tracked.announced:
            self._cover_if_ready(tracked)  # before more is sent that it would wait for
        if now_us >= close_at(run, self.limits):
            self._close(tracked, now_us)
        self._publish_if_due(tracked, now_us)

    def _close(self, tracked: RunCheckpoint, now_us: int) -> None:
        run = tracked.run
        if run.closed:
            return
        self._detection.end(tracked)
        if tracked.announced:
            self._cover_if_ready(tracked)
            return  # it closes at the next look, when they are told
        self._set_closed(tracked, now_us)
        tracked.wants_cover = (
            True  # also when no record is needed_from: a restart must know that the run is closed
        )
        self.counters.runs_closed += 1
        self.counters.orphans += sum(
            1 for info in run.steps.values() if info.parent and info.parent not in run.steps
        )
        self._detection.resolve_all(tracked)
        tracked.dirty = not run.is_late_fragment
        if run.is_late_fragment:
            self.counters.too_late += len(run.steps)
            self._cover_if_ready(tracked)

    def _set_closed(self, tracked: RunCheckpoint, now_us: int) -> None:
        run = tracked.run
        if not run.closed:
            self._sizes.closed(tracked)
        run.closed, run.closed_at_us = True, now_us

    def _publish_if_due(self, tracked: RunCheckpoint, now_us: int) -> None:
        if not tracked.dirty:
            self._cover_if_ready(
                tracked
            )  # only duplicates came: a closed run's state is written again to cover them
        self.publisher.publish_if_due(tracked, now_us)

    def _bound(self, now_us: int) -> None:
        """Checkpoint open runs that hold the floor back for long; close the idlest when there are too many."""
        lowest = self.offsets.position - self.limits.replay_length(len(self.runs))
        earliest_us = now_us - self.limits.checkpoint_after_us
        while self._held:
            offset, append_us, tracked = self._held[0]
            holds = tracked.needed_from == offset
            if holds and offset >= lowest and append_us >= earliest_us:
                break
            self._held.popleft()
            if holds:
                tracked.wants_cover = True
                self._attempt(tracked, self._cover_if_ready)
        self._bound_runs()

    def _bound_runs(self) -> None:
        """Forget the states of closed runs, oldest first; where those are not enough, close the idlest open ones."""
        sizes = self._sizes
        excess_runs = sizes.open - self.limits.max_open_runs
        # what has closed and waits for acknowledgements is about to go: to close more for it would close too many
        excess_bytes = sizes.open_bytes + self.closed.size_bytes - self.limits.max_held_bytes
        if excess_runs <= 0 and excess_bytes <= 0:
            return
        idle = sizes.idlest(excess_runs, excess_bytes - self.closed.size_bytes)
        if excess_bytes > 0:
            self.counters.closed_forgotten += self.closed.shed(excess_bytes)
        for tracked in idle:
            self._attempt(tracked, self._force_close)

    def _attempt(self, tracked: RunCheckpoint, action: Callable[[RunCheckpoint], None]) -> None:
        """Do something for a run; where that raises, the run is given up."""
        try:
            action(tracked)
        except Exception as error:
            self._give_up(tracked, error)

    def _force_close(self, tracked: RunCheckpoint) -> None:
        now_us = self.clock.now_us
        was_open = not tracked.run.closed
        self._close(tracked, now_us)
        self.counters.forced_closed += was_open and tracked.run.closed
        self._publish_if_due(tracked, now_us)

    def _cover_if_ready(self, tracked: RunCheckpoint) -> None:
        """Send the state of a closed or long-held run once everything sent for it is acknowledged."""
        closed = tracked.run.closed
        wanted = tracked.wants_cover or (closed and tracked.needed_from >= 0)
        if tracked.pending or tracked.covering or not wanted:
            return
        if closed and tracked.dirty:
            return  # the next flush publishes; a state must not know what was never published
        self._cover(tracked)

    def _cover(self, tracked: RunCheckpoint) -> None:
        tracked.covering, tracked.wants_cover = True, False
        self.counters.states += 1
        run = tracked.run
        tracked.announcing = len(tracked.announced)
        announced = [
            (output.topic, output.key or b"", output.value or b"") for output in tracked.announced
        ]
        try:
            tracked.state = encode_state(run, tracked.last_offset, announced)
        except Exception:
            if not self._detection.switch_off_unencodable(tracked):
                raise
            tracked.state = encode_state(run, tracked.last_offset, announced)
        output = Output(
            "state",
            run.trace_id.encode(),
            tracked.state,
            partition=self.partition,
            urgent=bool(announced),
        )
        output.owner, output.through = tracked, tracked.last_offset
        self._outbox.append(output)

    def _covered(self, tracked: RunCheckpoint, through: int, now_us: int) -> None:
        tracked.covering = False
        tracked.through = max(tracked.through, through)
        if tracked.announced:
            self._detection.send_announced(tracked)
        if not tracked.run.closed:
            tracked.state = b""  # it is on the topic, and the run will be written anew
        if tracked.last_offset > through:
            self._hold(tracked, max(tracked.needed_from, through + 1), now_us)
            self._cover_if_ready(tracked)
            return
        self.offsets.release(tracked)
        run = tracked.run
        if tracked.wants_cover:  # for what happened while the state was under way
            self._cover_if_ready(tracked)
        elif run.closed and not tracked.pending and not tracked.dirty:
            self.closed.put(run.trace_id, run.closed_at_us, tracked.through, tracked.state)
            self.runs.pop(run.trace_id, None)
            self._sizes.gone(tracked)
            tracked.put_away()
