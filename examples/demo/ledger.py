"""The demo's own bookkeeping: steps, events, costs and times of each run.

It is independent of the SDK and the pipeline, so that they can be compared with it. Costs are
summed as exact decimals from the price of each step.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right, insort
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Decimal

from genai_prices import Usage, calc_price

_NANO = Decimal("1e-9")


class Journal:
    """The times of all events, and of the events that ended a step."""

    def __init__(self) -> None:
        self.events_us: list[int] = []
        self.ends_us: list[int] = []

    def note(self, *, end: bool) -> int:
        """Record an event now. Returns its time."""
        now_us = time.time_ns() // 1_000
        self.events_us.append(now_us)
        if end:
            self.ends_us.append(now_us)
        return now_us


class Account:
    """One run, recorded by the agent that does it. Thread-safe."""

    def __init__(
        self, trace_id: str, scenario: str, agent: str, task: str, journal: Journal | None = None
    ) -> None:
        self.trace_id = trace_id
        self.scenario = scenario
        self.agent = agent
        self.task = task
        self.started = 0
        self.ended = 0
        self.events = 0
        self.cost_usd = Decimal(0)
        self.unpriced = 0
        self.status = "running"
        self._journal = journal or Journal()
        self._lock = threading.Lock()
        self._times_us: list[int] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of the run, from here to the end of the block."""
        with self._lock:
            self.started += 1
            self.note_event()
        try:
            yield
        finally:
            with self._lock:
                self.ended += 1
                self.note_event(end=True)

    def note_event(self, *, end: bool = False) -> None:
        """Record an event of the run now."""
        self.events += 1
        # Kept sorted, because threads of one run note their events in any order.
        insort(self._times_us, self._journal.note(end=end))

    def spent(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> None:
        """Add the cost of a model call, or count it as unpriced."""
        cost = price(provider, model, input_tokens, output_tokens)
        with self._lock:
            if cost is None:
                self.unpriced += 1
            else:
                self.cost_usd += cost

    @property
    def open(self) -> int:
        return self.started - self.ended

    @property
    def began_us(self) -> int:
        """The time of the first event; 0 before."""
        return self._times_us[0] if self._times_us else 0

    def last_event_until(self, time_us: int) -> int | None:
        """The time of the last event until ``time_us``; None if there is none."""
        with self._lock:
            position = bisect_right(self._times_us, time_us)
            return self._times_us[position - 1] if position else None


class Ledger:
    """The accounts of all runs."""

    def __init__(self) -> None:
        self.journal = Journal()
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}

    def open(self, trace_id: str, scenario: str, agent: str, task: str) -> Account:
        """Create the account of a new run."""
        account = Account(trace_id, scenario, agent, task, self.journal)
        with self._lock:
            self._accounts[trace_id] = account
        return account

    @contextmanager
    def run(self, trace_id: str, scenario: str, agent: str, task: str) -> Iterator[Account]:
        """A run with its root step, from here to the end of the block."""
        account = self.open(trace_id, scenario, agent, task)
        try:
            with account.step():
                yield account
        except Exception:
            account.status = "error"
            raise
        account.status = "ok"

    @property
    def accounts(self) -> list[Account]:
        """All accounts, oldest first."""
        with self._lock:
            return list(self._accounts.values())

    def account(self, trace_id: str) -> Account | None:
        """The account of a run; None if there is none."""
        with self._lock:
            return self._accounts.get(trace_id)


def price(provider: str, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
    """The cost by the public price list, rounded to nano-dollars; None for an unknown model."""
    try:
        # Computed without code of Stepstream, so that the check compares two calculations.
        found = calc_price(
            Usage(input_tokens=input_tokens, output_tokens=output_tokens),
            model,
            provider_id=provider,
        )
    except LookupError:
        return None
    return found.total_price.quantize(_NANO, rounding=ROUND_HALF_EVEN)
