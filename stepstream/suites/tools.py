"""Calls a tool with the arguments of each case, in a process of its own."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec

from stepstream.evals.cases import Case, Suite
from stepstream.evals.gate.trials import Results, Trial, results_of
from stepstream.evals.tool_cases import Called, ToolCase, problem_of
from stepstream.suites.conversation import finished
from stepstream.suites.runner import Done, Plan, Version, run_suite

# Every trial of an agent is decided by a check; these are decided by their cases instead.
_CHECKS: Final = [{"check": "limits", "steps": 10**9}]
MAX_MESSAGE: Final = 1_000


def run_tool(
    function: Version, cases: Sequence[ToolCase], file: str, version: str, plan: Plan
) -> Results:
    """The results of all calls, a trial each; ``version`` is that of the cases in the file."""
    suite = Suite(
        file,
        [Case.model_validate({"id": c.id, "input": c.arguments, "checks": _CHECKS}) for c in cases],
        version,
    )

    def call(arguments: dict[str, Any]) -> dict[str, Any]:
        # Packages below `stepstream` do not import it (docs/architecture.md). A run of its own: a
        # decorated tool would be the root, whose output is the tool's.
        with importlib.import_module("stepstream").run("tool case", input=arguments) as run:
            found = _called(function.agent, arguments)
            run.set_output(found)
        return found

    done = run_suite(suite, call, function.name, (), replace(plan, recordings=""))
    return _decided(done, {case.id: case for case in cases})


def _called(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    try:
        result = finished(function(**arguments))
    except Exception as error:
        raised = [one.__name__ for one in type(error).__mro__ if one is not object]
        return {
            "seconds": time.monotonic() - began,
            "raised": raised,
            "message": str(error)[:MAX_MESSAGE],
        }
    seconds = time.monotonic() - began
    # As JSON, as a model gets it: a tuple is a list, and what has no form is its text.
    return {"seconds": seconds, "result": json.loads(json.dumps(result, default=str))}


def _decided(done: Done, cases: dict[str, ToolCase]) -> Results:
    answers = {
        (event["attributes"]["case"], int(event["attributes"]["trial"])): event.get("output")
        for event in done.events
        if event["phase"] == "end" and not event.get("parent_step_id")
    }
    trials = [
        _trial(trial, cases[trial.case], answers.get((trial.case, trial.trial)))
        for case in done.results.cases.values()
        for trial in case
    ]
    return results_of(done.results.name, trials, done.results.header)


def _trial(trial: Trial, case: ToolCase, answer: str | None) -> Trial:
    if trial.crashed:
        return trial
    try:
        found = msgspec.json.decode(answer or "", type=dict)
        called = Called(
            found["seconds"],
            found.get("result"),
            tuple(found.get("raised", ())),
            found.get("message", ""),
        )
    except (msgspec.DecodeError, KeyError):
        # The output of a step is cut: such a result cannot be compared.
        return _with(trial, None, "the result is too large to be compared")
    problem = problem_of(case, called)
    return _with(trial, not problem, problem)


def _with(trial: Trial, success: bool | None, reason: str) -> Trial:
    values = {name: getattr(trial, name) for name in trial.__struct_fields__}
    return Trial(**(values | {"success": success, "reason": reason}))
