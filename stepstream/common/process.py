"""A child process that ends with us, and the identity by which a process is known again after a restart."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepstream.common.errors import StartFailed

LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Identity:
    """A pid and the moment its process began: the pair that no later process can share."""

    pid: int
    began: str


def identity_of(pid: int) -> Identity | None:
    """Who has this pid now; None when nobody has, or when this platform does not tell."""
    began = _began_linux(pid) if sys.platform == "linux" else _began_ps(pid)
    return Identity(pid, began) if began else None


def _began_linux(pid: int) -> str | None:
    """Clock ticks after boot, with the boot's id; a zombie counts as gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"


def _began_ps(pid: int) -> str | None:
    if os.name != "posix":
        return None
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def end_leftover(known: Identity, grace: float = 12.0) -> bool:
    """Wait for a process that an earlier owner left behind, then end it; True when it is gone.

    It usually ends by itself within a second, because its launcher has noticed that the owner is gone.
    """
    for wait, number in (
        (grace / 2, signal.SIGTERM),
        (grace / 2, getattr(signal, "SIGKILL", signal.SIGTERM)),
        (2, 0),
    ):
        if _gone_within(known, wait):
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(known.pid, number)
    return identity_of(known.pid) != known


def _gone_within(known: Identity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while identity_of(known.pid) == known:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class Child:
    """An engine's process under its launcher. It ends when the calling process ends, by whatever means."""

    def __init__(
        self, command: Sequence[str], output: Path, env: Mapping[str, str] | None = None
    ) -> None:
        with output.open("wb") as sink:
            self._launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=dict(env) if env is not None else None,
                # Its own group: Ctrl-C in the terminal must not reach the engine before its clients have finished.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self._output = output
        self.pid = self._read_pid(command[0])

    def _read_pid(self, program: str) -> int:
        assert self._launcher.stdout is not None
        line = self._launcher.stdout.readline()
        self._launcher.stdout.close()
        if not line.strip():
            self._launcher.wait()
            self._close_commands()
            raise StartFailed(f"could not run {program}: {self.last_words()}")
        return int(line)

    @property
    def running(self) -> bool:
        return self._launcher.poll() is None

    @property
    def exit_code(self) -> int | None:
        return self._launcher.poll()

    def send(self, command: str) -> None:
        """Send term, kill, stop or cont to the engine; nothing happens when it has ended."""
        assert self._launcher.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError, OSError):
            self._launcher.stdin.write(command.encode() + b"\n")
            self._launcher.stdin.flush()

    def stop(self, timeout: float) -> bool:
        """End it, asking first; True when it went by itself."""
        self.send("term")
        asked = self.wait(timeout)
        if not asked:
            self.kill()
        return asked

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.send("kill")
        if not self.wait(10):
            raise StartFailed(f"the process {self.pid} does not end")

    def wait(self, timeout: float) -> bool:
        try:
            self._launcher.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._close_commands()
        return True

    def _close_commands(self) -> None:
        assert self._launcher.stdin is not None
        with contextlib.suppress(OSError):
            self._launcher.stdin.close()

    def output(self) -> str:
        """What it wrote to standard output and error since it was started."""
        with contextlib.suppress(OSError):
            return self._output.read_text(errors="replace")
        return ""

    def last_words(self, lines: int = 8) -> str:
        """The end of what it wrote to standard output and error."""
        return "\n".join(self.output().strip().splitlines()[-lines:])
