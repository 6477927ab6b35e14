"""A small scheduler of tasks over Kafka, for tests of executors: one thread, no state on disk.

It follows the records of ``schemas/task_*.py``: tasks run first in, first out; an attempt whose
executor sends no heartbeat is lost, and repeated where its agent is idempotent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stepstream.common import kafka
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_bindings import (
    DrainExecutorStruct,
    ReleaseAttemptStruct,
    RunAttemptStruct,
    encode_binding,
)
from stepstream.schemas.task_common import fence_of, task_trace_id
from stepstream.schemas.task_messages import SubmitStruct, WrongTaskRecord, decode_message
from stepstream.schemas.task_state import TaskRefusalStruct, TaskStateStruct, encode_state
from stepstream.schemas.topics import topic


@dataclass
class _Executor:
    hello: Any
    seen: float
    ready: bool
    running: set[str] = field(default_factory=set)


@dataclass
class _Task:
    submit: Any
    state: str = "waiting"
    attempt: int = 0
    fence: int = 0
    executor_id: str = ""
    revision: int = 0
    started: bool = False
    once: dict[str, msgspec.Raw] = field(default_factory=dict)
    end: Any = None
    reason: str = ""


class Scheduler:
    """Schedules all tasks of an installation until ``close``. ``seen`` has every record."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.seen: list[Any] = []
        self.tasks: dict[str, _Task] = {}
        self.executors: dict[str, _Executor] = {}
        self.epoch = 1
        self.refuses: set[str] = set()
        """Ids whose further submits are refused, as if they had another input."""
        self._counter = 0
        self._bindings = topic(settings.topic_prefix, "bindings")
        self._states = topic(settings.topic_prefix, "taskstate")
        self._producer = kafka.producer(settings, **{"linger.ms": 0})
        self._consumer: Consumer = kafka.consumer(settings, "test-scheduler")
        name = topic(settings.topic_prefix, "tasks")
        self._partitions = kafka.partition_count(self._consumer, name)
        self._executor_partitions = kafka.partition_count(self._consumer, self._bindings)
        # From the present end: tasks of earlier tests are not run again.
        places = [TopicPartition(name, p) for p in range(self._partitions)]
        for place in places:
            place.offset = kafka.ends_of(self._consumer, place)[1]
        self._consumer.assign(places)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="test-scheduler", daemon=True)
        self._thread.start()

    def of(self, kind: type) -> list[Any]:
        """The records of one kind so far."""
        return [one for one in list(self.seen) if isinstance(one, kind)]

    def bind(self, executor_id: str, record: Any) -> None:
        """Write a binding."""
        self._producer.produce(
            self._bindings,
            encode_binding(record),
            executor_id.encode(),
            partition=partition_for(executor_id, self._executor_partitions),
        )
        self._producer.poll(0)

    def release(self, task_id: str, reason: str = "cancel") -> None:
        """Take an attempt back."""
        task = self.tasks[task_id]
        self.bind(
            task.executor_id,
            ReleaseAttemptStruct(
                executor_id=task.executor_id,
                project=task.submit.project,
                task_id=task_id,
                attempt=task.attempt,
                fence=task.fence,
                reason=reason,
            ),
        )

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(10)
        self._producer.flush(5)
        self._consumer.close()

    def _work(self) -> None:
        while not self._stopping.is_set():
            for message in self._consumer.consume(500, timeout=0.01):
                if message.error() is None:
                    self._take(message)
            self._expire(time.monotonic())
            self._bind_waiting()
            self._producer.poll(0)

    def _take(self, message: Any) -> None:
        try:
            record = decode_message(message.value(), message.key())
        except WrongTaskRecord:
            return
        self.seen.append(record)
        if getattr(record, "task_id", "") in self.refuses and isinstance(record, SubmitStruct):
            self._refuse(record, message.offset())
            return
        name = type(record).__name__.removesuffix("Struct").lower()
        handler: Callable[[Any], None] | None = getattr(self, f"_on_{name}", None)
        if handler is not None:
            handler(record)

    def _refuse(self, record: Any, offset: int) -> None:
        refusal = TaskRefusalStruct(
            project=record.project,
            task_id=record.task_id,
            refused="submit",
            reason="other_input",
            detail="the id is that of a task with another input",
            at_us=time.time_ns() // 1_000,
            source_offset=offset,
        )
        self._produce(record, encode_state(refusal))

    def _on_submit(self, record: Any) -> None:
        is_new = record.task_id not in self.tasks
        if is_new:
            self.tasks[record.task_id] = _Task(record)
        self._write(record.task_id, "submitted" if is_new else "repeated")

    def _on_hello(self, record: Any) -> None:
        self.executors[record.executor_id] = _Executor(record, time.monotonic(), record.ready)

    def _on_ready(self, record: Any) -> None:
        self.executors[record.executor_id].ready = True

    def _on_notready(self, record: Any) -> None:
        self.executors[record.executor_id].ready = False

    def _on_beat(self, record: Any) -> None:
        if executor := self.executors.get(record.executor_id):
            executor.seen = time.monotonic()

    def _on_drain(self, record: Any) -> None:
        if executor := self.executors.get(record.executor_id):
            executor.ready = False
            self.bind(
                record.executor_id,
                DrainExecutorStruct(
                    executor_id=record.executor_id,
                    project=record.project,
                    deadline_us=record.deadline_us,
                    by=record.by,
                ),
            )

    def _on_bye(self, record: Any) -> None:
        self._lose(record.executor_id)

    def _on_claim(self, record: Any) -> None:
        if task := self._current(record):
            task.started = True
            task.state = "running"
            self._write(record.task_id, "started")

    def _on_once(self, record: Any) -> None:
        if task := self._current(record):
            task.once[record.key] = record.value
            self._write(record.task_id, "kept")

    def _on_end(self, record: Any) -> None:
        task = self._current(record)
        if task is None:
            return
        self.executors[task.executor_id].running.discard(record.task_id)
        task.end = record
        if record.status == "refused":
            task.state, task.started = "waiting", False
        else:
            task.state = {"timed_out": "failed", "lease_lost": "dead"}.get(
                record.status, record.status
            )
        self._write(record.task_id, "ended")

    def _on_cancel(self, record: Any) -> None:
        task = self.tasks.get(record.task_id)
        if task is None:
            return
        if task.state == "waiting":
            task.state = "cancelled"
            self._write(record.task_id, "ended")
        else:
            self.release(record.task_id, "cancel")

    def _on_retry(self, record: Any) -> None:
        task = self.tasks.get(record.task_id)
        if task is not None:
            task.state, task.started, task.end = "waiting", False, None
            self._write(record.task_id, "retrying")

    def _current(self, record: Any) -> _Task | None:
        task = self.tasks.get(record.task_id)
        return task if task and task.fence == record.fence and not task.end else None

    def _expire(self, now: float) -> None:
        for executor_id, executor in list(self.executors.items()):
            lease_s = min(agent.lease_us for agent in executor.hello.agents) / 1e6
            if now - executor.seen > lease_s:
                self._lose(executor_id)

    def _lose(self, executor_id: str) -> None:
        executor = self.executors.pop(executor_id, None)
        for task_id in executor.running if executor else ():
            task = self.tasks[task_id]
            spec = next(a for a in executor.hello.agents if a.name == task.submit.agent)  # type: ignore[union-attr]
            if task.started and not spec.idempotent:
                task.state, task.reason = "dead", "lease_lost"
                self._write(task_id, "ended")
            else:
                task.state, task.started = "waiting", False
                self._write(task_id, "attempt_lost")

    def _bind_waiting(self) -> None:
        for task_id, task in self.tasks.items():
            if task.state != "waiting":
                continue
            executor = next((e for e in self.executors.values() if self._fits(e, task)), None)
            if executor is not None:
                self._bind(task_id, task, executor)

    def _fits(self, executor: _Executor, task: _Task) -> bool:
        names = {agent.name for agent in executor.hello.agents}
        is_free = len(executor.running) < executor.hello.slots
        return executor.ready and is_free and task.submit.agent in names

    def _bind(self, task_id: str, task: _Task, executor: _Executor) -> None:
        submit = task.submit
        self._counter += 1
        task.attempt += 1
        task.fence = fence_of(self.epoch, self._counter)
        task.executor_id = executor.hello.executor_id
        task.state, task.end = "bound", None
        executor.running.add(task_id)
        spec = next(a for a in executor.hello.agents if a.name == submit.agent)
        given = {} if submit.input is None else {"input": submit.input}
        self.bind(
            task.executor_id,
            RunAttemptStruct(
                executor_id=task.executor_id,
                project=submit.project,
                task_id=task_id,
                attempt=task.attempt,
                fence=task.fence,
                trace_id=task_trace_id(submit.project, task_id, task.attempt),
                agent=submit.agent,
                version=submit.version,
                once=task.once,
                lease_us=spec.lease_us,
                timeout_us=submit.timeout_us,
                attempts=submit.attempts or spec.retry.attempts,
                user_id=submit.user_id,
                session_id=submit.session_id,
                **given,
            ),
        )
        self._write(task_id, "bound")

    def _write(self, task_id: str, event: str) -> None:
        task = self.tasks[task_id]
        task.revision += 1
        end, submit = task.end, task.submit
        more: dict[str, Any] = {}
        if end is not None:
            more = {"error_type": end.error_type, "error_message": end.error_message}
            if end.result is not None:
                more["result"] = end.result
        record = TaskStateStruct(
            project=submit.project,
            task_id=task_id,
            state=cast(Any, task.state),
            reason=task.reason,
            event=event,
            at_us=time.time_ns() // 1_000,
            epoch=self.epoch,
            revision=task.revision,
            agent=submit.agent,
            attempt=task.attempt,
            fence=task.fence,
            executor_id=task.executor_id,
            **more,
        )
        self._produce(record, encode_state(record))

    def _produce(self, record: Any, value: bytes) -> None:
        self._producer.produce(
            self._states,
            value,
            record.task_id.encode(),
            partition=partition_for(record.project, self._partitions),
        )
        self._producer.poll(0)
