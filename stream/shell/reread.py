"""Reads records of a partition again: those of runs that were given up, to dead-letter them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import cast

from faust.types import TP

from stepstream.common.kafka import position_of, read_to_end
from stepstream.schemas.settings import Settings
from stepstream.stream.assemble.failed_runs import UnreadRange
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.shell.loader import patiently
from stepstream.stream.shell.topic_stage import PartitionRunner


@dataclass(slots=True)
class ReadAgain:
    """A record as it was consumed; a ``Record``."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def read_records(
    settings: Settings, tp: TP, first: int, last: int, keys: frozenset[bytes]
) -> list[ReadAgain]:
    """The records with these keys from offset ``first`` to ``last``. Raises ``KafkaUnreachable``."""
    found = []
    for message in read_to_end(settings, tp.topic, [tp.partition], offset=first):
        offset = position_of(message)[1]
        if offset > last:
            break
        key = message.key()
        if key in keys:
            headers = cast(Sequence[tuple[str, bytes]], message.headers() or ())
            found.append(ReadAgain(offset, message.timestamp()[1], key, message.value(), headers))
    return found


class Rereader:
    """Dead-letters the records of runs that were given up, while the rest goes on. ``fail`` is told what raises."""

    def __init__(self, settings: Settings, fail: Callable[[BaseException], None]) -> None:
        self._settings = settings
        self._fail = fail
        self._under_way: set[asyncio.Task[object]] = set()

    def look(self, shell: PartitionRunner, logic: AssemblePartition) -> None:
        """Begin with what was given up since."""
        if unread := logic.failed.take_unread():
            self.begin(self._refuse(shell, logic, unread))

    def begin(self, action: Coroutine[None, None, object]) -> None:
        """Do something beside the worker's work."""
        work = asyncio.create_task(action)
        self._under_way.add(work)
        work.add_done_callback(self._done)

    def _done(self, work: asyncio.Task[object]) -> None:
        self._under_way.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._fail(error)

    async def _refuse(
        self, shell: PartitionRunner, logic: AssemblePartition, unread: Sequence[UnreadRange]
    ) -> None:
        first, last = min(item.first for item in unread), max(item.last for item in unread)
        keys = frozenset(item.trace_id.encode() for item in unread)
        look = functools.partial(read_records, self._settings, shell.tp, first, last, keys)
        records = await patiently(look, f"records of {len(unread)} runs that were given up")
        if shell.alive:
            logic.refuse(records, unread)
            shell.pump()
