"""The process that sends an executor's heartbeats: ``python -m`` with the name of this module.

It runs none of the agents' code, so that an agent which blocks its event loop, holds the GIL or
uses all memory delays no heartbeat. It sends none while the executor's process is stopped
(SIGSTOP). It ends that process where its attempts do not stop before the lease is lost, and reports
to the scheduler when the process is gone.

Standard input has JSON lines from the executor (``Process.take``), standard output JSON lines to
it: ``{"ready": true}``, ``{"acknowledged": SENT_S}`` and ``{"lost": true}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Producer

from stepstream.common import kafka
from stepstream.common.functions import load_function
from stepstream.common.process import Identity, identity_of
from stepstream.producers.executor.lease import Lease, beat_interval_s
from stepstream.producers.executor.steady import steady_s
from stepstream.schemas.task_common import RunningAttemptStruct
from stepstream.schemas.task_messages import BeatStruct, ByeStruct, encode_message

CHECK_S: Final = 0.5
"""How often the executor's process is checked."""
BYE_S: Final = 5.0
CONFIRM_S: Final = 2.0
"""The executor has at least this long to stop its attempts, also after both processes were
frozen."""
GONE_S: Final = 1.0
GONE_CHECK_S: Final = 0.01
"""A pipe is closed a moment before its process is gone."""
_READ_BYTES: Final = 65_536


class Heartbeats:
    """Decides what to do at a time: send a heartbeat, report a lost lease, end the executor."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._interval_s = beat_interval_s(lease_s)
        self.lease: Lease | None = None
        self._next_s = 0.0
        self._reported_s: float | None = None

    def begin(self, sent_s: float) -> None:
        """The executor's ``hello`` was sent at this time and is acknowledged."""
        self.lease = Lease(self._lease_s, sent_s)
        self._next_s = sent_s

    def is_due(self, now_s: float) -> bool:
        """Whether to send a heartbeat now; counts as sent."""
        # A lost lease is not renewed: the scheduler may have given the attempts away.
        if self.lease is None or now_s < self._next_s or self._reported_s is not None:
            return False
        self._next_s = now_s + self._interval_s
        return True

    def reports_loss(self, now_s: float) -> bool:
        """Whether to report now that the lease is lost; once."""
        if self.lease is None or self._reported_s is not None or not self.lease.is_lost(now_s):
            return False
        self._reported_s = now_s
        return True

    def kills(self, now_s: float) -> bool:
        """Whether the executor must be ended now, because it did not confirm the loss."""
        if self.lease is None or self._reported_s is None:
            return False
        return now_s >= max(self.lease.kill_at_s, self._reported_s + CONFIRM_S)

    def wait_s(self, now_s: float) -> float:
        """How long nothing is to be done, at most ``CHECK_S``."""
        if self.lease is None or self._reported_s is not None:
            return CHECK_S
        return min(CHECK_S, max(0.0, self._next_s - now_s))


class Executor:
    """The executor's process, as this one sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._identity = identity_of(pid)
        self.children: list[Identity] = []

    @property
    def is_gone(self) -> bool:
        # The pipe alone is not enough: a forked copy of the executor may keep its end open.
        return os.getppid() != self.pid

    @property
    def is_stopped(self) -> bool:
        """Whether it is stopped by a signal (or a debugger)."""
        with contextlib.suppress(OSError, IndexError):
            stat = Path(f"/proc/{self.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] in "Tt"
        return False

    def kill(self) -> None:
        """End it and the processes of its attempts."""
        # A pid may be used again: the moment at which the process began is compared as well.
        if not self.is_gone and identity_of(self.pid) == self._identity:
            _kill(self.pid)
        self.kill_children()

    def kill_children(self) -> None:
        for child in self.children:
            if identity_of(child.pid) == child:
                _kill(child.pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


class Process:
    """The process: reads the executor's lines, sends heartbeats, watches the executor."""

    def __init__(self, config: dict[str, Any], write: Callable[[dict[str, Any]], None]) -> None:
        self._write = write
        self._project = config["project"]
        self._executor_id = config["executor_id"]
        self._topic = config["topic"]
        self._beats = Heartbeats(config["lease_s"])
        self._executor = Executor(config["pid"])
        self._running: list[RunningAttemptStruct] = []
        self._seq = 0
        self._ends = False
        more: dict[str, Any] = {}
        if config["token_hook"]:
            hook = load_function(config["token_hook"], "kafka_token_hook")
            more["oauth_cb"] = lambda _config: hook()
        self._producer: Producer = kafka.idempotent_producer(
            config["kafka"],
            **{"linger.ms": 0, "message.timeout.ms": max(1_000, round(config["lease_s"] * 1_000))},
            **more,
        )

    def take(self, line: dict[str, Any]) -> None:
        """Take a line: ``begin``, ``running`` with ``children``, or ``end``."""
        if "begin" in line:
            self._beats.begin(line["begin"])
        if "running" in line:
            self._running = [
                RunningAttemptStruct(task_id=task_id, attempt=attempt, fence=fence)
                for task_id, attempt, fence in line["running"]
            ]
        if "children" in line:
            self._executor.children = [Identity(pid, began) for pid, began in line["children"]]
        self._ends = self._ends or "end" in line

    def run(self, lines: Lines) -> int:
        """Returns the exit code when the executor has ended, or wants this process to end."""
        self._write({"ready": True})
        while not self._ends:
            now_s = steady_s()
            for line in lines.wait(self._beats.wait_s(now_s)):
                self.take(line)
            if lines.closed or self._executor.is_gone:
                return self._executor_gone()
            self._check(steady_s())
            self._producer.poll(0)
        return 0

    def _check(self, now_s: float) -> None:
        if not self._executor.is_stopped and self._beats.is_due(now_s):
            self._send(now_s)
        if self._beats.reports_loss(now_s):
            self._write({"lost": True})
        if self._beats.kills(now_s):
            self._executor.kill()

    def _send(self, now_s: float) -> None:
        self._seq += 1
        beat = BeatStruct(
            project=self._project,
            executor_id=self._executor_id,
            seq=self._seq,
            running=self._running,
        )

        def acknowledged(error: Any, _message: Any) -> None:
            if error is None and self._beats.lease is not None:
                self._beats.lease.renew(now_s)
                self._write({"acknowledged": now_s})

        with contextlib.suppress(BufferError):
            self._producer.produce(
                self._topic, encode_message(beat), self._project, on_delivery=acknowledged
            )

    def _executor_gone(self) -> int:
        # What runs in it and in the processes of its attempts may be started elsewhere after this.
        # It lives on where one of its agents closed the pipe.
        deadline_s = steady_s() + GONE_S
        while not self._executor.is_gone and steady_s() < deadline_s:
            time.sleep(GONE_CHECK_S)
        self._executor.kill()
        bye = ByeStruct(project=self._project, executor_id=self._executor_id)
        self._producer.produce(self._topic, encode_message(bye), self._project)
        self._producer.flush(BYE_S)
        return 0


class Lines:
    """JSON lines from a pipe, without blocking for longer than asked."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self.closed = False

    def wait(self, timeout_s: float) -> list[dict[str, Any]]:
        """The lines that have arrived, after at most ``timeout_s``."""
        if self.closed:
            return []
        readable, _, _ = select.select([self._descriptor], [], [], timeout_s)
        if not readable:
            return []
        data = os.read(self._descriptor, _READ_BYTES)
        self.closed = not data
        *whole, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in whole if line]


def main() -> int:
    # Ctrl-C reaches the whole group of a terminal; the executor decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = Lines(sys.stdin.fileno())
    pending: list[dict[str, Any]] = []
    while not pending:
        if lines.closed:
            return 0
        pending = lines.wait(1.0)
    config, *others = pending
    process = Process(config, _write_line)
    for line in others:
        process.take(line)
    return process.run(lines)


def _write_line(line: dict[str, Any]) -> None:
    # The executor may be gone, which the next check notices.
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
