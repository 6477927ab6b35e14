"""The open runs of this process, and the commands that are delivered to them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final
from weakref import WeakSet, WeakValueDictionary

from stepstream.producers.forks import call_after_fork
from stepstream.schemas.control import binds, is_scope

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl
    from stepstream.schemas.alert import Command

_MOST_SCOPE_COMMANDS: Final = 1_000


class Commands:
    """The open runs of this process, and the commands to agents that apply to later runs too."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        # Weak references: a run that the program drops without ending it is not kept in memory.
        self._roots: WeakValueDictionary[str, RunControl] = WeakValueDictionary()
        self._open: WeakSet[RunControl] = WeakSet()
        self._scope: list[Command] = []
        self.received = self.ignored = self.malformed = self.failures = 0
        call_after_fork(self)

    def open(self, control: RunControl) -> None:
        """Register a run that begins, or an agent inside one, and deliver pending commands.

        These are the commands to its project or agent that were received before.
        """
        with self._lock:
            self._roots.setdefault(control.trace_id, control)
            self._open.add(control)
            waiting = [command for command in self._scope if self._is_for(command, control)]
        resumed_us = max(
            (command.time for command in waiting if command.action == "resume"), default=0
        )
        for command in waiting:
            if command.time > resumed_us:
                control.deliver(command)

    def close(self, control: RunControl) -> None:
        """Remove a run that has ended."""
        with self._lock:
            self._open.discard(control)
            if self._roots.get(control.trace_id) is control:
                del self._roots[control.trace_id]
        control.end()

    def deliver(self, command: Command) -> int:
        """Deliver a command to the runs that it is for. Returns how many took it."""
        with self._lock:
            self.received += 1
            if is_scope(command):
                self._keep(command)
                candidates = list(self._open)
                controls = [control for control in candidates if self._is_for(command, control)]
            else:
                # The root alone: the controls of agents inside the run check those around them.
                root = self._roots.get(command.trace_id)
                controls = [] if root is None else [root]
        taken = sum(control.deliver(command) for control in controls)
        if not taken:
            self.ignored += 1
        return taken

    def _keep(self, command: Command) -> None:
        if all(kept.command_id != command.command_id for kept in self._scope):
            self._scope.append(command)
            # Partitions are read independently, so commands do not arrive in the order of their
            # times.
            self._scope.sort(key=lambda kept: kept.time)
            del self._scope[:-_MOST_SCOPE_COMMANDS]

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
        """Forget the open runs in the child: they are the parent's."""
        self._lock = threading.RLock()
        for control in list(self._open):
            control.after_fork()
        self._roots, self._open = WeakValueDictionary(), WeakSet()
