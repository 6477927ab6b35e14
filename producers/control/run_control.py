"""The control of one run: commands from outside, and the budget that the run was given.

``RunControl`` belongs to a run, or to an agent inside it. Commands arrive in the listener's thread
and take effect where the run begins its next step. Every stop, pause, resume and approval is
recorded as a step of kind ``control``.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from stepstream.producers.exceptions import BudgetExceeded, RunStopped
from stepstream.producers.sdk_log import sdk_log
from stepstream.producers.values.failures import message_of, type_of
from stepstream.schemas.alert import Command
from stepstream.schemas.control import attributes_of, control_step_id, name_of

if TYPE_CHECKING:
    from stepstream.producers.control.budget import BudgetLedger, Reservation

Hook = Callable[[Command], object]
_MOST_COMMAND_IDS: Final = 1_000
_WAIT_SLICE_S: Final = 0.5


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
        """Wall-clock time in microseconds since 1970."""
        ...


class RunControl:
    """Commands to one run, or to an agent inside it; ``parent`` is the control of the run around.

    ``active`` is False as long as nothing here can keep a step from beginning, so that a step of
    such a run pays for one attribute access only.
    """

    __slots__ = (
        "__weakref__",
        "_acknowledged",
        "_approved_us",
        "_cancelled",
        "_changed",
        "_command_ids",
        "_ended",
        "_pause",
        "_record",
        "_since_us",
        "_stop",
        "_suspended",
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
    )

    def __init__(
        self,
        trace_id: str,
        labels: Mapping[str, str],
        started_us: int,
        record: Recorder,
        *,
        parent: RunControl | None = None,
        hook: Hook | None = None,
        ledger: BudgetLedger | None = None,
        pause_limit_s: float = 900.0,
    ) -> None:
        self.trace_id = trace_id
        self.project = labels["project"]
        self.environment = labels["environment"]
        self.agent = labels["agent"]
        self.started_us = started_us
        self.parent = parent
        self.hook = hook
        self.ledger = ledger
        self.pause_limit_s = pause_limit_s
        self.active = ledger is not None
        self._record = record
        self._changed = threading.Condition(threading.RLock())
        self._waiters: list[tuple[Any, Any]] = []
        # A dictionary as an ordered set: the oldest id is dropped first.
        self._command_ids: dict[str, None] = {}
        self._since_us: dict[str, int] = {}
        self._stop: Command | None = None
        self._pause: Command | None = None
        # Calls that wait for an approval, by the id of the pause that is recorded for each.
        self._suspended: dict[str, Command] = {}
        self._acknowledged = False
        self._approved_us = 0
        self._target: tuple[Any, Any] | None = None
        self._cancelled = False
        self._ended = False

    # --- commands arrive: in the listener's thread ---

    def deliver(self, command: Command) -> bool:
        """Take a command. Returns False if it is ignored.

        A command is ignored if it was taken before, if it is a stop or pause from before the last
        approval, or if the run has ended.
        """
        with self._changed:
            known = command.command_id in self._command_ids
            # A stop or pause from before an approval is what the approval was about.
            outdated = command.action in ("stop", "pause") and command.time <= self._approved_us
            if known or outdated or self._ended:
                return False
            self._remember(command.command_id)
            self._take(command)
            # It stays True after a resume: a run that was stopped once is checked at every step.
            self.active = self.active or command.action in ("stop", "pause")
            self._wake()
        if self.hook is not None:
            try:
                self.hook(command)
            except Exception as error:
                reason = f"{type_of(error)}: {message_of(error)}"
                sdk_log.log(
                    "on_command",
                    f"stepstream: on_command failed on {command.action}: {reason}",
                    error=error,
                )
        return True

    def _remember(self, command_id: str) -> None:
        self._command_ids[command_id] = None
        if len(self._command_ids) > _MOST_COMMAND_IDS:
            del self._command_ids[next(iter(self._command_ids))]

    def _take(self, command: Command) -> None:
        match command.action:
            case "resume":
                self._approve(command)
            case "stop" if self._stop is None:
                self._stop = command
                self._record_start(command)
                self._cancel_task()
            case "pause" if self._pause is None:
                self._pause = command
                self._record_start(command)
            case _:
                self._record_end(command)

    def _approve(self, command: Command) -> None:
        self._approved_us = max(self._approved_us, command.time)
        if self._pause is not None and self._pause.time <= command.time:
            self._record_end(self._pause)
            self._pause = None
        # By arrival and not by time: a suspension has the time of the agent's own clock.
        for suspended in self._suspended.values():
            self._record_end(suspended)
        self._suspended = {}
        if self._stop is not None and self._stop.time <= command.time:
            if not self._acknowledged:
                self._record_end(self._stop, "cancelled")
            self._stop, self._acknowledged = None, False
        if self.ledger is not None and command.budget_usd:
            self.ledger.grant(command.budget_usd)
        self._record_end(command)

    # --- commands take effect: in the run's own threads and tasks ---

    def check(self) -> None:
        """Raise ``RunStopped`` if the run, or one around it, is stopped; wait while it is paused.

        Inside an event loop it does not wait, because that would block the loop; this is logged.
        """
        for control in self._chain():
            if control._stop is not None:
                control._raise_stop()
            if control._pause is not None:
                control._wait()

    async def ready(self) -> None:
        """As ``check``, without blocking the event loop."""
        for control in self._chain():
            while control._pause is not None and control._stop is None:
                await control._wait_async()
            if control._stop is not None:
                control._raise_stop()

    def _chain(self) -> Iterator[RunControl]:
        """This control and those around it, innermost first."""
        control: RunControl | None = self
        while control is not None:
            yield control
            control = control.parent

    def reserve(self, kind: str, label: str, fields: Mapping[str, Any]) -> list[Reservation]:
        """Reserve what a step may use, in the budget of this run and of those around it.

        Raises ``BudgetExceeded`` if one of them has too little left; nothing is reserved then.
        """
        reservations: list[Reservation] = []
        usd, tokens = fields.get("reserve_usd"), fields.get("reserve_tokens")
        for control in self._chain():
            ledger = control.ledger
            if ledger is None:
                continue
            refusals = ledger.refusals
            try:
                reservations.append(
                    ledger.reserve(kind, label, usd=usd, tokens=tokens, trace_id=self.trace_id)
                )
            except BudgetExceeded as exceeded:
                for reservation in reservations:
                    reservation.ledger.release(reservation)
                if ledger.refusals > refusals:
                    control.note("stop", exceeded.reason, what=exceeded.what, limit=exceeded.limit)
                raise
            control.record_warnings()
        return reservations

    def settle(
        self, reservations: list[Reservation], nanos: int | None, tokens: int | None
    ) -> None:
        """Replace reservations by what the ended step used; None keeps the reserved amount."""
        for reservation in reservations:
            reservation.ledger.settle(reservation, nanos, tokens)
        for control in self._chain():
            control.record_warnings()

    def record_warnings(self) -> None:
        """Record each limit of the budget whose warning share has been reached since."""
        for warning in self.ledger.warnings() if self.ledger is not None else ():
            self.note(
                "warn",
                f"{warning.used} of {warning.limit} {warning.what} are used",
                what=warning.what,
            )

    # --- calls that a guardrail suspends for an approval ---

    def budget_left(self) -> dict[str, float]:
        """What is left of the budgets of this run and those around it: the least of each limit."""
        left: dict[str, float] = {}
        for control in self._chain():
            if control.ledger is not None:
                for what, amount in control.ledger.left().items():
                    left[what] = min(amount, left.get(what, amount))
        return left

    def can_wait(self) -> bool:
        """Whether this thread may block: not where it runs an event loop."""
        return not in_event_loop()

    def suspend(self, reason: str, by: str) -> bool:
        """Wait for a resume of the run. False if none came within ``pause_limit_s``.

        Raises ``RunStopped`` if the run, or one around it, is stopped meanwhile.
        """
        root, suspended = self._begin_suspension(reason, by)
        until = time.monotonic() + self.pause_limit_s
        try:
            while root._is_suspended(suspended):
                self._raise_any_stop()
                left = until - time.monotonic()
                if left <= 0:
                    return False
                with root._changed:
                    if suspended.command_id in root._suspended:
                        # In slices: a stop of an agent inside the run does not wake this one.
                        root._changed.wait(min(left, _WAIT_SLICE_S))
            self._raise_any_stop()
            return True
        finally:
            root._end_suspension(suspended)

    async def asuspend(self, reason: str, by: str) -> bool:
        """As ``suspend``, without blocking the event loop."""
        import asyncio

        root, suspended = self._begin_suspension(reason, by)
        loop = asyncio.get_running_loop()
        until = time.monotonic() + self.pause_limit_s
        try:
            while root._is_suspended(suspended):
                self._raise_any_stop()
                left = until - time.monotonic()
                if left <= 0:
                    return False
                waiter = (loop, loop.create_future())
                with root._changed:
                    if suspended.command_id in root._suspended:
                        root._waiters.append(waiter)
                    else:
                        waiter[1].set_result(None)
                await asyncio.wait([waiter[1]], timeout=min(left, _WAIT_SLICE_S))
                with root._changed:
                    if waiter in root._waiters:
                        root._waiters.remove(waiter)
            self._raise_any_stop()
            return True
        finally:
            root._end_suspension(suspended)

    def _begin_suspension(self, reason: str, by: str) -> tuple[RunControl, Command]:
        """The root's control, which gets the commands to the run, and the recorded pause."""
        from stepstream.schemas.alert import CommandStruct
        from stepstream.schemas.ids import new_trace_id

        root = list(self._chain())[-1]
        suspended = CommandStruct(
            command_id=new_trace_id(),
            action="pause",
            time=self._record.now_us(),
            project=self.project,
            trace_id=self.trace_id,
            reason=reason,
            by=by,
        )
        with root._changed:
            root._suspended[suspended.command_id] = suspended
            root._record_start(suspended)
        return root, suspended

    def _is_suspended(self, suspended: Command) -> bool:
        return suspended.command_id in self._suspended and not self._ended

    def _end_suspension(self, suspended: Command) -> None:
        """Record a call that waits no longer although it was not approved."""
        with self._changed:
            if self._suspended.pop(suspended.command_id, None) is not None:
                self._record_end(suspended, "cancelled")

    def _raise_any_stop(self) -> None:
        for control in self._chain():
            if control._stop is not None:
                control._raise_stop()

    def _raise_stop(self) -> None:
        with self._changed:
            stop = self._stop
            if stop is None:
                return
            if not self._acknowledged:
                self._acknowledged = True
                self._record_end(stop)
        raise RunStopped(
            stop.reason or "no reason given",
            by=stop.by,
            command_id=stop.command_id,
            trace_id=self.trace_id,
        )

    def stopped_task(self) -> RunStopped | None:
        """The stop that cancelled the run's asyncio task; None if no stop did."""
        if not self._cancelled:
            return None
        self._cancelled = False
        if self._target is not None:
            # The task ends with RunStopped instead, so it no longer counts as cancelled.
            self._target[1].uncancel()
        try:
            self._raise_stop()
        except RunStopped as stopped:
            return stopped
        return None

    def _wait(self) -> None:
        if in_event_loop():
            sdk_log.log(
                "pause",
                "stepstream: a paused run goes on, because a plain `with` in an event loop cannot "
                "wait: write `async with run.tool(...)`, or decorate the asynchronous function",
            )
            return
        until = time.monotonic() + self.pause_limit_s
        with self._changed:
            while self._pause is not None and self._stop is None:
                left = until - time.monotonic()
                if left <= 0:
                    self._stop_after_pause()
                # In slices: on Windows, Ctrl-C does not interrupt waiting for a lock.
                self._changed.wait(min(left, _WAIT_SLICE_S) if left > 0 else 0)
        if self._stop is not None:
            self._raise_stop()

    async def _wait_async(self) -> None:
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
                self._stop_after_pause()
        finally:
            with self._changed:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)

    def _stop_after_pause(self) -> None:
        """Stop the run, because it was not resumed within ``pause_limit_s``.

        A pause asks for an approval: without one, what was paused is not done.
        """
        pause = self._pause
        if pause is None or self._stop is not None:
            return
        limit = f"{self.pause_limit_s:.0f} s"
        reason = f"it was paused ({pause.reason}) and not resumed within {limit}"
        self._record_end(pause, "cancelled")
        self._pause = None
        self._stop = self._command("stop", reason, pause)
        self._record_start(self._stop)
        self._wake()

    def _command(self, action: Any, reason: str, cause: Command) -> Command:
        from stepstream.schemas.alert import CommandStruct
        from stepstream.schemas.ids import derived_id

        return CommandStruct(
            command_id=derived_id("given up", cause.command_id, self.trace_id),
            action=action,
            time=max(self._record.now_us(), cause.time),
            project=self.project,
            trace_id=self.trace_id,
            reason=reason,
            by=cause.by,
        )

    def _wake(self) -> None:
        self._changed.notify_all()
        waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            _call_in_loop(loop, functools.partial(_resolve, future))

    # --- cancelling the asyncio task ---

    def cancel_on_stop(self) -> None:
        """Make a stop cancel the asyncio task that runs now, where it awaits."""
        if in_event_loop():
            import asyncio

            self._target = (asyncio.get_running_loop(), asyncio.current_task())

    def _cancel_task(self) -> None:
        if self._target is None:
            return
        loop, task = self._target

        def cancel() -> None:
            # It runs later, in the loop's thread: by then the run may have ended or stopped.
            is_stopping = self._stop is not None and not self._acknowledged
            if is_stopping and not self._ended and not task.done():
                self._cancelled = True
                task.cancel()

        _call_in_loop(loop, cancel)

    # --- end of the run, and its control steps ---

    def after_fork(self) -> None:
        """Replace the lock in the child: another thread may have owned it."""
        self._changed = threading.Condition(threading.RLock())
        self._waiters = []
        self._suspended = {}

    def end(self) -> None:
        """End the control. Commands that did not take effect are recorded as cancelled."""
        with self._changed:
            self._ended = True
            if self._pause is not None:
                self._record_end(self._pause, "cancelled")
            if self._stop is not None and not self._acknowledged:
                self._record_end(self._stop, "cancelled")
            self._wake()

    def note(self, action: str, reason: str, **attributes: str) -> None:
        """Record a control step without a command: a warning or a stop of the budget."""
        from stepstream.schemas.ids import new_step_id

        attributes = {"action": action, "by": "budget", "reason": reason, **attributes}
        self._record(new_step_id(), "end", action, attributes, began_us=self._record.now_us())

    def _record_start(self, command: Command) -> None:
        began_us = self._since_us[command.command_id] = self._record.now_us()
        step_id = control_step_id(self.trace_id, command.command_id)
        attributes = attributes_of(command)
        self._record(step_id, "start", name_of(command), attributes, began_us=began_us)

    def _record_end(self, command: Command, status: str = "ok") -> None:
        began_us = self._since_us.pop(command.command_id, 0) or self._record.now_us()
        step_id = control_step_id(self.trace_id, command.command_id)
        attributes = attributes_of(command)
        self._record(step_id, "end", name_of(command), attributes, began_us=began_us, status=status)


def new_run_control(
    fields: Mapping[str, Any],
    *,
    trace_id: str,
    labels: Mapping[str, str],
    started_us: int,
    recorder: Recorder,
    parent: RunControl | None,
    pause_limit_s: float,
    now_ns: Callable[[], int],
) -> RunControl:
    """The control of a run that was opened with these fields. ``now_ns`` is a steady clock."""
    budget = fields.get("budget")
    ledger = None
    if budget is not None:
        # Not at the top: a program without budgets does not pay for it on `import stepstream`.
        from stepstream.producers.control.budget import BudgetLedger

        ledger = BudgetLedger(budget, now_ns)
    control = RunControl(
        trace_id,
        labels,
        started_us,
        recorder,
        parent=parent,
        hook=fields.get("on_command"),
        ledger=ledger,
        pause_limit_s=pause_limit_s,
    )
    if fields.get("cancel_on_stop"):
        control.cancel_on_stop()
    return control


def in_event_loop() -> bool:
    """True if an asyncio event loop runs in this thread."""
    # Not imported here: in a program without asyncio the answer is no anyway.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _resolve(future: Any) -> None:
    if not future.done():
        future.set_result(None)


def _call_in_loop(loop: Any, function: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:  # the loop is closed: no task waits any more
        return
