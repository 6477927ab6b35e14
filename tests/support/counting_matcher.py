"""A regular expression matcher that counts its steps: what ``re`` does, slowly, so that work can be
compared without a clock.

It backtracks as ``re`` does. A step is one attempt to match one item of a pattern at one place of a
text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from re import _constants as constants  # type: ignore[attr-defined,unused-ignore]
from re import _parser as parser  # type: ignore[attr-defined,unused-ignore]
from typing import Any, Final

_CATEGORIES: Final[dict[Any, Callable[[str], bool]]] = {
    constants.CATEGORY_DIGIT: str.isdigit,
    constants.CATEGORY_NOT_DIGIT: lambda c: not c.isdigit(),
    constants.CATEGORY_SPACE: str.isspace,
    constants.CATEGORY_NOT_SPACE: lambda c: not c.isspace(),
    constants.CATEGORY_WORD: lambda c: c.isalnum() or c == "_",
    constants.CATEGORY_NOT_WORD: lambda c: not (c.isalnum() or c == "_"),
}
_SINGLE: Final = {constants.LITERAL, constants.NOT_LITERAL, constants.IN, constants.ANY}


class Counter:
    """Matches one pattern and counts; ``steps`` grows with every call."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self._tree = list(parser.parse(pattern.pattern, pattern.flags))
        self._ignore_case = bool(pattern.flags & re.IGNORECASE)
        self.steps = 0

    def finditer(self, text: str) -> list[tuple[int, int]]:
        """The spans that ``pattern.finditer`` finds."""
        found, at = [], 0
        while at <= len(text):
            end = next(self._seq(self._tree, 0, text, at), None)
            if end is None:
                at += 1
                continue
            found.append((at, end))
            at = end if end > at else at + 1
        return found

    def _seq(self, items: Sequence[Any], n: int, text: str, at: int) -> Iterator[int]:
        while n < len(items) and items[n][0] in _SINGLE:
            self.steps += 1
            if at >= len(text) or not self._single(items[n], text[at]):
                return
            n, at = n + 1, at + 1
        if n == len(items):
            yield at
            return
        for end in self._item(items[n], text, at):
            yield from self._seq(items, n + 1, text, end)

    def _item(self, item: Any, text: str, at: int) -> Iterator[int]:
        self.steps += 1
        kind, value = item
        match kind:
            case constants.SUBPATTERN:
                yield from self._seq(list(value[-1]), 0, text, at)
            case constants.BRANCH:
                for branch in value[1]:
                    yield from self._seq(list(branch), 0, text, at)
            case constants.ASSERT | constants.ASSERT_NOT:
                there = self._asserted(value, text, at)
                if there == (kind is constants.ASSERT):
                    yield at
            case constants.AT:
                if self._is_at(value, text, at):
                    yield at
            case constants.MAX_REPEAT | constants.MIN_REPEAT:
                yield from self._repeat(value, text, at, greedy=kind is constants.MAX_REPEAT)
            case _:
                raise NotImplementedError(str(kind))

    def _repeat(self, value: Any, text: str, at: int, *, greedy: bool) -> Iterator[int]:
        least, most, inner = value[0], value[1], list(value[2])
        if len(inner) == 1 and inner[0][0] in _SINGLE:
            yield from self._run(inner[0], least, most, text, at, greedy=greedy)
            return
        ends = [at]
        if greedy:  # the items of these patterns that repeat groups match in one way at each place
            while (
                len(ends) <= most
                and (end := next(self._seq(inner, 0, text, ends[-1]), None)) is not None
            ):
                if end == ends[-1]:
                    break
                ends.append(end)
            yield from reversed(ends[least:])
            return
        while True:
            if len(ends) > least:
                yield ends[-1]
            end = next(self._seq(inner, 0, text, ends[-1]), None)
            if end is None or end == ends[-1] or len(ends) > most:
                return
            ends.append(end)

    def _run(
        self, item: Any, least: int, most: int, text: str, at: int, *, greedy: bool
    ) -> Iterator[int]:
        end = at
        limit = len(text) if most is constants.MAXREPEAT else min(len(text), at + int(most))
        if not greedy:
            while True:
                if end - at >= least:
                    yield end
                self.steps += 1
                if end >= limit or not self._single(item, text[end]):
                    return
                end += 1
        while end < limit:
            self.steps += 1
            if not self._single(item, text[end]):
                break
            end += 1
        for place in range(end, at + least - 1, -1):
            self.steps += 1
            yield place

    def _asserted(self, value: Any, text: str, at: int) -> bool:
        direction, inner = value
        if direction > 0:
            return next(self._seq(list(inner), 0, text, at), None) is not None
        width = inner.getwidth()[1]
        return at >= width and any(end == at for end in self._seq(list(inner), 0, text, at - width))

    def _is_at(self, where: Any, text: str, at: int) -> bool:
        if where in (constants.AT_BOUNDARY, constants.AT_NON_BOUNDARY):
            word = _CATEGORIES[constants.CATEGORY_WORD]
            edge = (at > 0 and word(text[at - 1])) != (at < len(text) and word(text[at]))
            return edge == (where is constants.AT_BOUNDARY)
        if where in (constants.AT_BEGINNING, constants.AT_BEGINNING_STRING):
            return at == 0
        return at == len(text)

    def _single(self, item: Any, char: str) -> bool:
        kind, value = item
        if kind is constants.ANY:
            return char != "\n"
        if kind is constants.IN:
            inside = [one for one in value if one[0] is not constants.NEGATE]
            return any(self._in(one, char) for one in inside) != (len(inside) != len(value))
        same = ord(char) == value or (self._ignore_case and char.lower() == chr(value).lower())
        return same == (kind is constants.LITERAL)

    def _in(self, item: Any, char: str) -> bool:
        kind, value = item
        if kind is constants.RANGE:
            forms = {char, char.lower(), char.upper()} if self._ignore_case else {char}
            return any(value[0] <= ord(one[0]) <= value[1] for one in forms)
        if kind is constants.CATEGORY:
            return _CATEGORIES[value](char)
        return ord(char) == value or (self._ignore_case and char.lower() == chr(value).lower())
