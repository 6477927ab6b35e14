"""Real processes for tests: started with settings in their environment, signalled, and their logs
kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from stepstream.common.settings import to_environment
from stepstream.schemas.settings import Settings

T = TypeVar("T")
# Factor on every wait before it fails: a bound is there for what hangs, not to measure.
PATIENCE: Final = 4.0


class Process:
    """One process of ours.

    Its output goes to ``log``; a crash in native code leaves its traceback there.
    """

    def __init__(self, module: str, settings: Settings, log: Path, *arguments: str) -> None:
        environment = {
            **os.environ,
            **to_environment(settings),
            # librdkafka, chDB and ClickHouse's driver are native code: their crash leaves no
            # traceback.
            "PYTHONFAULTHANDLER": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                # A Ctrl-C in the terminal would reach the process as well, before the test can end
                # it.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.frozen = False

    @property
    def exit_code(self) -> int | None:
        """Negative after a signal; None while it runs."""
        return self._process.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    @property
    def rss_mb(self) -> float:
        """Resident memory; 0 when it has ended, and where the system does not report it."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self.frozen = False

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait(10)

    def terminate(self, timeout_s: float = 30) -> int:
        """SIGTERM, and wait for the exit code; killed, with an error, when it takes longer."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for the exit code; killed, with an error, when it takes longer."""
        try:
            return self._process.wait(timeout_s * PATIENCE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGABRT)  # the fault handler writes where it stands
            time.sleep(0.5)
            self.kill()
            raise AssertionError(
                f"process {self.pid} did not end within {timeout_s * PATIENCE:.0f} s:\n"
                f"{self.tail()}"
            ) from None

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def worker(settings: Settings, log: Path) -> Process:
    """A worker."""
    return Process("stepstream.stream.shell.worker", settings, log)


def wait_until(
    condition: Callable[[], T | None],
    timeout_s: float,
    what: str,
    *,
    every_s: float = 0.02,
    instead: Callable[[], object] | None = None,
) -> T:
    """Return what ``condition`` returns as soon as that is true.

    Raises ``AssertionError`` with ``what`` was expected and, where ``instead`` is given, with
    what it returns: what was found in its place. ``timeout_s`` is enough on an idle machine; a
    busy one gets ``PATIENCE`` times as long.
    """
    # The steady clock: tests of skewed clocks change the other one.
    deadline = time.monotonic() + timeout_s * PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            found_instead = "" if instead is None else f"; found instead: {instead()}"
            raise AssertionError(f"not within {timeout_s * PATIENCE:.0f} s: {what}{found_instead}")
        time.sleep(every_s)
    return found
