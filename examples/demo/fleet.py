"""The fleet: starts each planned run at its time, in a thread or on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from examples.demo.agents import AGENTS, CannotHelp, Desk
from examples.demo.language_model import Ticket
from examples.demo.scenarios import Planned
from examples.demo.shop import ShopError

# The scenario whose run never ends, so that it is not waited for.
HANGS = "hanging"


class Fleet:
    """Runs a plan. Its threads are daemons: the one that hangs ends with the program."""

    def __init__(self, desk: Desk, plan: Sequence[Planned]) -> None:
        self._desk = desk
        self._plan = plan
        self._loop = asyncio.new_event_loop()
        self._waited_for: list[threading.Thread | Future[Any]] = []
        self._begun = 0
        # Errors that the plan does not contain.
        self.crashes: list[str] = []
        self._conductor = threading.Thread(target=self._conduct, name="demo-fleet", daemon=True)

    def start(self) -> None:
        """Start. First the shop gets the failing payments and earlier refunds of the plan."""
        for planned in self._plan:
            _arrange(self._desk, planned.ticket)
        threading.Thread(target=self._loop.run_forever, name="demo-loop", daemon=True).start()
        self._conductor.start()

    @property
    def done(self) -> bool:
        """True if every run has started, and all have ended but the one that hangs."""
        return self._begun == len(self._plan) and not self.busy

    @property
    def busy(self) -> int:
        """The number of runs that are going on, without the one that hangs."""
        return sum(map(_is_busy, list(self._waited_for)))

    def stop(self) -> None:
        """Stop the event loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _conduct(self) -> None:
        began = time.monotonic()
        for planned in self._plan:
            # Relative to the start of the plan, so that delays do not add up.
            time.sleep(max(0.0, began + planned.at - time.monotonic()))
            self._begin(planned.ticket)
            self._begun += 1

    def _begin(self, ticket: Ticket) -> None:
        agent = AGENTS[ticket.task]
        # Async agents share one event loop, as in a service; the others get a thread each.
        if inspect.iscoroutinefunction(agent):
            self._waited_for.append(
                asyncio.run_coroutine_threadsafe(self._guarded_async(agent, ticket), self._loop)
            )
            return
        thread = threading.Thread(
            target=self._guarded, args=(agent, ticket), name=f"demo-{ticket.scenario}", daemon=True
        )
        thread.start()
        # The thread that hangs is a daemon and ends with the program.
        if ticket.scenario != HANGS:
            self._waited_for.append(thread)

    def _guarded(self, agent: Callable[[Desk, Ticket], Any], ticket: Ticket) -> None:
        with self._noting(ticket):
            agent(self._desk, ticket)

    async def _guarded_async(self, agent: Callable[[Desk, Ticket], Any], ticket: Ticket) -> None:
        with self._noting(ticket):
            await agent(self._desk, ticket)

    @contextlib.contextmanager
    def _noting(self, ticket: Ticket) -> Any:
        try:
            yield
        except CannotHelp:
            return  # the agent gave up, as planned; its run has the error
        # A crash must not end the other agents: the check at the end reports it.
        except Exception as error:
            self.crashes.append(f"{ticket.scenario}: {type(error).__name__}: {error}")


def _arrange(desk: Desk, ticket: Ticket) -> None:
    if ticket.scenario == "retried":
        desk.shop.fail_payments(ticket.number, 1)
    elif ticket.scenario == "ignored":
        with contextlib.suppress(ShopError):
            desk.shop.refund_order(ticket.number, 100)


def _is_busy(one: threading.Thread | Future[Any]) -> bool:
    return one.is_alive() if isinstance(one, threading.Thread) else not one.done()
