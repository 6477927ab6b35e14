"""Which identifiers a run has named so far, and since when.

In inputs from outside and in outputs of tools.

An identifier is known by the numbers in it, of which a bounded number is kept. Identifiers without
a number of three digits are not checked: ordinary text contains too many of them. Outputs and tool
inputs of a model add nothing: they are what is checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from stepstream.stream.detectors.content.base import CALLS
from stepstream.stream.detectors.reading import STEPS_OF_A_COMPARISON, may_compare
from stepstream.stream.run.contents import Contents, words
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo

MAX_KNOWN: Final = 4_096
_MIN_DIGITS: Final = 3
"""Digits of a number that is kept; shorter ones stand in ordinary text."""
_FAR: Final = 2**62
MAX_HEADS: Final = 64
_DIGITS_ALONE: Final = bytes(code if 48 <= code <= 57 else 32 for code in range(256))
_IDENTIFIER: Final = re.compile(
    r"#?(?=[A-Za-z0-9_-]{4,64}$)(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$"
)
_DATE_OR_TIME: Final = re.compile(
    r"\d{4}-?\d\d(?:-?\d\d)?(?:t\d+z?)?$|\d{1,2}-\d{1,2}-\d{2,4}$|t?\d+[hms]$", re.IGNORECASE
)
_NUMBER: Final = re.compile(r"\d+")
_NAMED_SO: Final = re.compile(
    r"(?:^|[_-])(?:ids?|no|num|number|code|key|ref|reference|sku|account|uuid|order|ticket|invoice|"
    r"case)$|[a-z](?:Id|Ids|Number|Code|Ref|Key)$"
)
_MADE_UP_BY_RIGHT: Final = re.compile(
    r"idempot|request|session|trace|correlation|nonce|seed|page|offset|cursor|zip|postal|"
    r"post_?code|country|currency|language|status|error|key_?code",
    re.IGNORECASE,
)
_CREATING: Final = re.compile(
    r"^(?:create|add|new|insert|register|generate|save|write|put|set)", re.IGNORECASE
)


class Known:
    """The identifiers that a run has named, over the part of a detector's state that holds them."""

    __slots__ = ("_state",)

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def learn(self, step: StepInfo, contents: Contents) -> None:
        """Take over what an ended step makes known."""
        is_call = step.kind in CALLS
        if not is_call and contents.input:
            self._earliest("heard_us", step.start_us)
            self._add(
                contents.step.input,
                step.input_hash,
                step.start_us,
                lost=bool(contents.step.input_bytes),
            )
        if step.kind != "llm_call" and contents.output:
            self._add(
                contents.step.output,
                step.output_hash,
                step.end_us,
                lost=bool(contents.step.output_bytes),
            )

    def _add(self, text: str, whole_hash: int, at_us: int, *, lost: bool) -> None:
        """Learn the numbers in a text, which its hash identifies.

        ``lost``: it was cut off when it was recorded.
        """
        if lost:
            self._earliest("cut_us", at_us)
        if self._state.get("cut_us", _FAR) <= at_us:
            return  # nothing after it is checked
        heads: dict[int, int] = self._state.setdefault("heads", {})
        # The same text comes again in many steps: its numbers are learnt once.
        head = whole_hash >> 32
        if heads.get(head, _FAR) <= at_us:
            return
        if len(heads) < MAX_HEADS:
            heads[head] = at_us
        data = text.encode("utf-8", "replace")
        found = {
            number for number in data.translate(_DIGITS_ALONE).split() if len(number) >= _MIN_DIGITS
        }
        if not found:
            return
        known: dict[bytes, int] = self._state.setdefault("known", {})
        # Records out of order: a number counts from the earliest time at which it was seen.
        if at_us < self._state.get("latest_us", 0):
            for number in found & known.keys():
                known[number] = min(known[number], at_us)
        else:
            self._state["latest_us"] = at_us
        fresh = found.difference(known)
        if len(known) + len(fresh) > MAX_KNOWN:
            self._earliest("cut_us", at_us)
        else:
            known.update(dict.fromkeys(fresh, at_us))

    def _earliest(self, name: str, at_us: int) -> None:
        if at_us < self._state.get(name, _FAR):
            self._state[name] = at_us

    def is_complete(self, at_us: int) -> bool:
        """Whether everything before a time was seen.

        Contents were captured, and none was cut off.
        """
        return bool(self._state.get("heard_us", _FAR) <= at_us < self._state.get("cut_us", _FAR))

    def has(self, value: str, at_us: int) -> bool:
        """Whether every number in a value was named before a time.

        It may also be part of a longer number, or be written with commas for thousands.
        """
        known: dict[bytes, int] = self._state.get("known", {})
        return all(
            known.get(number, _FAR) <= at_us
            or _with_commas(number, known, at_us)
            or self._is_part_of_one(number, known, at_us)
            for number in value.encode("utf-8", "replace").translate(_DIGITS_ALONE).split()
            if len(number) >= _MIN_DIGITS
        )

    def _is_part_of_one(self, number: bytes, known: dict[bytes, int], at_us: int) -> bool:
        # Where the run's budget is used up nothing is reported, as of what is known.
        return not may_compare(self._state, len(known) // STEPS_OF_A_COMPARISON) or any(
            number in longer and since_us <= at_us for longer, since_us in known.items()
        )


def _with_commas(number: bytes, known: dict[bytes, int], at_us: int) -> bool:
    # 1500 is written 1,500 in texts, whose digits alone are two numbers.
    parts = f"{int(number):,}".encode().split(b",") if len(number) <= 15 else []
    return len(parts) > 1 and all(known.get(part, _FAR) <= at_us for part in parts)


def identifiers(label: str, arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """The identifiers among a call's arguments, each with the name of its argument."""
    found = [
        pair for pair in _leaves(arguments, "") if 4 <= len(pair[1]) <= 65 and _is_identifier(*pair)
    ]
    # What is created gets its own new id from the caller.
    if _CREATING.match(label):
        found = [
            (name, value)
            for name, value in found
            if name.lower() not in ("id", "key", "code", "number")
        ]
    return found[:20]


def numbers(arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """The amounts among a call's arguments.

    Numbers of three digits and more, as they would be written.
    """
    found = [
        (name, value)
        for name, value in _number_leaves(arguments, "")
        if abs(value) >= 100 and not _MADE_UP_BY_RIGHT.search(name)
    ]
    return [(name, str(int(abs(value)))) for name, value in found][:20]


def _number_leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, float]]:
    if depth > 8 or isinstance(value, bool):
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _number_leaves(item, key, depth + 1)
    elif isinstance(value, list):
        for item in value[:20]:
            yield from _number_leaves(item, name, depth + 1)
    elif isinstance(value, int | float) and abs(value) < 1e15:
        yield name, value


def _leaves(value: Any, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > 8:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str):
                yield key, item
            else:
                yield from _leaves(item, key, depth + 1)
    elif isinstance(value, list):
        for item in value[:20]:
            yield from _leaves(item, name, depth + 1)
    elif isinstance(value, str):
        yield name, value


def _is_identifier(name: str, value: str) -> bool:
    if " " in value or not _IDENTIFIER.match(value) or _DATE_OR_TIME.match(value):
        return False
    made_up, named_so = _kind_by_name(name)
    if made_up:
        return False
    longest = max(map(len, _NUMBER.findall(value)))
    return longest >= 3 if named_so else 4 <= longest < len(value)


@lru_cache(1_024)
def _kind_by_name(name: str) -> tuple[bool, bool]:
    """Whether what has this name may be made up, and whether it is an identifier's."""
    return _MADE_UP_BY_RIGHT.search(name) is not None, _NAMED_SO.search(name) is not None


def identity_words(run: Run) -> frozenset[bytes]:
    """What is known of whose run it is."""
    who = run.identity
    return words(f"{who.user_id} {who.session_id} {who.project} {who.agent} {who.task}")
