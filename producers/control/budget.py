"""Budgets of runs, enforced inside the process without a network call.

Before a step begins, the ledger reserves what the step may use, under one lock, so that parallel
branches cannot exceed the budget together. When the step ends, what it used replaces the
reservation. The reservation is the step's own ``reserve_usd``; by default the most that such a
step has cost in this run; for the first model call the ``reserve_usd`` of the budget.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Never

from stepstream.producers.exceptions import BudgetExceeded
from stepstream.producers.misuse import hint, misuse, shown
from stepstream.producers.sdk_log import sdk_log
from stepstream.producers.values.failures import message_of, type_of
from stepstream.producers.values.plain import nanos_of, number_of
from stepstream.schemas.formatting import format_usd
from stepstream.schemas.money import amount_nanos

Usd = Decimal | float | str


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """The warning share of a limit is used.

    ``what`` is usd, tokens, steps or seconds; the amounts are in that unit.
    """

    what: str
    used: Decimal
    limit: Decimal


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """What a run may use, e.g. ``run(budget=Budget(usd=0.50, steps=40))``. None is no limit.

    ``on_warn`` is called once for each limit, when the share ``warn`` of it is used.
    ``reserve_usd`` and ``reserve_tokens`` are reserved for a model call as long as no such call
    has ended in the run. An unusable value and an unknown name are logged as errors, and that
    limit is not enforced.
    """

    usd: Usd | None = None
    tokens: int | None = None
    steps: int | None = None
    seconds: float | None = None
    warn: float = 0.8
    on_warn: Callable[[BudgetWarning], object] | None = None
    reserve_usd: Usd = 0
    reserve_tokens: int = 0

    # Written by hand: an error in a budget must not raise into the program. The order of the
    # parameters is public, so programs may pass all of them by position.
    def __init__(  # noqa: PLR0917
        self,
        usd: Usd | None = None,
        tokens: int | None = None,
        steps: int | None = None,
        seconds: float | None = None,
        warn: float = 0.8,
        on_warn: Callable[[BudgetWarning], object] | None = None,
        reserve_usd: Usd = 0,
        reserve_tokens: int = 0,
        **unknown: Never,
    ) -> None:
        given = {
            "usd": usd,
            "tokens": tokens,
            "steps": steps,
            "seconds": seconds,
            "warn": warn,
            "on_warn": on_warn,
            "reserve_usd": reserve_usd,
            "reserve_tokens": reserve_tokens,
        }
        for name, (default, usable, example) in _FIELDS.items():
            value = given[name]
            if value is not default and value is not None and not usable(value):
                misuse(
                    f"Budget {name}",
                    f"Budget({name}={shown(value)}) is ignored, so this limit is not enforced: "
                    f"write Budget({name}={example})",
                    level=logging.ERROR,
                )
                value = default
            object.__setattr__(self, name, default if value is None else value)
        for name in unknown:
            misuse(
                f"Budget {name}",
                f"Budget has no limit {name!r}{hint(name, given)}; it is not enforced",
                level=logging.ERROR,
            )


def _is_limit(value: object) -> bool:
    number = number_of(value)
    return number is not None and number >= 0


def _is_amount(value: object) -> bool:
    return nanos_of(value) is not None


def _is_share(value: object) -> bool:
    return 0 < (number_of(value) or 0) <= 1


_FIELDS: Final[dict[str, tuple[Any, Callable[[Any], bool], str]]] = {
    "usd": (None, _is_amount, "0.50"),
    "tokens": (None, _is_limit, "100_000"),
    "steps": (None, _is_limit, "40"),
    "seconds": (None, _is_limit, "600"),
    "warn": (0.8, _is_share, "0.8"),
    "on_warn": (None, callable, "function"),
    "reserve_usd": (0, _is_amount, "0.05"),
    "reserve_tokens": (0, _is_limit, "2000"),
}
"""For each field of a budget its default, the test for a usable value, and an example."""


@dataclass(slots=True)
class Reservation:
    """What one step has reserved."""

    ledger: BudgetLedger
    key: str
    amounts: dict[str, int]
    settled: bool = False


# Amounts are integers, so that sums are exact: nano-dollars, tokens, steps, nanoseconds.
_SCALE: Final = {"usd": 1_000_000_000, "tokens": 1, "steps": 1, "seconds": 1_000_000_000}


@dataclass(slots=True)
class BudgetLedger:
    """What a run has used and reserved of its budget. Thread-safe. ``now_ns`` is a steady clock."""

    budget: Budget
    now_ns: Callable[[], int]
    limits: dict[str, int] = field(default_factory=dict)
    refusals: int = 0
    """How often the budget was exhausted: once, and once more after each approval."""
    used: dict[str, int] = field(default_factory=lambda: {"usd": 0, "tokens": 0, "steps": 0})
    reserved: dict[str, int] = field(default_factory=lambda: {"usd": 0, "tokens": 0})
    _most: dict[tuple[str, str], int] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _refused: tuple[str, str, str] | None = None
    # Re-entrant: a step may end in a signal handler or a garbage collection inside the lock.
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _began_ns: int = 0

    def __post_init__(self) -> None:
        budget = self.budget
        given = {"tokens": budget.tokens, "steps": budget.steps}
        self.limits = {name: amount for name, amount in given.items() if amount is not None}
        if budget.usd is not None:
            self.limits["usd"] = amount_nanos(budget.usd)
        if budget.seconds is not None:
            self.limits["seconds"] = round(budget.seconds * 1e9)
        self._began_ns = self.now_ns()

    @property
    def counts_money(self) -> bool:
        """True if the cost of a step must be known when it ends."""
        return "usd" in self.limits

    def reserve(
        self,
        kind: str,
        label: str,
        *,
        usd: Usd | None = None,
        tokens: int | None = None,
        trace_id: str = "",
    ) -> Reservation:
        """Reserve what a step may use.

        Raises ``BudgetExceeded`` if a limit would be exceeded, and for every later step until
        ``grant`` is called.
        """
        key = f"{kind}:{label}"
        is_call = kind == "llm_call"
        with self._lock:
            # After the first refusal every step is refused, also one that would still fit.
            if self._refused is not None:
                raise BudgetExceeded(*self._refused, trace_id=trace_id)
            amounts = self._amounts(key, is_call, usd, tokens)
            for what, limit in self.limits.items():
                before = self._used(what) + self.reserved.get(what, 0)
                wanted = before + (1 if what == "steps" else amounts.get(what, 0))
                # A model call always uses money and tokens: it needs more than nothing left.
                exhausted = is_call and what in amounts and before >= limit
                if wanted > limit or exhausted:
                    self._refused = (what, _shown(what, limit), _excess(what, before, wanted))
                    self.refusals += 1
                    raise BudgetExceeded(*self._refused, trace_id=trace_id)
            self.used["steps"] += 1
            for what, amount in amounts.items():
                self.reserved[what] += amount
        return Reservation(self, key, amounts)

    def release(self, reservation: Reservation) -> None:
        """Undo a reservation, because the step did not begin."""
        with self._lock:
            if not reservation.settled:
                reservation.settled = True
                self.used["steps"] -= 1
                for what, amount in reservation.amounts.items():
                    self.reserved[what] -= amount

    def settle(self, reservation: Reservation, nanos: int | None, tokens: int | None) -> None:
        """Replace a reservation by what the step used. None: the reserved amount counts as used."""
        with self._lock:
            if reservation.settled:
                return
            reservation.settled = True
            for what, actual in (("usd", nanos), ("tokens", tokens)):
                amount = reservation.amounts[what]
                self.reserved[what] -= amount
                self.used[what] += amount if actual is None else actual
                if actual:
                    entry = (what, reservation.key)
                    self._most[entry] = max(actual, self._most.get(entry, 0))

    def left(self) -> dict[str, float]:
        """What is neither used nor reserved of each limit, in dollars, tokens, steps, seconds."""
        with self._lock:
            return {
                what: (limit - self._used(what) - self.reserved.get(what, 0)) / _SCALE[what]
                for what, limit in self.limits.items()
            }

    def warnings(self) -> list[BudgetWarning]:
        """The limits whose warning share was reached since the last call; each goes to
        ``on_warn``."""
        found: list[BudgetWarning] = []
        with self._lock:
            for what, limit in self.limits.items():
                used = self._used(what)
                if what not in self._warned and limit and used >= limit * self.budget.warn:
                    self._warned.add(what)
                    scale = _SCALE[what]
                    found.append(BudgetWarning(what, Decimal(used) / scale, Decimal(limit) / scale))
        on_warn = self.budget.on_warn
        if on_warn is None:
            return found
        for warning in found:
            try:
                on_warn(warning)
            except Exception as error:
                sdk_log.log(
                    "on_warn",
                    f"stepstream: on_warn failed: {type_of(error)}: {message_of(error)}",
                    error=error,
                )
        return found

    def grant(self, usd: Usd) -> None:
        """Raise the limit in dollars by an approved amount and let steps begin again."""
        with self._lock:
            if "usd" in self.limits:
                self.limits["usd"] += amount_nanos(usd)
                self._warned.discard("usd")
            self._refused = None

    def _amounts(
        self, key: str, is_call: bool, usd: Usd | None, tokens: int | None
    ) -> dict[str, int]:
        budget = self.budget
        nanos = None if usd is None else amount_nanos(usd)
        if nanos is None:
            nanos = self._most.get(("usd", key))
        if nanos is None:
            nanos = amount_nanos(budget.reserve_usd) if is_call else 0
        if tokens is None:
            tokens = self._most.get(("tokens", key))
        if tokens is None:
            tokens = int(budget.reserve_tokens) if is_call else 0
        return {"usd": nanos, "tokens": tokens}

    def _used(self, what: str) -> int:
        return self.now_ns() - self._began_ns if what == "seconds" else self.used[what]


def _excess(what: str, before: int, wanted: int) -> str:
    """The amount by which a limit would be exceeded, for ``BudgetExceeded``."""
    if wanted > before and what != "seconds":
        return f"{_shown(what, wanted)} with the next step"
    return f"{_shown(what, before)} used or reserved"


def _shown(what: str, amount: int) -> str:
    if what == "usd":
        return format_usd(amount)
    return f"{amount / 1e9:.1f} s" if what == "seconds" else f"{amount} {what}"
