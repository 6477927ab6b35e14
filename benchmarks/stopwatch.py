"""Where the time of a piece of Python goes: functions wrapped with timers that exclude each other,
garbage collection apart."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import perf_counter_ns
from typing import Any

# A module, class or object, and the name of a function in it.
Place = tuple[Any, str]

CALIBRATION_CALLS = 50_000


class Stopwatch:
    """Nanoseconds and calls by section, each without the sections inside it, and without the
    timers' own cost."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._spent: dict[str, int] = {}
        self._inside: list[int] = [0]
        self._collection_began = 0
        self._own_ns = 0.0

    def spent_us(self, section: str) -> float:
        """Microseconds of a section."""
        own = self._own_ns * self.calls.get(section, 0)
        return max(0.0, (self._spent.get(section, 0) - own) / 1000)

    def reset(self) -> None:
        """Forget what was counted so far."""
        for counts in (self._spent, self.calls):
            for section in counts:
                counts[section] = 0

    def wrap(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with a timer around it."""
        spent, calls, inside = self._spent, self.calls, self._inside
        spent.setdefault(section, 0)
        calls.setdefault(section, 0)

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inside.append(0)
            began = perf_counter_ns()
            try:
                return function(*args, **kwargs)
            finally:
                took = perf_counter_ns() - began
                spent[section] += took - inside.pop()
                calls[section] += 1
                inside[-1] += took

        return timed

    @contextmanager
    def watching(self, sections: dict[str, list[Place]]) -> Iterator[None]:
        """While inside, the functions are timed. What does not exist is left out."""
        self._calibrate()
        replaced: list[tuple[Any, str, Any]] = []
        for section, places in sections.items():
            for owner, name in places:
                original = vars(owner).get(name)
                if callable(original):
                    replaced.append((owner, name, original))
                    setattr(owner, name, self.wrap(section, original))
        gc.callbacks.append(self._collecting)
        try:
            yield
        finally:
            gc.callbacks.remove(self._collecting)
            for owner, name, original in replaced:
                setattr(owner, name, original)

    def _calibrate(self) -> None:
        """What a timer adds to its own section."""
        empty = self.wrap("", lambda: None)
        for _ in range(CALIBRATION_CALLS):
            empty()
        self._own_ns = self._spent.pop("") / self.calls.pop("")

    def _collecting(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._collection_began = perf_counter_ns()
            return
        took = perf_counter_ns() - self._collection_began
        self._spent["garbage collection"] = self._spent.get("garbage collection", 0) + took
        self._inside[-1] += took
