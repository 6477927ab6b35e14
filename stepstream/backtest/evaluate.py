"""A backtest: recorded runs evaluated with two sets of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from stepstream.backtest import store
from stepstream.backtest.compare import Agreement, Comparison, agreement, compared
from stepstream.backtest.history import in_order
from stepstream.backtest.parallel import CHUNK, evaluators, offline_limits
from stepstream.backtest.store import Scope
from stepstream.backtest.timeline import Timeline
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

OnProgress = Callable[[int, int], None]


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
    missing_steps: int
    """Steps that the runs had and that are not in the store: retention has removed them."""
    missing_contents: int
    """Ended steps with an input or output that was not captured."""


def backtest(
    client: Client,
    scope: Scope,
    in_force: Timeline,
    candidate: Timeline,
    *,
    prices: PriceBook | None = None,
    settings: Settings | None = None,
    on_progress: OnProgress = lambda _events, _expected: None,
) -> Backtest:
    """Evaluate the runs of a scope with the policies in force at each time and with other ones.

    ``candidate`` is the complete set of policies to compare with (see ``replaced``).
    ``settings`` give the limits of a worker; ``on_progress`` is called with the number of events so
    far and about how many there will be. Raises ``clickhouse_connect``'s errors, and
    ``EvaluationFailed``.
    """
    limits = offline_limits(settings or Settings())
    # Before the steps: an alert that is raised while these are read is not missing.
    raised, complete_until_us = store.alerts(client, scope)
    runs, steps = store.counts(client, scope)
    events, reading = 0, _Counted(store.steps(client, scope))
    working = evaluators([in_force, candidate], prices, limits, steps)
    try:
        for chunk in batched(in_order(reading), CHUNK):
            working.take(chunk)
            events += len(chunk)
            on_progress(events, 2 * steps)
        before, after = working.outcomes()
    finally:
        working.close()
    on_progress(events, events)
    ends = store.statuses(client, scope)
    return Backtest(
        scope=scope,
        runs=runs,
        steps=steps,
        events=events,
        comparison=compared(before, after, ends),
        agreement=agreement(before, raised, complete_until_us),
        missing_steps=max(0, steps - reading.number),
        missing_contents=store.steps_without_contents(client, scope),
    )


_T = TypeVar("_T")


class _Counted(Iterator[_T]):
    """An iterator that counts what it returns."""

    def __init__(self, items: Iterator[_T]) -> None:
        self._items = items
        self.number = 0

    def __next__(self) -> _T:
        item = next(self._items)
        self.number += 1
        return item


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The items in lists of a size, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
