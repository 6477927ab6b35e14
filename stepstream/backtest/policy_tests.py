"""The tests that policies contain, evaluated with the worker's own code. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from stepstream.backtest.saved_run import SavedRun, Tested, evaluate_saved_run
from stepstream.schemas.policy import Match, Policy
from stepstream.schemas.policy_tests import PolicyTest, TestStep
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
        saved = SavedRun.model_construct(
            name=test.name,
            trace_id=TRACE_ID,
            expect=test.expect,
            allow_others=False,
            events=tuple(_events(test, owner)),
        )
        if not policy.match.matches(**owner):
            reason = f"the policy does not match this run: {_described(policy.match, owner)}"
            yield Tested(saved, (), (reason,))
            continue
        yield evaluate_saved_run(saved, [policy], prices, only_policy=policy.name)


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


def _events(test: PolicyTest, owner: dict[str, str]) -> Iterator[dict[str, Any]]:
    shared = {"trace_id": TRACE_ID, "user_id": test.user_id, **owner}
    root = {**shared, "step_id": _ROOT_ID, "kind": "agent", "name": owner["agent"] or "run"}
    yield {**root, "phase": "start", "start_time": _START_US}
    now_us, number = _START_US, 1
    for step in test.steps:
        for _ in range(step.times):
            now_us, number = now_us + step.after, number + 1
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
