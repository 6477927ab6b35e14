"""What the demo knows of its own doing: steps, events, money and times per run, kept apart from the SDK and the pipeline.

Costs are asked from the price list step by step and summed here as exact decimals: another way to the same cent.
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
    """When events of all runs were made, in about the order they were made; of ``ends``, those that ended a step."""

    def __init__(self) -> None:
        self.events_us: list[int] = []
        self.ends_us: list[int] = []

    def note(self, *, end: bool) -> int:
        """An event is made now."""
        now_us = time.time_ns() // 1_000
        self.events_us.append(now_us)
        if end:
            self.ends_us.append(now_us)
        return now_us


class Account:
    """One run, as the agent that did it saw it. Any thread may write."""

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
        """A step of the run begins here and ends where the block is left."""
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
        """An event of the run is made now."""
        self.events += 1
        insort(self._times_us, self._journal.note(end=end))

    def spent(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> None:
        """A model was used; what it cost, or that nobody knows."""
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
        """When its first event was made; 0 before."""
        return self._times_us[0] if self._times_us else 0

    def last_event_until(self, time_us: int) -> int | None:
        """When the last event until ``time_us`` was made."""
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
        """The account of a new run."""
        account = Account(trace_id, scenario, agent, task, self.journal)
        with self._lock:
            self._accounts[trace_id] = account
        return account

    @contextmanager
    def run(self, trace_id: str, scenario: str, agent: str, task: str) -> Iterator[Account]:
        """A run, with its root step, from here to where the block is left."""
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
        """All accounts, the oldest first."""
        with self._lock:
            return list(self._accounts.values())

    def account(self, trace_id: str) -> Account | None:
        """The account of a run."""
        with self._lock:
            return self._accounts.get(trace_id)


def price(provider: str, model: str, input_tokens: int, output_tokens: int) -> Decimal | None:
    """The cost by the public price list, rounded once to nano-dollars; None for a model that it does not know."""
    try:
        found = calc_price(
            Usage(input_tokens=input_tokens, output_tokens=output_tokens),
            model,
            provider_id=provider,
        )
    except LookupError:
        return None
    return found.total_price.quantize(_NANO, rounding=ROUND_HALF_EVEN)
