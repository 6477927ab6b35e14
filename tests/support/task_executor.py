"""A small executor in the test's process, by the documented topics alone: no code of the product's
executor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
from confluent_kafka import TopicPartition

from stepstream.common.kafka import consumer, partition_count, producer
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_bindings import RunAttempt, RunAttemptStruct, decode_binding
from stepstream.schemas.task_common import AgentSpecStruct, RunningAttemptStruct, epoch_of
from stepstream.schemas.task_messages import (
    BeatStruct,
    ClaimStruct,
    EndStruct,
    HelloStruct,
    Message,
    SubmitStruct,
    encode_message,
)
from stepstream.schemas.task_state import (
    StateRecord,
    TaskRefusalStruct,
    TaskState,
    TaskStateStruct,
    decode_state,
    is_newer,
)
from stepstream.schemas.topics import topic

PROJECT = "shop"


class TaskClient:
    """Submits tasks and reads their states."""

    def __init__(self, settings: Settings, project: str = PROJECT) -> None:
        self.settings = settings
        self.project = project
        self._producer = producer(settings, **{"linger.ms": 0})
        self._guard = threading.Lock()
        self.newest: dict[str, TaskState] = {}
        self.records: list[StateRecord] = []
        self._consumer = consumer(
            settings, "task-client", **{"fetch.wait.max.ms": 20, "auto.offset.reset": "earliest"}
        )
        full = topic(settings.topic_prefix, "taskstate")
        count = partition_count(self._consumer, full)
        self._consumer.assign([TopicPartition(full, partition_for(project, count), 0)])

    def send(self, *messages: Message) -> None:
        """Send records, and return when Kafka has all of them."""
        errors: list[Any] = []
        with self._guard:
            for message in messages:
                self._producer.produce(
                    topic(self.settings.topic_prefix, "tasks"),
                    encode_message(message),
                    message.project.encode(),
                    on_delivery=lambda error, _: errors.append(error),
                )
            assert self._producer.flush(30) == 0
        assert errors == [None] * len(messages)

    def submit(self, *task_ids: str, agent: str = "refund", **fields: Any) -> None:
        if "input" in fields:
            fields["input"] = msgspec.Raw(msgspec.json.encode(fields["input"]))
        self.send(
            *(
                SubmitStruct(project=self.project, task_id=task_id, agent=agent, **fields)
                for task_id in task_ids
            )
        )

    def read(self, timeout_s: float = 0.05) -> dict[str, TaskState]:
        """Read what is new. Returns the newest state of each task."""
        for message in self._consumer.consume(1000, timeout=timeout_s):
            state = None if message.error() else decode_state(message.value())
            if state is None:
                continue
            self.records.append(state)
            if isinstance(state, TaskStateStruct) and is_newer(
                state, self.newest.get(state.task_id)
            ):
                self.newest[state.task_id] = state
        return self.newest

    def refusals(self) -> list[Any]:
        return [one for one in self.records if isinstance(one, TaskRefusalStruct)]

    def close(self) -> None:
        self._consumer.close()


class SmallExecutor(TaskClient):
    """Runs attempts in its own thread: ``body`` gets the binding and returns the result."""

    def __init__(
        self,
        settings: Settings,
        executor_id: str,
        *agents: AgentSpecStruct,
        body: Callable[[RunAttempt], Any] = lambda run: run.task_id,
        slots: int = 4,
        beat_s: float = 0.5,
    ) -> None:
        super().__init__(settings)
        self.id = executor_id
        self.runs: list[RunAttempt] = []
        self.releases: list[Any] = []
        self._agents, self._body, self._slots, self._beat_s = agents, body, slots, beat_s
        self._seen: set[int] = set()
        self._running: dict[str, RunAttempt] = {}
        self._epoch = 0
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._work, self._beat)
        ]

    def start(self) -> SmallExecutor:
        self.send(
            HelloStruct(
                project=self.project,
                executor_id=self.id,
                agents=list(self._agents),
                slots=self._slots,
            )
        )
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """Stop without a word, as if killed."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def _work(self) -> None:
        full = topic(self.settings.topic_prefix, "bindings")
        client = consumer(self.settings, "task-executor", **{"fetch.wait.max.ms": 20})
        place = TopicPartition(full, partition_for(self.id, partition_count(client, full)), 0)
        client.assign([place])
        while not self._stopping.is_set():
            for message in client.consume(200, timeout=0.02):
                if message.error() is None and message.key() == self.id.encode():
                    self._take(decode_binding(message.value()))
        client.close()

    def _take(self, binding: Any) -> None:
        if isinstance(binding, RunAttemptStruct):
            if binding.fence in self._seen or epoch_of(binding.fence) < self._epoch:
                return
            self._seen.add(binding.fence)
            self._epoch = max(self._epoch, epoch_of(binding.fence))
            self.runs.append(binding)
            self._running[binding.task_id] = binding
            threading.Thread(target=self._run, args=(binding,), daemon=True).start()
        elif binding is not None and hasattr(binding, "epoch"):
            self._epoch = max(self._epoch, binding.epoch)
        else:
            self.releases.append(binding)

    def _run(self, run: RunAttempt) -> None:
        place: dict[str, Any] = {
            "project": self.project,
            "executor_id": self.id,
            "task_id": run.task_id,
            "attempt": run.attempt,
            "fence": run.fence,
        }
        self.send(ClaimStruct(**place))
        result = self._body(run)
        if self._stopping.is_set():
            return
        self._running.pop(run.task_id, None)
        self.send(EndStruct(**place, status="ok", result=msgspec.Raw(msgspec.json.encode(result))))

    def _beat(self) -> None:
        seq = 0
        while not self._stopping.wait(self._beat_s):
            seq += 1
            running = [
                RunningAttemptStruct(task_id=run.task_id, attempt=run.attempt, fence=run.fence)
                for run in list(self._running.values())
            ]
            self.send(
                BeatStruct(project=self.project, executor_id=self.id, seq=seq, running=running)
            )
