"""Recorded runs scored by Criteria documents, with the worker's own stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from stepstream.backtest import store
from stepstream.backtest.history import Event, in_order
from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.backtest.store import Scope
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.times import DAY_US
from stepstream.schemas.trajectory import TrajectoryStruct

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PROGRESS_EVERY = 2_000
Scored = dict[str, TrajectoryStruct]
"""The runs that a document matches, by trace id: ``success`` and ``success_reason`` are set."""


def score(
    events: Iterable[Event],
    criteria: Iterable[Criteria],
    on_progress: Callable[[int], None] = lambda _events: None,
) -> Scored:
    """Score the runs of these events, which are in the order of their times."""
    pipeline = OfflinePipeline(criteria=criteria)
    number = 0
    for number, event in enumerate(events, 1):
        pipeline.event(event.trace_id, event.value, event.at_us)
        if number % PROGRESS_EVERY == 0:
            on_progress(number)
    pipeline.finish(DAY_US)
    on_progress(number)
    return pipeline.outcome.trajectories


def score_stored(
    client: Client,
    scope: Scope,
    criteria: Iterable[Criteria],
    on_progress: Callable[[int], None] = lambda _events: None,
) -> Scored:
    """Score the runs of a scope of the store. Raises ``clickhouse_connect``'s errors."""
    return score(in_order(store.steps(client, scope)), criteria, on_progress)
