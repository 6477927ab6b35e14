"""The executor's side of its heartbeat process: starts it, and knows the lease."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from stepstream.common.process import identity_of
from stepstream.producers.executor.lease import Lease
from stepstream.producers.executor.steady import steady_s
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

MODULE: Final = "stepstream.producers.executor.heartbeat"
WRITE_EVERY_S: Final = 0.25
RESTART_S: Final = 0.5
JOIN_S: Final = 2.0
_log: Final = logging.getLogger("stepstream.executor")


class Snapshot(NamedTuple):
    """What the heartbeat process has to know: attempts, and processes that run some of them."""

    running: Sequence[tuple[str, int, int]]
    children: Sequence[int]


class Heartbeat:
    """A heartbeat process of one executor id; another one is started when it ends.

    ``on_lost`` is called once, in another thread, when the lease is lost.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        project: str,
        executor_id: str,
        lease_s: float,
        snapshot: Callable[[], Snapshot],
        on_lost: Callable[[], None],
    ) -> None:
        self._config = {
            "project": project,
            "executor_id": executor_id,
            "topic": topic(settings.topic_prefix, "tasks"),
            "lease_s": lease_s,
            "pid": os.getpid(),
            "kafka": settings.kafka,
            "token_hook": settings.kafka_token_hook,
        }
        self._snapshot = snapshot
        self._on_lost = on_lost
        self._guard = threading.Lock()
        # Two threads write whole lines.
        self._writing = threading.Lock()
        self._lease_s = lease_s
        self._lease: Lease | None = None
        self._lost = False
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._process = self._started()
        self._threads = [
            threading.Thread(target=work, name=f"executor-{name}", daemon=True)
            for name, work in (("beats", self._write), ("lease", self._read))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the process can send; False after ``timeout_s``."""
        return self._ready.wait(timeout_s)

    def begin(self, sent_s: float) -> None:
        """Send heartbeats: the executor's ``hello`` was sent at this time and is acknowledged."""
        with self._guard:
            self._lease = Lease(self._lease_s, sent_s)
        self._put({"begin": sent_s})

    def is_lost(self) -> bool:
        """Whether no attempt may begin or go on. Calls ``on_lost`` when it becomes true."""
        with self._guard:
            lease = self._lease
            found = lease is None or self._lost
            begins = lease is not None and not self._lost and lease.is_lost(steady_s())
        if begins:
            self._lose()
        return found or begins

    def _lose(self) -> None:
        with self._guard:
            before, self._lost = self._lost, True
        if not before:
            self._on_lost()

    def close(self) -> None:
        """End the process, without a report to the scheduler."""
        self._stopping.set()
        process = self._process
        # A stopped process (SIGSTOP) does not read, and a write to a full pipe would not return.
        if self._writing.acquire(timeout=JOIN_S):
            with contextlib.suppress(OSError, ValueError):
                _write_line(process, {"end": True})
            self._writing.release()
        try:
            process.wait(JOIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(JOIN_S)
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError, ValueError):
                assert pipe is not None
                pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Its own group: Ctrl-C and Ctrl-Z in a terminal are meant for the executor.
            start_new_session=os.name == "posix",
        )
        _write_line(process, self._config)
        return process

    def _put(self, line: dict[str, Any]) -> None:
        with self._writing, contextlib.suppress(OSError, ValueError):
            _write_line(self._process, line)

    def _write(self) -> None:
        """Pass on what runs, whenever it has changed."""
        written: object = None
        process = self._process
        while not self._stopping.wait(WRITE_EVERY_S):
            self.is_lost()
            snapshot = self._snapshot()
            if process is not self._process:
                process, written = self._process, None
            if snapshot == written:
                continue
            children = [one for pid in snapshot.children if (one := identity_of(pid))]
            self._put(
                {
                    "running": [list(one) for one in snapshot.running],
                    "children": [[one.pid, one.began] for one in children],
                }
            )
            written = snapshot

    def _read(self) -> None:
        """Follow the process's reports, and start another one when it ends."""
        while not self._stopping.is_set():
            assert self._process.stdout is not None
            with contextlib.suppress(ValueError, OSError):
                for line in self._process.stdout:
                    self._take(json.loads(line))
            if self._stopping.wait(RESTART_S):
                return
            code = self._process.wait()
            _log.warning("the heartbeat process ended (exit code %s): another one is started", code)
            self._process.stdout.close()
            with contextlib.suppress(OSError):
                self._restart()

    def _restart(self) -> None:
        process = self._started()
        with self._guard:
            lease = self._lease
        with self._writing:
            self._process = process
            if lease is not None:
                _write_line(process, {"begin": lease.sent_s})

    def _take(self, line: dict[str, Any]) -> None:
        if "ready" in line:
            self._ready.set()
        if "acknowledged" in line:
            with self._guard:
                if self._lease is not None:
                    self._lease.renew(line["acknowledged"])
        if "lost" in line:
            self._lose()


def _write_line(process: subprocess.Popen[bytes], line: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(line).encode() + b"\n")
    process.stdin.flush()
