"""The assemble stage of one partition: step records in, trajectories, usage, findings and state
records out.

No I/O and no clock of its own. The caller passes in records and ticks, sends what ``take_outputs``
returns and reports each acknowledgement with ``acknowledged``; ``take_outputs`` may return more
after that. For each record: find its run and whether the record is new (``_admit``), merge it, and
call the detectors. At the end of a batch ``flush`` publishes what is due and fires timers.
``stream/assemble/checkpoint.py`` describes the order in which outputs, state records and offsets
are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from stepstream.schemas.accept import Accepted, Misrouted, Rejected, accept
from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.prices import NOTHING_USED, PriceBook
from stepstream.schemas.step import RECORD_HEADERS, Step
from stepstream.stream.assemble.active_run import ActiveRun
from stepstream.stream.assemble.checkpoint_writer import CheckpointWriter
from stepstream.stream.assemble.closed_runs import ClosedRuns
from stepstream.stream.assemble.detection import Detection
from stepstream.stream.assemble.given_up_runs import GivenUpRuns, UnreadRange
from stepstream.stream.assemble.memory_accounting import MemoryAccounting
from stepstream.stream.assemble.publish_schedule import PublishSchedule
from stepstream.stream.assemble.run_closer import RunCloser
from stepstream.stream.assemble.state import RunState, decode_state, encode, restore_run
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
from stepstream.stream.run.steps import StepInfo


class AssemblePartition:
    """The runs of one partition of the steps topic."""

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
        log_text: LogText = lambda _text: None,
    ) -> None:
        """``log_text`` is called with what is to be logged about failures that were contained."""
        self.partition, self.partitions = partition, partitions
        self.rules = rules
        self.prices = prices
        self.baselines = baselines or Baselines()
        self.limits = limits = limits or AssembleLimits()
        self.counters = counters = counters or Counters()
        self.clock = clock = PartitionClock()
        self.offsets = OffsetTracker()
        self.runs: dict[str, ActiveRun] = {}
        self.closed = ClosedRuns(limits.late_horizon_us, limits.max_closed_runs)
        self.given_up = GivenUpRuns(self.offsets)
        # The run that is being published, or whose timers are being called. If that does not
        # return, the watchdog ends the process and notes the run's last record as the cause.
        self._in_progress: ActiveRun | None = None
        # Runs with a new record since the last flush.
        self._touched: dict[str, ActiveRun] = {}
        # Outputs that ``take_outputs`` has not returned yet.
        self._outbox: list[Output] = []
        self._memory = MemoryAccounting(self.runs)
        self._timers = Timers(self.runs, clock, limits)
        self._failures = ContainedFailures("steps", partition, counters, log_text)
        self._detection = Detection(
            clock, limits, counters, self._failures, self._send, self._outbox
        )
        self._writer = CheckpointWriter(
            partition,
            self.runs,
            self.offsets,
            clock,
            limits,
            counters=counters,
            outbox=self._outbox,
            drop_unencodable=self._detection.switch_off_unencodable,
        )
        self._closer = RunCloser(
            limits, counters, self._detection, self._writer, self._memory, self.closed
        )
        self.publisher = PublishSchedule(self.runs, limits, counters, self._send, self._fail_run)

    def restore(self, states: Iterable[RunState], position: int) -> None:
        """Take over the newest state of each run; ``position`` is the offset that the log is read
        from.

        States of closed runs are only kept for late records. A state that cannot be restored is
        left out and reported as a finding.
        """
        self.offsets.position = position
        for state in states:
            if state.closed:
                self.closed.put(state.trace_id, state.closed_at_us, state.through, encode(state))
                continue
            try:
                run = restore_run(state, self.rules)
            except Exception as error:
                # Its records are below the safe offset: they are not read again and cannot be
                # dead-lettered. The trajectory ends at its last published revision.
                self._send_pipeline_finding(
                    self._failures.lost_run(state.trace_id, error, state.last_append_us)
                )
                continue
            active = self._touched[state.trace_id] = self._add(run, through=state.through)
            # The state may contain records whose trajectory and usage were not published: publish
            # again, or the windows would miss that usage.
            active.publication.is_outdated = True
            for topic, key, value in state.deferred:
                self._send(active, Output(topic, key, value))

    # -- records -----------------------------------------------------------------------------------

    def process(self, record: Record) -> None:
        """Process one record. Records must come in the order of their offsets; one below the
        position was processed before and is ignored.
        """
        offset = record.offset
        if offset < self.offsets.position:
            return
        append_us = record.timestamp * 1000
        self.clock.advance(append_us, watching=bool(self.runs))
        self.counters.records += 1
        # Not committed if a later line raises: the worker stops first (``stream.core.poison``).
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
        elif self.given_up.runs and (why := self.given_up.runs.get(verdict.step.trace_id)):
            self._reject(record, Rejected("poison", why))
        else:
            self._accept(verdict, offset, append_us)

    def _accept(self, accepted: Accepted, offset: int, append_us: int) -> None:
        counters, step = self.counters, accepted.step
        counters.accepted += 1
        if accepted.clamped:
            counters.clamped.update(accepted.clamped)
        active = self._admit(step, offset, append_us)
        if active is None:
            return
        if step.amends and (known := active.run.steps.get(step.step_id)) and known.ended:
            self._amend(active, step, offset, append_us)
            return
        info = self._merge(active, step, accepted.cost_nanos, offset, append_us)
        if info is not None:
            self._detect(active, info, step)

    def _amend(self, active: ActiveRun, step: Step, offset: int, append_us: int) -> None:
        """Show contents that came after their step to the detectors."""
        self._writer.record_merged(active, offset, append_us)
        self._touched[active.run.trace_id] = active
        info = active.run.amend(step)
        if info is None:
            self.counters.duplicates += 1
            return
        self._detection.contents_added(active, info, step)

    def _admit(self, step: Step, offset: int, append_us: int) -> ActiveRun | None:
        """Return the run that the record belongs to, opened or restored if necessary.

        None if the record is to be ignored: the run's state contains it already (a replay), or it
        came later than ``late_horizon`` after the run had closed.
        """
        trace_id = step.trace_id
        active = self.runs.get(trace_id)
        if active is not None:
            return active if offset > active.checkpoint.checkpointed_through else None
        through = self.closed.through(trace_id)
        if through is None:
            if self.closed.is_known(trace_id):
                self.counters.too_late += 1
                return None
            return self._open(step, append_us)
        return self._reopen(trace_id) if offset > through else None

    def _open(self, step: Step, append_us: int) -> ActiveRun:
        self.counters.runs_opened += 1
        rules = self.rules.rules_for(
            step.project, step.environment, step.agent, step.agent_version, step.task
        )
        run = Run(step.trace_id, append_us, rules)
        run.normal = self.baselines.pin(step, append_us, rules.wanted_runs)
        own_time_us = step.end_time or step.start_time
        run.live = append_us - own_time_us <= LIVE_WITHIN_US
        run.started_late = append_us - own_time_us > self.limits.late_horizon_us
        return self._add(run, through=-1)

    def _reopen(self, trace_id: str) -> ActiveRun:
        """Restore a closed run for a late record. It stays closed, but a new revision of its
        trajectory is published.
        """
        state = decode_state(self.closed.take(trace_id))
        return self._add(restore_run(state, self.rules), through=state.through)

    def _add(self, run: Run, *, through: int) -> ActiveRun:
        active = self.runs[run.trace_id] = ActiveRun(run, through)
        self._memory.added(active)
        return active

    def _merge(
        self, active: ActiveRun, step: Step, reported_nanos: int | None, offset: int, append_us: int
    ) -> StepInfo | None:
        """Merge the record into its run. None if that changes nothing (a duplicate, or a step
        beyond ``max_steps_per_run``).

        ``reported_nanos`` is the cost that the producer reported, in nano-dollars; None: the cost
        is computed from prices.
        """
        run = active.run
        self._writer.record_merged(active, offset, append_us)
        self._touched[run.trace_id] = active
        root_before = run.root
        cost = NOTHING_USED if step.phase == "start" else self.prices.cost(step, reported_nanos)
        info = run.merge(step, cost, append_us, self.limits.max_steps_per_run)
        if info is None:
            if step.step_id in run.steps:
                self.counters.duplicates += 1
            else:
                self.counters.over_limit += 1
            return None
        active.publication.is_outdated = True
        self._memory.grown(active)
        if run.closed:
            run.late_steps += 1
            self.counters.late += 1
        if run.root is not root_before and _is_other_step(run.root, root_before):
            self._use_rules_of_root(active)
        return info

    def _use_rules_of_root(self, active: ActiveRun) -> None:
        """Replace the run's rules and baseline by those that match the root step.

        Until the root arrives, the project, agent and task of the first step decide, or those of a
        step that stands in for the root.
        """
        run = active.run
        # The new rules' deadlines count from the run's first record, so they may be due before what
        # is scheduled.
        active.scheduled_us = None
        run.rules = self.rules.rules_for(*run.identity[:5])
        run.normal = self.baselines.pin(run.identity, run.first_append_us, run.rules.wanted_runs)
        if run.merged_events > 1:
            run.wake_timers(self.clock.now_us)

    def _detect(self, active: ActiveRun, info: StepInfo, step: Step) -> None:
        if active.run.merged_events == 1:
            self._detection.run_began(active)
        self._detection.record_merged(active, info, step)

    # -- records that are not merged ---------------------------------------------------------------

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record on which ``process`` raised at every attempt (poison)."""
        self.offsets.position = record.offset + 1
        self._reject(record, Rejected("poison", detail))

    def refuse(self, records: Iterable[Record], wanted: Iterable[UnreadRange]) -> None:
        """Dead-letter the records of given-up runs.

        ``records`` were read again for this purpose; ``wanted`` are the offset ranges that
        ``given_up.take_unread`` returned. Afterwards these no longer keep the safe offset back.
        """
        for record, why in self.given_up.refused(records, wanted):
            self._reject(record, Rejected("poison", why))

    def _reject(self, record: Record, verdict: Rejected) -> None:
        """Dead-letter one record with the reason and detail of the verdict."""
        self.counters.rejected[verdict.reason] += 1
        self._send_copy(
            record, dead_letter(record, "steps", self.partition, verdict.reason, verdict.detail)
        )

    def _reroute(self, record: Record, verdict: Misrouted) -> None:
        self.counters.misrouted += 1
        right, headers = verdict.partition, tuple(record.headers) or RECORD_HEADERS
        self._send_copy(
            record, Output("steps", record.key, record.value, partition=right, headers=headers)
        )

    def _send_copy(self, record: Record, output: Output) -> None:
        """Send a copy of a record (dead-lettered or rerouted). The record's offset keeps the safe
        offset back until the copy is acknowledged.
        """
        output.owner = OffsetHold()
        self.offsets.hold(output.owner, record.offset)
        self._outbox.append(output)

    # -- time --------------------------------------------------------------------------------------

    def tick(self, time_us: int) -> None:
        """Advance the clock without a record.

        At ``time_us`` (wall time) a fetch reached the end of the partition, and every record before
        has been processed.
        """
        self.clock.advance(time_us, watching=bool(self.runs))

    def delay_timers(self) -> None:
        """Delay timers: brokers have failed, so producers have yet to send what they could not."""
        self.clock.delay_timers()

    def flush(self) -> None:
        """After a batch of records, or a tick: publish what is due, fire timers, keep memory and
        replay bounded.
        """
        now_us = self.clock.now_us
        self.publisher.advance(self.offsets.position, now_us, len(self.runs))
        for active in self._touched.values():
            self._in_progress = active
            try:
                self._publish_if_due(active, now_us)
                run, scheduled_us = active.run, active.scheduled_us
                if scheduled_us is None or run.root_ended or run.next_timer_us < scheduled_us:
                    self._timers.schedule(active)
            except Exception as error:
                self._fail_run(active, error)
        self._in_progress = None
        self._touched.clear()
        self._fire_timers(now_us)
        self._timers.remove_outdated()
        for active in self._writer.request_overdue(now_us):
            self._attempt(active, self._writer.write_if_ready)
        for active in self._closer.excess():
            self._attempt(active, self._force_close)
        self.closed.expire(now_us)

    def _fire_timers(self, now_us: int) -> None:
        for active in self._timers.due(now_us):
            self._in_progress = active
            try:
                self._wake(active, now_us)
                self._timers.schedule(active)
            except Exception as error:
                self._fail_run(active, error)
        self._in_progress = None

    def _wake(self, active: ActiveRun, now_us: int) -> None:
        """Call the run's detectors whose time has come, close the run, publish: each if due."""
        if not active.run.closed:
            self._detection.time_passed(active)
        if active.checkpoint.deferred:
            # Now, before more outputs are sent: a state record waits until every output of the run
            # is acknowledged, so each new one would delay it and the deferred findings.
            self._writer.write_if_ready(active)
        self._closer.close_if_due(active, now_us)
        self._publish_if_due(active, now_us)

    def _force_close(self, active: ActiveRun) -> None:
        now_us = self.clock.now_us
        self._closer.force_close(active, now_us)
        self._publish_if_due(active, now_us)

    # -- outputs -----------------------------------------------------------------------------------

    def take_outputs(self) -> list[Output]:
        """Return the outputs to be sent now, in order, and forget them."""
        out, self._outbox[:] = self._outbox.copy(), ()
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``take_outputs`` returned."""
        owner = output.owner
        if isinstance(owner, OffsetHold):
            self.offsets.release(owner)
            return
        active: ActiveRun = owner
        if active.checkpoint.has_failed:
            return
        try:
            if output.topic == "state":
                self._state_written(active, output)
            else:
                active.checkpoint.output_acknowledged()
                self._writer.write_if_ready(active)
        except Exception as error:
            self._fail_run(active, error)

    def _state_written(self, active: ActiveRun, output: Output) -> None:
        run = active.run
        for deferred in self._writer.state_acknowledged(active):
            self._send(active, deferred)
        if not self._writer.is_finished(active):
            self._writer.write_if_ready(active)
            return
        through, state = active.checkpoint.checkpointed_through, output.value or b""
        self.closed.put(run.trace_id, run.closed_at_us, through, state)
        self.runs.pop(run.trace_id, None)
        self._memory.removed(active)

    def request_checkpoints(self) -> None:
        """Request a state record of every open run, each written once its outputs are
        acknowledged.
        """
        for active in self.runs.values():
            active.checkpoint.request_state()
            self._attempt(active, self._writer.write_if_ready)

    def _send(self, active: ActiveRun, output: Output) -> None:
        output.appended_us = self.clock.now_us
        output.owner = active
        active.checkpoint.output_sent()
        self._outbox.append(output)

    def _send_pipeline_finding(self, finding: FindingStruct | None) -> None:
        if finding is not None:
            self._outbox.append(pipeline_output(finding))

    def _publish_if_due(self, active: ActiveRun, now_us: int) -> None:
        if not active.is_unpublished:
            # Nothing to publish: only duplicates came. A closed run needs another state record, or
            # their offsets would keep the safe offset back; for an open run this writes one only if
            # it was requested.
            self._writer.write_if_ready(active)
        self.publisher.publish_if_due(active, now_us)

    # -- failures ----------------------------------------------------------------------------------

    def _attempt(self, active: ActiveRun, action: Callable[[ActiveRun], None]) -> None:
        try:
            action(active)
        except Exception as error:
            self._fail_run(active, error)

    def _fail_run(self, active: ActiveRun, error: Exception) -> None:
        """Close a run for which something other than merging a record raised, and have its records
        dead-lettered. (An exception while merging stops the worker: ``stream.core.poison``.)

        Records that no state record contains are read again for this. Until then their offsets keep
        the safe offset back.
        """
        run, checkpoint = active.run, active.checkpoint
        if checkpoint.has_failed:
            return
        needed_from, last = checkpoint.needed_from, checkpoint.merged_through
        checkpoint.fail(self.offsets)
        self._send_pipeline_finding(self._failures.run(run.trace_id, error, self.clock.now_us))
        first = needed_from if needed_from >= 0 else last
        self.given_up.add(run.trace_id, first, last, error_text(error), is_needed=needed_from >= 0)
        self.runs.pop(run.trace_id, None)
        active.publication.is_outdated = True
        self._closer.mark_closed(active, self.clock.now_us)
        self._memory.removed(active)
        # Resolve its alerts and publish its end if possible: this may raise for the same reason as
        # the failure itself.
        with suppress(Exception):
            self._detection.resolve_all(active)
            self.publisher.publish_if_due(active, self.clock.now_us)

    # -- what the process shows --------------------------------------------------------------------

    @property
    def safe_age_us(self) -> int:
        """Log time since the oldest record that a restart would read again."""
        oldest_us = self._writer.oldest_append_us
        return 0 if oldest_us is None else max(0, self.clock.now_us - oldest_us)

    @property
    def size_bytes(self) -> int:
        """The approximate memory of open and closed runs."""
        return self._memory.size_bytes + self.closed.size_bytes

    @property
    def offset_in_progress(self) -> int:
        """Offset of the record that a hang would be attributed to: the last one of the run that is
        being published or woken, otherwise the last one passed to ``process``.
        """
        active = self._in_progress
        return self.offsets.position - 1 if active is None else active.checkpoint.merged_through


def _is_other_step(root: StepInfo | None, before: StepInfo | None) -> bool:
    """Whether a run's root is another step than before, and not that step's end."""
    return root is not None and (before is None or root.step_id != before.step_id)
