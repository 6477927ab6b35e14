"""A detector's case.

A run that breaks its rule, one that comes close, and how steps of such runs are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.step import StepEvent
from stepstream.stream.detectors.base import Detector
from stepstream.stream.run.rules import Applied

TRACE: Final = "a" * 32
ROOT: Final = "1" * 16
BEGIN_US: Final = 1_790_000_000_000_000
"""When runs begin, unless a case sets it."""


@dataclass(frozen=True)
class DetectorCase:
    """What a detector is tested with.

    ``make`` makes the detector for a rule; ``breaks`` are the events of a run in which it must
    find something, ``calm`` of one in which it must not, both in the order in which they happen.
    ``findings`` is how many are raised. What is found depends on the order or the pace of records
    if a deadline is evaluated by live time: then ``any_order`` is False.
    """

    name: str
    rule: RuleBase
    make: Callable[[Applied], Detector]
    breaks: Sequence[StepEvent]
    calm: Sequence[StepEvent]
    findings: int = 1
    any_order: bool = True
    policy: str = "tested"


def ended(
    number: int,
    at_s: float,
    took_s: float = 0.1,
    *,
    kind: str = "tool_call",
    name: str = "work",
    **more: Any,
) -> StepEvent:
    """The end of a step of the case's run: the complete record. The number is its id, from 2 on."""
    fields = {
        "trace_id": TRACE,
        "step_id": f"{number:016x}",
        "parent_step_id": ROOT,
        "kind": kind,
        "name": name,
    }
    times = {"start_time": _us(at_s), "end_time": _us(at_s + took_s), "agent": "tested"}
    return StepEvent.model_validate(fields | times | more)


def started(
    number: int, at_s: float, *, kind: str = "tool_call", name: str = "work", **more: Any
) -> StepEvent:
    """The start of a step."""
    fields = {
        "trace_id": TRACE,
        "step_id": f"{number:016x}",
        "parent_step_id": ROOT,
        "kind": kind,
        "name": name,
    }
    return StepEvent.model_validate(
        fields | {"start_time": _us(at_s), "phase": "start", "agent": "tested"} | more
    )


def root(until_s: float | None = None, **more: Any) -> StepEvent:
    """The root: its start, or its end at ``until_s``."""
    fields = {
        "trace_id": TRACE,
        "step_id": ROOT,
        "kind": "agent",
        "name": "run",
        "start_time": _us(0.0),
        "agent": "tested",
    }
    # An end record repeats the start, so that a run is complete without its start records.
    end = {"phase": "start"} if until_s is None else {"end_time": _us(until_s)}
    return StepEvent.model_validate(fields | end | more)


def _us(at_s: float) -> int:
    return BEGIN_US + round(at_s * 1_000_000)
