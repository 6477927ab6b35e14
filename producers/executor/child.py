"""The process of attempts with ``isolation="process"``: ``python -m ... TARGET READ WRITE``.

TARGET is ``module:app``, READ and WRITE the numbers of the pipes to the executor (``children``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepstream.producers.executor.execution import Execution
from stepstream.producers.executor.loading import load_app
from stepstream.producers.executor.outcome import Outcome, Stop
from stepstream.producers.executor.task import AttemptStopped
from stepstream.schemas.task_bindings import decode_binding

if TYPE_CHECKING:
    from stepstream.producers.executor.declared import Program
    from stepstream.schemas.task_bindings import RunAttempt

FLUSH_S: Final = 5.0


class Process:
    """The end of the pipes in this process; the host of the attempt that it runs."""

    def __init__(self, app: Program, read_end: int, write_end: int) -> None:
        self._app = app
        self._lines = os.fdopen(read_end, "rb")
        self._write_end = write_end
        self._pid = os.getpid()
        self._bindings: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._kept: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._execution: Execution | None = None
        # The trace id of the attempt that is to stop: it may not have been read yet.
        self._stop: tuple[str, Stop] | None = None

    def run(self) -> int:
        """Run attempts until the executor closes its end."""
        threading.Thread(target=self._read, name="executor-pipe", daemon=True).start()
        self._write({"ready": True})
        while (binding := self._bindings.get()) is not None:
            self._write({"outcome": self._attempt(binding)})
        self._app.tracer.close(FLUSH_S)
        return 0

    def _attempt(self, binding: RunAttempt) -> list[Any]:
        agent = self._app.find(binding.agent, binding.version)
        if agent is None:
            outcome = Outcome("refused", reason=f"there is no agent {binding.agent} here")
        else:
            execution = Execution(agent, binding, self, self._app.tracer)
            with self._guard:
                self._execution, stop = execution, self._stop
            if stop is not None and stop[0] == binding.trace_id:
                execution.stop(stop[1])
            outcome = (
                asyncio.run(execution.execute_async()) if agent.is_async else execution.execute()
            )
            with self._guard:
                self._execution = None
            # Another attempt may end this process before its sender has sent the steps.
            self._app.tracer.flush(FLUSH_S)
        status, result, *others = outcome
        return [status, None if result is None else result.decode(), *others]

    def keep(self, binding: RunAttempt, key: str, value: bytes) -> None:
        if os.getpid() != self._pid:
            raise AttemptStopped("a forked process has no attempt")
        self._write({"once": [key, value.decode()]})
        if problem := self._kept.get():
            raise AttemptStopped(problem)

    def extend(self, binding: RunAttempt, by_us: int) -> None:
        self._write({"extend": by_us})

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._lines:
                self._take(line)
        self._bindings.put(None)
        # The executor has ended, or wants this process to end: a body that goes on must not.
        with self._guard:
            is_busy = self._execution is not None
        if is_busy:
            os._exit(1)

    def _take(self, line: bytes) -> None:
        if line.startswith(b'{"run":'):
            self._bindings.put(decode_binding(line.strip().removeprefix(b'{"run":')[:-1]))
            return
        found = json.loads(line)
        if "stop" in found:
            trace_id, *words = found["stop"]
            with self._guard:
                self._stop = trace_id, Stop(*words)
                execution = self._execution
            if execution is not None and execution.binding.trace_id == trace_id:
                execution.stop(Stop(*words))
        elif "kept" in found:
            self._kept.put(found["kept"])

    def _write(self, line: dict[str, Any]) -> None:
        data = memoryview(json.dumps(line).encode() + b"\n")
        while data:
            data = data[os.write(self._write_end, data) :]


def main(target: str, read_end: int, write_end: int) -> int:
    # The executor ends this process by closing the pipe, or kills it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Where memory runs out, Linux ends this process before the executor.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    for descriptor in (read_end, write_end):
        os.set_inheritable(descriptor, False)
    app = load_app(target)
    return Process(app, read_end, write_end).run()


if __name__ == "__main__":
    # As for the executor: modules of the working folder are found.
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
