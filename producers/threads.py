"""Threads and thread pools keep the current step: their steps belong to the run that started them.

``threading.Thread.start`` and ``ThreadPoolExecutor.submit`` are wrapped once, when recording
begins. ``loop.run_in_executor`` and ``Executor.map`` call ``submit``. Only the current step is
carried over, no other context variable. Outside of a step both do what they did before.

A task of a pool belongs to the step that submitted it. A thread belongs to the step that started it
while that run is open: a thread that outlives it, such as one that serves connections, does not
add to a run that has ended.
"""

from __future__ import annotations

import functools
import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.forks import fork_lock
from stepstream.producers.steps import Step, current, inherited

_POOL: Final = "concurrent.futures.thread"
# The SDK's own threads record nothing; a reference to a step would only keep it in memory.
_OWN_THREADS: Final = "stepstream-"

_submitting: Final = threading.local()
_ORIGINAL: Final = "_stepstream_original"
"""Attribute of our functions: the one that each calls. Wrappers of others copy it, so a function
has it as long as ours is called."""


def keep_steps_in_threads() -> None:
    """Wrap ``Thread.start``, and ``ThreadPoolExecutor.submit`` if it is imported. Idempotent."""
    _wrap(threading.Thread, "start", _start)
    if (pool := _pool()) is not None:
        _wrap(pool, "submit", _submit)


def keep_steps_in_pools() -> None:
    """Import the pools and wrap them. Called in the sender's thread, because it takes a while."""
    if not hasattr(threading.Thread.start, _ORIGINAL):
        return
    try:
        with fork_lock.importing():
            importlib.import_module(_POOL)
    except RuntimeError:
        # The program is ending: pools register for its end when they are imported, and it is too
        # late for that. No pool can be used any more either.
        return
    keep_steps_in_threads()


def restore() -> None:
    """Put the original functions back, where no other program has wrapped them since."""
    for kind, name in ((threading.Thread, "start"), (_pool(), "submit")):
        found = getattr(kind, name, None)
        original = getattr(found, _ORIGINAL, None)
        if original is not None and getattr(found, "__wrapped__", None) is original:
            setattr(kind, name, original)


def _pool() -> Any:
    """The class of thread pools; None while it is not imported."""
    return getattr(sys.modules.get(_POOL), "ThreadPoolExecutor", None)


def _wrap(kind: type, name: str, make: Callable[[Any], Any]) -> None:
    original = getattr(kind, name)
    if hasattr(original, _ORIGINAL):
        return
    wrapper = functools.wraps(original)(make(original))
    setattr(wrapper, _ORIGINAL, original)
    setattr(kind, name, wrapper)


def _carried() -> Step | None:
    """The current step, unless its tracer has the setting ``thread_context`` off."""
    step = current.get()
    if step is None or step._engine is None or not step._engine.settings.thread_context:
        return None
    return step


def _start(original: Callable[..., None]) -> Callable[..., None]:
    def start(self: threading.Thread) -> None:
        step = _carried()
        # A pool's threads serve many runs: there each task brings its own step.
        is_pool = getattr(_submitting, "is_on", False)
        if step is not None and not is_pool and not self.name.startswith(_OWN_THREADS):
            _run_inside(self, step)
        original(self)

    return start


def _run_inside(thread: threading.Thread, step: Step) -> None:
    run = thread.run

    def run_with_step() -> None:
        # Removed first: the attribute and the thread refer to each other.
        thread.__dict__.pop("run", None)
        current.set(step)
        inherited.set(step)
        run()

    thread.run = run_with_step  # type: ignore[method-assign]


def _submit(original: Callable[..., Any]) -> Callable[..., Any]:
    def submit(self: Any, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        step = _carried()
        if step is None:
            return original(self, function, *args, **kwargs)
        was_on = getattr(_submitting, "is_on", False)
        _submitting.is_on = True
        try:
            return original(self, _call_with_step, step, function, args, kwargs)
        finally:
            _submitting.is_on = was_on

    return submit


def _call_with_step(
    step: Step, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    token = current.set(step)
    try:
        return function(*args, **kwargs)
    finally:
        current.reset(token)
