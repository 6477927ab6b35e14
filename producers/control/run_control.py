"""What stands between a run and its next step: orders from outside, and the budgets given to the run.

``RunControl`` belongs to a run, or to an agent inside it. What is ordered, obeyed, paused and approved is recorded as steps
of kind ``control``. Orders come in the listener's thread, and are obeyed where the run begins its next step.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from stepstream.producers.error_guard import sdk_log
from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.values.failures import message_of, type_of
from stepstream.schemas.alert import Command
from stepstream.schemas.control import attributes_of, control_step_id, name_of

if TYPE_CHECKING:
    from stepstream.producers.control.budget import BudgetLedger, Reservation

Hook = Callable[[Command], object]
_SEEN: Final = 1_000
_SLICE_S: Final = 0.5


class Recorder(Protocol):
    """Publishes one event of a control step of the run."""

    def __call__(
        self,
        step_id: str,
        phase: str,
        name: str,
        attributes: dict[str, str],
        *,
        began_us: int = 0,
        status: str = "ok",
    ) -> None: ...

    def now_us(self) -> int:
        """The wall clock."""
        ...


class RunControl:
    """Orders to one run, or to an agent inside it (then ``parent`` is the control of the run around it).

    ``active`` is False as long as nothing here can keep the next step from beginning: one look, and nothing more is paid.
    """

    __slots__ = (
        "__weakref__",
        "_approved_us",
        "_cancelled",
        "_changed",
        "_ended",
        "_obeyed",
        "_pause",
        "_record",
        "_seen",
        "_since_us",
        "_stop",
        "_target",
        "_waiters",
        "active",
        "agent",
        "environment",
        "hook",
        "ledger",
        "parent",
        "pause_limit_s",
        "project",
        "started_us",
        "trace_id",
    )  # fmt: skip

    def __init__(
        self,
        trace_id: str,
        whose: dict[str, str],
        started_us: int,
        record: Recorder,
        *,
        parent: RunControl | None = None,
        hook: Hook | None = None,
        ledger: BudgetLedger | None = None,
        pause_limit_s: float = 900.0,
    ) -> None:
        self.trace_id = trace_id
        self.project, self.environment, self.agent = (
            whose["project"],
            whose["environment"],
            whose["agent"],
        )
        self.started_us = started_us
        self.parent = parent
        self.hook = hook
        self.ledger = ledger
        self.pause_limit_s = pause_limit_s
        self.active = ledger is not None
        self._record = record
        self._changed = threading.Condition(threading.RLock())
        self._waiters: list[tuple[Any, Any]] = []
        self._seen: dict[str, None] = {}
        self._since_us: dict[str, int] = {}
        self._stop: Command | None = None
        self._pause: Command | None = None
        self._obeyed = False
        self._approved_us = 0
        self._target: tuple[Any, Any] | None = None
        self._cancelled = False
        self._ended = False

    # --- orders come in: the listener's thread ---

    def deliver(self, command: Command) -> bool:
        """Take an order; False when it was taken before, is older than the last approval, or the run is over."""
        with self._changed:
            known = command.command_id in self._seen
            outdated = command.action in ("stop", "pause") and command.time <= self._approved_us
            if known or outdated or self._ended:
                return False
            self._remember(command.command_id)
            self._take(command)
            self.active = self.active or command.action in ("stop", "pause")
            self._wake()
        if self.hook is not None:
            try:
                self.hook(command)
            except Exception as error:
                said = f"{type_of(error)}: {message_of(error)}"
                sdk_log.log(
                    "on_command",
                    f"stepstream: on_command failed on {command.action}: {said}",
                    error=error,
                )
        return True

    def _remember(self, command_id: str) -> None:
        self._seen[command_id] = None
        if len(self._seen) > _SEEN:
            del self._seen[next(iter(self._seen))]

    def _take(self, command: Command) -> None:
        match command.action:
            case "resume":
                self._approve(command)
            case "stop" if self._stop is None:
                self._stop = command
                self._order(command)
                self._cancel_task()
            case "pause" if self._pause is None:
                self._pause = command
                self._order(command)
            case _:
                self._moment(command)

    def _approve(self, command: Command) -> None:
        self._approved_us = max(self._approved_us, command.time)
        if self._pause is not None and self._pause.time <= command.time:
            self._settle(self._pause)
            self._pause = None
        if self._stop is not None and self._stop.time <= command.time:
            if not self._obeyed:
                self._settle(self._stop, "cancelled")
            self._stop, self._obeyed = None, False
        if self.ledger is not None and command.budget_usd:
            self.ledger.grant(command.budget_usd)
        self._moment(command)

    # --- the run obeys: its own threads and tasks ---

    def check(self) -> None:
        """Raise ``RunStopped`` if the run, or one around it, is stopped; wait while it is paused, outside an event loop."""
        for control in self._chain():
            if control._stop is not None:
                control._obey()
            if control._pause is not None:
                control._wait()

    async def ready(self) -> None:
        """Wait, without blocking the event loop, while the run or one around it is paused. Raises ``RunStopped``."""
        for control in self._chain():
            while control._pause is not None and control._stop is None:
                await control._wait_asynchronously()
            if control._stop is not None:
                control._obey()

    def _chain(self) -> Iterator[RunControl]:
        control: RunControl | None = self
        while control is not None:
            yield control
            control = control.parent

    def reserve(self, kind: str, label: str, fields: Mapping[str, Any]) -> list[Reservation]:
        """Set aside what a step may use, of this run's budget and of those around it. Raises ``BudgetExceeded``."""
        held: list[Reservation] = []
        for control in self._chain():
            ledger = control.ledger
            if ledger is None:
                continue
            before = ledger.refusals
            try:
                usd, tokens = fields.get("reserve_usd"), fields.get("reserve_tokens")
                held.append(
                    ledger.reserve(kind, label, usd=usd, tokens=tokens, trace_id=self.trace_id)
                )
            except BudgetExceeded as exceeded:
                for reservation in held:
                    reservation.ledger.release(reservation)
                if ledger.refusals > before:
                    control.note("stop", exceeded.reason, what=exceeded.what, limit=exceeded.limit)
                raise
            control.tell_warnings()
        return held

    def settle(self, held: list[Reservation], nanos: int | None, tokens: int | None) -> None:
        """A step has ended: what it used takes the place of what was set aside."""
        for reservation in held:
            reservation.ledger.settle(reservation, nanos, tokens)
        for control in self._chain():
            control.tell_warnings()

    def tell_warnings(self) -> None:
        """Record that a share of the budget is used."""
        for warning in self.ledger.warnings() if self.ledger is not None else ():
            self.note(
                "warn",
                f"{warning.used} of {warning.limit} {warning.what} are used",
                what=warning.what,
            )

    def _obey(self) -> None:
        with self._changed:
            stop = self._stop
            if stop is None:
                return
            if not self._obeyed:
                self._obeyed = True
                self._settle(stop)
        raise RunStopped(
            stop.reason or "no reason given",
            by=stop.by,
            command_id=stop.command_id,
            trace_id=self.trace_id,
        )

    def stopped_task(self) -> RunStopped | None:
        """After a task was cancelled: the stop, if that was the cause."""
        if not self._cancelled:
            return None
        self._cancelled = False
        if self._target is not None:
            self._target[1].uncancel()  # it ends as a stopped run, not as a cancelled task
        try:
            self._obey()
        except RunStopped as stopped:
            return stopped
        return None

    def _wait(self) -> None:
        if in_event_loop():
            sdk_log.log(
                "pause",
                "stepstream: a paused run goes on, because a plain `with` in an event loop cannot wait: "
                "write `async with run.tool(...)`, or decorate the asynchronous function",
            )
            return
        until = time.monotonic() + self.pause_limit_s
        with self._changed:
            while self._pause is not None and self._stop is None:
                left = until - time.monotonic()
                if left <= 0:
                    self._give_up()
                self._changed.wait(min(left, _SLICE_S) if left > 0 else 0)
        if self._stop is not None:
            self._obey()

    async def _wait_asynchronously(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        with self._changed:
            if self._pause is None or self._stop is not None:
                return
            waiter = (loop, loop.create_future())
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout(self.pause_limit_s):
                await waiter[1]
        except TimeoutError:
            with self._changed:
                self._give_up()
        finally:
            with self._changed:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _give_up(self) -> None:
        """Nobody has resumed the run: what was paused for want of an approval is not done without one."""
        pause = self._pause
        if pause is None or self._stop is not None:
            return
        reason = (
            f"it was paused ({pause.reason}) and nobody resumed it for {self.pause_limit_s:.0f} s"
        )
        self._settle(pause, "cancelled")
        self._pause = None
        self._stop = self._command("stop", reason, pause)
        self._order(self._stop)
        self._wake()

    def _command(self, action: Any, reason: str, before: Command) -> Command:
        from stepstream.schemas.alert import CommandStruct
        from stepstream.schemas.ids import derived_id

        return CommandStruct(
            command_id=derived_id("given up", before.command_id, self.trace_id),
            action=action,
            time=max(self._record.now_us(), before.time),
            project=self.project,
            trace_id=self.trace_id,
            reason=reason,
            by=before.by,
        )

    def _wake(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            _call_in(loop, functools.partial(_let_go, future))

    # --- the task that awaits ---

    def cancel_on_stop(self) -> None:
        """Remember the asyncio task that runs here: a stop cancels it where it awaits."""
        if in_event_loop():
            import asyncio

            self._target = (asyncio.get_running_loop(), asyncio.current_task())

    def _cancel_task(self) -> None:
        if self._target is None:
            return
        loop, task = self._target

        def cancel() -> None:
            if not self._ended and self._stop is not None and not self._obeyed and not task.done():
                self._cancelled = True
                task.cancel()

        _call_in(loop, cancel)

    # --- its steps ---

    def after_fork(self) -> None:
        """In the child: another thread may have held the lock."""
        self._changed = threading.Condition(threading.RLock())
        self._waiters = []

    def end(self) -> None:
        """The run is over: orders that were not obeyed in time are ended as such."""
        with self._changed:
            self._ended = True
            if self._pause is not None:
                self._settle(self._pause, "cancelled")
            if self._stop is not None and not self._obeyed:
                self._settle(self._stop, "cancelled")
            self._wake()

    def note(self, name: str, reason: str, **attributes: str) -> None:
        """A control step that no command led to: a budget's warning, a budget's stop."""
        from stepstream.schemas.ids import new_step_id

        said = {"by": "budget", "reason": reason, **attributes}
        self._record(new_step_id(), "end", name, said, began_us=self._record.now_us())

    def _order(self, command: Command) -> None:
        self._since_us[command.command_id] = self._record.now_us()
        self._record(
            control_step_id(self.trace_id, command.command_id), "start", name_of(command), attributes_of(command),
            began_us=self._since_us[command.command_id],
        )  # fmt: skip

    def _settle(self, command: Command, status: str = "ok") -> None:
        began_us = self._since_us.pop(command.command_id, 0) or self._record.now_us()
        self._record(
            control_step_id(self.trace_id, command.command_id), "end", name_of(command), attributes_of(command),
            began_us=began_us, status=status,
        )  # fmt: skip

    def _moment(self, command: Command) -> None:
        self._settle(command)


def in_event_loop() -> bool:
    """Whether an asyncio event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _let_go(future: Any) -> None:
    if not future.done():
        future.set_result(None)


def _call_in(loop: Any, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop is closed: nobody waits any more
        return
