"""The fleet: submits each planned run as a task at its time, to executors that it has started.

One of the executors is killed in the middle, while its task hangs; another one is started in its
place, and does the task again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import stepstream
from examples.demo.language_model import Ticket
from examples.demo.ledger import Ledger, LedgerFiles
from examples.demo.scenarios import HUNG_AFTER_US, Planned
from stepstream.common.settings import to_environment
from stepstream.producers.tasks.handle import TaskStatus
from stepstream.schemas.settings import Settings

APP: Final = "examples.demo.executor:app"
# The agent for each type of task.
AGENTS: Final = {
    "refund": "support",
    "tracking": "support",
    "question": "helpdesk",
    "restock": "buyer",
    "report": "analyst",
}
# The scenario whose first attempt never ends.
HANGS: Final = "hanging"
FRAGILE_VERSION: Final = "v1-hangs"
SLOTS: Final = 64
START_S: Final = 90.0
STOP_S: Final = 40.0
# The alert for the hung step has been raised by then.
KILL_AFTER_S: Final = HUNG_AFTER_US / 1e6 + 4.0
READ_EVERY_S: Final = 0.05


class Fleet:
    """Runs a plan. What the executors write about their runs is read into the ledger."""

    def __init__(
        self, settings: Settings, folder: Path, seed: int, ledger: Ledger, plan: Sequence[Planned]
    ) -> None:
        # Lines of the executors' start are at this level.
        self._settings = settings.model_copy(update={"log_level": "info"})
        self._folder = folder
        self._seed = seed
        self._plan = plan
        self._files = LedgerFiles(folder, ledger)
        self._executors: list[subprocess.Popen[bytes]] = []
        self._handles: dict[str, tuple[Ticket, stepstream.TaskHandle]] = {}
        self._states: dict[str, TaskStatus] = {}
        self._stopping = threading.Event()
        self._conductor = threading.Thread(target=self._conduct, name="demo-fleet", daemon=True)
        self._reader = threading.Thread(target=self._read, name="demo-ledger", daemon=True)
        self._killed: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the executors, wait until they have offered their slots, and start the plan."""
        started = [self._start_executor(fragile=False), self._start_executor(fragile=True)]
        for executor in started:
            self._wait_for(executor)
        self._reader.start()
        self._conductor.start()

    @property
    def done(self) -> bool:
        """Whether every task was submitted and has ended."""
        return len(self._handles) == len(self._plan) and not self.busy

    @property
    def busy(self) -> int:
        """The number of tasks that have not ended."""
        return sum(not self._status(task_id).is_final for task_id in list(self._handles))

    @property
    def submitted(self) -> int:
        return len(self._handles)

    @property
    def crashes(self) -> list[str]:
        """How tasks ended that were to end otherwise."""
        found = []
        for task_id, (ticket, _) in list(self._handles.items()):
            status = self._status(task_id)
            gave_up = status.error_type.endswith("CannotHelp")
            if status.state != "ok" and not (gave_up and ticket.scenario == "failed"):
                found.append(f"{ticket.scenario}: task {task_id} is {status}")
        return found

    @property
    def repeated(self) -> int:
        """The number of tasks that were done in a second attempt."""
        return sum(self._status(task_id).attempt > 1 for task_id in list(self._handles))

    @property
    def killed(self) -> str:
        """The process of the executor that was killed; empty before."""
        return str(self._killed.pid) if self._killed is not None else ""

    def counts(self) -> dict[str, int]:
        """What the SDK has sent, by its own counts in the executors that have ended."""
        found = {"delivered": 0, "lost": 0}
        for file in self._folder.glob("*.counts"):
            for name, count in json.loads(file.read_text()).items():
                found[name] += count
        return found

    def stop(self) -> None:
        """Drain the executors: they send what they have and end."""
        self._stopping.set()
        for executor in self._executors:
            if executor.poll() is None:
                executor.send_signal(signal.SIGTERM)
        for executor in self._executors:
            try:
                executor.wait(STOP_S)
            except subprocess.TimeoutExpired:
                executor.kill()
                executor.wait()
        if self._reader.ident is not None:
            self._reader.join(STOP_S)
        self._files.read()

    def _conduct(self) -> None:
        began = time.monotonic()
        kill_at_s = float("inf")
        for planned in self._plan:
            # Relative to the start of the plan, so that delays do not add up.
            self._pause(began + planned.at, kill_at_s)
            self._submit(planned.ticket)
            if planned.ticket.scenario == HANGS:
                kill_at_s = time.monotonic() + KILL_AFTER_S
        self._pause(kill_at_s, kill_at_s)

    def _pause(self, until_s: float, kill_at_s: float) -> None:
        """Wait, and kill the executor if its time comes meanwhile."""
        if self._killed is None and kill_at_s <= until_s:
            self._stopping.wait(max(0.0, kill_at_s - time.monotonic()))
            self._kill()
        self._stopping.wait(max(0.0, until_s - time.monotonic()))

    def _kill(self) -> None:
        fragile = self._killed = self._executors[1]
        fragile.kill()
        fragile.wait()
        self._start_executor(fragile=True)

    def _submit(self, ticket: Ticket) -> None:
        handle = stepstream.submit(
            AGENTS[ticket.task],
            asdict(ticket),
            id=f"demo-{len(self._handles)}-{ticket.scenario}",
            version=FRAGILE_VERSION if ticket.scenario == HANGS else None,
            user_id=ticket.subject if ticket.task in ("refund", "tracking") else "",
            settings=self._settings,
        )
        self._handles[handle.id] = ticket, handle

    def _status(self, task_id: str) -> TaskStatus:
        known = self._states.get(task_id)
        if known is None or not known.is_final:
            known = self._states[task_id] = self._handles[task_id][1].status()
        return known

    def _read(self) -> None:
        while not self._stopping.wait(READ_EVERY_S):
            self._files.read()

    def _start_executor(self, *, fragile: bool) -> subprocess.Popen[bytes]:
        log = self._folder / f"executor-{len(self._executors)}.log"
        environment = {
            **os.environ,
            **to_environment(self._settings),
            "DEMO_SEED": str(self._seed),
            "DEMO_FOLDER": str(self._folder),
            "DEMO_FRAGILE": "yes" if fragile else "no",
        }
        with log.open("wb") as output:
            executor = subprocess.Popen(
                [sys.executable, "-m", "stepstream", "executor", APP, "--slots", str(SLOTS)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self._executors.append(executor)
        return executor

    def _wait_for(self, executor: subprocess.Popen[bytes]) -> None:
        log = self._folder / f"executor-{self._executors.index(executor)}.log"
        deadline = time.monotonic() + START_S
        while " slots, agents " not in log.read_text(errors="replace"):
            if executor.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").splitlines()[-5:]
                raise RuntimeError("an executor did not start: " + " / ".join(lines))
            with contextlib.suppress(InterruptedError):
                time.sleep(READ_EVERY_S)
