"""Cases of built-in rules for the detector suite of stepstream.testing."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import AnyRule
from stepstream.schemas.step import StepEvent
from stepstream.stream.detectors import make_detector
from stepstream.testing import (
    DetectorCase,
    ended,
    root,
    started,
)

RULE: TypeAdapter[RuleBase] = TypeAdapter(AnyRule)


def spend(number: int, at_s: float, usd: str = "0.4", **more: Any) -> StepEvent:
    """A model call that costs something."""
    return ended(number, at_s, kind="llm_call", model="m", cost_usd=usd, **more)


def call(number: int, at_s: float, **more: Any) -> StepEvent:
    """A call of a tool."""
    return ended(number, at_s, tool="search", input="q", output="a", **more)


def builtin(
    rule: dict[str, Any], breaks: list[StepEvent], calm: list[StepEvent], **more: Any
) -> DetectorCase:
    return DetectorCase(
        rule["rule"], RULE.validate_python(rule), make_detector, breaks, calm, **more
    )


FAILED = {"status": "error", "error_message": "boom"}


CASES = (
    builtin(
        {"rule": "run_cost", "limit_usd": "1"},
        [root(), spend(2, 1), spend(3, 2), spend(4, 3), root(9)],
        [root(), spend(2, 1), root(9)],
    ),
    builtin(
        {"rule": "run_tokens", "limit": 100},
        [
            root(),
            spend(2, 1, usage={"input_tokens": 60}),
            spend(3, 2, usage={"output_tokens": 60}),
            root(9),
        ],
        [root(), spend(2, 1, usage={"input_tokens": 60}), root(9)],
    ),
    builtin(
        {"rule": "run_steps", "limit": 3},
        [root(), *(call(n, n) for n in range(2, 6)), root(9)],
        [root(), call(2, 1), root(9)],
    ),
    builtin(
        {"rule": "expr", "when": "run.calls['search'] > 3"},
        [root(), *(call(n, n) for n in range(2, 6)), root(9)],
        [root(), call(2, 1), root(9)],
    ),
    builtin(
        {"rule": "loop"},
        [root(), *(call(n, n) for n in range(2, 6)), root(9)],
        [root(), call(2, 1), call(3, 2), root(9)],
    ),
    builtin(
        {"rule": "tool_error_ignored"},
        [root(), call(2, 1, **FAILED), root(9)],
        [root(), call(2, 1, **FAILED), call(3, 2), root(9)],
        any_order=False,
    ),
    builtin(
        {"rule": "unpriced_model"},
        [
            root(),
            ended(2, 1, kind="llm_call", model="unheard-of", usage={"input_tokens": 9}),
            root(9),
        ],
        [root(), spend(2, 1), root(9)],
    ),
    builtin(
        {"rule": "run_duration", "limit": "5s"},
        [root(), call(2, 1)],
        [root(), call(2, 1), root(4)],
        any_order=False,
    ),
    builtin(
        {"rule": "step_duration", "limit": "5s"},
        [root(), started(2, 1, tool="search")],
        [root(), started(2, 1, tool="search"), call(2, 1), root(4)],
        any_order=False,
    ),
    builtin(
        {"rule": "hung_step", "after": "20s"},
        [root(), started(2, 1, tool="search")],
        [root(), started(2, 1, tool="search"), call(2, 1), root(4)],
        any_order=False,
    ),
    builtin(
        {"rule": "stuck_run", "after": "20s"},
        [root(), call(2, 1)],
        [root(), call(2, 1), root(4)],
        any_order=False,
    ),
)
