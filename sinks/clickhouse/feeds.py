"""The topics that the sink stores, and what becomes of their records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from clickhouse_connect.driver.client import Client

from stepstream.sinks.batching.lane import Batch
from stepstream.sinks.clickhouse.alert_rows import ALERTS, build_alerts
from stepstream.sinks.clickhouse.delivery_rows import DELIVERIES, build_deliveries
from stepstream.sinks.clickhouse.finding_rows import FINDINGS, build_findings
from stepstream.sinks.clickhouse.position import Position, keys_between
from stepstream.sinks.clickhouse.records import Built, Record, Source
from stepstream.sinks.clickhouse.run_rows import RUNS, build_runs
from stepstream.sinks.clickhouse.step_columns import STEPS
from stepstream.sinks.clickhouse.step_rows import build_steps
from stepstream.sinks.clickhouse.window import SPAN, SeenWindow

logger = logging.getLogger("stepstream.sink")


class Feed(Protocol):
    """What is particular to a topic, for one of its partitions. Its methods run in one thread at a time."""

    def open(self, client: Client, source: Source, position: Position) -> None:
        """Read from the store what is needed before the first batch."""

    def build(self, client: Callable[[], Client], batch: Batch, source: Source) -> Built:
        """The rows of a batch."""

    def stored(self, built: Built) -> None:
        """The batch is in the store."""


class PlainFeed:
    """A topic whose tables take the same record twice without harm."""

    def __init__(self, build: Callable[[Sequence[Record], Source], Built]) -> None:
        self._build = build

    def open(self, client: Client, source: Source, position: Position) -> None:
        """Nothing is needed."""

    def build(self, client: Callable[[], Client], batch: Batch, source: Source) -> Built:
        """The rows of a batch."""
        return self._build(batch.records, source)

    def stored(self, built: Built) -> None:
        """Nothing is to be remembered."""


class StepsFeed:
    """Steps: rollups count every row, so a step that was stored must be known when it comes again."""

    def __init__(self, span: int = SPAN) -> None:
        self._span = span
        self._window = SeenWindow(0, span)
        self._stored_to = -1

    def open(self, client: Client, source: Source, position: Position) -> None:
        """Fill the window from the store, but for the batch in flight, which must be built as it was the first time."""
        self._window = SeenWindow(position.offset, self._span)
        self._stored_to = -1 if position.stored is None else position.stored
        older, newest = self._window.ranges
        left_out = (
            None if position.replay_end is None else (position.offset, position.replay_end + 1)
        )
        self._window.load(
            keys_between(client, source, older, left_out),
            keys_between(client, source, newest, left_out),
        )

    def build(self, client: Callable[[], Client], batch: Batch, source: Source) -> Built:
        """The rows of a batch."""
        if self._window.move_to(batch.first) and self._stored_to >= batch.first:
            self._window.load((), keys_between(client(), source, self._window.ranges[1], None))
        return build_steps(batch.records, source, self._window)

    def stored(self, built: Built) -> None:
        """Remember the steps."""
        self._window.update(built.keys)


PROGRESS_TABLES: Final = {
    "steps": STEPS.name,
    "trajectories": RUNS.name,
    "alerts": ALERTS.name,
    "deliveries": DELIVERIES.name,
    "findings": FINDINGS.name,
}
"""The table of each topic whose highest offset says how far the store is."""

_MAKERS: Final[dict[str, Callable[[], Any]]] = {
    "steps": StepsFeed,
    "trajectories": lambda: PlainFeed(build_runs),
    "alerts": lambda: PlainFeed(build_alerts),
    "deliveries": lambda: PlainFeed(build_deliveries),
    "findings": lambda: PlainFeed(build_findings),
}


def feed_of(name: str) -> Feed:
    """A new feed for a partition of the topic."""
    feed: Feed = _MAKERS[name]()
    return feed
