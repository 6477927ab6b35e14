"""The stage ``tasks`` of one partition in memory: its log, its outputs, and a clock."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.schemas.alert import CommandStruct, FindingStruct
from stepstream.schemas.task_bindings import (
    Binding,
    ReleaseAttemptStruct,
    RunAttempt,
    RunAttemptStruct,
    decode_binding,
)
from stepstream.schemas.task_common import AgentSpecStruct, RetrySpecStruct, RunningAttemptStruct
from stepstream.schemas.task_messages import (
    BeatStruct,
    ByeStruct,
    CancelStruct,
    ClaimStruct,
    DrainStruct,
    EndStruct,
    HelloStruct,
    Message,
    SubmitStruct,
    encode_message,
)
from stepstream.schemas.task_queue import Queue
from stepstream.schemas.task_state import (
    Change,
    ExecutorState,
    StateRecord,
    TaskRefusal,
    TaskRefusalStruct,
    TaskState,
    TaskStateStruct,
    decode_state,
    is_newer,
)
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.records import LogRecord
from stepstream.stream.tasks.partition import TasksPartition

START_US = 1_767_225_600_000_000
SECOND = 1_000_000


def agent(name: str = "refund", **settings: Any) -> AgentSpecStruct:
    """An agent's settings."""
    if isinstance(settings.get("retry"), dict):
        settings["retry"] = RetrySpecStruct(**settings["retry"])
    return AgentSpecStruct(name=name, **settings)


class TaskWorld:
    """Each record is processed, and each output acknowledged, at once, unless ``acks`` is off."""

    def __init__(self, project: str = "shop") -> None:
        self.project = project
        self.now_us = START_US
        self.log: list[LogRecord] = []
        self.states: list[StateRecord] = []
        self.bindings: list[Binding] = []
        self.commands: list[CommandStruct] = []
        self.findings: list[FindingStruct] = []
        self.letters: list[Output] = []
        self.unacknowledged: list[Output] = []
        self.acks = True
        self.stage = TasksPartition(0)
        self.queues: tuple[Queue, ...] = ()

    def change_queues(self, *queues: Queue) -> None:
        """Put these queues in force, and no others."""
        self.queues = queues
        self.stage.change_queues(queues)
        self.drain()

    # -- the log ---------------------------------------------------------------------------------

    def send(self, message: Message, *, key: bytes | None = None) -> int:
        """Append a record and process it. Returns its offset."""
        return self.append(key or message.project.encode(), encode_message(message))

    def append(self, key: bytes | None, value: bytes | None) -> int:
        """Append any bytes."""
        record = LogRecord(len(self.log), self.now_us // 1000, key, value)
        self.log.append(record)
        self.stage.process(record)
        self.drain()
        return record.offset

    def drain(self) -> None:
        """Flush, and acknowledge the outputs until there are none."""
        self.stage.flush()
        while outputs := self.stage.take_outputs():
            for output in outputs:
                self._store(output)
                if self.acks:
                    self.stage.acknowledged(output)
                else:
                    self.unacknowledged.append(output)

    def _store(self, output: Output) -> None:
        value = output.value or b""
        if output.topic == "taskstate":
            state = decode_state(value)
            assert state is not None
            self.states.append(state)
        elif output.topic == "bindings":
            binding = decode_binding(value)
            assert binding is not None
            assert output.key == binding.executor_id.encode()
            self.bindings.append(binding)
        elif output.topic == "control":
            self.commands.append(msgspec.json.decode(value, type=CommandStruct))
        elif output.topic == "findings":
            self.findings.append(msgspec.json.decode(value, type=FindingStruct))
        else:
            assert output.topic == "deadletter"
            self.letters.append(output)

    def acknowledge(self) -> None:
        """Acknowledge what was sent meanwhile."""
        self.acks = True
        waiting, self.unacknowledged = self.unacknowledged, []
        for output in waiting:
            self.stage.acknowledged(output)
        self.drain()

    def wait(self, seconds: float, *, beats: tuple[str, ...] = (), step_s: float = 1.0) -> None:
        """Let time pass in steps, with heartbeats of these executors."""
        until = self.now_us + round(seconds * SECOND)
        while self.now_us < until:
            self.now_us = min(until, self.now_us + round(step_s * SECOND))
            for executor_id in beats:
                self.beat(executor_id)
            self.stage.tick(self.now_us)
            self.drain()

    def restart(self, *, position: int | None = None) -> None:
        """A new worker takes over: it restores what the log holds and reads on."""
        where = self.stage.offsets.safe if position is None else position
        newest: dict[tuple[str, str], Change] = {}
        for state in self.states:
            if not isinstance(state, TaskRefusalStruct):
                key = state.project, getattr(state, "task_id", "") or state.executor_id
                if is_newer(state, newest.get(key)):
                    newest[key] = state
        copies = [decode_state(msgspec.json.encode(state)) for state in newest.values()]
        self.stage = TasksPartition(0)
        self.stage.restore([one for one in copies if one is not None], where)
        self.stage.change_queues(self.queues)
        self.acks, self.unacknowledged = True, []
        for record in self.log[where:]:
            self.stage.process(record)
        self.stage.tick(self.now_us)
        self.drain()

    # -- senders ---------------------------------------------------------------------------------

    def hello(self, executor_id: str, *agents: AgentSpecStruct, slots: int = 1) -> None:
        self.send(
            HelloStruct(
                project=self.project, executor_id=executor_id, agents=list(agents), slots=slots
            )
        )

    def submit(self, task_id: str, agent: str = "refund", **fields: Any) -> int:
        if "input" in fields:
            fields["input"] = msgspec.Raw(msgspec.json.encode(fields["input"]))
        return self.send(SubmitStruct(project=self.project, task_id=task_id, agent=agent, **fields))

    def claim(self, run: RunAttempt) -> None:
        self.send(ClaimStruct(**_place(run)))

    def end(self, run: RunAttempt, status: Any = "ok", **fields: Any) -> None:
        if "result" in fields:
            fields["result"] = msgspec.Raw(msgspec.json.encode(fields["result"]))
        self.send(EndStruct(**_place(run), status=status, **fields))

    def beat(self, executor_id: str) -> None:
        """A heartbeat that names what the executor was given last and has not ended."""
        running = [
            RunningAttemptStruct(task_id=task.task_id, attempt=task.attempt, fence=task.fence)
            for task in self.live().values()
            if task.executor_id == executor_id and task.state in ("bound", "running")
        ]
        self.send(BeatStruct(project=self.project, executor_id=executor_id, seq=0, running=running))

    def cancel(self, task_id: str, **fields: Any) -> None:
        self.send(CancelStruct(project=self.project, task_id=task_id, **fields))

    def leave(self, executor_id: str) -> None:
        self.send(ByeStruct(project=self.project, executor_id=executor_id))

    def drain_executor(self, executor_id: str, deadline_s: float = 0) -> None:
        self.send(
            DrainStruct(
                project=self.project,
                executor_id=executor_id,
                deadline_us=round(deadline_s * SECOND),
            )
        )

    # -- what happened ---------------------------------------------------------------------------

    def live(self) -> dict[str, TaskState]:
        """Tasks that have not ended."""
        project = self.stage.projects.get(self.project)
        return {} if project is None else project.tasks

    def task(self, task_id: str) -> TaskState:
        """The newest published record of a task."""
        found = self.story(task_id)
        assert found, f"no record of {task_id}"
        return found[-1]

    def story(self, task_id: str) -> list[TaskState]:
        """The records of a task as they were published."""
        return [
            state
            for state in self.states
            if isinstance(state, TaskStateStruct) and state.task_id == task_id
        ]

    def executor(self, executor_id: str) -> ExecutorState:
        return [s for s in self.states if getattr(s, "executor_id", "") == executor_id
                and not isinstance(s, TaskStateStruct)][-1]  # type: ignore[return-value] # fmt: skip

    def refusals(self) -> list[TaskRefusal]:
        return [state for state in self.states if isinstance(state, TaskRefusalStruct)]

    def runs(self, task_id: str = "") -> list[RunAttempt]:
        """Attempts that were sent to executors."""
        return [
            one
            for one in self.bindings
            if isinstance(one, RunAttemptStruct) and task_id in ("", one.task_id)
        ]

    def releases(self) -> list[ReleaseAttemptStruct]:
        return [one for one in self.bindings if isinstance(one, ReleaseAttemptStruct)]


def _place(run: RunAttempt) -> dict[str, Any]:
    return {
        "project": run.project,
        "executor_id": run.executor_id,
        "task_id": run.task_id,
        "attempt": run.attempt,
        "fence": run.fence,
    }


def started(world: TaskWorld, task_id: str = "t") -> RunAttempt:
    """The task's current attempt, claimed."""
    run = world.runs(task_id)[-1]
    world.claim(run)
    return run
