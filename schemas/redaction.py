"""Secrets out of texts, before they leave a process.

Two ways to know one: by its form (keys of known services, web tokens, private keys, passwords in
URLs) and by its name (``"password": "..."``, ``api_key=...``), in JSON, in JSON inside JSON, in
Python's ``repr``, in query strings and headers. Only the secret goes, so that JSON stays JSON. It
is a net, not a proof: what looks like ordinary words stays.

The work is linear in the text's length, whatever the text: what is needed to evaluate a value
(where its quotes close, where a run of letters ends, where its last digit stands) is found once for
all names that share it, not again for each.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Any, Final

from stepstream.schemas.secret_forms import (
    CREDENTIALS,
    HARMLESS_TOKENS,
    KEYS,
    NAMES,
    NUMBERED,
    REDACTED,
    TEXT_FORMS,
    key_starts,
    web_tokens,
)

Span = tuple[int, int, str]

_ASSIGNED: Final = re.compile(r"(?P<close>\\*[\"'])?(?P<gap>[ \t]{0,8})(?P<sign>[:=])>?\s{0,8}")
_OPENING: Final = re.compile(r"(\\*)([\"'])")
_LIST: Final = re.compile(r"\[(?P<value>[^\[\]{}]+)(?:\]|\Z)")
_NUMBER: Final = re.compile(r"\d[\w.-]*")
_BARE: Final = re.compile(r"[^\s\"'&,;()\[\]{}<>$\\|`]+")
_BARE_CHARS: Final = 3
_CODE: Final = re.compile(
    r"(?:None|null|true|false|True|False)\b|[A-Za-z_][\w.]*[(\[]|[A-Za-z_]\w*\.[A-Za-z_]"
)
_SCHEME: Final = re.compile(r"(?:bearer|basic|token|digest|apikey)[ \t]{1,8}", re.IGNORECASE)
_NOT_A_SECRET: Final = re.compile(
    r"\s*\Z|[*x.\s]+\Z|\[redacted\]|<[^>]*>\Z|\$\{?\w+\}?\Z|\{\{?[^}]*\}?\}\Z|%\w+%\Z",
    re.IGNORECASE,
)
_EXAMINED_CHARS: Final = 256
"""A longer value is no placeholder."""
_DEEPEST: Final = 8
"""Maximum number of backslashes before a quote that are counted; each level of JSON doubles them.
"""
_LEVELS: Final = frozenset({*range(_DEEPEST + 1), 15, 31, 63})


def without_secrets(text: str, *, words_too: bool = False) -> str:
    """The text with ``[redacted]`` where secrets were.

    ``words_too``: after a secret's name a plain word goes as well (``password: correct``). Texts
    that quote others want that; in an agent's answers it would remove ordinary sentences.
    """
    for form in TEXT_FORMS:
        if form.hint in text:
            text = form.pattern.sub(form.instead, text)
    # `eyJ` is base64 of `{"`: the payload of a JSON Web Token begins so.
    if ".eyJ" in text:
        text = _replaced(text, [(start, end, REDACTED) for start, end in web_tokens(text)])
    for form in CREDENTIALS:
        if form.hint in text:
            text = form.pattern.sub(form.instead, text)
    for start in key_starts(text):
        text = KEYS[start].sub(REDACTED, text)
    spans = Named(text, words_too=words_too).spans()
    return _replaced(text, spans) if spans else text


def is_secret_name(name: str) -> bool:
    """Whether a field's name is one of secrets: ``db_password``, ``X-Api-Key``, ``accessToken``."""
    low = name.lower()
    for stem, (rest, before) in NAMES.items():
        at = low.rfind(stem)
        if (
            at >= 0
            and rest.fullmatch(low, at + len(stem))
            and (not before or low.endswith(before, 0, at))
        ):
            return not _harmless(low, at, stem)
    return False


def _harmless(low: str, at: int, stem: str) -> bool:
    return stem == "token" and low[max(0, at - 40) : at].rstrip("_-. ").endswith(HARMLESS_TOKENS)


def redacted_value(value: Any) -> Any:
    """A value of JSON without secrets: those in its texts, and texts whose name is a secret's."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {
            # By name as well: an ordinary word in the attribute db_password has no form of a
            # secret.
            name: REDACTED if isinstance(one, str) and is_secret_name(name) else redacted_value(one)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [redacted_value(one) for one in value]
    return value


class Named:
    """Finds the values after names of secrets in one text; ``examined`` counts characters read."""

    def __init__(self, text: str, *, words_too: bool = False) -> None:
        self._text = text
        self._words_too = words_too
        self.examined = 0
        self._quotes: dict[str, list[tuple[int, int]]] = {}
        self._closings: dict[tuple[str, int], list[tuple[int, int]]] = {}
        self._run = _Run(0, 0, 0, -1, -1)

    def spans(self) -> list[Span]:
        """Where the secrets are, and what to put there."""
        text = self._text
        low = text.lower()
        if len(low) != len(text):  # a few letters grow when lowered; positions must agree
            low = "".join(letter.lower() if letter.isascii() else letter for letter in text)
        spans: list[Span] = []
        for stem, (rest, before) in NAMES.items():
            at = low.find(stem)
            while at >= 0:
                end = at + len(stem)
                name = rest.match(low, end)
                if (
                    name is not None
                    and (not before or low.endswith(before, 0, at))
                    and not _harmless(low, at, stem)
                ):
                    found = self._value_after(name.end(), stem)
                    if found is not None:
                        spans.append(found)
                        end = found[1]
                at = low.find(stem, end)
        return spans

    def _value_after(self, end: int, name: str) -> Span | None:
        """Where the value of the name that ends at ``end`` begins and ends, and what to put there;
        None for no secret.
        """
        text = self._text
        assigned = _ASSIGNED.match(text, end)
        if assigned is None:
            return None
        close, at = assigned["close"], assigned.end()
        self.examined += at - end
        first = text[at : at + 1]
        if first in ('"', "'", "\\"):
            return self._quoted(at, name)
        if first == "[" and close:
            listed = _LIST.match(text, at)
            if listed is None:
                return None
            self.examined += listed.end() - at
            return (*listed.span("value"), f"{close}{REDACTED}{close}")
        if close:
            number = _NUMBER.match(text, at) if name in NUMBERED else None
            return None if number is None else (*number.span(), f"{close}{REDACTED}{close}")
        spaced = assigned["sign"] == ":" or bool(assigned["gap"]) or text[at - 1].isspace()
        return self._bare(at, spaced=spaced, name=name)

    def _quoted(self, at: int, name: str) -> Span | None:
        """A quoted value; the quotes may be escaped any number of times by nested JSON."""
        opening = _OPENING.match(self._text, at)
        if opening is None:
            return None
        start, end = opening.end(), self._end_of_quoted(opening)
        self.examined += end - at
        if end - start <= _EXAMINED_CHARS and _NOT_A_SECRET.match(self._text, start, end):
            return None
        if name == "token" and not _is_random(self._text[start:end]):
            return None
        return start, end, REDACTED

    def _end_of_quoted(self, opening: re.Match[str]) -> int:
        """Where the value ends: at its closing quote, or where a text around it ends first.

        Every level of JSON doubles the backslashes and puts one before the quote. So with ``k`` of
        them before the opening quote, a quote with ``k + b(k+1)`` follows ``b`` backslashes that
        belong to the value: it closes where ``b`` is even. Deeper than ``_DEEPEST``, the next
        quote of the kind ends it.
        """
        kind, level = opening[2], len(opening[1])
        closings = self._closings_of(kind, level if level in _LEVELS else -1)
        found = bisect_left(closings, (opening.end(), 0))
        return closings[found][1] if found < len(closings) else len(self._text)

    def _closings_of(self, kind: str, level: int) -> list[tuple[int, int]]:
        """Of every quote that closes a value of this kind and level: where the quote stands, and
        where the value ends.
        """
        known = self._closings.get((kind, level))
        if known is not None:
            return known
        text, found = self._text, []
        for at, slashes in self._quotes_of(kind):
            own, odd = divmod(slashes - level, level + 1) if level >= 0 else (-1, 0)
            if own < 0 or text[at] == "\n":
                found.append((at, at - slashes))
            elif not odd and own % 2 == 0:
                found.append((at, at - level))
        self.examined += len(found)
        self._closings[kind, level] = found
        return found

    def _quotes_of(self, kind: str) -> list[tuple[int, int]]:
        """Every quote of a kind, and every line's end, with the number of backslashes before it."""
        known = self._quotes.get(kind)
        if known is None:
            known = []
            begin = 0
            for sign in re.finditer(rf"[{kind}\n]", self._text):
                at = sign.start()
                between = self._text[begin:at]
                known.append((at, len(between) - len(between.rstrip("\\"))))
                begin = at + 1
            self.examined += len(self._text)
            self._quotes[kind] = known
        return known

    def _bare(self, at: int, *, spaced: bool, name: str) -> Span | None:
        """A value without quotes; after ``: `` or a space not a word of ordinary text."""
        text = self._text
        scheme = _SCHEME.match(text, at)
        if scheme is not None:
            at = scheme.end()
        run = self._run_at(at)
        if run.end - at < _BARE_CHARS or _CODE.match(text, at, run.end + 1):
            return None
        if run.end - at <= _EXAMINED_CHARS and _NOT_A_SECRET.match(text, at, run.end):
            return None
        if (
            (spaced or name == "token")
            and not self._words_too
            and not (run.digit >= at and run.letter >= at)
        ):
            return None
        return (at, run.close, REDACTED) if run.close > at else None

    def _run_at(self, at: int) -> _Run:
        """The run of characters of a bare value that ``at`` stands in. Names within one run share
        what is known of it.
        """
        if self._run.start <= at < self._run.end:
            return self._run
        found = _BARE.match(self._text, at)
        if found is None:
            return _Run(at, at, at, -1, -1)
        value = found[0].rstrip(".:!?")
        digit, letter = -1, -1
        for place in range(len(value) - 1, -1, -1):
            if digit < 0 and value[place].isdigit():
                digit = at + place
            if letter < 0 and value[place].isalpha():
                letter = at + place
            if digit >= 0 and letter >= 0:
                break
        self.examined += len(found[0])
        self._run = _Run(at, found.end(), at + len(value), digit, letter)
        return self._run


class _Run:
    """A run of characters: its start and end, where its value closes, its last digit and letter."""

    __slots__ = ("close", "digit", "end", "letter", "start")

    def __init__(self, start: int, end: int, close: int, digit: int, letter: int) -> None:
        self.start, self.end, self.close, self.digit, self.letter = start, end, close, digit, letter


def _is_random(value: str) -> bool:
    """Whether a value named token is a key and not a word or a part of a text."""
    return (
        len(value) >= 8
        and not any(c.isspace() for c in value)
        and (len(value) >= 20 or any(c.isdigit() for c in value))
    )


def _replaced(text: str, spans: list[Span]) -> str:
    parts: list[str] = []
    done = 0
    for start, end, replacement in sorted(spans):
        # Of two overlapping finds the first one is replaced.
        if start >= done:
            parts += (text[done:start], replacement)
            done = end
    parts.append(text[done:])
    return "".join(parts)
