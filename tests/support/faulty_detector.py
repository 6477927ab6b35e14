"""A detector that raises in one of its methods, and a worker that runs it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from stepstream.stream.detectors import make_detector
from stepstream.stream.detectors.base import DetectorBase, Observation, Observations
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import Applied, RuleBook
from stepstream.stream.run.run import Run
from tests.support.stream_world import Kafka, Process

BAD, GOOD = f"{1:032x}", f"{2:032x}"


LIMITS = AssembleLimits()


Hook = Callable[..., Any]


class Faulty(DetectorBase):
    """Raises in one of the things that it is asked, in the runs of one trace."""

    def __init__(self, applied: Applied, where: str) -> None:
        super().__init__(applied)
        self.where = where
        self.asked: list[str] = []

    def _called(self, run: Run, where: str) -> Observations:
        if run.trace_id == BAD:
            self.asked.append(where)
            if where == self.where:
                raise ValueError("invalid literal for int() with base 10: '²'")
            if self.where == "state" and where == "on_step":
                run.detector_state[self.name] = {"seen": {1, 2}, "sum": object()}
            if self.where == "surrogate" and where == "on_step":
                return [Observation("half a pair: \ud800", "error")]
            if self.where == "lazily" and where == "on_step":
                return self._lazily()
        return ()

    def _lazily(self) -> Iterator[Observation]:
        yield Observation("first", "error", subject="one")
        raise RuntimeError("in the middle")

    def on_step(self, run: Run, step: Any, now_us: int) -> Observations:
        return self._called(run, "on_step")

    def on_content(self, run: Run, step: Any, contents: Any, now_us: int) -> Observations:
        return self._called(run, "on_content")

    def on_timer(self, run: Run, now_us: int) -> Observations:
        due_us = run.first_append_us + 1_000_000
        if now_us < due_us:
            run.set_timer(self.name, due_us)
            return ()
        return self._called(run, "on_timer")

    def on_close(self, run: Run, now_us: int) -> Observations:
        return self._called(run, "on_close")


def rules_with(where: str) -> tuple[RuleBook, list[Faulty]]:
    """The built-in rules, with one faulty detector in the place of `loop`."""
    made: list[Faulty] = []

    def make(applied: Applied) -> Any:
        if applied.rule.rule != "loop":
            return make_detector(applied)
        made.append(Faulty(applied, where))
        return made[-1]

    return RuleBook((), make), made


def world(rules: RuleBook | None = None, kafka: Kafka | None = None) -> Process:
    return Process(kafka or Kafka(), random.Random(1), LIMITS, rules)
