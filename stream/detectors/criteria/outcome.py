"""What a check, and all checks of a run together, have come to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

State = Literal["pass", "fail", "unknown"]
MAX_REASON: Final = 300
_MOST_EVIDENCE: Final = 20


class Outcome(NamedTuple):
    """The outcome of one check. ``reason`` has names and numbers, never text of contents."""

    state: State
    reason: str = ""
    step_ids: tuple[str, ...] = ()


PASSED: Final = Outcome("pass")


def failed(reason: str, *step_ids: str) -> Outcome:
    return Outcome("fail", reason, step_ids[:_MOST_EVIDENCE])


def unknown(reason: str, *step_ids: str) -> Outcome:
    return Outcome("unknown", reason, step_ids[:_MOST_EVIDENCE])


def together(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail where one failed, else unknown where one is unknown, else pass."""
    found = list(outcomes)
    for state in ("fail", "unknown"):
        of_state = [one for one in found if one.state == state]
        if of_state:
            reason = "; ".join(one.reason for one in of_state)
            reason = reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 3] + "..."
            ids = tuple(dict.fromkeys(step for one in of_state for step in one.step_ids))
            return Outcome(of_state[0].state, reason, ids[:_MOST_EVIDENCE])
    return PASSED
