"""The scheduler of one project: its tasks, its executors, and what happens when. Pure.

Every method gets the time: the append time of the record, or the partition's clock. A task is
published as a whole record after each change; bindings are sent after the record that they follow
from is acknowledged, so that no executor starts an attempt of which a restarted worker would not
know.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from stepstream.schemas.alert import CommandStruct
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id
from stepstream.schemas.task_bindings import (
    DrainExecutorStruct,
    NewEpochStruct,
    ReleaseAttemptStruct,
)
from stepstream.schemas.task_common import MAX_JSON_BYTES, AgentSpec, AgentSpecStruct
from stepstream.schemas.task_messages import (
    Beat,
    BeatStruct,
    Bye,
    ByeStruct,
    Cancel,
    CancelStruct,
    Claim,
    ClaimStruct,
    Drain,
    DrainStruct,
    End,
    EndStruct,
    Extend,
    ExtendStruct,
    Hello,
    HelloStruct,
    Message,
    NotReady,
    NotReadyStruct,
    Once,
    OnceStruct,
    Ready,
    ReadyStruct,
    Retry,
    RetryStruct,
    Submit,
    SubmitStruct,
)
from stepstream.schemas.task_queue import Queue
from stepstream.schemas.task_state import (
    AttemptRecordStruct,
    ExecutorState,
    ExecutorStateStruct,
    TaskRefusalStruct,
    TaskState,
    TaskStatus,
    WaitingFor,
)
from stepstream.schemas.times import DAY_US, MINUTE_US, SECOND_US
from stepstream.stream.tasks import outcomes
from stepstream.stream.tasks.effects import Effects
from stepstream.stream.tasks.ended import FORGOTTEN, EndedTasks
from stepstream.stream.tasks.fleet import Executor, Fleet, Target, name_of, target_of
from stepstream.stream.tasks.keys import Keys
from stepstream.stream.tasks.limits import Limits
from stepstream.stream.tasks.ready_queue import ReadyQueue
from stepstream.stream.tasks.requests import attempt_of, copied, flow_of, key_of, new_task, trace_of
from stepstream.stream.tasks.retry_budget import RetryBudgets
from stepstream.stream.tasks.timers import Timer, Timers

STOP_GRACE_US: Final = 30 * SECOND_US
"""An attempt that was asked to stop counts as stopped after this long, in any case."""
TIMEOUT_SLACK_US: Final = 5 * SECOND_US
"""The executor ends an attempt at its time-out; so much later the scheduler does."""
UNSERVED_US: Final = MINUTE_US
"""A task without an executor for its agent raises an alert after this long."""
REWRITE_AFTER_US: Final = 5 * DAY_US
"""The record of a task that goes on is written again before ``taskstate`` deletes it."""
_SILENCE: Final = frozenset({"lease", "executor", "stop"})
MAX_HISTORY: Final = 20
MAX_ONCE: Final = 100


class ProjectTasks:
    """The tasks of one project."""

    def __init__(self, project: str, effects: Effects) -> None:
        self.project = project
        self.tasks: dict[str, TaskState] = {}
        """Tasks that have not ended."""
        self.ended = EndedTasks()
        self.fleet = Fleet()
        self.timers = Timers(self._still_applies)
        self._effects = effects
        self._ready: dict[Target, ReadyQueue] = {}
        self._unserved: dict[Target, dict[str, None]] = {}
        self._alerted: set[Target] = set()
        self._keys = Keys()
        self._dependents: dict[str, dict[str, None]] = {}
        self._children: dict[str, dict[str, None]] = {}
        self._refusals: dict[str, int] = {}
        self._budgets = RetryBudgets()
        self._limits = Limits(project)
        self._limited_until: dict[Target, int] = {}
        self._following: deque[tuple[str, str]] = deque()
        """Tasks that the end of another one concerns, and why they are cancelled (empty: they may
        go on). A queue instead of calls: a chain may have thousands of tasks."""

    def handle(self, message: Message, offset: int, now_us: int) -> None:
        """Process a record that was appended at ``now_us``."""
        _HANDLERS[type(message)](self, message, offset, now_us)
        self._settle(now_us)

    def _settle(self, now_us: int) -> None:
        while self._following:
            task_id, reason = self._following.popleft()
            task = self.tasks.get(task_id)
            if task is None:
                continue
            if reason:
                self._cancel(task, now_us, reason)
            elif task.state == "waiting":
                self._enter(task, now_us)

    def change_queues(self, queues: Iterable[Queue], now_us: int) -> None:
        """Take over other limits."""
        running = [
            (task.run_agent, task.run_version)
            for task in self.tasks.values()
            if task.state != "waiting"
        ]
        self._limits.change(queues, running, now_us)

    # -- restart -----------------------------------------------------------------------------------

    def restore(self, tasks: Iterable[TaskState], executors: Iterable[ExecutorState]) -> None:
        """Take over the newest record of each task and executor. ``begin`` must follow."""
        for state in executors:
            self.fleet.add(Executor(state))
        for task in sorted(tasks, key=lambda one: (one.submitted_at_us, one.source_offset)):
            if task.ended_at_us:
                self.ended.add(task)
                continue
            self.tasks[task.task_id] = task
            if task.parent_task_id:
                self._children.setdefault(task.parent_task_id, {})[task.task_id] = None

    def begin(self, now_us: int) -> None:
        """Continue with what was restored: leases and the executors' heartbeats count from now."""
        for executor in self.fleet.executors.values():
            if executor.is_alive:
                self._renew(executor, now_us)
                if executor.state.drain_by_us:
                    self.timers.set(executor.state.drain_by_us, "drain", executor.id)
        # Those with an attempt first: they own their keys.
        for task in sorted(self.tasks.values(), key=lambda one: one.state == "waiting"):
            if task.deadline_at_us:
                self.timers.set(task.deadline_at_us, "deadline", task.task_id)
            if task.state == "waiting":
                self._enter(task, now_us, is_restored=True)
            else:
                self._resume(task, now_us)
        self._settle(now_us)
        for executor in self.fleet.executors.values():
            if executor.is_alive:
                # The next owner of the partition has to know of this epoch, even if nothing happens
                # in it.
                self._executor_changed(executor, "new_epoch", now_us)
                # After the attempts of earlier epochs, which are sent once more above.
                self._effects.send(
                    NewEpochStruct(
                        executor_id=executor.id, project=self.project, epoch=self._effects.epoch
                    )
                )

    def _resume(self, task: TaskState, now_us: int) -> None:
        if task.key:
            self._keys.enter(task.key, task.task_id)
        executor = self.fleet.executors.get(task.executor_id)
        if executor is not None:
            target = (task.run_agent, task.run_version)
            self.fleet.took(executor, task.task_id, target)
            spec = executor.spec_for(target)
            # The worker may have ended after the task's record and before the binding.
            if task.state == "bound" and spec is not None:
                self._effects.send(attempt_of(task, spec))
        task.lease_until_us = now_us + task.lease_us
        self.timers.set(task.lease_until_us, "lease", task.task_id, task.fence)
        if task.timeout_at_us:
            self.timers.set(task.timeout_at_us, "timeout", task.task_id, task.fence)
        if task.stopping:
            self.timers.set(now_us + STOP_GRACE_US, "stop", task.task_id, task.fence)

    # -- commands ----------------------------------------------------------------------------------

    def submit(self, submit: Submit, offset: int, now_us: int) -> None:
        """A task is requested."""
        task = new_task(submit, now_us, self._effects.epoch)
        task.source_offset = offset
        known = self.tasks.get(submit.task_id) or self.ended.get(submit.task_id)
        # A refused submit was no task: its id is free.
        if known is not None and known.state != "refused":
            self._submitted_again(task, known, offset, now_us)
            return
        self._effects.count("submitted")
        self.ended.pop(task.task_id)
        if cycle := self._cycle(task):
            self._finish(task, now_us, "refused", "after_cycle", f"{cycle} leads back")
            return
        self.tasks[task.task_id] = task
        self._changed(task, "submitted", now_us)
        if task.deadline_at_us:
            self.timers.set(task.deadline_at_us, "deadline", task.task_id)
        if task.parent_task_id:
            self._children.setdefault(task.parent_task_id, {})[task.task_id] = None
        self._enter(task, now_us)

    def _submitted_again(self, task: TaskState, known: TaskState, offset: int, now_us: int) -> None:
        if offset <= known.source_offset:
            return  # the same record, read again after a restart
        if task.input_digest == known.input_digest:
            # For a handle that reads from its own submit on.
            if known.ended_at_us and not self.ended.has_contents(known.task_id):
                known.detail = FORGOTTEN
            self._changed(known, "repeated", now_us)
            return
        self._refuse("submit", task.task_id, offset, now_us, "other_input",
                     "a task with this id was submitted with another agent or input")  # fmt: skip

    def _cycle(self, task: TaskState) -> str:
        """The chain of ``after`` that leads back to a task; empty if none does."""
        open_chains = [(one, f"{task.task_id} -> {one}") for one in task.after]
        seen: set[str] = set()
        while open_chains:
            task_id, chain = open_chains.pop()
            if task_id == task.task_id:
                return chain
            if task_id not in seen and (known := self.tasks.get(task_id)) is not None:
                seen.add(task_id)
                open_chains.extend((one, f"{chain} -> {one}") for one in known.after)
        return ""

    def cancel(self, cancel: Cancel, offset: int, now_us: int) -> None:
        """A person or program cancels a task."""
        task = self.tasks.get(cancel.task_id)
        if task is None:
            if self.ended.get(cancel.task_id) is None:
                self._refuse("cancel", cancel.task_id, offset, now_us, "unknown_task",
                             "there is no task with this id")  # fmt: skip
            return
        if offset > task.source_offset:
            task.source_offset = offset
            self._cancel(task, now_us, cancel.reason or "cancelled", cancel.by)

    def _cancel(self, task: TaskState, now_us: int, reason: str, by: str = "") -> None:
        task.by = by
        task.cancelling = True
        if task.state == "waiting":
            self._finish(task, now_us, "cancelled", "cancelled", reason)
        else:
            task.detail = reason
            self._stop(task, "cancel", reason, now_us)

    def retry(self, retry: Retry, offset: int, now_us: int) -> None:
        """A person runs an ended task again."""
        task = self.ended.get(retry.task_id)
        if task is not None and offset <= task.source_offset:
            return
        why = self._not_again(retry.task_id, task)
        if task is None or why is not None:
            reason, detail = why or ("unknown_task", "")
            self._refuse("retry", retry.task_id, offset, now_us, reason, detail)
            return
        self.ended.pop(task.task_id)
        self.tasks[task.task_id] = task
        task.source_offset, task.by = offset, retry.by
        task.ended_at_us = task.deadline_at_us = task.not_before_us = 0
        task.agent_attempts = task.executors_lost = 0
        task.fallbacks, task.after, task.cancelling = [], [], False
        task.target = name_of((task.agent, task.version))
        task.error_type = task.error_message = ""
        self._wait(task, now_us, "", "retrying", retry.reason or "run again on request")
        self._enter(task, now_us)

    def _not_again(self, task_id: str, task: TaskState | None) -> tuple[str, str] | None:
        if task_id in self.tasks:
            return "not_final", "the task has not ended"
        if task is None:
            return "unknown_task", "there is no task with this id, or it ended over a week ago"
        if task.state == "ok":
            return "is_ok", "the task ended ok"
        if not self.ended.has_contents(task_id):
            return "forgotten", FORGOTTEN
        return None

    def _refuse(
        self, kind: str, task_id: str, offset: int, now_us: int, reason: str, detail: str
    ) -> None:
        self._effects.count("refused")
        self._effects.refused(
            TaskRefusalStruct(
                project=self.project,
                task_id=task_id,
                refused=kind,
                reason=reason,
                detail=detail,
                at_us=now_us,
                source_offset=offset,
            )
        )

    # -- executors ---------------------------------------------------------------------------------

    def hello(self, hello: Hello, offset: int, now_us: int) -> None:
        """An executor offers its slots."""
        before = self.fleet.executors.get(hello.executor_id)
        if before is not None and offset <= before.state.source_offset:
            return
        agents, problem = hello.agents, self.fleet.differing(hello.executor_id, hello.agents)
        if cycle := self.fleet.fallback_cycle(agents):
            problem = f"fallbacks lead back and are not used: {cycle}"
            agents = [_without_fallback(spec) for spec in agents]
        executor = Executor(
            ExecutorStateStruct(
                project=self.project,
                executor_id=hello.executor_id,
                state="ready" if hello.ready else "not_ready",
                at_us=now_us,
                epoch=self._effects.epoch,
                revision=before.state.revision if before else 0,
                host=hello.host,
                pid=hello.pid,
                slots=hello.slots,
                agents=agents,
                started_at_us=before.state.started_at_us if before else now_us,
                source_offset=offset,
            )
        )
        self.fleet.add(executor)
        self._renew(executor, now_us)
        self._executor_changed(executor, "hello", now_us, reason=problem)
        self._serve_waiting(executor, now_us)

    def ready(self, message: Ready, offset: int, now_us: int) -> None:
        """An executor takes attempts again."""
        self._report(message.executor_id, "ready", "", offset, now_us)

    def not_ready(self, message: NotReady, offset: int, now_us: int) -> None:
        """An executor takes no new attempts for a while."""
        self._report(message.executor_id, "not_ready", message.reason, offset, now_us)

    def _report(self, executor_id: str, state: Any, reason: str, offset: int, now_us: int) -> None:
        executor = self._heard(executor_id, now_us)
        if (
            executor is None
            or offset <= executor.state.source_offset
            or executor.state.state == "draining"
        ):
            return
        executor.state.source_offset = offset
        executor.state.state = state
        self._executor_changed(executor, state, now_us, reason=reason)

    def beat(self, beat: Beat, _offset: int, now_us: int) -> None:
        """A heartbeat renews the leases of the attempts that it names."""
        executor = self._heard(beat.executor_id, now_us)
        if executor is None:
            return
        for one in beat.running:
            task = self.tasks.get(one.task_id)
            if task is None or task.fence != one.fence or task.executor_id != beat.executor_id:
                self._release(beat.executor_id, one.task_id, one.attempt, one.fence)
            else:
                task.lease_until_us = max(task.lease_until_us, now_us + task.lease_us)

    def drain(self, drain: Drain, offset: int, now_us: int) -> None:
        """An executor is to end."""
        executor = self.fleet.executors.get(drain.executor_id)
        if executor is None or not executor.is_alive or offset <= executor.state.source_offset:
            return
        executor.state.source_offset = offset
        executor.state.state = "draining"
        if drain.deadline_us:
            executor.state.drain_by_us = now_us + drain.deadline_us
            self.timers.set(executor.state.drain_by_us, "drain", executor.id)
        self._executor_changed(executor, "drain", now_us, reason=drain.by)
        self._effects.send(
            DrainExecutorStruct(
                executor_id=executor.id,
                project=self.project,
                deadline_us=drain.deadline_us,
                by=drain.by,
            )
        )

    def bye(self, bye: Bye, offset: int, now_us: int) -> None:
        """An executor has ended; what it ran is lost at once."""
        executor = self.fleet.executors.get(bye.executor_id)
        if executor is None or not executor.is_alive or offset <= executor.state.source_offset:
            return
        executor.state.source_offset = offset
        self._retire(executor, "left", "the executor has ended", now_us)

    def _heard(self, executor_id: str, now_us: int) -> Executor | None:
        """The executor that reports; one that counted as lost is back."""
        executor = self.fleet.executors.get(executor_id)
        if executor is None or executor.state.state == "left":
            return None
        if executor.state.state == "lost":
            executor.state.state = "ready"
            self.fleet.revive(executor)
            self._renew(executor, now_us)
            self._executor_changed(executor, "back", now_us)
            self._serve_waiting(executor, now_us)
        executor.state.last_beat_us = max(executor.state.last_beat_us, now_us)
        executor.lease_until_us = max(executor.lease_until_us, now_us + executor.lease_us)
        return executor

    def _renew(self, executor: Executor, now_us: int) -> None:
        executor.state.last_beat_us = now_us
        executor.lease_until_us = now_us + executor.lease_us
        self.timers.set(executor.lease_until_us, "executor", executor.id)

    def _retire(self, executor: Executor, state: Any, reason: str, now_us: int) -> None:
        executor.state.state = state
        self.fleet.retire(executor)
        for task_id in list(executor.running):
            task = self.tasks.get(task_id)
            if task is not None and task.executor_id == executor.id:
                self._lost(task, reason, now_us, executor_lost=True)
        self._executor_changed(executor, state, now_us, reason=reason)

    def _executor_changed(
        self, executor: Executor, event: str, now_us: int, *, reason: str = ""
    ) -> None:
        state = executor.state
        state.event, state.reason, state.at_us = event, reason, now_us
        state.epoch, state.revision = self._effects.epoch, state.revision + 1
        state.running = len(executor.running)
        self._effects.executor_changed(state)

    def _serve_waiting(self, executor: Executor, now_us: int) -> None:
        """Tasks that waited for an executor of these agents may go on."""
        for agent, version in executor.specs:
            for target in ((agent, version), (agent, "")):
                for task_id in self._unserved.pop(target, ()):
                    self._enter(self.tasks[task_id], now_us)
                if target in self._alerted:
                    self._alerted.discard(target)
                    self._report_unserved(target, now_us, "resolved")

    # -- reports about attempts --------------------------------------------------------------------

    def _current(self, report: Claim | Once | End | Extend) -> TaskState | None:
        """The task if the report is about its current attempt; else the attempt is released."""
        task = self.tasks.get(report.task_id)
        if task is not None and task.fence == report.fence and task.attempt == report.attempt:
            return task
        self._effects.count("stale")
        return None

    def claim(self, claim: Claim, offset: int, now_us: int) -> None:
        """The body of an attempt starts."""
        self._heard(claim.executor_id, now_us)
        task = self._current(claim)
        if task is None:
            self._release(claim.executor_id, claim.task_id, claim.attempt, claim.fence)
            return
        if task.state != "bound":
            return
        task.state, task.started_at_us, task.source_offset = "running", now_us, offset
        task.lease_until_us = max(task.lease_until_us, now_us + task.lease_us)
        timeout_us = task.timeout_us or self._spec_of(task).timeout_us
        if timeout_us:
            task.timeout_at_us = now_us + timeout_us
            self.timers.set(
                task.timeout_at_us + TIMEOUT_SLACK_US, "timeout", task.task_id, task.fence
            )
        self._changed(task, "started", now_us)

    def once(self, once: Once, offset: int, now_us: int) -> None:
        """An attempt keeps a value for later attempts."""
        task = self._current(once)
        if task is None or offset <= task.source_offset:
            return
        size = sum(len(bytes(value)) for value in task.once.values())
        value = b"null" if once.value is None else bytes(once.value)
        if len(task.once) >= MAX_ONCE or size + len(value) > MAX_JSON_BYTES:
            most = f"a task keeps {MAX_ONCE} values of {MAX_JSON_BYTES:,} bytes at most"
            self._refuse("once", task.task_id, offset, now_us, "too_much_kept", most)
            return
        # The first value counts: the effect that it stands for has happened.
        task.once = {once.key: copied(value)} | task.once
        task.source_offset = offset
        self._changed(task, "kept", now_us)

    def extend(self, extend: Extend, offset: int, now_us: int) -> None:
        """An attempt needs more time."""
        task = self._current(extend)
        if task is None or not task.timeout_at_us or offset <= task.source_offset:
            return
        task.timeout_at_us += extend.by_us
        task.source_offset = offset
        self._changed(task, "extended", now_us)

    def end(self, end: End, offset: int, now_us: int) -> None:
        """An attempt has ended."""
        self._heard(end.executor_id, now_us)
        task = self._current(end)
        if task is None or task.state == "waiting":
            return
        task.source_offset = offset
        task.error_type, task.error_message = end.error_type, end.error_message
        started = task.state == "running"
        self._close_attempt(task, end.status, now_us, reason=end.reason)
        if end.status == "ok":
            task.result = None if end.result is None else copied(end.result)
            self._finish(task, now_us, "ok", "", "")
        elif task.stopping:
            self._stopped(task, now_us, end.reason)
        elif end.status == "refused" or (end.status == "lease_lost" and not started):
            self._refused_by_executor(task, end.reason, now_us)
        elif end.status == "cancelled":
            self._finish(task, now_us, "cancelled", "stopped", end.reason)
        elif end.status == "lease_lost":
            self._after_lost(task, now_us, nothing_done=end.side_effect_free)
        else:
            cause: outcomes.Cause = "timeout" if end.status == "timed_out" else "exception"
            self._after_failure(task, cause, now_us)

    def _refused_by_executor(self, task: TaskState, reason: str, now_us: int) -> None:
        """The attempt did not start: it does not count."""
        refusals = self._refusals[task.task_id] = self._refusals.get(task.task_id, 0) + 1
        task.agent_attempts -= 1
        wait_us = outcomes.refusal_wait_us(task, refusals)
        self._again(task, now_us, wait_us, reason or "the executor refused it")

    def _lost(
        self, task: TaskState, reason: str, now_us: int, *, executor_lost: bool = False
    ) -> None:
        """The lease of an attempt has ended."""
        self._effects.count("leases_lost")
        started = task.state == "running"
        self._release(task.executor_id, task.task_id, task.attempt, task.fence)
        self._close_attempt(task, "lost", now_us, reason=reason)
        if task.stopping:
            self._stopped(task, now_us, reason)
        elif not started:
            # Kafka had no claim before the lease ended: its body did not start.
            task.agent_attempts -= 1
            self._again(task, now_us, 0, reason)
        else:
            task.executors_lost += executor_lost
            self._after_lost(task, now_us, executor_lost=executor_lost)

    def _after_lost(
        self,
        task: TaskState,
        now_us: int,
        *,
        executor_lost: bool = False,
        nothing_done: bool = False,
    ) -> None:
        if nothing_done:
            self._again(task, now_us, 0, "lost_lease")
            return
        # What a lost attempt has done is unknown: it is stopped should it still run.
        self._command_stop(task, "its lease was lost", now_us)
        self._after_failure(task, "lost_lease", now_us, executor_lost=executor_lost)

    def _after_failure(
        self,
        task: TaskState,
        cause: outcomes.Cause,
        now_us: int,
        *,
        executor_lost: bool = False,
    ) -> None:
        following = outcomes.after_failure(
            task, self._spec_of(task), cause, task.error_type, executor_lost=executor_lost
        )
        if isinstance(following, outcomes.End):
            detail = following.detail or task.error_message
            self._finish(task, now_us, following.state, following.reason, detail)
        elif isinstance(following, outcomes.Again):
            self._effects.count("retries")
            budget_wait_us = self._budgets.retry(task.run_agent, now_us)
            wait_us = max(following.wait_us, budget_wait_us)
            why = f"{cause}; the retry budget of {task.run_agent} is used up" if (
                budget_wait_us > following.wait_us
            ) else following.reason  # fmt: skip
            self._again(task, now_us, wait_us, why)
        else:
            self._effects.count("fallbacks")
            task.fallbacks = [*task.fallbacks, task.run_agent]
            task.target, task.agent_attempts = following.target, 0
            self._again(task, now_us, 0, f"{cause}: fallback to {following.target}", "fallback")

    def _again(
        self, task: TaskState, now_us: int, wait_us: int, reason: str, event: str = "retrying"
    ) -> None:
        task.not_before_us = now_us + wait_us if wait_us else 0
        self._wait(task, now_us, "retry" if wait_us else "slot", event, reason)
        self._enter(task, now_us)

    # -- stopping ----------------------------------------------------------------------------------

    def _stop(self, task: TaskState, cause: str, reason: str, now_us: int) -> None:
        """Ask the attempt to stop. Its end follows when the executor reports it, or after
        ``STOP_GRACE_US``.
        """
        if task.stopping and not (cause == "cancel" and task.stopping != "cancel"):
            return
        task.stopping = cause
        self._changed(task, "cancelling" if cause == "cancel" else "stopping", now_us)
        self._command_stop(task, reason, now_us)
        self._effects.then(
            task,
            ReleaseAttemptStruct(
                executor_id=task.executor_id,
                project=self.project,
                task_id=task.task_id,
                attempt=task.attempt,
                fence=task.fence,
                reason=cause,
            ),
        )
        self.timers.set(now_us + STOP_GRACE_US, "stop", task.task_id, task.fence)

    def _stopped(self, task: TaskState, now_us: int, reason: str) -> None:
        """An attempt that was asked to stop has ended."""
        cause, task.stopping = task.stopping, ""
        if cause == "cancel":
            self._finish(task, now_us, "cancelled", "cancelled", task.detail or reason)
        elif cause == "deadline":
            self._finish(task, now_us, "expired", "deadline", "its deadline has passed")
        else:
            self._after_failure(task, "timeout", now_us)

    def _command_stop(self, task: TaskState, reason: str, now_us: int) -> None:
        self._effects.command(
            CommandStruct(
                command_id=derived_id("task-stop", self.project, task.task_id, task.fence),
                action="stop",
                time=now_us,
                project=self.project,
                agent=task.run_agent,
                trace_id=task.trace_id,
                reason=reason,
                by="tasks",
            )
        )

    def _release(self, executor_id: str, task_id: str, attempt: int, fence: int) -> None:
        if not executor_id:
            return
        self._effects.send(
            ReleaseAttemptStruct(
                executor_id=executor_id,
                project=self.project,
                task_id=task_id,
                attempt=attempt,
                fence=fence,
                reason="the attempt has ended or is another executor's",
            )
        )

    # -- waiting and running -----------------------------------------------------------------------

    def _spec_of(self, task: TaskState) -> AgentSpec:
        """The settings of the agent that runs it; of a task that waits, of the one that is to."""
        target = target_of(task.target)
        if task.state != "waiting":
            target = (task.run_agent, task.run_version)
        return self.fleet.spec(target) or AgentSpecStruct(name=target[0])

    def _enter(self, task: TaskState, now_us: int, *, is_restored: bool = False) -> None:
        """Put a waiting task where it waits for what it needs next."""
        if self._waits_for_others(task, now_us) or task.state != "waiting":
            return
        if task.not_before_us > now_us:
            self._waits(
                task, now_us, "retry" if task.attempt else "delay", until=task.not_before_us
            )
            self.timers.set(task.not_before_us, "due", task.task_id)
            return
        target = target_of(task.target)
        if not self.fleet.serves(target):
            self._waits(task, now_us, "executor", detail=self.fleet.missing(target))
            self._unserved.setdefault(target, {})[task.task_id] = None
            if len(self._unserved[target]) == 1:
                self.timers.set(now_us + UNSERVED_US, "unserved", name_of(target))
            return
        if not task.key:
            task.key = key_of(task, self._spec_of(task))
        if task.key and not self._owns_key(task, now_us, is_restored=is_restored):
            return
        queue = self._ready.setdefault(target, ReadyQueue())
        if task.task_id not in queue:
            blocked = self._limits.blocked(target, now_us)
            if blocked is None:
                self._waits(task, now_us, "slot")
            else:
                self._waits(task, now_us, "limit", until=blocked.until_us, detail=blocked.why)
            queue.push(
                task.task_id,
                priority=task.priority,
                flow=flow_of(task),
                since_us=task.submitted_at_us,
            )

    def _waits_for_others(self, task: TaskState, now_us: int) -> bool:
        """Whether tasks that it comes after have not ended; ends it where one has not ended ok."""
        waits = False
        for other in task.after:
            ended = self.ended.get(other)
            if ended is not None and ended.state == "ok":
                continue
            if ended is not None and ended.state != "refused":
                self._finish(task, now_us, "cancelled", "after_failed",
                             f"{other} ended as {ended.state}")  # fmt: skip
                return True
            self._dependents.setdefault(other, {})[task.task_id] = None
            waits = True
        if waits:
            self._waits(task, now_us, "after")
        return waits

    def _owns_key(self, task: TaskState, now_us: int, *, is_restored: bool) -> bool:
        others = self._keys.others(task.key, task.task_id)
        is_new = task.attempt == 0 and not is_restored
        on_busy = task.on_busy or self._spec_of(task).on_busy
        if others and is_new and on_busy == "reject":
            self._finish(task, now_us, "refused", "busy", f"{others[0]} has the same key")
            return False
        owns = self._keys.enter(task.key, task.task_id)
        if not owns:
            self._waits(task, now_us, "key", detail=f"{others[0]} has the same key")
            if is_new and on_busy in ("interrupt", "replace"):
                for other_id in reversed(others):
                    other = self.tasks[other_id]
                    if on_busy == "interrupt" or other.state == "waiting":
                        self._cancel(other, now_us, f"{on_busy} by {task.task_id}")
        return owns

    def _waits(
        self,
        task: TaskState,
        now_us: int,
        what: WaitingFor,
        *,
        until: int = 0,
        detail: str = "",
    ) -> None:
        """Note what a waiting task waits for."""
        detail = detail or (task.detail if what in ("retry", "slot") and task.attempt else "")
        if (task.waiting_for, task.waiting_until_us, task.detail) == (what, until, detail):
            return
        task.waiting_for, task.waiting_until_us, task.detail = what, until, detail
        event = task.event if task.event in ("submitted", "retrying", "fallback") else "waiting"
        self._changed(task, event, now_us)

    def _wait(
        self, task: TaskState, now_us: int, what: WaitingFor, event: str, detail: str
    ) -> None:
        """The task waits again after an attempt."""
        task.state, task.waiting_for, task.waiting_until_us = "waiting", what, task.not_before_us
        task.reason, task.detail, task.stopping = "", detail, ""
        self._changed(task, event, now_us)

    def dispatch(self, now_us: int) -> None:
        """Bind waiting tasks to free slots until one of the two is used up."""
        while True:
            best: tuple[tuple[int, int], Target] | None = None
            for target in self.fleet.targets():
                queue = self._ready.get(target)
                if not queue or self._place_for(target, now_us) is None:
                    continue
                rank = queue.rank(now_us)
                if rank is not None and (best is None or rank < best[0]):
                    best = rank, target
            if best is None:
                return
            target = best[1]
            found, task_id = self._place_for(target, now_us), self._ready[target].pop(now_us)
            if found is None or task_id is None:
                return
            self._bind(self.tasks[task_id], *found, now_us)

    def _place_for(self, target: Target, now_us: int) -> tuple[Executor, AgentSpec] | None:
        """The executor for the next attempt of an agent; None while none has room, or while a queue
        is at its limit.
        """
        found = self.fleet.choose(target)
        if found is None:
            return None
        blocked = self._limits.blocked((found[1].name, found[1].version), now_us)
        if blocked is None:
            return found
        if blocked.until_us > self._limited_until.get(target, 0):
            self._limited_until[target] = blocked.until_us
            self.timers.set(blocked.until_us, "limit", name_of(target))
        return None

    def _bind(self, task: TaskState, executor: Executor, spec: AgentSpec, now_us: int) -> None:
        if not task.agent_attempts:
            self._budgets.first_attempt(spec.name, now_us)
        task.attempt += 1
        task.agent_attempts += 1
        task.state, task.waiting_for, task.waiting_until_us = "bound", "", 0
        task.fence, task.trace_id = self._effects.next_fence(), trace_of(task)
        task.executor_id = executor.id
        task.run_agent, task.run_version = spec.name, spec.version
        task.bound_at_us, task.started_at_us, task.timeout_at_us = now_us, 0, 0
        task.lease_us, task.lease_until_us = spec.lease_us, now_us + spec.lease_us
        self.fleet.took(executor, task.task_id, (spec.name, spec.version))
        self._limits.began((spec.name, spec.version), now_us)
        self._effects.count("bound")
        self._changed(task, "bound", now_us)
        self._effects.then(task, attempt_of(task, spec))
        self.timers.set(task.lease_until_us, "lease", task.task_id, task.fence)

    def _close_attempt(
        self, task: TaskState, status: str, now_us: int, *, reason: str = ""
    ) -> None:
        self.fleet.gave_back(task.executor_id, task.task_id)
        failed = {"ok": False, "failed": True, "timed_out": True, "lost": True}.get(status)
        target = (task.run_agent, task.run_version)
        for name, how in self._limits.ended(target, now_us, failed=failed):
            self._report_breaker(name, how, now_us)
        record = AttemptRecordStruct(
            attempt=task.attempt,
            fence=task.fence,
            trace_id=task.trace_id,
            executor_id=task.executor_id,
            agent=task.run_agent,
            version=task.run_version,
            bound_at_us=task.bound_at_us,
            started_at_us=task.started_at_us,
            ended_at_us=now_us,
            status=status,
            error_type=task.error_type,
            error_message=task.error_message[:500],
            reason=reason,
        )
        task.attempts = [*task.attempts[-MAX_HISTORY + 1 :], record]
        task.timeout_at_us = 0

    def _finish(
        self, task: TaskState, now_us: int, state: TaskStatus, reason: str, detail: str
    ) -> None:
        """The task has ended."""
        task_id = task.task_id
        self.tasks.pop(task_id, None)
        self._remove_from_queues(task)
        self._refusals.pop(task_id, None)
        task.state, task.waiting_for, task.waiting_until_us = state, "", 0
        task.reason, task.detail, task.ended_at_us = reason, detail, now_us
        task.stopping = ""
        self._effects.count(f"ended_{state}")
        self._changed(task, "ended" if state != "refused" else "refused", now_us)
        self.ended.add(task)
        if task.key and (following := self._keys.leave(task.key, task_id)) is not None:
            self._following.append((following, ""))
        siblings = self._children.get(task.parent_task_id)
        if siblings is not None:
            siblings.pop(task_id, None)
            if not siblings:
                del self._children[task.parent_task_id]
        for dependent in self._dependents.pop(task_id, ()):
            self._following.append((dependent, ""))
        if state in ("cancelled", "expired"):
            for child in self._children.get(task_id, ()):
                self._following.append((child, f"its parent {task_id} is {state}"))

    def _remove_from_queues(self, task: TaskState) -> None:
        target = target_of(task.target)
        queue = self._ready.get(target)
        if queue is not None:
            queue.remove(task.task_id)
            if not queue:
                del self._ready[target]
        waiting = self._unserved.get(target)
        if waiting is not None:
            waiting.pop(task.task_id, None)
            if not waiting:
                del self._unserved[target]

    def _changed(self, task: TaskState, event: str, now_us: int) -> None:
        task.event, task.at_us = event, now_us
        task.epoch, task.revision = self._effects.epoch, task.revision + 1
        self._effects.task_changed(task)

    # -- time --------------------------------------------------------------------------------------

    def tick(self, now_us: int, *, silence_counts_from_us: int = 0) -> None:
        """Let time pass: what is due by ``now_us`` happens.

        Before ``silence_counts_from_us`` the absence of reports means nothing, because brokers have
        failed or the worker did not read: no lease ends before that.
        """
        while (timer := self.timers.pop_due(now_us)) is not None:
            if not self._still_applies(timer):
                continue
            if timer.kind in _SILENCE and now_us < silence_counts_from_us:
                self.timers.set(silence_counts_from_us, timer.kind, timer.subject, timer.guard)
                continue
            self._timer_handlers[timer.kind](self, timer, now_us)
            self._settle(now_us)

    def _still_applies(self, timer: Timer) -> bool:
        if timer.kind in ("executor", "drain"):
            executor = self.fleet.executors.get(timer.subject)
            return executor is not None and executor.is_alive
        if timer.kind == "limit":
            return True  # the partition dispatches after any timer
        if timer.kind == "unserved":
            return target_of(timer.subject) in self._unserved
        task = self.tasks.get(timer.subject)
        if task is None:
            return False
        if timer.kind == "due":
            return task.state == "waiting" and task.waiting_for in ("delay", "retry")
        if timer.kind == "deadline":
            return bool(task.deadline_at_us)
        return task.state != "waiting" and task.fence == timer.guard

    def _on_due(self, timer: Timer, now_us: int) -> None:
        self._enter(self.tasks[timer.subject], now_us)

    def _on_deadline(self, timer: Timer, now_us: int) -> None:
        task = self.tasks[timer.subject]
        if task.deadline_at_us > now_us:
            return
        if task.state == "waiting":
            self._finish(task, now_us, "expired", "deadline", "its deadline has passed")
        else:
            self._stop(task, "deadline", "its deadline has passed", now_us)

    def _on_lease(self, timer: Timer, now_us: int) -> None:
        task = self.tasks[timer.subject]
        if task.lease_until_us > now_us:
            self.timers.set(task.lease_until_us, "lease", task.task_id, task.fence)
            return
        executor = self.fleet.executors.get(task.executor_id)
        silent = executor is None or executor.state.last_beat_us <= now_us - task.lease_us
        why = "no heartbeat" if silent else "its heartbeats do not name the attempt"
        self._lost(task, f"{why} for {task.lease_us / 1e6:g} s", now_us, executor_lost=silent)

    def _on_timeout(self, timer: Timer, now_us: int) -> None:
        task = self.tasks[timer.subject]
        at_us = task.timeout_at_us + TIMEOUT_SLACK_US
        if at_us > now_us:
            self.timers.set(at_us, "timeout", task.task_id, task.fence)
        else:
            self._stop(task, "timeout", "its time is up", now_us)

    def _on_stop(self, timer: Timer, now_us: int) -> None:
        task = self.tasks[timer.subject]
        if task.stopping:
            reason = f"it did not stop within {STOP_GRACE_US // SECOND_US} s"
            self._release(task.executor_id, task.task_id, task.attempt, task.fence)
            self._close_attempt(task, "released", now_us, reason=reason)
            self._stopped(task, now_us, reason)

    def _on_executor(self, timer: Timer, now_us: int) -> None:
        executor = self.fleet.executors[timer.subject]
        if executor.lease_until_us > now_us:
            self.timers.set(executor.lease_until_us, "executor", executor.id)
        else:
            self._retire(
                executor, "lost", f"no heartbeat for {executor.lease_us / 1e6:g} s", now_us
            )

    def _on_drain(self, timer: Timer, now_us: int) -> None:
        executor = self.fleet.executors[timer.subject]
        if executor.state.state != "draining" or executor.state.drain_by_us > now_us:
            return
        for task_id in list(executor.running):
            if (task := self.tasks.get(task_id)) is not None:
                self._lost(task, "the executor's time to drain is over", now_us)

    def _on_unserved(self, timer: Timer, now_us: int) -> None:
        target = target_of(timer.subject)
        if target not in self._alerted:
            self._alerted.add(target)
            self._report_unserved(target, now_us, "firing")

    def _on_limit(self, timer: Timer, now_us: int) -> None:
        self._limited_until.pop(target_of(timer.subject), None)

    def _report_breaker(self, name: str, how: str, now_us: int) -> None:
        state, message = "firing", f"queue {name} is paused: too many attempts failed"
        if how == "closed":
            state, message = "resolved", f"queue {name} goes on: an attempt ended well"
        self._effects.found(
            new_finding(
                None,
                derived_id("queue-paused", self.project, name, state, now_us),
                now_us,
                project=self.project,
                alert="queue-paused",
                rule="queue_breaker",
                subject=name,
                severity="error",
                state=state,
                message=message,
            )
        )

    def _report_unserved(self, target: Target, now_us: int, state: Any) -> None:
        waiting = len(self._unserved.get(target, ()))
        name = name_of(target)
        message = (
            f"{self.fleet.missing(target)} ({waiting} tasks wait)"
            if state == "firing"
            else f"an executor offers {name}"
        )
        self._effects.found(
            new_finding(
                None,
                derived_id("no-executor", self.project, name, state, now_us),
                now_us,
                project=self.project,
                agent=target[0],
                agent_version=target[1],
                alert="no-executor",
                rule="no_executor",
                subject=name,
                severity="error",
                state=state,
                message=message,
            )
        )

    _timer_handlers: Final[dict[str, Callable[[ProjectTasks, Timer, int], None]]] = {
        "due": _on_due,
        "deadline": _on_deadline,
        "lease": _on_lease,
        "timeout": _on_timeout,
        "stop": _on_stop,
        "executor": _on_executor,
        "drain": _on_drain,
        "unserved": _on_unserved,
        "limit": _on_limit,
    }

    def rewrite_old(self, now_us: int) -> None:
        """Publish again what was last published long ago; forget what ended long ago."""
        self.ended.forget_before(now_us)
        for task in self.tasks.values():
            if task.at_us < now_us - REWRITE_AFTER_US:
                self._changed(task, "rewritten", now_us)
        for executor in self.fleet.executors.values():
            if executor.is_alive and executor.state.at_us < now_us - REWRITE_AFTER_US:
                self._executor_changed(executor, "rewritten", now_us)

    @property
    def waiting(self) -> int:
        """Tasks that wait."""
        return sum(1 for task in self.tasks.values() if task.state == "waiting")


def _without_fallback(spec: AgentSpec) -> AgentSpec:
    return msgspec.structs.replace(spec, fallback="")  # type: ignore[type-var]


_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    SubmitStruct: ProjectTasks.submit,
    HelloStruct: ProjectTasks.hello,
    ReadyStruct: ProjectTasks.ready,
    NotReadyStruct: ProjectTasks.not_ready,
    BeatStruct: ProjectTasks.beat,
    ClaimStruct: ProjectTasks.claim,
    OnceStruct: ProjectTasks.once,
    EndStruct: ProjectTasks.end,
    CancelStruct: ProjectTasks.cancel,
    ExtendStruct: ProjectTasks.extend,
    RetryStruct: ProjectTasks.retry,
    DrainStruct: ProjectTasks.drain,
    ByeStruct: ProjectTasks.bye,
}
