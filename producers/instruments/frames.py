"""The open steps of a framework that reports the begin and the end of its parts by their ids."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.exceptions import RunStopped, StepRefused
from stepstream.producers.guardrails.switch import WATCHED
from stepstream.producers.instruments.calls import Switch
from stepstream.producers.sdk_log import internal_error
from stepstream.producers.steps import ENDED, Step, current

# Parts whose end never comes are forgotten, oldest first.
MOST_OPEN: Final = 10_000


class OpenSteps:
    """Opens and ends steps by id; each is the current step as long as it is open, so that what the
    program records inside it becomes its child. Thread-safe; raises only what keeps a step from
    beginning.

    ``stops_calls``: the framework makes no call whose ``begin`` raises. If it does, guardrails only
    report.
    """

    def __init__(self, switch: Switch, *, stops_calls: bool = True) -> None:
        self._switch = switch
        self._stops_calls = stops_calls
        self._open: dict[Any, Step] = {}
        self._lock = threading.Lock()

    def begin(self, number: Any, parent: Any, make: Callable[[Any], Step]) -> None:
        """Open the step that ``make`` makes from its parent: a step, or the tracer for a root."""
        if not self._switch.is_on:
            return
        try:
            _leave_ended()
            step = make(self._open.get(parent) or self._switch.tracer)
            if not self._stops_calls:
                step._guard = WATCHED
            step.__enter__()
        except (RunStopped, StepRefused):
            raise
        except Exception as error:
            internal_error("instrument", error)
            return
        with self._lock:
            self._open[number] = step
            forgotten = (
                self._open.pop(next(iter(self._open))) if len(self._open) > MOST_OPEN else None
            )
        if forgotten is not None:
            forgotten.end()

    def end(
        self,
        number: Any,
        record: Callable[[Step], object] | None = None,
        error: BaseException | None = None,
    ) -> None:
        """End a step after ``record`` has been called with it."""
        with self._lock:
            step = self._open.pop(number, None)
        if step is None:
            return
        try:
            if record is not None:
                record(step)
        except Exception as failure:
            internal_error("instrument", failure)
        step.__exit__(None if error is None else type(error), error, None)

    def get(self, number: Any) -> Step | None:
        """An open step."""
        return self._open.get(number)


def _leave_ended() -> None:
    """Make the innermost open step the current one.

    Frameworks report an end in another asyncio task than the begin, and what is set there does not
    reach the task of the program.
    """
    step = current.get()
    while step is not None and step._state == ENDED:
        step = step._outer
    current.set(step)
