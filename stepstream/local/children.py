"""A process of ours kept running: started again with growing pauses when it ends, its output handed on line by line."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stepstream.local.priority import give_way

Say = Callable[[str, str], None]
"""Receives a line for people: who says it, and what."""

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
STEADY_S: Final = 60.0
REPEAT_S: Final = 10.0
KINDS_OF_LINES: Final = 500
_NUMBERS: Final = re.compile(r"\d+")


@dataclass
class Backoff:
    """Pauses before a restart: doubled each time, back to the first one after a minute of steady running."""

    pause_s: float = 0.0

    def next_pause(self, ran_s: float) -> float:
        """The pause after a run of ``ran_s`` seconds."""
        doubled = min(LONGEST_PAUSE_S, self.pause_s * 2)
        self.pause_s = FIRST_PAUSE_S if ran_s >= STEADY_S or not self.pause_s else doubled
        return self.pause_s


class Squeeze:
    """Lines that say the same again and again, as clients do while a server is away, told once in ten seconds."""

    def __init__(self) -> None:
        self._told: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __call__(self, line: str, now_s: float) -> str | None:
        """What to tell: the line, the line with how often it came meanwhile, or nothing. Numbers make no difference."""
        key = _NUMBERS.sub("#", line)
        since_s, times = self._told.get(key, (-math.inf, 0))
        if now_s - since_s < REPEAT_S:
            self._told[key] = since_s, times + 1
            return None
        self._told[key] = now_s, 0
        self._told.move_to_end(key)
        if len(self._told) > KINDS_OF_LINES:
            self._told.popitem(last=False)
        return f"{line} ({times} more in {now_s - since_s:.0f} s)" if times else line


@dataclass(frozen=True)
class ProcessStatus:
    """A kept process at one moment. ``pid`` is 0 while it is not running."""

    name: str
    pid: int
    restarts: int
    exit_code: int | None
    """Of its last end; None while it has never ended."""

    @property
    def running(self) -> bool:
        return self.pid != 0


class KeptProcess:
    """Runs ``command`` until ``stop``. The command must end when its standard input closes (``lifeline``).

    ``patient``: it gives way to others where there is not enough CPU. ``amend`` is asked with the exit code when it has
    ended by itself: the environment it returns is the one for a new start at once, which does not count as a restart.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        say: Say,
        *,
        patient: bool = False,
        amend: Callable[[int], Mapping[str, str] | None] = lambda _code: None,
    ) -> None:
        self.name = name
        self._patient = patient
        self._command = list(command)
        self._environment = dict(environment)
        self._amend = amend
        self._say = say
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._restarts = 0
        self._exit_code: int | None = None
        self._words: deque[str] = deque(maxlen=20)
        self._keeper = threading.Thread(target=self._keep, name=f"keep-{name}", daemon=True)

    def start(self) -> None:
        """Start it and keep it running. Raises ``OSError`` when it cannot be run at all."""
        self._launch()
        self._keeper.start()

    def status(self) -> ProcessStatus:
        process = self._process
        pid = process.pid if process is not None and process.poll() is None else 0
        return ProcessStatus(self.name, pid, self._restarts, self._exit_code)

    def last_words(self) -> str:
        """The end of what it wrote."""
        return "\n".join(self._words)

    def stop(self, timeout_s: float) -> bool:
        """Ask it to drain and end, kill it after ``timeout_s``; True when it went by itself. Not started again."""
        self._stopping.set()
        with self._guard:
            process = self._process
        if process is None:
            return True
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._say(
                self.name,
                f"did not end within {timeout_s:.0f} s and was killed; its next start goes on from the log",
            )
            process.kill()
            process.wait()
            return False
        finally:
            if self._keeper.is_alive():
                self._keeper.join(5)
        return True

    def kill(self) -> None:
        """End it at once; it is started again unless ``stop`` was called."""
        with self._guard:
            if self._process is not None:
                self._process.kill()

    def _launch(self) -> subprocess.Popen[bytes] | None:
        with self._guard:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # Its own group: Ctrl-C in the terminal reaches us alone, and we say when it is to end.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
            if self._patient:
                give_way(self._process.pid)
            threading.Thread(
                target=self._hand_on, args=(self._process,), name=f"out-{self.name}", daemon=True
            ).start()
            return self._process

    def _hand_on(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        squeeze = Squeeze()
        with process.stdout as output:
            for raw in output:
                line = squeeze(raw.decode(errors="replace").rstrip(), time.monotonic())
                if line:
                    self._words.append(line)
                    self._say(self.name, line)

    def _keep(self) -> None:
        backoff = Backoff()
        while True:
            process, began = self._process, time.monotonic()
            assert process is not None
            self._exit_code = process.wait()
            if self._stopping.is_set():
                return
            amended = self._amend(self._exit_code)
            if amended is None:
                pause = backoff.next_pause(time.monotonic() - began)
                self._say(
                    self.name,
                    f"ended with exit code {self._exit_code}; it is started again in {pause:g} s",
                )
            else:
                pause, self._environment = 0.0, dict(amended)
            if process.stdin is not None:
                process.stdin.close()
            if self._stopping.wait(pause) or self._launch() is None:
                return
            self._restarts += amended is None
