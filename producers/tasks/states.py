"""The states of tasks, as the scheduler writes them to the topic ``taskstate``.

One thread follows each partition that is asked for. It keeps the newest records, so that waiting
for a thousand tasks reads the topic once; what is older is read again, for one task at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, TopicPartition

from stepstream.common import kafka
from stepstream.producers.tasks.sender import NOT_SENT, Delivery
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.task_state import (
    FINAL,
    TaskRefusalStruct,
    TaskStateStruct,
    decode_state,
    is_newer,
)
from stepstream.schemas.topics import topic

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_state import TaskRefusal, TaskState

POLL_S: Final = 0.2
AT_ONCE: Final = 500
MOST_BYTES: Final = 16 << 20
"""Bytes of records in memory for each partition."""
EARLIER_MS: Final = 2_000
"""Reading begins so long before the submit: a broker's clock may be corrected."""
ASK_S: Final = 10.0
MOST_REFUSALS: Final = 1_000
SEARCH_S: Final = 2.0
"""After so long without a state since the submit, the whole partition is searched."""
_log: Final = logging.getLogger("stepstream.tasks")

Place = tuple[str, str]
"""Project and task id."""


class TaskStates:
    """Follows the states of tasks. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = topic(settings.topic_prefix, "taskstate")
        self._guard = threading.Lock()
        self._followers: dict[int, _Follower] = {}
        self._partitions = 0

    def find(self, project: str, task_id: str) -> TaskState | None:
        """The newest state; None where there is none. Raises ``KafkaUnreachable``."""
        return self.wait(project, task_id, 0.0)

    def known(self, project: str, task_id: str) -> TaskState | None:
        """The newest state that is in memory."""
        return self._follower(project).known((project, task_id))

    def answer(self, project: str, task_id: str, sent: Delivery) -> str | None:
        """What the scheduler answered to a submit: why it was refused, empty where it was not,
        None while it has not answered.
        """
        follower = self._follower(project)
        refusal = follower.refusal(sent.offset)
        if refusal is not None:
            return refusal.detail or refusal.reason
        state = follower.known((project, task_id))
        return "" if state is not None and _is_after(state, sent) else None

    def wait(
        self, project: str, task_id: str, timeout_s: float, *, sent: Delivery = NOT_SENT
    ) -> TaskState | None:
        """The newest state once it is final, or the one after ``timeout_s``.

        ``sent`` is the submit of the caller: where it was refused, the state is ``refused``. Raises
        ``KafkaUnreachable``.
        """
        follower = self._follower(project)
        place = project, task_id
        began = time.monotonic()
        if follower.known(place) is None:
            follower.search(place, sent.time_ms)
        searched = not sent.time_ms
        while True:
            found = follower.newest(place, sent, until=began + timeout_s)
            refusal = follower.refusal(sent.offset) if sent.offset >= 0 else None
            if refusal is not None:
                return _refused(refusal, found)
            is_over = time.monotonic() - began >= timeout_s
            if is_over or (found is not None and found.state in FINAL):
                return found
            if found is None and not searched and time.monotonic() - began > SEARCH_S:
                # The scheduler writes nothing for a task that was submitted, and ended, before.
                follower.search(place, 0)
                searched = True

    def close(self) -> None:
        """Stop following."""
        with self._guard:
            followers, self._followers = list(self._followers.values()), {}
        for follower in followers:
            follower.close()

    def _follower(self, project: str) -> _Follower:
        with self._guard:
            if not self._partitions:
                self._partitions = self._count()
            partition = partition_for(project, self._partitions)
            follower = self._followers.get(partition)
            if follower is None:
                follower = _Follower(self._settings, self._topic, partition)
                self._followers[partition] = follower
        return follower

    def _count(self) -> int:
        client = kafka.consumer(self._settings, "stepstream-task-states")
        try:
            count = kafka.partition_count(client, self._topic)
        finally:
            client.close()
        if not count:
            raise kafka.KafkaUnreachable(
                f"there is no topic {self._topic}: run `stepstream topics create`"
            )
        return count


class _Follower:
    """One partition: a thread that reads it from its present end on."""

    def __init__(self, settings: Settings, name: str, partition: int) -> None:
        self._settings = settings
        self._topic = name
        self._partition = partition
        self._changed = threading.Condition(threading.RLock())
        self._newest: OrderedDict[Place, tuple[TaskState, int]] = OrderedDict()
        self._bytes = 0
        # By the offset of the refused record, which is in the same partition of ``tasks``.
        self._refusals: OrderedDict[int, TaskRefusal] = OrderedDict()
        self._stopping = threading.Event()
        self._consumer = self._opened()
        self._thread = threading.Thread(target=self._work, name="stepstream-states", daemon=True)
        self._thread.start()

    def known(self, place: Place) -> TaskState | None:
        """The newest state in memory."""
        with self._changed:
            known = self._newest.get(place)
            return None if known is None else known[0]

    def refusal(self, offset: int) -> TaskRefusal | None:
        """The refusal of the record of ``tasks`` at this offset."""
        with self._changed:
            return self._refusals.get(offset)

    def newest(self, place: Place, sent: Delivery, *, until: float) -> TaskState | None:
        """The newest state after a submit; if it is not final, after a change of any task or at
        ``until``.
        """
        with self._changed:
            found = self._after(place, sent)
            if (found is None or found.state not in FINAL) and self.refusal(sent.offset) is None:
                self._changed.wait(max(0.0, min(POLL_S, until - time.monotonic())))
                found = self._after(place, sent)
            return found

    def _after(self, place: Place, sent: Delivery) -> TaskState | None:
        found = self.known(place)
        return found if found is not None and _is_after(found, sent) else None

    def search(self, place: Place, since_ms: int) -> None:
        """Read what the partition has about one task, from a log time on; the beginning for 0."""
        offset = self._offset_at(since_ms - EARLIER_MS) if since_ms > 0 else None
        if offset == -1:
            return
        key = place[1].encode()
        for message in kafka.read_to_end(
            self._settings, self._topic, [self._partition], offset=offset
        ):
            if message.key() == key:
                self._take(message)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(ASK_S)
        if not self._thread.is_alive():
            self._consumer.close()

    def _opened(self) -> Consumer:
        client = kafka.consumer(self._settings, "stepstream-task-states")
        place = TopicPartition(self._topic, self._partition)
        try:
            place.offset = kafka.ends_of(client, place)[1]
        except KafkaException as error:
            client.close()
            raise kafka.KafkaUnreachable(
                f"the end of {self._topic} cannot be read: {kafka.words(error)}"
            ) from None
        client.assign([place])
        return client

    def _offset_at(self, since_ms: int) -> int:
        """The first offset at or after a log time; -1 where nothing is as new."""
        client = kafka.consumer(self._settings, "stepstream-task-states")
        try:
            (found,) = client.offsets_for_times(
                [TopicPartition(self._topic, self._partition, max(0, since_ms))], timeout=ASK_S
            )
        except KafkaException as error:
            raise kafka.unreachable(self._settings.kafka_brokers, ASK_S, error) from None
        finally:
            client.close()
        return int(found.offset) if found.offset >= 0 else -1

    def _work(self) -> None:
        while not self._stopping.is_set():
            try:
                first = self._consumer.poll(POLL_S)
                if first is None:
                    continue
                for message in (first, *self._consumer.consume(AT_ONCE, timeout=0)):
                    if message.error() is None:
                        self._take(message)
            except Exception as error:
                _log.error("states of tasks cannot be read, trying again", exc_info=error)
                self._stopping.wait(POLL_S)

    def _take(self, message: Message) -> None:
        value = message.value() or b""
        state = decode_state(value)
        if isinstance(state, TaskRefusalStruct):
            with self._changed:
                self._refusals[state.source_offset] = state
                while len(self._refusals) > MOST_REFUSALS:
                    self._refusals.popitem(last=False)
                self._changed.notify_all()
        if not isinstance(state, TaskStateStruct):
            return
        place = state.project, state.task_id
        with self._changed:
            known = self._newest.pop(place, None)
            if known is not None and not is_newer(state, known[0]):
                self._newest[place] = known
                return
            self._bytes += len(value) - (0 if known is None else known[1])
            self._newest[place] = state, len(value)
            while self._bytes > MOST_BYTES and len(self._newest) > 1:
                self._bytes -= self._newest.popitem(last=False)[1][1]
            self._changed.notify_all()


def _is_after(state: TaskState, sent: Delivery) -> bool:
    """Whether a state is from after a submit, which may have been refused."""
    return state.source_offset >= sent.offset or state.at_us // 1_000 >= sent.time_ms


def _refused(refusal: TaskRefusal, state: TaskState | None) -> TaskState:
    """A state for a submit that was refused: the task of that id, if any, is another one."""
    return TaskStateStruct(
        project=refusal.project,
        task_id=refusal.task_id,
        state="refused",
        reason=refusal.reason,
        detail=refusal.detail,
        event="refused",
        at_us=refusal.at_us,
        epoch=0,
        revision=0,
        agent="" if state is None else state.agent,
    )
