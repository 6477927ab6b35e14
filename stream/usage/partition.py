"""The usage stage of one partition: running totals in, sealed windows, budgets and findings out.

Pure. Time is the progress that the partitions of steps report on the usage topic itself, so that
everything follows from the log: windows are sealed and evaluated while a progress record is
processed, and every worker that reads the same records seals the same windows and reports the same
findings. Sealed windows go to the fleet topic; a checkpoint follows once they, and every finding
before them, are acknowledged. A restart reads the fleet topic, restores the checkpoint, and reads
the usage topic from the committed offset: that of the first record that an unsealed slot needs, and
never beyond the checkpoint. Records before the checkpoint only fill the slots again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from operator import sub
from typing import Final

import msgspec

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetWindowStruct, LearntDayStruct
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.trajectory import RunSummaryStruct
from stepstream.stream.baselines.learner import Learner, settles_at_of
from stepstream.stream.core.contained_failures import ContainedFailures, LogText
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.deadletter import dead_letter
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import OffsetHold, Output
from stepstream.stream.core.records import Record
from stepstream.stream.usage.windows.checkpoint import Checkpoint, checkpoint_key, encode_checkpoint
from stepstream.stream.usage.windows.evaluation import WindowEvaluation
from stepstream.stream.usage.windows.hour_windows import HourWindows
from stepstream.stream.usage.windows.limits import UsageLimits
from stepstream.stream.usage.windows.pending import PendingRecords, PendingRun, PendingUsage, Slot
from stepstream.stream.usage.windows.provisional import (
    PROVISIONAL_US,
    ProvisionalRun,
    ProvisionalRuns,
)
from stepstream.stream.usage.windows.records import (
    Owner,
    UsageLine,
    amounts,
    check_summary,
    check_times,
    decode_line,
    decode_summary,
)
from stepstream.stream.usage.windows.rules import WindowRules
from stepstream.stream.usage.windows.series import Series
from stepstream.stream.usage.windows.totals import COST, Totals
from stepstream.stream.usage.windows.watermark import Watermark

_encode = msgspec.json.Encoder().encode
KINDS: Final = frozenset({"minute", "run", "progress"})
OTHERS: Final = "(others)"
"""The agent that owners beyond the limit count for together."""


class _Seal:
    """A checkpoint on its way: it is sent when everything before it is acknowledged."""

    __slots__ = ("checkpoint", "pending", "slots", "through")

    def __init__(self) -> None:
        self.pending = 0
        self.checkpoint: Output | None = None
        self.slots: list[Slot] = []
        self.through = 0


class WindowPartition:
    """Windows of the projects whose usage is on one partition."""

    def __init__(
        self,
        partition: int,
        steps_partitions: int,
        rules: WindowRules | None = None,
        limits: UsageLimits | None = None,
        *,
        counters: Counters | None = None,
        learner: Learner | None = None,
        log: LogText = lambda _text: None,
    ) -> None:
        self.partition = partition
        self.limits = limits or UsageLimits()
        self.counters = counters or Counters()
        self.learner = learner
        self.offsets = OffsetTracker()
        self.watermark = Watermark(steps_partitions)
        self.sealed_until = 0
        self.series: dict[Owner, Series] = {}
        self.evaluation = WindowEvaluation(
            rules or WindowRules(),
            self.counters,
            ContainedFailures("usage", partition, self.counters, log),
        )
        self._users: set[Owner] = set()
        self._cells = HourWindows()
        self._pending = PendingRecords(self.limits.seal_every_us)
        self._provisional = ProvisionalRuns()
        self._replay_until = 0
        self._evaluated_us = 0
        self._seals: deque[_Seal] = deque()
        self._next_seal = _Seal()
        self._since = OffsetHold()
        self._checkpointed = -1
        self._outbox: list[Output] = []

    @property
    def pending_records(self) -> int:
        """Records in memory until their windows are sealed."""
        return self._pending.count + len(self._provisional)

    @property
    def behind_us(self) -> int:
        """Time from the oldest unsealed minute to the newest progress of a partition of steps."""
        return max(self.watermark.known.values(), default=self.sealed_until) - self.sealed_until

    # -- restart -----------------------------------------------------------------------------------

    def restore(
        self,
        windows: Iterable[FleetWindowStruct],
        checkpoint: Checkpoint | None,
        resume_at: int,
        days: Iterable[LearntDayStruct] = (),
        baselines: Iterable[FleetBaselineStruct] = (),
    ) -> None:
        """Take over what a previous owner sealed and learnt, and where the log is read from."""
        self.offsets.position = resume_at
        self.offsets.hold(self._since, resume_at)
        if self.learner is not None:
            self.learner.restore(
                days, baselines, checkpoint.sealed_until if checkpoint is not None else 0
            )
        if checkpoint is None:
            return
        self.sealed_until = checkpoint.sealed_until
        self._replay_until = self._checkpointed = checkpoint.through
        self._evaluated_us = checkpoint.evaluated_us
        self.watermark = Watermark(
            self.watermark.partitions, checkpoint.progress, checkpoint.watermark_us
        )
        for owner, minute, row in self._cells.restore(windows, self.sealed_until):
            self._take_sealed(owner, minute, row)
        for past in self.series.values():
            past.forget(self.sealed_until)
        self.evaluation.restore(checkpoint.evaluation)

    def _take_sealed(self, owner: Owner, minute: int, row: Totals) -> None:
        plain = (*owner[:5], "")
        budgets = self.evaluation.rules.of(plain).budgets
        user_id = owner[5]
        if user_id:
            self._users.add(owner)
            budgets = tuple(budget for budget in budgets if budget.rule.per == "user_id")
        else:
            for kept in self._series(plain).rows(minute):
                kept.join(row)
            budgets = tuple(budget for budget in budgets if budget.rule.per != "user_id")
        self.evaluation.add_sealed(
            budgets, plain, user_id, minute, row.cost_nanos, self.sealed_until
        )

    def change_rules(self, rules: WindowRules) -> None:
        """Policies have changed."""
        self.evaluation.change_rules(rules, self.series, self.sealed_until)

    # -- the log -----------------------------------------------------------------------------------

    def process(self, record: Record) -> None:
        """Process one record of the usage topic."""
        offset = record.offset
        # Consumers may deliver again what was processed before a rebalance.
        if offset < self.offsets.position:
            return
        self.offsets.position = offset + 1
        value, time_us = record.value or b"", record.timestamp * 1000
        try:
            line = decode_line(value)
            if line.kind not in KINDS:
                self.counters.usage_unknown += 1
                return
            check_times(line, time_us)
            used = amounts(line)
            summary = decode_summary(value) if line.kind == "run" else None
            if summary is not None:
                check_summary(summary, time_us)
        except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
            self._reject(record, "malformed_json", str(error)[:200])
            return
        if summary is not None:
            self._close(line, summary, offset, time_us)
        elif line.kind == "minute":
            self._use(line, used, offset, time_us)
        else:
            self._progress(line, offset)

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record that processing failed on, again and again."""
        self.offsets.position = record.offset + 1
        self._reject(record, "poison", detail)

    def _reject(self, record: Record, reason: str, detail: str) -> None:
        self.counters.rejected[reason] += 1
        output = dead_letter(record, "usage", self.partition, reason, detail)
        output.owner = OffsetHold()
        self.offsets.hold(output.owner, record.offset)
        self._outbox.append(output)

    def tick(self, time_us: int) -> None:
        """Nothing to do: windows depend on the time of the log, not on the wall clock."""

    def delay_timers(self) -> None:
        """Nothing to do: progress is reported in records, not derived from silence."""

    def flush(self) -> None:
        """Nothing waits for the end of a batch."""

    @property
    def offset_in_progress(self) -> int:
        """Offset of the record that is processed now, or the last one."""
        return self.offsets.position - 1

    def take_outputs(self) -> list[Output]:
        """Return the outputs to be sent now, in order, and forget them."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``take_outputs`` returned."""
        owner = output.owner
        if isinstance(owner, OffsetHold):
            self.offsets.release(owner)
        elif isinstance(owner, _Seal):
            if output is owner.checkpoint:
                self._sealed(owner)
            else:
                owner.pending -= 1
                self._send_checkpoint()

    # -- records -----------------------------------------------------------------------------------

    def _use(self, line: UsageLine, used: tuple[int, ...], offset: int, time_us: int) -> None:
        """A run's minute: what is new in it goes into the windows."""
        if line.minute < self.sealed_until:
            self._count_late(line, offset)
            return
        self.counters.usage_records += 1
        slot = self._slot(line.minute, offset)
        key = (line.trace_id, line.agent, line.agent_version, line.minute)
        known = slot.usage.get(key)
        if known is not None and line.revision <= known.revision:
            self.counters.usage_repeats += 1
            return
        owner = (
            line.owner
            if known is not None and known.owner == line.owner
            else self._known_owner(line.owner)
        )
        self._pending.put_usage(slot, key, PendingUsage(line.revision, owner, line.user_id, used))
        is_replayed = offset < self._replay_until
        if known is not None and (known.owner != owner or known.user_id != line.user_id):
            self._add(
                known.owner,
                known.user_id,
                line.minute,
                [-n for n in known.amounts],
                time_us,
                is_replayed,
            )
            known = None
        new = used if known is None else tuple(map(sub, used, known.amounts))
        self._add(owner, line.user_id, line.minute, new, time_us, is_replayed)
        self._bound(offset)

    def _add(
        self,
        owner: Owner,
        user_id: str,
        minute: int,
        used: Sequence[int],
        time_us: int,
        is_replayed: bool,
    ) -> None:
        row = self._cells.row(owner, minute)
        row.use(used)
        self._series(owner).share(minute, row).use(used)
        rules = self.evaluation.rules.of(owner)
        if rules.by_user and user_id:
            self._cells.row(self._known_user(owner, user_id), minute).use(used)
        if rules.budgets and used[COST]:
            found = self.evaluation.add_used(
                rules.budgets, owner, user_id, minute, used[COST], time_us, is_replayed=is_replayed
            )
            self._publish_findings(found)

    def _close(self, line: UsageLine, summary: RunSummaryStruct, offset: int, time_us: int) -> None:
        """A closed run: it counts once, by its newest summary."""
        if summary.provisional and self._wait_for_root(line, summary, offset, time_us):
            self._bound(offset)
            return
        waited = self._provisional.take(line.trace_id)
        # The checkpoint has the versions' runs up to there: they must not count twice.
        is_new = offset >= self._replay_until
        self._count_closed(line, summary, offset, time_us, is_new=is_new, waited=waited is not None)
        self._bound(offset)

    def _wait_for_root(
        self, line: UsageLine, summary: RunSummaryStruct, offset: int, time_us: int
    ) -> bool:
        """Keep a run that was closed provisionally until it counts. False where it counts now:
        it did so before, or it is too late for its window.
        """
        if line.trace_id in self._pending.runs:
            return False
        known = self._provisional.get(line.trace_id)
        due_us = time_us + PROVISIONAL_US if known is None else known.due_us
        # Time has passed that already only where the log is read again: it counted before the
        # checkpoint.
        if due_us <= self.watermark.time_us:
            return False
        if known is not None and line.revision <= known.line.revision:
            self.counters.usage_repeats += 1
            return True
        minute = line.time - line.time % MINUTE_US
        times = [at for at in (minute, settles_at_of(summary)) if at >= self.sealed_until]
        if not times:
            return False
        for at in times:
            # Its record must be read again after a restart.
            self._slot(at, offset)
        self._provisional.put(ProvisionalRun(line, summary, offset, time_us, due_us, times[0]))
        return True

    def _count_provisional(self, runs: Iterable[ProvisionalRun]) -> None:
        """Count runs for whose root nothing waits any longer."""
        for run in runs:
            self._count_closed(
                run.line, run.summary, run.offset, run.time_us, is_new=True, waited=True
            )

    def _count_closed(
        self,
        line: UsageLine,
        summary: RunSummaryStruct,
        offset: int,
        time_us: int,
        *,
        is_new: bool,
        waited: bool,
    ) -> None:
        """Count a run, or a later revision of one. ``is_new``: it is in no checkpoint yet;
        ``waited``: it was kept until now.
        """
        if self.learner is not None:
            settles_at = self.learner.closed(summary, time_us)
            # The learner needs this record after a restart, for as long as the slot is open.
            if settles_at is not None and settles_at >= self.sealed_until:
                self._slot(settles_at, offset)
        minute = line.time - line.time % MINUTE_US
        known = self._pending.runs.get(line.trace_id)
        was_counted = line.reopened and not waited
        if known is None and (minute < self.sealed_until or was_counted):
            # A reopened run that is not in memory was counted in a sealed window.
            self._count_late(line, offset)
            return
        if known is not None and line.revision <= known.revision:
            self.counters.usage_repeats += 1
            return
        if known is None and is_new:
            self.evaluation.add_closed_run(summary)
        # Its old minute is still open, the new one is sealed: it goes on counting where it was.
        if minute < self.sealed_until and known is not None:
            minute = known.minute
        slot = self._slot(minute, offset)
        new = PendingRun(
            line.revision,
            self._known_owner(line.owner),
            line.user_id,
            minute,
            line.status,
            line.duration_us,
            line.success,
        )
        if known is not None:
            self._count_run(known, -1)
        self._pending.put_run(slot, line.trace_id, new)
        self._count_run(new, 1)

    def _count_run(self, run: PendingRun, times: int) -> None:
        row = self._cells.row(run.owner, run.minute)
        rows = [row, self._series(run.owner).share(run.minute, row)]
        if run.user_id and self.evaluation.rules.of(run.owner).by_user:
            rows.append(self._cells.row(self._known_user(run.owner, run.user_id), run.minute))
        for row in rows:
            row.run(run.status, run.duration_us, times, run.success)

    def _count_late(self, line: UsageLine, offset: int) -> None:
        if offset >= self._replay_until and not line.repeated:
            self.counters.usage_too_late += 1

    def _slot(self, minute: int, offset: int) -> Slot:
        slot = self._pending.slot(minute)
        if slot.hold.needed_from < 0:
            self.offsets.hold(slot.hold, offset)
        return slot

    # -- owners ------------------------------------------------------------------------------------

    def _series(self, owner: Owner) -> Series:
        found = self.series.get(owner)
        if found is None:
            found = self.series[owner] = Series()
            self.evaluation.owners_changed()
        return found

    def _known_owner(self, owner: Owner) -> Owner:
        """The owner, or the project's rest when there are too many."""
        if owner in self.series or len(self.series) < self.limits.max_owners:
            return owner
        self.counters.usage_over_limit += 1
        return (owner[0], owner[1], OTHERS, "", "", "")

    def _known_user(self, owner: Owner, user_id: str) -> Owner:
        user = (*owner[:5], user_id)
        if user not in self._users:
            if len(self._users) >= 4 * self.limits.max_owners:
                self.counters.usage_over_limit += 1
                return (*owner[:5], OTHERS)
            self._users.add(user)
        return user

    # -- time --------------------------------------------------------------------------------------

    def _progress(self, line: UsageLine, offset: int) -> None:
        """Take over the progress of a partition of steps.

        Evaluate the minutes that are over, seal those without late records.
        """
        # Before the checkpoint everything was evaluated and sealed already.
        if offset < self._replay_until or not self.watermark.advance(line.partition, line.time):
            return
        self._count_provisional(self._provisional.take_due(self.watermark.time_us))
        now_us = self.watermark.time_us // MINUTE_US * MINUTE_US
        if now_us > self._evaluated_us:
            self._evaluated_us = now_us
            self._publish_findings(self.evaluation.evaluate(self.series, now_us, self.sealed_until))
        if self.learner is not None:
            self._write(self._next_seal, self.learner.publish(self.watermark.time_us))
        every_us = self.limits.seal_every_us
        until = (self.watermark.time_us - self.limits.lateness_us) // every_us * every_us
        if until > self.sealed_until:
            self._seal(until, offset + 1)

    def _bound(self, offset: int) -> None:
        """Seal the oldest slots early when too many records are in memory."""
        if self.pending_records > self.limits.max_records and offset >= self._replay_until:
            self.counters.usage_forced_seals += 1
            self._seal(min(self._pending.slots) + self.limits.seal_every_us, offset + 1)

    def _seal(self, until: int, through: int) -> None:
        self._count_provisional(self._provisional.take_sealed(until))
        seal, self._next_seal = self._next_seal, _Seal()
        windows = list(self._cells.seal(self.sealed_until, until, through))
        self.counters.windows_sealed += sum(window is not None for _, window in windows)
        self._write(
            seal, [(key, None if window is None else _encode(window)) for key, window in windows]
        )
        self._write(
            seal, [(key, _encode(budget)) for key, budget in self.evaluation.budgets.records(until)]
        )
        if self.learner is not None:
            self._write(seal, self.learner.settle(until))
        self.sealed_until = until
        seal.slots, seal.through = self._pending.close(until), through
        self._forget()
        state = Checkpoint(
            through=through,
            sealed_until=until,
            watermark_us=self.watermark.time_us,
            evaluated_us=self._evaluated_us,
            progress=dict(self.watermark.known),
            evaluation=self.evaluation.state(),
        )
        seal.checkpoint = Output(
            "fleet",
            checkpoint_key(through),
            encode_checkpoint(state),
            partition=self.partition,
            owner=seal,
        )
        self._seals.append(seal)
        self._send_checkpoint()

    def _forget(self) -> None:
        gone = [owner for owner, past in self.series.items() if past.forget(self.sealed_until)]
        for owner in gone:
            del self.series[owner]
            self.evaluation.owners_changed()
        self._users.intersection_update(self._cells.hours)

    # -- outputs -----------------------------------------------------------------------------------

    def _publish_findings(self, findings: Iterable[FindingStruct]) -> None:
        for finding in findings:
            self.counters.findings += 1
            self._send(
                self._next_seal, Output("findings", finding.project.encode(), _encode(finding))
            )

    def _write(self, seal: _Seal, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in records:
            self._send(seal, Output("fleet", key, value, partition=self.partition))

    def _send(self, seal: _Seal, output: Output) -> None:
        output.owner = seal
        seal.pending += 1
        self._outbox.append(output)

    def _send_checkpoint(self) -> None:
        """Checkpoints go out in their order, each when all before it is acknowledged."""
        if self._seals and not self._seals[0].pending and self._seals[0].checkpoint is not None:
            checkpoint = self._seals[0].checkpoint
            if checkpoint.through < 0:
                checkpoint.through = self._seals[0].through
                self._outbox.append(checkpoint)

    def _sealed(self, seal: _Seal) -> None:
        """A checkpoint is acknowledged: what it contains is not read again."""
        self._seals.remove(seal)
        for slot in seal.slots:
            self.offsets.release(slot.hold)
        self.offsets.release(self._since)
        self._since = OffsetHold()
        self.offsets.hold(self._since, seal.through)
        if self._checkpointed >= 0:
            before = Output(
                "fleet", checkpoint_key(self._checkpointed), None, partition=self.partition
            )
            self._send(self._next_seal, before)
        self._checkpointed = seal.through
        self._send_checkpoint()
