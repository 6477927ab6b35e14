"""Checks of the tools that a run called, and of their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from stepstream.schemas.criteria import ArgumentsCheck, AtMostCheck, NeverCheck, ToolsCheck
from stepstream.schemas.json_schema import ToolSchema
from stepstream.stream.detectors.criteria.outcome import PASSED, Outcome, failed, unknown
from stepstream.stream.run.contents import Contents
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

CALLS: Final = frozenset({"tool_call", "retrieval"})
MAX_NAMED: Final = 5
MAX_DEPTH: Final = 20


def calls_of(run: Run) -> list[StepInfo]:
    """The calls of tools in order; repeated attempts are left out."""
    calls = [
        info
        for info in run.steps.values()
        if info.kind in CALLS and info.attempt <= 1 and not info.retry_of
    ]
    return sorted(calls, key=lambda info: (info.start_us, info.step_id))


def tools(check: ToolsCheck, calls: Sequence[StepInfo]) -> Outcome:
    """Whether the calls are those of the check, by its order."""
    wanted, called = list(check.calls), [info.label for info in calls]
    missing = list((Counter(wanted) - Counter(called)).elements())
    other = [info for info in calls if info.label not in wanted]
    if check.order in {"exact", "in_order", "any_order", "superset"} and missing:
        return failed(f"not called: {_named(missing)}")
    if check.order in {"exact", "any_order", "subset"} and other:
        ids = [info.step_id for info in other]
        return failed(f"also called: {_named([info.label for info in other])}", *ids)
    if check.order in {"exact", "any_order"} and Counter(called) != Counter(wanted):
        return failed(f"called more often: {_named([*(Counter(called) - Counter(wanted))])}")
    if check.order == "exact" and called != wanted:
        return failed(f"called in another order: {_named(called)}")
    if check.order == "in_order" and not _in_order(wanted, called):
        return failed(f"not called in the order {_named(wanted)}")
    return PASSED


def never(check: NeverCheck, calls: Sequence[StepInfo]) -> Outcome:
    found = [info for info in calls if info.label in check.tools]
    if not found:
        return PASSED
    names = _named([*dict.fromkeys(info.label for info in found)])
    return failed(f"must not be called: {names}", *(info.step_id for info in found))


def at_most(check: AtMostCheck, calls: Sequence[StepInfo]) -> Outcome:
    found = [info.step_id for info in calls if info.label == check.tool]
    if len(found) <= check.times:
        return PASSED
    return failed(
        f"{check.tool} was called {len(found)} times, at most {check.times} are allowed",
        *found[check.times :],
    )


class ArgumentsOfTool:
    """Evaluates an ``arguments`` check call by call, with a small state for each run."""

    def __init__(self, check: ArgumentsCheck) -> None:
        self.check = check
        self._schema = ToolSchema(check.json_schema) if check.json_schema else None

    def note(self, kept: dict[str, Any], info: StepInfo, contents: Contents) -> None:
        """Count an ended call of the tool as matching, different or unreadable."""
        if info.label != self.check.tool or info.kind not in CALLS:
            return
        state = self._state_of(contents)
        kept[state] = kept.get(state, 0) + 1
        # The first by the steps' own times, so that the order of arrival does not matter.
        first = [info.start_us, info.step_id]
        kept[f"{state}_step"] = min(first, kept.get(f"{state}_step", first))

    def outcome(self, kept: dict[str, Any], calls: Sequence[StepInfo]) -> Outcome:
        tool = self.check.tool
        called = sum(info.label == tool for info in calls)
        read = sum(kept.get(state, 0) for state in ("pass", "fail", "unknown"))
        if not called and not read:
            if self.check.of == "all":
                return PASSED
            return failed(f"{tool} was not called")
        passed, different = kept.get("pass", 0), kept.get("fail", 0)
        if self.check.of == "any" and passed:
            return PASSED
        if self.check.of == "all" and different:
            return failed(f"{tool} was called with other arguments", kept["fail_step"][1])
        if kept.get("unknown", 0) or read < called:
            return unknown(f"the arguments of {tool} are not recorded completely")
        if self.check.of == "all":
            return PASSED
        return failed(f"{tool} was not called with these arguments", kept["fail_step"][1])

    def _state_of(self, contents: Contents) -> str:
        arguments = contents.arguments
        if arguments is None:
            # An empty input is a call without arguments, unless its size shows that it had some.
            if contents.input or contents.input_is_cut:
                return "unknown"
            arguments = {}
        if not includes(arguments, self.check.contains):
            return "fail"
        if self._schema is not None and self._schema.errors(arguments):
            return "fail"
        return "pass"


def includes(found: Any, wanted: Any, depth: int = 0) -> bool:
    """Whether a value is the wanted one; objects may have other fields as well."""
    if depth > MAX_DEPTH:
        return False
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and includes(found[name], value, depth + 1)
            for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(includes(a, b, depth + 1) for a, b in zip(found, wanted, strict=True))
        )
    if isinstance(wanted, bool) or isinstance(found, bool):
        return found is wanted
    return bool(found == wanted)


def _in_order(wanted: Sequence[str], called: Sequence[str]) -> bool:
    rest = iter(called)
    return all(tool in rest for tool in wanted)


def _named(tools: Sequence[str]) -> str:
    shown = ", ".join(tools[:MAX_NAMED])
    return shown if len(tools) <= MAX_NAMED else f"{shown} and {len(tools) - MAX_NAMED} more"
