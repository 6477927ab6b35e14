"""Patterns that are searched only in texts with what each of their matches contains.

Most texts report no failure, and a pattern of a hundred alternatives takes 50 to 200 microseconds
to find nothing in two lines of prose. Each alternative needs some plain text, its signs. To look
for a sign takes 50 nanoseconds, and alternatives whose signs are absent are not tried. The signs
are derived from the pattern, so that a pattern and its signs cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

# Letters that IGNORECASE takes for i, s and k, and that lower() does not turn into them.
_ODD_LETTERS: Final = ("\u0130", "\u0131", "\u017f", "\u212a")
# A class or a group of more texts than this is not multiplied out.
_MOST_SPELLINGS: Final = 6
# Estimated for English prose of two lines: three letters stand in every second text, six in few.
_TEXT_LENGTH: Final = 200
_CHANCE_OF_A_LETTER: Final = 0.13
# Of the cost of trying an alternative, about 10 microseconds.
_COST_OF_A_SIGN: Final = 0.005

_Signs = frozenset[str]
_Search = Callable[[str], Any]
_REPEATS: Final = {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT}
_ZERO_WIDTH: Final = {ops.AT, ops.ASSERT, ops.ASSERT_NOT}


class SignedPattern:
    """A compiled pattern whose alternatives are tried only where their signs are.

    ``pattern`` is the whole pattern, for what ``found_in`` cannot do: where it matches.
    """

    __slots__ = ("_alternatives", "_signs", "pattern")

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.pattern = re.compile(pattern, flags)
        # Worked out at the first text: most processes import these modules and search nothing.
        self._signs: tuple[tuple[str, int], ...] | None = None
        self._alternatives: tuple[_Search, ...] = ()

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches anywhere in a text."""
        if not text.isascii() and any(letter in text for letter in _ODD_LETTERS):
            return self.pattern.search(text) is not None
        tried = self._tried_in(text.lower())
        number = 0
        while tried:
            if tried & 1 and self._alternatives[number](text) is not None:
                return True
            tried >>= 1
            number += 1
        return False

    def may_be_in(self, text: str) -> bool:
        """Whether a text contains a sign of the pattern; False where no match is possible."""
        if not text.isascii() and any(letter in text for letter in _ODD_LETTERS):
            return True
        return self._tried_in(text.lower()) != 0

    def _tried_in(self, lowered: str) -> int:
        """The alternatives that a text can match, as a set of bits."""
        signs = self._signs
        if signs is None:
            signs = self._read_pattern()
        tried = 0
        for sign, alternatives in signs:
            if sign in lowered:
                tried |= alternatives
        return tried

    def _read_pattern(self) -> tuple[tuple[str, int], ...]:
        """Split the pattern into alternatives, those with the same signs together."""
        flags = self.pattern.flags
        by_signs: dict[_Signs, list[str]] = {}
        for alternative in alternatives_of(self.pattern):
            # An alternative without signs is tried in every text: the empty text is in all.
            signs = signs_of(parser.parse(alternative, flags)) or frozenset({""})
            by_signs.setdefault(signs, []).append(alternative)
        self._alternatives = tuple(
            re.compile("|".join(f"(?:{one})" for one in same), flags).search
            for same in by_signs.values()
        )
        bits: dict[str, int] = {}
        for number, signs in enumerate(by_signs):
            for sign in signs:
                bits[sign] = bits.get(sign, 0) | 1 << number
        self._signs = tuple(bits.items())
        return self._signs


def alternatives_of(pattern: re.Pattern[str]) -> list[str]:
    """The alternatives of a pattern's outermost level, as texts of patterns."""
    text, is_verbose = pattern.pattern, bool(pattern.flags & re.VERBOSE)
    parts, begin, depth, at = [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "[":
            at = _end_of_class(text, at)
        elif char == "#" and is_verbose:
            at = text.find("\n", at)
        elif char == "|" and depth == 0:
            parts.append(text[begin:at])
            begin = at + 1
        else:
            depth += (char == "(") - (char == ")")
        at += 1
    # A comment at the end of a part would hide the bracket that is set behind it.
    return [f"{part}\n" if is_verbose else part for part in (*parts, text[begin:])]


def _end_of_class(text: str, at: int) -> int:
    """Where the class that begins at ``at`` ends."""
    at += 1
    if text[at] == "^":
        at += 1
    if text[at] == "]":  # a bracket in the first place is one of the characters
        at += 1
    while text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    return at


def signs_of(parsed: Iterable[tuple[Any, Any]]) -> _Signs | None:
    """Texts in lower case, of which every match contains one; None where there is no such set.

    ``parsed``: a pattern as the standard library's parser returns it.
    """
    best: _Signs | None = None
    spelled: frozenset[str] = frozenset({""})
    for op, argument in (*parsed, (ops.FAILURE, None)):
        if op in _ZERO_WIDTH:
            continue
        texts = _spellings(op, argument)
        if texts is not None and len(spelled) * len(texts) <= _MOST_SPELLINGS:
            spelled = frozenset(one + other for one in spelled for other in texts)
            continue
        best = _rarer(best, spelled)
        spelled = texts or frozenset({""})
        if texts is None:
            best = _rarer(best, _inner_signs(op, argument))
    return best


def _spellings(op: Any, argument: Any) -> _Signs | None:
    """All texts that an element matches, where they are few and plain."""
    if op is ops.LITERAL:
        return frozenset({chr(argument).lower()}) if _is_plain(argument) else None
    if op is ops.IN:
        is_listed = all(kind is ops.LITERAL and _is_plain(code) for kind, code in argument)
        if is_listed and len(argument) <= _MOST_SPELLINGS:
            return frozenset(chr(code).lower() for _, code in argument)
    return None


def _is_plain(code: int) -> bool:
    """Whether lower() of a character is the same as of all that IGNORECASE takes for it."""
    return code < 128 or chr(code).lower() == chr(code).upper()


def _inner_signs(op: Any, argument: Any) -> _Signs | None:
    if op is ops.SUBPATTERN:
        return signs_of(argument[3])
    if op is ops.ATOMIC_GROUP:
        return signs_of(argument)
    if op in _REPEATS:
        least, _, repeated = argument
        return signs_of(repeated) if least > 0 else None
    if op is ops.BRANCH:
        branches = [signs_of(branch) for branch in argument[1]]
        if None not in branches:
            return frozenset(sign for branch in branches for sign in branch or ())
    return None


def _rarer(one: _Signs | None, other: _Signs | None) -> _Signs | None:
    """Of two sets the one that fewer texts contain."""
    if not other or "" in other:
        return one
    return other if one is None or _frequency(other) < _frequency(one) else one


def _frequency(signs: _Signs) -> float:
    """An estimate of how many texts contain one, and of what looking for them costs."""
    found = sum(_TEXT_LENGTH * _CHANCE_OF_A_LETTER ** len(sign) for sign in signs)
    return min(1.0, found) + _COST_OF_A_SIGN * len(signs)
