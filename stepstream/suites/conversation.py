"""A conversation of an agent with a user who is scripted, or is a function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stepstream.evals.cases import Case
from stepstream.schemas.scenario import Turn

Message = dict[str, str]


def converse(
    agent: Callable[..., Any], case: Case, user: Callable[[list[Message]], Any] | None
) -> str:
    """Call the agent with each message of the user. Returns its last answer."""
    history: list[Message] = []
    turns = _scripted(case.turns) if user is None else _by_function(user, history)
    message, answer = _text(case.input), ""
    for _ in range(case.max_turns):
        answer = _text(asked(agent, message, history))
        history += [
            {"role": "user", "content": message},
            {"role": "assistant", "content": answer},
        ]
        following = turns(answer)
        if following is None:
            break
        message = following
    return answer


def _scripted(turns: Sequence[Turn]) -> Callable[[str], str | None]:
    """The next message: that of the first turn left whose condition holds."""
    left = list(turns)

    def following(answer: str) -> str | None:
        for turn in left:
            if turn.when.holds(answer):
                left.remove(turn)
                return turn.message
        return None

    return following


def _by_function(
    user: Callable[[list[Message]], Any], history: list[Message]
) -> Callable[[str], str | None]:
    def following(_answer: str) -> str | None:
        following_message = finished(user(list(history)))
        return None if following_message is None else _text(following_message)

    return following


def asked(agent: Callable[..., Any], given: Any, history: Sequence[Message] = ()) -> Any:
    """The agent's answer. With a second parameter it gets the conversation so far as well."""
    return finished(agent(given, list(history)) if _takes_history(agent) else agent(given))


def finished(found: Any) -> Any:
    """What a function returned, or what its coroutine returns."""
    return asyncio.run(found) if inspect.iscoroutine(found) else found


def _takes_history(agent: Callable[..., Any]) -> bool:
    try:
        return sum(1 for _ in _positional(agent)) >= 2
    except (TypeError, ValueError):
        return False


def _positional(agent: Callable[..., Any]) -> Iterator[str]:
    for one in inspect.signature(agent).parameters.values():
        if (
            one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
            and one.default is one.empty
        ):
            yield one.name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)
