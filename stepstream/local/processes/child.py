"""A child process that ends with this process, of either kind; see the package's description."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from stepstream.common.errors import StartFailed

LAUNCHER: Final = Path(__file__).with_name("launcher.py")
KILL_S: Final = 10.0


def _popen(command: Sequence[str], env: Mapping[str, str] | None, **more: Any) -> Any:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(env) if env is not None else None,
        # A group of its own: Ctrl-C in the terminal reaches this process alone, which then ends
        # the children in the right order, clients before servers.
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        **more,
    )


class Child(ABC):
    """A started process. ``pid`` is that of the program itself."""

    pid: int
    _process: subprocess.Popen[bytes]

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @abstractmethod
    def terminate(self) -> None:
        """Ask it to end. Does nothing when it has ended."""

    @abstractmethod
    def _kill(self) -> None: ...

    def wait(self, timeout: float) -> bool:
        """Wait for its end; False when it still runs after ``timeout`` seconds."""
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._close_input()
        return True

    def stop(self, timeout: float) -> bool:
        """Ask it to end, kill it after ``timeout`` seconds; True when it ended by itself."""
        self.terminate()
        ended = self.wait(timeout)
        if not ended:
            self.kill()
        return ended

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Raises ``StartFailed`` when it does not end."""
        self._kill()
        if not self.wait(KILL_S):
            raise StartFailed(f"the process {self.pid} does not end after SIGKILL")

    def _close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


class EngineChild(Child):
    """A program of others below the launcher. Its output goes to the file ``output``."""

    def __init__(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> None:
        """Raises ``StartFailed`` when the program cannot be run."""
        with output.open("wb") as file:
            self._process = _popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), *command], env, stderr=file
            )
        self._output = output
        self.pid = self._read_pid(command[0])

    def _read_pid(self, program: str) -> int:
        assert self._process.stdout is not None
        # The launcher writes the pid once the program runs, and nothing when it cannot be run.
        line = self._process.stdout.readline()
        self._process.stdout.close()
        if not line.strip():
            self._process.wait()
            self._close_input()
            raise StartFailed(f"could not run {program}: {self.last_output()}")
        return int(line)

    def send(self, command: str) -> None:
        """Send ``term``, ``kill``, ``stop`` or ``cont``. Does nothing when it has ended."""
        assert self._process.stdin is not None
        # A launcher that has ended, or closes its input at this moment, needs no command any more.
        with contextlib.suppress(BrokenPipeError, ValueError, OSError):
            self._process.stdin.write(command.encode() + b"\n")
            self._process.stdin.flush()

    def terminate(self) -> None:
        self.send("term")

    def _kill(self) -> None:
        self.send("kill")

    def output(self) -> str:
        """What it wrote to standard output and error since it was started."""
        with contextlib.suppress(OSError):
            return self._output.read_text(errors="replace")
        return ""

    def last_output(self, lines: int = 8) -> str:
        """The last lines of its output."""
        return "\n".join(self.output().strip().splitlines()[-lines:])


class ProgramChild(Child):
    """A program of ours, which calls ``follow_parent``. Each line of output goes to ``on_line``."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]
    ) -> None:
        """Raises ``OSError`` when the program cannot be run."""
        self._process = _popen(command, env, stderr=subprocess.STDOUT)
        self.pid = self._process.pid
        self._on_line = on_line
        threading.Thread(target=self._read_output, name=f"output-{self.pid}", daemon=True).start()

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._on_line(line.decode(errors="replace").rstrip())

    def wait_for_end(self) -> int:
        """Wait for its end, however long; returns the exit code."""
        code = self._process.wait()
        self._close_input()
        return code

    def terminate(self) -> None:
        self._close_input()

    def _kill(self) -> None:
        self._process.kill()
