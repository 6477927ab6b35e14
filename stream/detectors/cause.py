"""Where a run's cost went: which calls, and how that differs from what is usual."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

from stepstream.stream.run.baseline import LLM_CALLS, Normal
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

MAIN_SHARE: Final = 0.4
"""A group of calls is named as the cause when so much of the cost went into it: nothing else can be
as large by far."""

REPEATED: Final = 3
MAX_STEPS: Final = 20
_OWN_MEANS: Final = frozenset({"tool_call", "retrieval"})


class Cause(NamedTuple):
    """A sentence, and the steps that it is about."""

    detail: str
    step_ids: tuple[str, ...]


class _Group:
    __slots__ = ("cost", "steps")

    def __init__(self) -> None:
        self.cost = 0
        self.steps: list[StepInfo] = []


def likely_cause(run: Run, normal: Normal) -> Cause:
    """What makes up the run's cost: calls repeated with the same input, else a tool, else a model.

    And how many are usual.

    What a model call costs counts for the tool that is called next, because deciding on that call
    is what it was for.
    """
    led_to = _costs_by_call(run)
    same, tools, models = _grouped(run, led_to)
    total = max(1, run.cost_nanos)
    for groups, words in ((same, " with the same input"), (tools, ""), (models, "")):
        found = [
            (group.cost, label, group)
            for (label, _), group in groups.items()
            if len(group.steps) > 1
        ]
        if not found:
            continue
        # The label decides between equal costs, so that every replay names the same cause.
        cost, label, group = max(found, key=lambda item: (item[0], item[1]))
        if cost >= MAIN_SHARE * total:
            stated = (
                f"{100 * cost / total:.0f} % of it went into {len(group.steps)} x {label}{words}"
            )
            return Cause(f"{stated}; {_usual(run, normal)}", _ids(group.steps))
    most_expensive = max(run.steps.values(), key=lambda step: (step.cost_nanos or 0, step.step_id))
    share = 100 * (most_expensive.cost_nanos or 0) / total
    return Cause(
        f"its most expensive step, {most_expensive.label}, is {share:.0f} % of it; "
        f"{_usual(run, normal)}",
        _ids([most_expensive]),
    )


def _usual(run: Run, normal: Normal) -> str:
    """The number of model calls, and how many are usual."""
    calls = sum(1 for step in run.steps.values() if step.ended and step.kind == "llm_call")
    usual = round(normal.median(LLM_CALLS)) if normal.amounts[LLM_CALLS] else 0
    return f"{calls} model calls so far, half of the runs need no more than {usual} in all"


def _costs_by_call(run: Run) -> dict[str, int]:
    """What each call cost with the model calls that led to it, by step id."""
    calls = sorted(
        (s for s in run.steps.values() if s.kind in _OWN_MEANS),
        key=lambda s: (s.start_us, s.step_id),
    )
    begins = [step.start_us for step in calls]
    costs = {step.step_id: step.cost_nanos or 0 for step in calls}
    for step in run.steps.values():
        if step.kind == "llm_call" and step.ended and step.cost_nanos:
            place = bisect_left(begins, step.end_us)
            if place < len(calls):
                costs[calls[place].step_id] += step.cost_nanos
    return costs


_Groups = dict[tuple[str, int], _Group]


def _grouped(run: Run, costs: dict[str, int]) -> tuple[_Groups, _Groups, _Groups]:
    same: _Groups = {}
    tools: _Groups = {}
    models: _Groups = {}
    for step in run.steps.values():
        if step.kind in _OWN_MEANS:
            _put(tools, (step.label, 0), step, costs[step.step_id])
            if step.input_hash:
                _put(same, (step.label, step.input_hash), step, costs[step.step_id])
        elif step.kind == "llm_call":
            _put(models, (step.label, 0), step, step.cost_nanos or 0)
    return (
        {key: group for key, group in same.items() if len(group.steps) >= REPEATED},
        tools,
        models,
    )


def _put(groups: _Groups, key: tuple[str, int], step: StepInfo, cost: int) -> None:
    group = groups.get(key)
    if group is None:
        group = groups[key] = _Group()
    group.cost += cost
    group.steps.append(step)


def _ids(steps: list[StepInfo]) -> tuple[str, ...]:
    ordered = sorted(steps, key=lambda step: (step.start_us, step.step_id))
    return tuple(step.step_id for step in ordered[:MAX_STEPS])
