"""The processes under test, each in a slot: started again when they end, unless they are to stay
away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from stepstream.schemas.settings import Settings
from tests.chaos.faults import Mix
from tests.support.processes import Process

RESTART_S = 0.3
# Exit codes of SIGSEGV, SIGABRT, SIGILL, SIGBUS and SIGFPE: never excused.
NATIVE_CRASHES = frozenset({-11, -6, -4, -7, -8})


@dataclass(frozen=True)
class CrewSpec:
    """A kind of process that a scenario starts, and what happens to it."""

    name: str
    start: Callable[[Settings, Path], Process]
    count: int
    mix: Mix = field(default_factory=Mix)


@dataclass(frozen=True)
class Exit:
    """A process that ended without a signal from the scenario."""

    crew: str
    slot: int
    code: int
    tail: str


class Crew:
    """Processes of one kind, watched by a thread that starts again what has ended."""

    def __init__(self, spec: CrewSpec, settings: Settings, logs: Path) -> None:
        self._spec = spec
        self._settings = settings
        self._logs = logs
        self._slots: dict[int, Process] = {}
        self._wanted: set[int] = set(range(spec.count))
        self._expected: set[int] = set()
        self._guard = threading.RLock()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="crew", daemon=True)
        self.exits: list[Exit] = []
        self.counts: Counter[str] = Counter()
        # The most that one of them had in memory.
        self.peak_mb = 0.0

    def __enter__(self) -> Crew:
        with self._guard:
            for slot in sorted(self._wanted):
                self._launch(slot)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join(10)
        for process in self._slots.values():
            with contextlib.suppress(Exception):
                process.kill()

    # -- faults --

    def kill(self, slot: int) -> None:
        """SIGKILL, to another where this one is not running; it is started again."""
        with self._guard:
            process = self._running(slot)
            if process is None:
                return
            self._expected.add(process.pid)
            process.kill()
            self.counts["kills"] += 1

    def _running(self, slot: int) -> Process | None:
        """The process in this slot or, where it is not running, in one of the next; one that is
        frozen only where no other runs.
        """
        there = [
            self._slots.get((slot + step) % self._spec.count) for step in range(self._spec.count)
        ]
        running = [process for process in there if process is not None and process.running]
        return min(running, key=lambda process: process.frozen, default=None)

    def freeze(self, slot: int) -> Process | None:
        """SIGSTOP, to another where this one is not running. Returns the process, to be thawed;
        None when none runs or all are frozen.
        """
        with self._guard:
            process = self._running(slot)
            if process is None or process.frozen:
                return None
            process.freeze()
            self.counts["freezes"] += 1
            return process

    def roll(self, slot: int) -> None:
        """SIGTERM; it is started again."""
        with self._guard:
            process = self._slots.get(slot)
            if process is None or not process.running or process.frozen:
                return
            self._expected.add(process.pid)
            process.signal(15)
            self.counts["rolls"] += 1

    def remove(self, slot: int) -> None:
        """SIGTERM, and it stays away."""
        with self._guard:
            self._wanted.discard(slot)
            self.roll(slot)
            self.counts["leaves"] += 1

    def add(self, slot: int) -> None:
        """Start a removed process again."""
        with self._guard:
            self._wanted.add(slot)
            self.counts["joins"] += 1

    def all_on(self) -> None:
        """Resume every frozen process and start those that were removed."""
        with self._guard:
            for process in self._slots.values():
                if process.frozen:
                    process.thaw()
            self._wanted = set(range(self._spec.count))

    def end(self, timeout_s: float = 40) -> list[int]:
        """SIGTERM to all; their exit codes."""
        self._stop.set()
        self._watcher.join(10)
        with self._guard:
            running = [process for process in self._slots.values() if process.running]
            for process in running:
                process.signal(15)
            return [process.wait(timeout_s) for process in running]

    # -- watching --

    def _launch(self, slot: int) -> None:
        self.counts["starts"] += 1
        log = self._logs / f"{self._spec.name}-{slot}-{self.counts['starts']:03d}.log"
        self._slots[slot] = self._spec.start(self._settings, log)

    def _watch(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                for slot, process in list(self._slots.items()):
                    self.peak_mb = max(self.peak_mb, process.rss_mb)
                    if not process.running:
                        self._note(slot, process)
                        del self._slots[slot]
            time.sleep(RESTART_S)
            with self._guard:
                if self._stop.is_set():
                    return
                for slot in sorted(self._wanted - set(self._slots)):
                    self._launch(slot)

    def _note(self, slot: int, process: Process) -> None:
        code = process.exit_code or 0
        if code in NATIVE_CRASHES or (code != 0 and process.pid not in self._expected):
            self.exits.append(Exit(self._spec.name, slot, code, process.tail()))
