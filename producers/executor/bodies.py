"""Where the body of an attempt runs: in a thread, on the event loop, or in a process of its own.

Each body calls ``done`` with its outcome, once, in any thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from stepstream.producers.executor.outcome import Outcome
from stepstream.producers.executor.steady import steady_s
from stepstream.producers.executor.threads import Threads

if TYPE_CHECKING:
    from stepstream.producers.executor.children import BindingHost, Child, Children
    from stepstream.producers.executor.execution import Execution
    from stepstream.producers.executor.outcome import Stop
    from stepstream.schemas.task_bindings import RunAttempt

Done = Callable[[Outcome], None]
LOOP_CHECK_S: Final = 1.0
BLOCKED_S: Final = 5.0
_log: Final = logging.getLogger("stepstream.executor")


class Body(Protocol):
    """A body that can be started once, and stopped."""

    def start(self) -> None: ...

    def forget(self) -> None:
        """It will not be started."""

    def stop(self, stop: Stop) -> None:
        """Ask it to stop."""

    def kill(self) -> bool:
        """End it at once; False where only the executor's own end would."""


class ThreadBody:
    """A body that is not asynchronous."""

    def __init__(self, threads: Threads, execution: Execution, done: Done) -> None:
        self._threads = threads
        self._execution = execution
        self._done = done

    def start(self) -> None:
        self._threads.run(self._work)

    def _work(self) -> None:
        # A context of its own: nothing of an earlier attempt in this thread is left in it.
        self._done(contextvars.Context().run(self._execution.execute))

    def stop(self, stop: Stop) -> None:
        self._execution.stop(stop)

    def forget(self) -> None:
        return

    def kill(self) -> bool:
        return False


class Loop:
    """The event loop of all asynchronous bodies, in a thread of its own.

    One for all, because clients of asynchronous libraries belong to the loop in which they were
    first used.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="executor-loop", daemon=True)
        self._answered_s = steady_s()
        self._asked = False
        self._reported = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread.start()

    def run(self, start: Callable[[], Any]) -> None:
        """Run the coroutine that ``start`` returns."""
        self._loop.call_soon_threadsafe(self._begin, start)

    def _begin(self, start: Callable[[], Any]) -> None:
        task = self._loop.create_task(start(), context=contextvars.Context())
        # The loop keeps weak references only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def check(self, now_s: float) -> None:
        """Log where the loop stands if a body has blocked it for some seconds."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon_threadsafe(self._answer)
        elif now_s - self._answered_s > BLOCKED_S and not self._reported:
            self._reported = True
            _log.warning(
                "the event loop has been blocked for %.0f s, and no asynchronous agent goes on: "
                "await what takes long, use asyncio.to_thread, or isolation='process'. It is at:"
                "\n%s",
                now_s - self._answered_s,
                self._place(),
            )

    def _answer(self) -> None:
        self._asked = self._reported = False
        self._answered_s = steady_s()

    def _place(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        return "".join(traceback.format_stack(frame, limit=None)[-4:]) if frame else ""

    def _work(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def close(self) -> None:
        """Stop the loop. Bodies that still run in it are not waited for."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._loop.close()


class LoopBody:
    """An asynchronous body."""

    def __init__(self, loop: Loop, execution: Execution, done: Done) -> None:
        self._loop = loop
        self._execution = execution
        self._done = done

    def start(self) -> None:
        self._loop.run(self._work)

    async def _work(self) -> None:
        self._done(await self._execution.execute_async())

    def stop(self, stop: Stop) -> None:
        self._execution.stop(stop)

    def forget(self) -> None:
        return

    def kill(self) -> bool:
        return False


class ProcessBody:
    """A body in a process of its own, which can be ended without harm to others."""

    def __init__(
        self, children: Children, binding: RunAttempt, host: BindingHost, done: Done
    ) -> None:
        self._children = children
        self._binding = binding
        self._done = done
        self._host = host
        self._guard = threading.Lock()
        self._child: Child | None = None
        self._stop: Stop | None = None

    def prepare(self) -> None:
        """Have a process that can begin at once. Blocks; raises ``OSError``."""
        self._child = self._children.take()

    def start(self) -> None:
        self._children.threads.run(self._work)

    def _work(self) -> None:
        with self._guard:
            child, stop = self._child, self._stop
        assert child is not None
        outcome = child.run(self._binding, self._host, stop)
        with self._guard:
            self._child, stop = None, self._stop
        self._children.give_back(child)
        if outcome.error_type == "ProcessEnded" and stop is not None:
            outcome = outcome._replace(status=stop.status, reason=stop.reason)
        self._done(outcome)

    def forget(self) -> None:
        """The body will not be started."""
        with self._guard:
            child, self._child = self._child, None
        if child is not None:
            self._children.give_back(child)

    def stop(self, stop: Stop) -> None:
        with self._guard:
            self._stop = self._stop or stop
            child = self._child
        if child is not None:
            child.stop(self._binding.trace_id, stop)

    def kill(self) -> bool:
        with self._guard:
            child = self._child
        if child is not None:
            child.kill()
        return True
