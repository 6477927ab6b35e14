"""The topics that the sink stores in ClickHouse, and how a batch of each becomes rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from clickhouse_connect.driver.client import Client

from stepstream.sinks.batching.batcher import PendingBatch
from stepstream.sinks.batching.position import Position
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.batching.writer import TopicHandler
from stepstream.sinks.clickhouse.offsets import keys_between
from stepstream.sinks.clickhouse.plain_rows import (
    ALERTS,
    DELIVERIES,
    FINDINGS,
    build_alerts,
    build_deliveries,
    build_findings,
)
from stepstream.sinks.clickhouse.rows import Blocks
from stepstream.sinks.clickhouse.run_rows import RUNS, build_runs
from stepstream.sinks.clickhouse.step_columns import STEPS
from stepstream.sinks.clickhouse.step_rows import build_steps
from stepstream.sinks.clickhouse.task_rows import TASK_EVENTS, build_tasks
from stepstream.sinks.clickhouse.window import SPAN, SeenWindow

Connect = Callable[[], Client]
"""The connection of the calling thread."""


class PlainHandler:
    """A topic whose tables may get the same record twice without harm."""

    def __init__(self, build: Callable[[Sequence[Record], Source], Blocks]) -> None:
        self._build = build

    def open(self, source: Source, position: Position) -> None:
        """Nothing is needed from the store."""

    def build(self, batch: PendingBatch, source: Source) -> Blocks:
        """The rows of a batch."""
        return self._build(batch.records, source)

    def stored(self, blocks: Blocks) -> None:
        """Nothing has to be remembered."""


class StepsHandler:
    """Steps.

    Rollups count every row that is inserted, so a step that comes again must be recognised before.
    """

    def __init__(self, connect: Connect, span: int = SPAN) -> None:
        self._connect = connect
        self._span = span
        self._window = SeenWindow(0, span)
        self._stored_to = -1

    def open(self, source: Source, position: Position) -> None:
        """Fill the window with the steps in the store.

        Those of the batch to be repeated are left out: it has to give the same rows as the first
        time.
        """
        self._window = SeenWindow(position.offset, self._span)
        self._stored_to = -1 if position.stored is None else position.stored
        end = position.replay_end
        left_out = None if end is None else (position.offset, end + 1)
        client = self._connect()
        older, newest = (
            keys_between(client, source, offsets, left_out) for offsets in self._window.ranges
        )
        self._window.load(older, newest)

    def build(self, batch: PendingBatch, source: Source) -> Blocks:
        """The rows of a batch."""
        if self._window.move_to(batch.first) and self._stored_to >= batch.first:
            newest = self._window.ranges[1]
            self._window.load((), keys_between(self._connect(), source, newest, None))
        return build_steps(batch.records, source, self._window)

    def stored(self, blocks: Blocks) -> None:
        """Remember the steps."""
        self._window.update(blocks.keys)


_MAKERS: Final[dict[str, tuple[str, Callable[[Connect], TopicHandler]]]] = {
    "steps": (STEPS.name, StepsHandler),
    "trajectories": (RUNS.name, lambda _: PlainHandler(build_runs)),
    "alerts": (ALERTS.name, lambda _: PlainHandler(build_alerts)),
    "deliveries": (DELIVERIES.name, lambda _: PlainHandler(build_deliveries)),
    "findings": (FINDINGS.name, lambda _: PlainHandler(build_findings)),
    "taskstate": (TASK_EVENTS.name, lambda _: PlainHandler(build_tasks)),
}

PROGRESS_TABLES: Final = {name: table for name, (table, _) in _MAKERS.items()}
"""The table of each topic whose highest offset shows how far the sink got."""


def handler_of(name: str, connect: Connect) -> TopicHandler:
    """A new handler for a partition of the topic."""
    return _MAKERS[name][1](connect)
