"""A few threads that run jobs and hand back their results."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class JobThreads:
    """Daemon threads: a job that hangs does not keep the process from ending."""

    def __init__(self, count: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[object, Callable[[], object]]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[object, object]] = queue.SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._work, name=f"store-{number}", daemon=True).start()

    def submit(self, owner: object, job: Callable[[], object]) -> None:
        """Run the job when a thread is free."""
        self._jobs.put((owner, job))

    def finished(self, wait_s: float = 0.0) -> tuple[object, object] | None:
        """The owner and the result of a finished job, None when there is none within ``wait_s``.

        Raises what the job raised.
        """
        try:
            owner, result = (
                self._results.get(timeout=wait_s) if wait_s else self._results.get_nowait()
            )
        except queue.Empty:
            return None
        if isinstance(result, Exception):
            raise result
        return owner, result

    def _work(self) -> None:
        while True:
            # In a function of its own, so that no local variable keeps a finished batch alive while
            # waiting.
            self._run(*self._jobs.get())

    def _run(self, owner: object, job: Callable[[], object]) -> None:
        try:
            result = job()
        except Exception as error:
            result = error
        self._results.put((owner, result))
