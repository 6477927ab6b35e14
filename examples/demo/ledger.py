"""The demo's own bookkeeping: steps, events, costs and times of each run.

It is independent of the SDK and the pipeline, so that they can be compared with it. Costs are
summed as exact decimals from the price of each step. Each executor appends to a file of its own,
which also has everything until then when the executor is killed; the demo reads the files.
"""

from __future__ import annotations

import json
import os
import threading
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

from genai_prices import Usage, calc_price

_NANO = Decimal("1e-9")


class Journal:
    """The times of all events, and of the events that ended a step."""

    def __init__(self) -> None:
        self.events_us: list[int] = []
        self.ends_us: list[int] = []

    def note(self, time_us: int, *, end: bool) -> None:
        """Record an event. Those of several executors do not arrive in the order of time."""
        insort(self.events_us, time_us)
        if end:
            insort(self.ends_us, time_us)


Write = Callable[[dict[str, Any]], None]
"""Appends a line to the file of the executor."""


class Account:
    """One run, recorded by the agent that does it. Thread-safe."""

    def __init__(
        self,
        trace_id: str,
        scenario: str,
        agent: str,
        task: str,
        journal: Journal | None = None,
        write: Write | None = None,
    ) -> None:
        self.executor = ""
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
        self._write = write or (lambda _line: None)
        self._lock = threading.Lock()
        self._times_us: list[int] = []

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step of the run, from here to the end of the block."""
        self._note("start")
        try:
            yield
        finally:
            self._note("end")

    def note_event(self, *, end: bool = False) -> None:
        """Record an event of the run now, without counting a step."""
        self._note("more end" if end else "more")

    def _note(self, kind: str) -> None:
        line = {"kind": kind, "us": time.time_ns() // 1_000}
        with self._lock:
            self._apply(line)
            self._write({"trace": self.trace_id, **line})

    def apply(self, line: dict[str, Any]) -> None:
        """Take over a line that an executor wrote about the run."""
        with self._lock:
            self._apply(line)

    def _apply(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind == "spent":
            if line["usd"] is None:
                self.unpriced += 1
            else:
                self.cost_usd += Decimal(line["usd"])
        elif kind == "status":
            self.status = line["status"]
        else:
            self.events += 1
            self.started += kind == "start"
            self.ended += kind == "end"
            # Kept sorted, because threads of one run note their events in any order.
            insort(self._times_us, line["us"])
            self._journal.note(line["us"], end=kind.endswith("end"))

    def spent(self, provider: str, model: str, input_tokens: int, output_tokens: int) -> None:
        """Add the cost of a model call, or count it as unpriced."""
        cost = price(provider, model, input_tokens, output_tokens)
        self._set({"kind": "spent", "usd": None if cost is None else str(cost)})

    def ended_as(self, status: str) -> None:
        """The run has ended."""
        self._set({"kind": "status", "status": status})

    def _set(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._apply(line)
            self._write({"trace": self.trace_id, **line})

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
    """The accounts of all runs. With ``file`` every entry is appended to it."""

    def __init__(self, file: Path | None = None) -> None:
        self.journal = Journal()
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._write: Write | None = None
        if file is not None:
            # Without a buffer: a killed process has lost no line.
            self._write = _appending(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND))

    def open(self, trace_id: str, scenario: str, agent: str, task: str) -> Account:
        """Create the account of a new run."""
        account = Account(trace_id, scenario, agent, task, self.journal, self._write)
        with self._lock:
            self._accounts[trace_id] = account
        if self._write is not None:
            opened = {"kind": "open", "scenario": scenario, "agent": agent, "task": task}
            self._write({"trace": trace_id, **opened})
        return account

    def take_over(self, line: dict[str, Any], executor: str) -> None:
        """Take over a line that an executor wrote."""
        if line["kind"] == "open":
            account = self.open(line["trace"], line["scenario"], line["agent"], line["task"])
            account.executor = executor
        else:
            self._accounts[line["trace"]].apply(line)

    @contextmanager
    def run(self, trace_id: str, scenario: str, agent: str, task: str) -> Iterator[Account]:
        """A run with its root step, from here to the end of the block."""
        account = self.open(trace_id, scenario, agent, task)
        try:
            with account.step():
                yield account
        except Exception:
            account.ended_as("error")
            raise
        account.ended_as("ok")

    @property
    def accounts(self) -> list[Account]:
        """All accounts, oldest first."""
        with self._lock:
            return list(self._accounts.values())

    def account(self, trace_id: str) -> Account | None:
        """The account of a run; None if there is none."""
        with self._lock:
            return self._accounts.get(trace_id)


def _appending(descriptor: int) -> Write:
    def write(line: dict[str, Any]) -> None:
        os.write(descriptor, json.dumps(line).encode() + b"\n")

    return write


class LedgerFiles:
    """Reads the files of executors, which are named by their processes, into a ledger."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._positions: dict[Path, int] = {}

    def read(self) -> None:
        """Take over all whole lines that were written since the last call."""
        for file in self._folder.glob("*.ledger"):
            with file.open("rb") as lines:
                lines.seek(self._positions.get(file, 0))
                data = lines.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._positions[file] = self._positions.get(file, 0) + len(whole)
            for line in whole.splitlines():
                self._ledger.take_over(json.loads(line), file.stem)


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
