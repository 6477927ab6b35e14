"""Processes for agents with ``isolation="process"``: started when needed, kept for later attempts.

A line of JSON each way: to the process ``{"run": BINDING}``, ``{"stop": [TRACE_ID, STATUS, REASON,
BY]}``, ``{"kept": ERROR}``; from it ``{"ready": true}``, ``{"once": [KEY, VALUE]}``,
``{"extend": US}``, ``{"outcome": [...]}``. Two pipes of their own are used, so that an agent may
write to stdout.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from stepstream.producers.executor.outcome import Outcome
from stepstream.producers.executor.threads import Threads
from stepstream.schemas.task_bindings import encode_binding

if TYPE_CHECKING:
    from stepstream.producers.executor.outcome import Stop
    from stepstream.schemas.task_bindings import RunAttempt

MODULE: Final = "stepstream.producers.executor.child"
_log: Final = logging.getLogger("stepstream.executor")


class BindingHost(Protocol):
    """Keeps values for the attempt that the process runs."""

    def keep(self, key: str, value: bytes) -> None:
        """Raises ``AttemptStopped``."""

    def extend(self, by_us: int) -> None: ...


class Child:
    """One process, which runs one attempt at a time."""

    def __init__(self, target: str) -> None:
        to_child, self._write_end = os.pipe()
        self._read_end, from_child = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, target, str(to_child), str(from_child)],
                stdin=subprocess.DEVNULL,
                pass_fds=(to_child, from_child),
                # Its own group: Ctrl-C in a terminal is meant for the executor.
                start_new_session=True,
            )
        finally:
            os.close(to_child)
            os.close(from_child)
        self._lines = os.fdopen(self._read_end, "rb")
        self._writing = threading.Lock()
        self._closed = False

    def wait_ready(self) -> None:
        """Wait until it has imported its agents. Raises ``OSError`` if it ends instead."""
        if not self._lines.readline():
            raise OSError(_ending(self._process.wait()))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return not self._closed and self._process.poll() is None

    def run(self, binding: RunAttempt, host: BindingHost, stop: Stop | None) -> Outcome:
        """Run an attempt; returns when it or the process has ended."""
        self._write(b'{"run":' + encode_binding(binding) + b"}")
        if stop is not None:
            self.stop(binding.trace_id, stop)
        with contextlib.suppress(OSError, ValueError):
            for line in self._lines:
                found = self._take(json.loads(line), host)
                if found is not None:
                    return found
        code = self._process.wait()
        return Outcome("failed", error_type="ProcessEnded", error_message=_ending(code))

    def _take(self, line: dict[str, Any], host: BindingHost) -> Outcome | None:
        if "once" in line:
            key, value = line["once"]
            problem = ""
            try:
                host.keep(key, value.encode())
            except Exception as error:
                problem = str(error) or type(error).__name__
            self._write(json.dumps({"kept": problem}).encode())
        elif "extend" in line:
            host.extend(line["extend"])
        elif "outcome" in line:
            status, result, *others = line["outcome"]
            return Outcome(status, None if result is None else result.encode(), *others)
        return None

    def stop(self, trace_id: str, stop: Stop) -> None:
        """Ask the attempt to stop."""
        self._write(json.dumps({"stop": [trace_id, *stop]}).encode())

    def kill(self) -> None:
        """End the process, and the processes that its attempt has started in its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """End an idle process."""
        if self._closed:
            return
        self._closed = True
        with self._writing, contextlib.suppress(OSError):
            os.close(self._write_end)
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._lines.close()

    def _write(self, line: bytes) -> None:
        data = memoryview(line + b"\n")
        # The process may have ended, which its pipe shows to ``run``.
        with self._writing, contextlib.suppress(OSError):
            while data and not self._closed:
                data = data[os.write(self._write_end, data) :]


class Children:
    """The processes of one executor: as many as attempts ran in processes at the same time."""

    def __init__(self, target: str, threads: Threads) -> None:
        self._target = target
        self.threads = threads
        self._guard = threading.Lock()
        self._idle: list[Child] = []
        self._busy: set[Child] = set()

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run an attempt or wait for one."""
        with self._guard:
            return tuple(sorted(child.pid for child in (*self._idle, *self._busy)))

    def take(self) -> Child:
        """An idle process, or a new one. Raises ``OSError``."""
        with self._guard:
            while self._idle:
                child = self._idle.pop()
                if child.is_alive:
                    self._busy.add(child)
                    return child
        child = Child(self._target)
        with self._guard:
            self._busy.add(child)
        try:
            child.wait_ready()
        except OSError:
            self.give_back(child)
            raise
        return child

    def warm_up(self) -> None:
        """Start a process, so that the first attempt does not wait for one."""
        with contextlib.suppress(OSError):  # the first attempt reports it
            self.give_back(self.take())

    def give_back(self, child: Child) -> None:
        """The process has ended its attempt, or has ended itself."""
        is_alive = child.is_alive
        with self._guard:
            self._busy.discard(child)
            if is_alive:
                self._idle.append(child)
        if not is_alive:
            child.close()

    def close(self) -> None:
        """End all of them."""
        with self._guard:
            children = [*self._idle, *self._busy]
            self._idle, self._busy = [], set()
        for child in children:
            child.close()


def _ending(code: int) -> str:
    if code >= 0:
        return f"the process of the attempt ended with exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        hint = "; the machine may have run out of memory" if name == "SIGKILL" else ""
        return f"the process of the attempt was ended by {name}{hint}"
    return f"the process of the attempt was ended by signal {-code}"
