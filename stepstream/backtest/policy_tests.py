"""The tests that policies contain, evaluated with the worker's own code. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from stepstream.backtest.saved_run import Decided, SavedRun, Tested, evaluate_saved_run
from stepstream.schemas.guardrail_check import Call, GuardrailBook, Verdict, evaluate
from stepstream.schemas.guardrails import KINDS as GUARDED_KINDS
from stepstream.schemas.policy import Policy
from stepstream.schemas.policy_match import Match
from stepstream.schemas.policy_tests import ExpectedDecision, PolicyTest, TestStep
from stepstream.schemas.prices import PriceBook

TRACE_ID: Final = "7e57" * 8
_ROOT_ID: Final = f"{1:016x}"
_START_US: Final = 1_767_225_600_000_000
"""The beginning of each run: 2026-01-01, so that a test finds the same on every day."""


def evaluate_tests(policy: Policy, prices: PriceBook | None = None) -> Iterator[Tested]:
    """Evaluate each test of the policy with this policy alone.

    Only alerts of the policy count: those of rules that are on by default are not its subject.
    """
    for test in policy.tests:
        owner = _owner(policy, test)
        guards = _Guards(policy, test, owner)
        saved = SavedRun.model_construct(
            name=test.name,
            trace_id=TRACE_ID,
            expect=test.expect,
            allow_others=False,
            events=tuple(_events(test, owner, guards)),
        )
        if not policy.match.matches(**owner):
            reason = f"the policy does not match this run: {_described(policy.match, owner)}"
            yield Tested(saved, (), (reason,))
            continue
        tested = evaluate_saved_run(saved, [policy], prices, only_policy=policy.name)
        problems = (*tested.problems, *_wrong_decisions(test, guards.decided))
        yield replace(tested, problems=problems, decided=tuple(guards.decided))


class _Guards:
    """The policy's guardrails, for the calls of one test. Suspended calls are approved."""

    def __init__(self, policy: Policy, test: PolicyTest, owner: dict[str, str]) -> None:
        guarded = policy.guarded
        self._book = None if guarded is None else GuardrailBook([guarded])
        self._labels = {**owner, "user_id": test.user_id}
        limits = {} if test.budget is None else test.budget.model_dump(exclude_none=True)
        self._left = {what: float(limit) for what, limit in limits.items()}
        self.decided: list[Decided] = []

    def decide(self, step: TestStep, number: int) -> Verdict:
        """What they decide about one step."""
        fields = _step(step)
        kind, name, model = fields["kind"], fields["name"], fields["model"]
        if self._book is None or kind not in GUARDED_KINDS:
            return Verdict()
        call = Call(
            kind,
            fields["tool"] or name,
            model or name,
            labels=self._labels,
            read_args=lambda: _arguments(step.input),
            read_left=lambda: self._left,
        )
        verdict = evaluate(self._book.of(kind, call.name, call.model, self._labels), call)
        self.decided += [
            Decided(
                made.bound.guardrail.name,
                made.would or made.decision,
                number,
                f"{made.reason}: {made.detail}" if made.detail else made.reason,
            )
            for made in verdict.made
        ]
        return verdict

    def used(self, step: TestStep) -> None:
        """Take what a step uses from the budget."""
        amounts = {"usd": float(step.cost_usd or 0), "tokens": step.tokens, "steps": 1}
        self._left = {what: left - amounts[what] for what, left in self._left.items()}


def _arguments(text: str) -> Any:
    try:
        return json.loads(text) if text[:1] in ("{", "[") else text or None
    except ValueError:
        return text


def _wrong_decisions(test: PolicyTest, decided: list[Decided]) -> Iterator[str]:
    rest = list(decided)
    for wanted in test.decisions:
        found = next((one for one in rest if _is_wanted(wanted, one)), None)
        if found is None:
            at = f" at step {wanted.step}" if wanted.step else ""
            yield f"guardrail {wanted.guardrail} did not decide: {wanted.decision or 'any'}{at}"
        else:
            rest.remove(found)
    yield from (
        f"guardrail {one.guardrail} {one.decision} step {one.step}, which is not expected: "
        f"{one.reason}"
        for one in rest
    )


def _is_wanted(wanted: ExpectedDecision, found: Decided) -> bool:
    return (
        found.guardrail == wanted.guardrail
        and wanted.decision in (None, found.decision)
        and wanted.step in (None, found.step)
    )


def _owner(policy: Policy, test: PolicyTest) -> dict[str, str]:
    """The labels of the test's run: its own, else the fields of the policy's match."""
    found = {}
    for name, pattern in policy.match.model_dump().items():
        usual = "default" if name == "project" and pattern == "*" else ""
        made = pattern.replace("*", "").replace("?", "x") if pattern != "*" else usual
        found[name] = getattr(test, name) or made
    return found


def _described(match: Match, owner: dict[str, str]) -> str:
    wanted = match.model_dump(exclude_defaults=True)
    return ", ".join(f"{name} is {owner[name] or 'empty'}, not {wanted[name]}" for name in wanted)


def _events(test: PolicyTest, owner: dict[str, str], guards: _Guards) -> Iterator[dict[str, Any]]:
    shared = {"trace_id": TRACE_ID, "user_id": test.user_id, **owner}
    root = {**shared, "step_id": _ROOT_ID, "kind": "agent", "name": owner["agent"] or "run"}
    yield {**root, "phase": "start", "start_time": _START_US}
    now_us, number, call = _START_US, 1, 0
    for step in test.steps:
        for _ in range(step.times):
            now_us, number, call = now_us + step.after, number + 1, call + 1
            if guards.decide(step, call).refused is not None:
                number -= 1
                continue  # the agent does not make the call
            guards.used(step)
            base = {**shared, **_step(step), "step_id": f"{number:016x}"}
            base |= {"parent_step_id": _ROOT_ID, "start_time": now_us}
            yield {**base, "phase": "start", "input": step.input}
            if not step.ends:
                return
            now_us += step.took
            yield {**base, **_end(step), "phase": "end", "end_time": now_us}
    end = {"phase": "end", "start_time": _START_US, "end_time": now_us, "status": test.status}
    yield {**root, **end}


def _step(step: TestStep) -> dict[str, Any]:
    kind = step.kind or ("tool_call" if step.tool else "llm_call" if step.model else "other")
    name = step.name or step.tool or step.model or kind
    return {"kind": kind, "name": name, "tool": step.tool, "model": step.model}


def _end(step: TestStep) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: getattr(step, name)
        for name in ("status", "error_type", "error_message", "input", "output")
    }
    if step.cost_usd is not None:
        found["cost_usd"] = str(step.cost_usd)
    if step.tokens:
        found["usage"] = {"input_tokens": step.tokens}
    return found
