"""Patterns that are searched only in texts with a word that each of their matches contains.

Most texts report no failure, and a pattern of a hundred alternatives takes 50 to 200 microseconds
to find nothing in two lines of prose. Nearly every alternative needs some word. The words of a text
are read once for all patterns, and to compare them with the words that a pattern needs takes less
than a microsecond. The words are derived from the pattern, so that the two cannot disagree.

A word is known here by its first ``STEM`` letters: its stem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from re import _constants as ops
from re import _parser as parser
from typing import Any, Final

STEM: Final = 4
# Letters that IGNORECASE takes for i, s and k, and that lower() does not turn into them.
_ODD_LETTERS: Final = ("\u0130", "\u0131", "\u017f", "\u212a")
_LETTERS: Final = bytes(
    code + 32 if 65 <= code <= 90 else code if chr(code).isalnum() and code < 128 else 32
    for code in range(256)
)
# Stands for the edge of a word among the letters that an element of a pattern matches.
_EDGE: Final = "\0"
# A group that matches more texts than this is not multiplied out.
_MOST_SPELLINGS: Final = 100
# Whole words and beginnings of words that are in every second English text.
_COMMON: Final = frozenset(
    b"""a an the of to in is it i t s no not and are was has had can may you your this that with
    have been were from be do does did for on at by or but all only will more there what when which
    """.decode().split()
)

_Spelled = frozenset[str]
_Search = Callable[[str], Any]
_REPEATS: Final = {ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT}
_EDGES: Final = {ops.AT_BOUNDARY, ops.AT_BEGINNING, ops.AT_END, ops.AT_BEGINNING_STRING}
_ALWAYS: Final = "always"
_NOTHING: Final = frozenset({""})
_AT_EDGE: Final = frozenset({_EDGE})


@lru_cache(64)
def stems_of(text: str) -> frozenset[bytes]:
    """The stems of the words in a text, of its letters and digits in ASCII."""
    words = text.encode("ascii", "replace").translate(_LETTERS).split()
    return frozenset([word[:STEM] for word in words])


class SignedPattern:
    """A compiled pattern whose alternatives are tried only where a text has their words.

    ``pattern`` is the whole pattern, for what ``found_in`` cannot do: where it matches.
    """

    __slots__ = ("_always", "_by_stem", "_searches", "_stems", "pattern")

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.pattern = re.compile(pattern, flags)
        # Worked out at the first text: most processes import these modules and search nothing.
        self._by_stem: dict[bytes, int] = {}
        self._stems: frozenset[bytes] = frozenset()
        self._always = 0
        self._searches: tuple[_Search, ...] = ()

    def found_in(self, text: str) -> bool:
        """Whether the pattern matches anywhere in a text."""
        tried = self._tried_in(text)
        number = 0
        while tried:
            if tried & 1 and self._searches[number](text) is not None:
                return True
            tried >>= 1
            number += 1
        return False

    def may_be_in(self, text: str) -> bool:
        """False where a text has none of the words that every match contains."""
        return self._tried_in(text) != 0

    def _tried_in(self, text: str) -> int:
        """The alternatives that may match in a text, as a set of bits."""
        if not self._searches:
            self._read_pattern()
        if not text.isascii() and any(letter in text for letter in _ODD_LETTERS):
            return (1 << len(self._searches)) - 1
        tried, found = self._always, self._stems & stems_of(text)
        for stem in found:
            tried |= self._by_stem[stem]
        return tried

    def _read_pattern(self) -> None:
        """Split the pattern into alternatives, those that need the same words together."""
        flags = self.pattern.flags
        by_stems: dict[frozenset[str], list[str]] = {}
        for alternative in alternatives_of(self.pattern):
            needed = needed_stems(parser.parse(alternative, flags)) or frozenset({_ALWAYS})
            by_stems.setdefault(needed, []).append(alternative)
        for number, needed in enumerate(by_stems):
            for stem in needed:
                if stem == _ALWAYS:
                    self._always |= 1 << number
                else:
                    key = stem.encode()
                    self._by_stem[key] = self._by_stem.get(key, 0) | 1 << number
        self._stems = frozenset(self._by_stem)
        self._searches = tuple(
            re.compile("|".join(f"(?:{one})" for one in same), flags).search
            for same in by_stems.values()
        )


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


def needed_stems(
    parsed: Iterable[tuple[Any, Any]], *, after_edge: bool = False, before_edge: bool = False
) -> frozenset[str] | None:
    """Stems of which every text with a match contains one; None where there is no such set.

    ``parsed``: a pattern as the standard library's parser returns it. ``after_edge``: no letter of
    a word is in front of it; ``before_edge``: none follows.
    """
    best: frozenset[str] | None = None
    # What has just been matched, as far as it is known to the letter.
    before = _AT_EDGE if after_edge else _NOTHING
    elements = [*parsed, (ops.AT, ops.AT_BOUNDARY)] if before_edge else list(parsed)
    for number, (op, argument) in enumerate(elements):
        spelled = _spellings(op, argument)
        if spelled is not None and len(before) * len(spelled) <= _MOST_SPELLINGS:
            before = _joined(before, spelled)
            continue
        begun = _joined(before, _beginnings(op, argument))
        best = _rarer(best, _stems_in(begun if len(begun) <= _MOST_SPELLINGS else before))
        starts = all(text and not text[-1].isalnum() for text in before)
        ends = number + 1 < len(elements) and _begins_with_edge(*elements[number + 1])
        best = _rarer(best, _inner_stems(op, argument, after_edge=starts, before_edge=ends))
        before = _AT_EDGE if _is_at_edge_behind(op, argument, starts=starts) else _NOTHING
    return _rarer(best, _stems_in(before))


def _joined(before: _Spelled, after: _Spelled) -> _Spelled:
    return frozenset(one + other for one in before for other in after)


def _spellings(op: Any, argument: Any) -> _Spelled | None:
    """All texts that an element matches, where they are few and known to the letter."""
    if op is ops.LITERAL:
        return None if chr(argument) in _ODD_LETTERS else frozenset({_letter(argument)})
    if op is ops.IN:
        return _spellings_of_class(argument)
    if op is ops.SUBPATTERN:
        return _spellings_of_all(argument[3])
    if op is ops.BRANCH or (op in _REPEATS and argument[:2] == (0, 1)):
        branches = argument[1] if op is ops.BRANCH else ([], argument[2])
        texts = [_spellings_of_all(branch) for branch in branches]
        return None if None in texts else frozenset(one for some in texts for one in some or ())
    return _zero_width(op, argument)


def _zero_width(op: Any, argument: Any) -> _Spelled | None:
    """What is known of the place where an element matches that takes no characters."""
    if op is ops.AT:
        return _AT_EDGE if argument in _EDGES else _NOTHING
    if op is ops.ASSERT and argument[0] < 0 and _ends_at_edge(argument[1], starts=False):
        return _AT_EDGE  # what stands in front is no letter
    return _NOTHING if op in (ops.ASSERT, ops.ASSERT_NOT) else None


def _spellings_of_class(listed: Any) -> _Spelled | None:
    if all(kind is ops.CATEGORY and code is ops.CATEGORY_SPACE for kind, code in listed):
        return frozenset({" "})
    is_listed = all(kind is ops.LITERAL and chr(code) not in _ODD_LETTERS for kind, code in listed)
    return frozenset(_letter(code) for _, code in listed) if is_listed else None


def _spellings_of_all(parsed: Iterable[tuple[Any, Any]]) -> _Spelled | None:
    texts = _NOTHING
    for op, argument in parsed:
        spelled = _spellings(op, argument)
        if spelled is None or len(texts) * len(spelled) > _MOST_SPELLINGS:
            return None
        texts = _joined(texts, spelled)
    return texts


def _letter(code: int) -> str:
    """A character in lower case; for one beyond ASCII the edge that it is to the words here."""
    return chr(code).lower() if code < 128 else _EDGE


def _beginnings(op: Any, argument: Any) -> _Spelled:
    """What the texts that an element matches begin with, as far as it is known."""
    if op is ops.SUBPATTERN:
        return _beginnings_of_all(argument[3])
    if op is ops.BRANCH:
        return frozenset(text for one in argument[1] for text in _beginnings_of_all(one))
    if op in _REPEATS:
        return _beginnings_of_all(argument[2]) if argument[0] > 0 else _NOTHING
    return _NOTHING


def _beginnings_of_all(parsed: Iterable[tuple[Any, Any]]) -> _Spelled:
    texts = _NOTHING
    for op, argument in parsed:
        spelled = _spellings(op, argument)
        more = _beginnings(op, argument) if spelled is None else spelled
        if len(texts) * len(more) > _MOST_SPELLINGS:
            return texts
        texts = _joined(texts, more)
        if spelled is None:
            return texts
    return texts


def _begins_with_edge(op: Any, argument: Any) -> bool:
    """Whether no letter of a word can be where an element begins."""
    spelled = _spellings(op, argument)
    if spelled is not None:
        return all(text and not text[0].isalnum() for text in spelled)
    return op in _REPEATS and argument[0] > 0 and _is_between_words(argument[2])


def _is_at_edge_behind(op: Any, argument: Any, *, starts: bool) -> bool:
    """Whether no letter of a word is in front of what follows an element."""
    if op is ops.SUBPATTERN:
        return _ends_at_edge(argument[3], starts=starts)
    if op is ops.BRANCH:
        return all(_ends_at_edge(branch, starts=starts) for branch in argument[1])
    if op in _REPEATS:
        least, _, repeated = argument
        return (starts or least > 0) and _ends_at_edge(repeated, starts=False)
    return op is ops.IN and _is_between_words([(op, argument)])


def _ends_at_edge(parsed: Iterable[tuple[Any, Any]], *, starts: bool) -> bool:
    for op, argument in parsed:
        spelled = _spellings(op, argument)
        if spelled is None:
            starts = _is_at_edge_behind(op, argument, starts=starts)
        else:
            starts = all(not text[-1].isalnum() if text else starts for text in spelled)
    return starts


def _is_between_words(parsed: Iterable[tuple[Any, Any]]) -> bool:
    """Whether each character that a class matches is no letter and no digit."""
    elements = list(parsed)
    if len(elements) != 1 or elements[0][0] is not ops.IN:
        return False
    return all(
        (kind is ops.CATEGORY and code in (ops.CATEGORY_SPACE, ops.CATEGORY_NOT_WORD))
        or (kind is ops.LITERAL and code < 128 and not chr(code).isalnum())
        for kind, code in elements[0][1]
    )


def _inner_stems(
    op: Any, argument: Any, *, after_edge: bool, before_edge: bool
) -> frozenset[str] | None:
    """What is needed within an element."""
    if op is ops.SUBPATTERN:
        return needed_stems(argument[3], after_edge=after_edge, before_edge=before_edge)
    if op is ops.ATOMIC_GROUP:
        return needed_stems(argument, after_edge=after_edge, before_edge=before_edge)
    if op in _REPEATS:
        least, _, repeated = argument
        return needed_stems(repeated) if least > 0 else None
    if op is ops.BRANCH:
        branches = [
            needed_stems(branch, after_edge=after_edge, before_edge=before_edge)
            for branch in argument[1]
        ]
        if None not in branches:
            return frozenset(stem for branch in branches for stem in branch or ())
    return None


def _stems_in(texts: _Spelled) -> frozenset[str] | None:
    """For each of these texts the rarest stem in it; None where one of them has none."""
    found = set()
    for text in texts:
        stem = min(_stems(text), key=_frequency, default=None)
        if stem is None:
            return None
        found.add(stem)
    return frozenset(found)


def _stems(text: str) -> Iterator[str]:
    """The stems of which a text shows that a word begins with them, or is one."""
    # Without the first part: where a word of the text has begun before is unknown.
    for part in re.finditer(r"(?<=[^a-z0-9])[a-z0-9]+", text):
        word = part.group()
        if len(word) >= STEM:
            yield word[:STEM]
        elif part.end() < len(text):
            yield word


def _rarer(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    """Of two sets the one of which fewer texts have a word."""
    if other is None or (one is not None and _cost(one) <= _cost(other)):
        return one
    return other


def _cost(stems: frozenset[str]) -> float:
    return min(1.0, sum(map(_frequency, stems)))


def _frequency(stem: str) -> float:
    """An estimate of the share of texts that have a word."""
    if stem in _COMMON:
        return 0.6
    return 0.05 if len(stem) < STEM else 0.02
