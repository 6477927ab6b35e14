"""The stage ``tasks`` of one partition: the schedulers of its projects, their records, their clock.

Pure. The state is the log plus one record for each task: a record of ``tasks`` is needed until the
states that follow from it, and the bindings that follow from those, are acknowledged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from stepstream.schemas import task_queue
from stepstream.schemas.alert import Command, Finding
from stepstream.schemas.task_bindings import Binding, encode_binding
from stepstream.schemas.task_common import fence_of
from stepstream.schemas.task_messages import WrongTaskRecord, decode_message
from stepstream.schemas.task_state import (
    Change,
    ExecutorState,
    StateRecord,
    TaskRefusal,
    TaskState,
    TaskStateStruct,
    encode_state,
)
from stepstream.schemas.times import HOUR_US
from stepstream.stream.core.clock import PartitionClock
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.deadletter import dead_letter
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import IndexedWrite, OffsetHold, Output
from stepstream.stream.core.records import Record
from stepstream.stream.tasks.backlog import AgentBacklog, Queue, backlogs
from stepstream.stream.tasks.project import ProjectTasks

MAX_PROJECTS: Final = 10_000
NONCE_SHIFT: Final = 24
MAX_BOUND: Final = (1 << NONCE_SHIFT) - 1
_encode = msgspec.json.Encoder().encode


class StateWrite(IndexedWrite):
    """A state record on its way: holds the records that it follows from, and then its bindings."""

    __slots__ = ("bindings", "task")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.task: TaskState | None = None
        self.bindings: list[Binding] = []


def state_name(project: str, name: str) -> str:
    """Under which the place of a state record is remembered."""
    return f"{project}\x1f{name}"


def closed_at_us(record: Change) -> int:
    """When the record of a task or executor became its last one; 0 while it goes on."""
    if isinstance(record, TaskStateStruct):
        return record.ended_at_us
    return record.at_us if record.state in ("left", "lost") else 0


class TasksPartition:
    """The tasks of the projects on one partition. An ``Effects`` of their schedulers."""

    def __init__(self, partition: int, counters: Counters | None = None, nonce: int = 0) -> None:
        """``nonce``, below 256, distinguishes the fencing numbers of two owners that do not know of
        each other: a worker that was replaced, and goes on for a moment, and its replacement.
        """
        self.partition = partition
        self.counters = counters or Counters()
        self.offsets = OffsetTracker()
        self.projects: dict[str, ProjectTasks] = {}
        self.clock = PartitionClock()
        self.epoch = 1
        self.pending = 0
        """Outputs that others wait for and that are not acknowledged."""
        self._bound = 0
        self._nonce = nonce
        self._queues: tuple[task_queue.Queue, ...] = ()
        self._has_begun = False
        self._restored_projects: list[str] = []
        self._rewrite_at_us = 0
        self._offset = -1
        self._appended_us = 0
        self._dirty: dict[tuple[str, str], StateWrite] = {}
        self._to_dispatch: set[str] = set()
        self._outbox: list[Output] = []

    def restore(self, records: Iterable[StateRecord], position: int) -> None:
        """Take over the newest record of each task and executor."""
        self.offsets.position = position
        tasks: dict[str, list[TaskState]] = {}
        executors: dict[str, list[ExecutorState]] = {}
        newest_epoch = 0
        for record in records:
            if isinstance(record, TaskStateStruct):
                tasks.setdefault(record.project, []).append(record)
                newest_epoch = max(newest_epoch, record.epoch)
            elif isinstance(record, Change):
                executors.setdefault(record.project, []).append(record)
                newest_epoch = max(newest_epoch, record.epoch)
        self.epoch = newest_epoch + 1
        for name in tasks.keys() | executors.keys():
            project = self._project(name)
            project.restore(tasks.get(name, ()), executors.get(name, ()))
            self._restored_projects.append(name)

    def _project(self, name: str) -> ProjectTasks:
        project = self.projects.get(name)
        if project is None:
            project = self.projects[name] = ProjectTasks(name, self)
            project.change_queues(self._queues, self.clock.now_us)
        return project

    def change_queues(self, queues: tuple[task_queue.Queue, ...]) -> None:
        """Take over other documents of kind Queue."""
        self._queues = queues
        for name, project in self.projects.items():
            project.change_queues(queues, self.clock.now_us)
            self._to_dispatch.add(name)

    # -- what the stage calls ----------------------------------------------------------------------

    def process(self, record: Record) -> None:
        """Process one record of the topic ``tasks``."""
        if record.offset < self.offsets.position:
            return
        self.offsets.position = record.offset + 1
        self._appended_us = record.timestamp * 1000
        self._advance(self._appended_us)
        try:
            message = decode_message(record.value, record.key or b"")
            if message.project not in self.projects and len(self.projects) >= MAX_PROJECTS:
                raise WrongTaskRecord(
                    "too_many_projects", f"more than {MAX_PROJECTS:,} projects on one partition"
                )
        except WrongTaskRecord as error:
            self._reject(record, error.reason, str(error))
            return
        self._offset = record.offset
        project = self._project(message.project)
        project.handle(message, record.offset, self.clock.now_us)
        self._to_dispatch.add(message.project)
        self._offset = -1

    def _advance(self, time_us: int) -> None:
        self.clock.advance(time_us, watching=True)
        if not self._has_begun:
            self._has_begun = True
            for name in self._restored_projects:
                self.projects[name].begin(self.clock.now_us)
                self._to_dispatch.add(name)

    def skip(self, record: Record, detail: str) -> None:
        """Dead-letter a record that processing failed on, again and again."""
        self.offsets.position = record.offset + 1
        self._offset = -1
        self._reject(record, "poison", detail)

    def _reject(self, record: Record, reason: str, detail: str) -> None:
        self.counters.rejected[reason] += 1
        output = dead_letter(record, "tasks", self.partition, reason, detail)
        output.owner = OffsetHold()
        self.offsets.hold(output.owner, record.offset)
        self._outbox.append(output)

    def tick(self, time_us: int) -> None:
        """Let time pass."""
        self._appended_us = 0
        self._advance(time_us)

    def delay_timers(self) -> None:
        """Brokers have failed: heartbeats may be late, so that their absence means nothing."""
        self.clock.delay_timers()

    def flush(self) -> None:
        """A batch, or a tick, is over: let timers fire, bind tasks, publish what has changed."""
        now_us = self.clock.now_us
        for name, project in self.projects.items():
            if project.timers.has_due(now_us):
                project.tick(now_us, silence_counts_from_us=self.clock.timers_from_us)
                self._to_dispatch.add(name)
        for name in self._to_dispatch:
            self.projects[name].dispatch(now_us)
        self._to_dispatch.clear()
        if now_us >= self._rewrite_at_us:
            self._rewrite_at_us = now_us + HOUR_US
            for project in self.projects.values():
                project.rewrite_old(now_us)
        self._publish_tasks()

    def _publish_tasks(self) -> None:
        for write in self._dirty.values():
            task = write.task
            if task is not None:
                write.closed_at_us = task.ended_at_us
                self._put("taskstate", task.task_id, encode_state(task), write)
        self._dirty.clear()

    def take_outputs(self) -> list[Output]:
        """Return the outputs to be sent now, in order, and forget them."""
        out, self._outbox = self._outbox, []
        return out

    def acknowledged(self, output: Output) -> None:
        """Kafka has acknowledged an output that ``take_outputs`` returned."""
        owner = output.owner
        if owner is None:
            return
        if isinstance(owner, StateWrite):
            self.pending -= 1
            if owner.bindings:
                # The record that leads to the bindings is needed until they are stored, too.
                bindings, owner.bindings = owner.bindings, []
                for binding in bindings[:-1]:
                    self.send(binding)
                self._put("bindings", bindings[-1].executor_id, encode_binding(bindings[-1]), owner)
                return
        self.offsets.release(owner)

    @property
    def offset_in_progress(self) -> int:
        """Offset of the record that is processed now, or the last one."""
        return self.offsets.position - 1

    def backlogs(self) -> dict[Queue, AgentBacklog]:
        """The tasks of each agent that have not ended; empty ones for agents that are offered."""
        offered = (
            (name, agent)
            for name, project in self.projects.items()
            for agent, _ in project.fleet.targets()
        )
        tasks = (task for project in self.projects.values() for task in project.tasks.values())
        return backlogs(tasks, offered)

    def executor_counts(self) -> Counter[str]:
        """Executors by state."""
        return Counter(
            str(executor.state.state)
            for project in self.projects.values()
            for executor in project.fleet.executors.values()
        )

    def slot_counts(self) -> Counter[str]:
        """Slots of executors that are alive: ``free`` and ``busy``."""
        found: Counter[str] = Counter(free=0, busy=0)
        for project in self.projects.values():
            for executor in project.fleet.executors.values():
                if executor.is_alive:
                    found["free"] += max(0, executor.free)
                    found["busy"] += len(executor.running)
        return found

    # -- what the schedulers want ------------------------------------------------------------------

    def task_changed(self, task: TaskState) -> None:
        """See ``Effects``."""
        self._write_of(task)

    def _write_of(self, task: TaskState) -> StateWrite:
        key = (task.project, task.task_id)
        write = self._dirty.get(key)
        if write is None:
            write = self._dirty[key] = StateWrite(state_name(*key))
            self._hold(write)
        write.task = task
        return write

    def _hold(self, hold: OffsetHold) -> None:
        # What follows from time alone needs no record of the log: it happens again.
        if self._offset >= 0:
            self.offsets.hold(hold, self._offset)

    def then(self, task: TaskState, binding: Binding) -> None:
        """See ``Effects``."""
        self._write_of(task).bindings.append(binding)

    def executor_changed(self, state: ExecutorState) -> None:
        """See ``Effects``."""
        write = IndexedWrite(state_name(state.project, state.executor_id))
        write.closed_at_us = closed_at_us(state)
        self._hold(write)
        self._put("taskstate", state.executor_id, encode_state(state), write)

    def refused(self, refusal: TaskRefusal) -> None:
        """See ``Effects``."""
        self._put_needed("taskstate", refusal.task_id, encode_state(refusal))

    def send(self, binding: Binding) -> None:
        """See ``Effects``."""
        self._put_needed("bindings", binding.executor_id, encode_binding(binding))

    def command(self, command: Command) -> None:
        """See ``Effects``."""
        self.counters.commands += 1
        self._put_needed("control", command.trace_id, _encode(command))

    def found(self, finding: Finding) -> None:
        """See ``Effects``."""
        self.counters.findings += 1
        self._put_needed("findings", finding.project, _encode(finding))

    def count(self, name: str) -> None:
        """See ``Effects``."""
        self.counters.tasks[name] += 1

    def next_fence(self) -> int:
        """See ``Effects``."""
        if self._bound == MAX_BOUND:
            self._bound, self.epoch = 0, self.epoch + 1
        self._bound += 1
        return fence_of(self.epoch, (self._nonce << NONCE_SHIFT) | self._bound)

    def _put_needed(self, topic: str, key: str, value: bytes) -> None:
        hold = OffsetHold()
        self._hold(hold)
        self._put(topic, key, value, hold)

    def _put(self, topic: str, key: str, value: bytes, owner: OffsetHold) -> None:
        # A task's state is on the partition of its project, wherever its id would lead.
        partition = self.partition if topic == "taskstate" else -1
        output = Output(topic, key.encode(), value, partition=partition, owner=owner, urgent=True)
        output.appended_us = self._appended_us
        if isinstance(owner, StateWrite):
            self.pending += 1
        self._outbox.append(output)
