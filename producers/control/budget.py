"""Budgets that a run is given: kept here, in the process, without a round trip.

Before a step begins, what it may use is reserved, under one lock, so that parallel branches cannot overspend together; when it
ends, what it used takes the place of the reservation. What a call may cost is what was said for it (``reserve_usd``), else
the most that such a call has cost in this run, else the budget's ``reserve_usd``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Never

from stepstream.producers.checked_fields import nanos_of
from stepstream.producers.error_guard import sdk_log
from stepstream.producers.exceptions import BudgetExceeded
from stepstream.producers.misuse import hint, misuse, shown
from stepstream.producers.values.failures import message_of, type_of
from stepstream.producers.values.plain import number_of
from stepstream.schemas.formatting import format_usd
from stepstream.schemas.money import amount_nanos

Usd = Decimal | float | str


@dataclass(frozen=True, slots=True)
class BudgetWarning:
    """A share of a budget is used. ``what`` is usd, tokens, steps or seconds; amounts are in its unit."""

    what: str
    used: Decimal
    limit: Decimal


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """What a run may use; what is not given is not limited. ``run(budget=Budget(usd=0.50, steps=40))``.

    ``on_warn`` is called once for each limit when the share ``warn`` of it is used. ``reserve_usd`` and ``reserve_tokens``
    are set aside for a model's call as long as nothing is known of what such calls use. An amount that is none, and a name
    that there is not, are logged as errors: that limit is not kept.
    """

    usd: Usd | None = None
    tokens: int | None = None
    steps: int | None = None
    seconds: float | None = None
    warn: float = 0.8
    on_warn: Callable[[BudgetWarning], object] | None = None
    reserve_usd: Usd = 0
    reserve_tokens: int = 0

    def __init__(
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
        given = {"usd": usd, "tokens": tokens, "steps": steps, "seconds": seconds, "warn": warn, "on_warn": on_warn,
                 "reserve_usd": reserve_usd, "reserve_tokens": reserve_tokens}  # fmt: skip
        for name, (default, usable, example) in _FIELDS.items():
            value = given[name]
            if value is not default and value is not None and not usable(value):
                wrong = (
                    f"Budget({name}={shown(value)}) is left out, so that nothing is limited by it"
                )
                misuse(
                    f"Budget {name}",
                    f"{wrong}: write Budget({name}={example})",
                    level=logging.ERROR,
                )
                value = default
            object.__setattr__(self, name, default if value is None else value)
        for name in unknown:
            meant = hint(name, given)
            misuse(
                f"Budget {name}",
                f"Budget has no limit {name!r}{meant}; it is not kept",
                level=logging.ERROR,
            )


def _is_limit(value: object) -> bool:
    number = number_of(value)
    return number is not None and number >= 0


_FIELDS: Final[dict[str, tuple[Any, Callable[[Any], bool], str]]] = {
    "usd": (None, lambda value: nanos_of(value) is not None, "0.50"),
    "tokens": (None, _is_limit, "100_000"),
    "steps": (None, _is_limit, "40"),
    "seconds": (None, _is_limit, "600"),
    "warn": (0.8, lambda value: 0 < (number_of(value) or 0) <= 1, "0.8"),
    "on_warn": (None, callable, "function"),
    "reserve_usd": (0, lambda value: nanos_of(value) is not None, "0.05"),
    "reserve_tokens": (0, _is_limit, "2000"),
}
"""Fields of a budget: what stands where nothing usable is given, what makes a value usable, and how it is written."""


@dataclass(slots=True)
class Reservation:
    """What one step has set aside."""

    ledger: BudgetLedger
    key: str
    amounts: dict[str, int]
    settled: bool = False


_SCALE: Final = {"usd": 1_000_000_000, "tokens": 1, "steps": 1, "seconds": 1_000_000_000}
"""Amounts are kept as integers: nano-dollars, tokens, steps, nanoseconds."""


@dataclass(slots=True)
class BudgetLedger:
    """The state of one run's budget. ``now_ns`` is a steady clock."""

    budget: Budget
    now_ns: Callable[[], int]
    limits: dict[str, int] = field(default_factory=dict)
    refusals: int = 0
    """How often the budget was used up: once, and once more for each time that more was approved."""
    used: dict[str, int] = field(default_factory=lambda: {"usd": 0, "tokens": 0, "steps": 0})
    reserved: dict[str, int] = field(default_factory=lambda: {"usd": 0, "tokens": 0})
    _most: dict[tuple[str, str], int] = field(default_factory=dict)
    _warned: set[str] = field(default_factory=set)
    _refused: tuple[str, str, str] | None = None
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
        """Whether what a step cost must be known when it ends."""
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
        """Set aside what a step may use, or raise ``BudgetExceeded``: then, and from then on, nothing more begins."""
        key = f"{kind}:{label}"
        is_call = kind == "llm_call"
        budget = self.budget
        with self._lock:
            if self._refused is not None:
                raise BudgetExceeded(*self._refused, trace_id=trace_id)
            amounts = {
                "usd": amount_nanos(usd)
                if usd is not None
                else self._guess("usd", key, budget.reserve_usd, is_call),
                "tokens": tokens
                if tokens is not None
                else self._guess("tokens", key, budget.reserve_tokens, is_call),
            }
            for what, limit in self.limits.items():
                wanted, before = self._wanted(what, amounts)
                if wanted > limit or (is_call and what in amounts and before >= limit):
                    shown = f"{_shown(what, before)} used or reserved"
                    if wanted > before and what != "seconds":
                        shown = f"{_shown(what, wanted)} with the next step"
                    self._refused = (what, _shown(what, limit), shown)
                    self.refusals += 1
                    raise BudgetExceeded(*self._refused, trace_id=trace_id)
            self.used["steps"] += 1
            for what, amount in amounts.items():
                self.reserved[what] += amount
        return Reservation(self, key, amounts)

    def release(self, reservation: Reservation) -> None:
        """The step did not begin after all."""
        with self._lock:
            if not reservation.settled:
                reservation.settled = True
                self.used["steps"] -= 1
                for what, amount in reservation.amounts.items():
                    self.reserved[what] -= amount

    def settle(self, reservation: Reservation, nanos: int | None, tokens: int | None) -> None:
        """The step has ended: what it used takes the place of what was reserved; where that is unknown, the latter stays."""
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

    def warnings(self) -> list[BudgetWarning]:
        """The limits of which a share is used, each once. The budget's ``on_warn`` is called with each."""
        found: list[BudgetWarning] = []
        with self._lock:
            for what, limit in self.limits.items():
                used = self._used(what)
                if what not in self._warned and limit and used >= limit * self.budget.warn:
                    self._warned.add(what)
                    found.append(
                        BudgetWarning(
                            what, Decimal(used) / _SCALE[what], Decimal(limit) / _SCALE[what]
                        )
                    )
        for warning in found if self.budget.on_warn is not None else ():
            try:
                self.budget.on_warn(warning)  # type: ignore[misc]  # not None, as was just asked
            except Exception as error:
                sdk_log.log(
                    "on_warn",
                    f"stepstream: on_warn failed: {type_of(error)}: {message_of(error)}",
                    error=error,
                )
        return found

    def grant(self, usd: Usd) -> None:
        """More was approved."""
        with self._lock:
            if "usd" in self.limits:
                self.limits["usd"] += amount_nanos(usd)
                self._warned.discard("usd")
            self._refused = None

    def _guess(self, what: str, key: str, default: Usd, is_call: bool) -> int:
        known = self._most.get((what, key))
        if known is not None:
            return known
        if not is_call:
            return 0
        return amount_nanos(default) if what == "usd" else int(default)

    def _wanted(self, what: str, amounts: dict[str, int]) -> tuple[int, int]:
        before = self._used(what) + self.reserved.get(what, 0)
        return before + (1 if what == "steps" else amounts.get(what, 0)), before

    def _used(self, what: str) -> int:
        return self.now_ns() - self._began_ns if what == "seconds" else self.used[what]


def _shown(what: str, amount: int) -> str:
    if what == "usd":
        return format_usd(amount)
    return f"{amount / 1e9:.1f} s" if what == "seconds" else f"{amount} {what}"
