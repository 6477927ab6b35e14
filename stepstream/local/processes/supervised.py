"""A program of ours that is restarted whenever it ends, with growing pauses."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stepstream.local.priority import lower_priority
from stepstream.local.processes.child import ProgramChild
from stepstream.local.processes.restarts import RepeatFilter, RestartPauses

Report = Callable[[str, str], None]
"""Receives a line for people: the part it is about, and the text."""


@dataclass(frozen=True)
class ProcessStatus:
    """A supervised process at one moment. ``pid`` is 0 while it does not run."""

    name: str
    pid: int
    restarts: int
    exit_code: int | None
    """Of its last end; None when it has never ended."""

    @property
    def running(self) -> bool:
        return self.pid != 0


class SupervisedProcess:
    """Runs ``command`` until ``stop`` is called. The command must call ``follow_parent``.

    Args:
        name: the part, as lines for people name it.
        report: receives the output of the program and what happens to it.
        low_priority: lets other processes go first when the CPU is busy.
        amend: called with the exit code after the program ended by itself. An environment that it
            returns is used for a new start without a pause, which does not count as a restart.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        report: Report,
        *,
        low_priority: bool = False,
        amend: Callable[[int], Mapping[str, str] | None] = lambda _code: None,
    ) -> None:
        self.name = name
        self._low_priority = low_priority
        self._command = list(command)
        self._environment = dict(environment)
        self._amend = amend
        self._report = report
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._child: ProgramChild | None = None
        self._restarts = 0
        self._exit_code: int | None = None
        self._output: deque[str] = deque(maxlen=20)
        self._thread = threading.Thread(
            target=self._supervise, name=f"supervise-{name}", daemon=True
        )

    def start(self) -> None:
        """Start it and keep it running. Raises ``OSError`` when it cannot be run at all."""
        self._launch()
        self._thread.start()

    def status(self) -> ProcessStatus:
        child = self._child
        pid = child.pid if child is not None and child.running else 0
        return ProcessStatus(self.name, pid, self._restarts, self._exit_code)

    def last_output(self) -> str:
        """The last lines of its output."""
        return "\n".join(self._output)

    def stop(self, timeout_s: float) -> bool:
        """End it for good: ask it to finish, kill it after ``timeout_s``; True when not killed."""
        self._stopping.set()
        with self._guard:
            child = self._child
        ended = child is None or child.stop(timeout_s)
        if not ended:
            self._report(
                self.name,
                f"did not end within {timeout_s:.0f} s and was killed; "
                "at its next start it continues from what Kafka has",
            )
        if self._thread.is_alive():
            self._thread.join(5)
        return ended

    def kill(self) -> None:
        """End it at once; it is started again unless ``stop`` was called."""
        with self._guard:
            if self._child is not None:
                self._child.kill()

    def _launch(self) -> bool:
        with self._guard:
            # Without the lock a child could be started after `stop` has ended the last one.
            if self._stopping.is_set():
                return False
            repeats = RepeatFilter()

            def on_line(raw: str) -> None:
                line = repeats(raw, time.monotonic())
                if line:
                    self._output.append(line)
                    self._report(self.name, line)

            self._child = ProgramChild(self._command, self._environment, on_line)
            if self._low_priority:
                lower_priority(self._child.pid)
            return True

    def _supervise(self) -> None:
        pauses = RestartPauses()
        while True:
            child, began = self._child, time.monotonic()
            assert child is not None
            self._exit_code = child.wait_for_end()
            if self._stopping.is_set():
                return
            amended = self._amend(self._exit_code)
            if amended is None:
                pause = pauses.next_pause(time.monotonic() - began)
                self._report(
                    self.name,
                    f"ended with exit code {self._exit_code}; it is started again in {pause:g} s",
                )
            else:
                pause, self._environment = 0.0, dict(amended)
            if self._stopping.wait(pause) or not self._launch():
                return
            self._restarts += amended is None
