"""Reads the records of given-up runs again, to dead-letter them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import cast

from faust.types import TP

from stepstream.common.kafka import position_of, read_to_end
from stepstream.schemas.settings import Settings
from stepstream.stream.assemble.given_up_runs import UnreadRange
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.shell.loader import load_with_retries
from stepstream.stream.shell.partition_runner import PartitionRunner


@dataclass(slots=True)
class ConsumedRecord:
    """A ``Record`` as confluent-kafka consumed it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def read_records(
    settings: Settings, tp: TP, first: int, last: int, keys: frozenset[bytes]
) -> list[ConsumedRecord]:
    """The records with these keys from ``first`` to ``last``. Raises ``KafkaUnreachable``."""
    found = []
    for message in read_to_end(settings, tp.topic, [tp.partition], offset=first):
        offset = position_of(message)[1]
        if offset > last:
            break
        key = message.key()
        if key in keys:
            headers = cast(Sequence[tuple[str, bytes]], message.headers() or ())
            found.append(
                ConsumedRecord(offset, message.timestamp()[1], key, message.value(), headers)
            )
    return found


class GivenUpRunReader:
    """Dead-letters the records of given-up runs while the worker goes on.

    ``on_error`` is called with what raises.
    """

    def __init__(self, settings: Settings, on_error: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._on_error = on_error
        self._tasks: set[asyncio.Task[object]] = set()

    def read_new(self, runner: PartitionRunner, processor: AssemblePartition) -> None:
        """Begin with the runs that were given up since the last call."""
        if unread := processor.given_up.take_unread():
            self.begin(self._refuse(runner, processor, unread))

    def begin(self, action: Coroutine[None, None, object]) -> None:
        """Run a coroutine in the background."""
        task = asyncio.create_task(action)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def _refuse(
        self, runner: PartitionRunner, processor: AssemblePartition, unread: Sequence[UnreadRange]
    ) -> None:
        first, last = min(item.first for item in unread), max(item.last for item in unread)
        keys = frozenset(item.trace_id.encode() for item in unread)
        read = functools.partial(read_records, self._settings, runner.tp, first, last, keys)
        records = await load_with_retries(read, f"records of {len(unread)} given-up runs")
        if runner.alive:
            processor.refuse(records, unread)
            runner.send_outputs()
