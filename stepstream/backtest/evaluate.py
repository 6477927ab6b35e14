"""A backtest: recorded runs evaluated with two sets of policies, at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stepstream.backtest import store
from stepstream.backtest.compare import Agreement, Comparison, agreement, compared
from stepstream.backtest.history import in_order
from stepstream.backtest.pipeline import OfflinePipeline
from stepstream.backtest.store import Scope
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US
from stepstream.stream.run.limits import AssembleLimits

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PROGRESS_EVERY: Final = 2_000
"""Events between two calls of ``on_progress``."""
OnProgress = Callable[[int], None]


@dataclass(frozen=True)
class Backtest:
    """What was evaluated, and what came of it."""

    scope: Scope
    runs: int
    steps: int
    events: int
    comparison: Comparison
    agreement: Agreement
    """How far the policies in force gave the alerts that the worker had raised."""
    missing_contents: int
    """Ended steps with an input or output that was not captured."""


def backtest(
    client: Client,
    scope: Scope,
    in_force: Iterable[Policy],
    candidate: Iterable[Policy],
    *,
    prices: PriceBook | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress = lambda _events: None,
) -> Backtest:
    """Evaluate the runs of a scope with the policies in force and with other ones.

    ``settings`` give the limits of a worker; ``on_progress`` is called with the number of events so
    far. Raises ``clickhouse_connect``'s errors.
    """
    limits = AssembleLimits.from_settings(settings or Settings())
    runs, steps = store.counts(client, scope)
    before = OfflinePipeline(in_force, prices=prices, limits=limits)
    after = OfflinePipeline(candidate, prices=prices, limits=limits)
    events = 0
    for event in in_order(store.steps(client, scope)):
        # Both in one pass: reading the steps from the store twice would take twice as long, and
        # steps that arrive between would be seen by one of them only.
        before.event(event.trace_id, event.value, event.at_us)
        after.event(event.trace_id, event.value, event.at_us)
        events += 1
        if events % PROGRESS_EVERY == 0:
            on_progress(events)
    for pipeline in (before, after):
        # Runs that never ended are closed by timers; log time costs nothing here.
        pipeline.finish(DAY_US)
    on_progress(events)
    ends = store.statuses(client, scope)
    return Backtest(
        scope=scope,
        runs=runs,
        steps=steps,
        events=events,
        comparison=compared(before.outcome, after.outcome, ends),
        agreement=agreement(before.outcome, store.alerts(client, scope)),
        missing_contents=store.steps_without_contents(client, scope),
    )


def replaced(in_force: Iterable[Policy], given: Iterable[Policy]) -> list[Policy]:
    """The policies in force, with the given ones added or in the place of those of their name."""
    by_name = {policy.name: policy for policy in in_force}
    by_name |= {policy.name: policy for policy in given}
    return list(by_name.values())
