"""The runs of this process that are open, and the orders that are handed to them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, WeakValueDictionary

from stepstream.producers.forks import call_after_fork
from stepstream.schemas.control import binds, is_scope

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl
    from stepstream.schemas.alert import Command

_SCOPE_COMMANDS: Final = 1_000


class Commands:
    """The runs of this process that are open, and the orders to whole agents that bind those yet to come."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Weakly: a run that is dropped without an end is nobody's any more.
        self._roots: WeakValueDictionary[str, RunControl] = WeakValueDictionary()
        self._open: WeakSet[RunControl] = WeakSet()
        self._scope: list[Command] = []
        self.received = self.ignored = self.malformed = self.troubles = 0
        call_after_fork(self)

    def open(self, control: RunControl) -> None:
        """A run begins, or an agent inside one."""
        with self._lock:
            self._roots.setdefault(control.trace_id, control)
            self._open.add(control)
            waiting = (
                [command for command in self._scope if self._is_for(command, control)]
                if self._scope
                else []
            )
        freed_us = max(
            (command.time for command in waiting if command.action == "resume"), default=0
        )
        for command in waiting:
            if command.time > freed_us:
                control.deliver(command)

    def close(self, control: RunControl) -> None:
        """It is over."""
        with self._lock:
            self._open.discard(control)
            if self._roots.get(control.trace_id) is control:
                del self._roots[control.trace_id]
        control.end()

    def deliver(self, command: Command) -> int:
        """Hand an order to the runs that it is for; how many took it."""
        with self._lock:
            self.received += 1
            if is_scope(command):
                self._keep(command)
                controls = [
                    control for control in list(self._open) if self._is_for(command, control)
                ]
            else:
                run = self._roots.get(command.trace_id)  # what it contains asks it
                controls = [] if run is None else [run]
        taken = sum(control.deliver(command) for control in controls)
        if not taken:
            self.ignored += 1
        return taken

    def _keep(self, command: Command) -> None:
        if all(kept.command_id != command.command_id for kept in self._scope):
            self._scope.append(command)
            self._scope.sort(key=lambda kept: kept.time)
            del self._scope[:-_SCOPE_COMMANDS]

    @staticmethod
    def _is_for(command: Command, control: RunControl) -> bool:
        return binds(
            command,
            project=control.project,
            environment=control.environment,
            agent=control.agent,
            started_us=control.started_us,
        )

    def after_fork(self) -> None:
        """In the child: the parent's runs are the parent's."""
        self._lock = threading.RLock()
        for control in list(self._open):
            control.after_fork()
        self._roots, self._open = WeakValueDictionary(), WeakSet()
