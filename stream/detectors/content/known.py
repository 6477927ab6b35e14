"""Which identifiers a run has named so far, and since when: by users, by what called it, by what tools returned.

Kept are hashes of words with digits in them, a bounded number, never the words. What a model said or passed to a tool makes
nothing known: that is what is being judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final
from zlib import crc32

from stepstream.stream.contents import Contents, words
from stepstream.stream.run import Run
from stepstream.stream.steps import StepInfo

MAX_KNOWN: Final = 4_096
_FAR: Final = 2**62
_MIN_LENGTH: Final = 3
_IDENTIFIER: Final = re.compile(r"#?(?=[A-Za-z0-9_-]{4,64}$)(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9]+(?:[_-][A-Za-z0-9]+)*$")
_DATE_OR_TIME: Final = re.compile(r"\d{4}-?\d\d(?:-?\d\d)?(?:t\d+z?)?$|\d{1,2}-\d{1,2}-\d{2,4}$|t?\d+[hms]$", re.IGNORECASE)
_NAMED_SO: Final = re.compile(
    r"(?:^|[_-])(?:ids?|no|num|number|code|key|ref|reference|sku|account|uuid|order|ticket|invoice|case)$|[a-z](?:Id|Ids|Number|Code|Ref|Key)$"
)
_MADE_UP_BY_RIGHT: Final = re.compile(
    r"idempot|request|session|trace|correlation|nonce|seed|page|offset|cursor|zip|postal|post_?code|country|currency|language|status|error|key_?code",
    re.IGNORECASE,
)
_CREATING: Final = re.compile(r"^(?:create|add|new|insert|register|generate|save|write|put|set)", re.IGNORECASE)


class Known:
    """The identifiers that a run has named, over the part of a detector's state that holds them."""

    __slots__ = ("_state",)

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def learn(self, step: StepInfo, contents: Contents) -> None:
        """Take over what an ended step makes known."""
        is_call = step.kind in ("tool_call", "retrieval")
        if not is_call and contents.input:
            self._earliest("heard_us", step.start_us)
            self._add(contents.input, contents.input_words, step.start_us, contents.input_is_cut)
        if step.kind != "llm_call" and contents.output:
            self._add(contents.output, contents.output_words, step.end_us, contents.output_is_cut)

    def _add(self, text: str, found: frozenset[bytes], at_us: int, is_cut: bool) -> None:
        if is_cut:
            self._earliest("cut_us", at_us)
        heads: dict[int, int] = self._state.setdefault("heads", {})
        head = crc32(text.encode("utf-8", "replace"))
        if heads.get(head, _FAR) <= at_us:
            return
        if len(heads) < 64:
            heads[head] = at_us
        known: dict[int, int] = self._state.setdefault("known", {})
        for word in found:
            if len(word) >= _MIN_LENGTH and not word.isalpha():
                self._put(known, crc32(word.translate(None, b"_-")), at_us)
                for part in word.split(b"_"):
                    if len(part) >= _MIN_LENGTH and part.isdigit():
                        self._put(known, crc32(part), at_us)

    def _put(self, known: dict[int, int], value: int, at_us: int) -> None:
        before = known.get(value)
        if before is None and len(known) >= MAX_KNOWN:
            self._earliest("cut_us", at_us)
        elif before is None or at_us < before:
            known[value] = at_us

    def _earliest(self, name: str, at_us: int) -> None:
        self._state[name] = min(at_us, self._state.get(name, _FAR))

    def can_judge(self, at_us: int) -> bool:
        """Whether all that was said before a time was seen: contents were captured, and none was longer than is looked at."""
        return bool(self._state.get("heard_us", _FAR) <= at_us < self._state.get("cut_us", _FAR))

    def has(self, value: str, at_us: int) -> bool:
        """Whether a value was named before a time: itself, or the long numbers in it."""
        known: dict[int, int] = self._state.get("known", {})
        plain = value.lower().encode("utf-8", "replace").translate(None, b"_-#")
        if known.get(crc32(plain), _FAR) <= at_us:
            return True
        parts = re.findall(r"\d{4,}", value)
        return bool(parts) and all(known.get(crc32(part.encode()), _FAR) <= at_us for part in parts)


def identifiers(label: str, arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """The values among a call's arguments that can only be names of things that exist, with what they are called."""
    found = [pair for pair in _leaves(arguments, "") if _is_identifier(*pair)]
    if _CREATING.match(label):
        found = [(name, value) for name, value in found if name.lower() not in ("id", "key", "code", "number")]
    return found[:20]


def numbers(arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """The amounts among a call's arguments: numbers of three digits and more, as they would be written."""
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
            yield from _leaves(item, key, depth + 1)
    elif isinstance(value, list):
        for item in value[:20]:
            yield from _leaves(item, name, depth + 1)
    elif isinstance(value, str):
        yield name, value


def _is_identifier(name: str, value: str) -> bool:
    if len(value) > 65 or not _IDENTIFIER.match(value) or _DATE_OR_TIME.match(value) or _MADE_UP_BY_RIGHT.search(name):
        return False
    digits = sum(map(str.isdigit, value))
    if _NAMED_SO.search(name):
        return True
    return digits >= 4 and digits < len(value)


def identity_words(run: Run) -> frozenset[bytes]:
    """What is known of whose run it is."""
    who = run.identity
    return words(f"{who.user_id} {who.session_id} {who.project} {who.agent} {who.task}")
