"""Secrets out of texts, before they leave the process.

Two ways to know one: by its form (keys of known services, web tokens, private keys, passwords in URLs) and by its name
(``"password": "..."``, ``api_key=...``), in JSON, in JSON inside JSON, in Python's ``repr``, in query strings and headers.
Only the secret goes, so that JSON stays JSON. It is a net, not a proof: what looks like ordinary words stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from stepstream.producers.guard import internal_error
from stepstream.producers.secret_forms import (
    FORMS,
    HARMLESS_TOKENS,
    KEY_HINT,
    KEY_STARTS,
    KEYS,
    LONGEST_START,
    NAMES,
    NUMBERED,
    REDACTED,
)

Hook = Callable[[str], str]
Span = tuple[int, int, str]

UNREADABLE: Final = "[withheld: the redact hook failed]"

_ASSIGNED: Final = re.compile(r"(?P<close>\\*[\"'])?(?P<gap>[ \t]{0,8})(?P<sign>[:=])>?\s{0,8}")
_OPENING: Final = re.compile(r"(\\*)([\"'])")
_CLOSINGS: Final = {'"': re.compile(r"(\\*)[\"\n]"), "'": re.compile(r"(\\*)['\n]")}
_LIST: Final = re.compile(r"\[(?P<value>[^\[\]{}]+)(?:\]|\Z)")
_NUMBER: Final = re.compile(r"\d[\w.-]*")
_BARE: Final = re.compile(r"[^\s\"'&,;()\[\]{}<>$\\|`]{3,}")
_CODE: Final = re.compile(r"(?:None|null|true|false|True|False)\b|[A-Za-z_][\w.]*[(\[]|[A-Za-z_]\w*\.[A-Za-z_]")
_SCHEME: Final = re.compile(r"(?:bearer|basic|token|digest|apikey)[ \t]{1,8}", re.IGNORECASE)
_NOT_A_SECRET: Final = re.compile(
    r"\s*\Z|[*x.\s]+\Z|\[redacted\]|<[^>]*>\Z|\$\{?\w+\}?\Z|\{\{?[^}]*\}?\}\Z|%\w+%\Z", re.IGNORECASE
)


class Redactor:
    """Takes secrets out of texts; ``hook``, if given, then changes each text further. Never raises."""

    def __init__(self, hook: Hook | None = None) -> None:
        self._hook = hook

    def text(self, text: str) -> str:
        """The text without its secrets."""
        return self._hooked(without_secrets(text))

    def named(self, name: str, value: str) -> str:
        """The value of a field called ``name``: all of it is secret where the name says so."""
        return REDACTED if value and is_secret_name(name) else self.text(value)

    def _hooked(self, text: str) -> str:
        if self._hook is None:
            return text
        try:
            changed = self._hook(text)
            if isinstance(changed, str):
                return changed
            raise TypeError(f"the redact hook returned {type(changed).__name__}, not str")
        except Exception as error:
            internal_error("redact", error)
            return UNREADABLE


def without_secrets(text: str) -> str:
    """The text with ``[redacted]`` where secrets were."""
    for hint, pattern, replacement in FORMS:
        if hint in text:
            text = pattern.sub(replacement, text)
    for start in _key_starts(text):
        text = KEYS[start].sub(REDACTED, text)
    return _without_named(text)


def _key_starts(text: str) -> set[str]:
    """Which keys' starts stand in the text, before something long enough to be a key."""
    found: set[str] = set()
    for hint in KEY_HINT.finditer(text):
        end = hint.end()
        before = text[max(0, end - LONGEST_START) : end]
        if before.endswith(KEY_STARTS):
            found.update(start for start in KEY_STARTS if before.endswith(start))
    return found


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret: ``db_password``, ``X-Api-Key``, ``accessToken``."""
    low = name.lower()
    for stem, (rest, before) in NAMES.items():
        at = low.rfind(stem)
        if at >= 0 and rest.fullmatch(low, at + len(stem)) and (not before or low.endswith(before, 0, at)):
            return not _harmless(low, at, stem)
    return False


def _harmless(low: str, at: int, stem: str) -> bool:
    return stem == "token" and low[max(0, at - 40) : at].rstrip("_-. ").endswith(HARMLESS_TOKENS)


def _without_named(text: str) -> str:
    low = text.lower()
    if len(low) != len(text):  # a few letters grow when lowered; positions must agree
        low = "".join(letter.lower() if letter.isascii() else letter for letter in text)
    spans: list[Span] = []
    for stem, (rest, before) in NAMES.items():
        at = low.find(stem)
        while at >= 0:
            end = at + len(stem)
            name = rest.match(low, end)
            if name is not None and (not before or low.endswith(before, 0, at)) and not _harmless(low, at, stem):
                found = _value_after(text, name.end(), stem)
                if found is not None:
                    spans.append(found)
                    end = found[1]
            at = low.find(stem, end)
    return _replaced(text, spans) if spans else text


def _value_after(text: str, end: int, name: str) -> Span | None:
    """Where the value of the name that ends at ``end`` begins and ends, and what to put there; None for no secret."""
    assigned = _ASSIGNED.match(text, end)
    if assigned is None:
        return None
    close, at = assigned["close"], assigned.end()
    first = text[at : at + 1]
    if first in ('"', "'", "\\"):
        return _quoted(text, at, name)
    if first == "[" and close:
        held = _LIST.match(text, at)
        return None if held is None else (*held.span("value"), f"{close}{REDACTED}{close}")
    if close:
        number = _NUMBER.match(text, at) if name in NUMBERED else None
        return None if number is None else (*number.span(), f"{close}{REDACTED}{close}")
    return _bare(text, at, spaced=assigned["sign"] == ":" or bool(assigned["gap"]) or text[at - 1].isspace(), name=name)


def _quoted(text: str, at: int, name: str) -> Span | None:
    """A value in quotes, which may be escaped, because it stands in JSON inside JSON, however deep."""
    opening = _OPENING.match(text, at)
    if opening is None:
        return None
    start, end = opening.end(), _end_of_quoted(text, opening)
    value = text[start:end]
    if _NOT_A_SECRET.match(value) or (name == "token" and not _looks_random(value)):
        return None
    return start, end, REDACTED


def _end_of_quoted(text: str, opening: re.Match[str]) -> int:
    """Where the value ends: at its closing quote, or where a text around it ends first.

    Every level of JSON doubles the backslashes and puts one before the quote. So with ``k`` of them before the opening quote,
    a quote with ``k + b(k+1)`` follows ``b`` backslashes that belong to the value: it closes where ``b`` is even.
    """
    level = len(opening[1])
    for quote in _CLOSINGS[opening[2]].finditer(text, opening.end()):
        own, odd = divmod(len(quote[1]) - level, level + 1)
        if own < 0 or quote[0][-1] == "\n":
            return quote.start()
        if not odd and own % 2 == 0:
            return quote.end() - 1 - level
    return len(text)


def _bare(text: str, at: int, *, spaced: bool, name: str) -> Span | None:
    """A value without quotes. After ``: `` or between spaces it must not be a plain word, for that is how people write."""
    scheme = _SCHEME.match(text, at)
    if scheme is not None:
        at = scheme.end()
    held = _BARE.match(text, at)
    if held is None or _CODE.match(text, at) or _NOT_A_SECRET.match(held[0]):
        return None
    value = held[0].rstrip(".:!?")
    if (spaced or name == "token") and not (any(c.isdigit() for c in value) and any(c.isalpha() for c in value)):
        return None
    return at, at + len(value), REDACTED


def _looks_random(value: str) -> bool:
    """Whether a value called token is a key rather than a word or a piece of one, as models' answers call them too."""
    return len(value) >= 8 and not any(c.isspace() for c in value) and (len(value) >= 20 or any(c.isdigit() for c in value))


def _replaced(text: str, spans: list[Span]) -> str:
    parts: list[str] = []
    done = 0
    for start, end, replacement in sorted(spans):
        if start >= done:
            parts += (text[done:start], replacement)
            done = end
    parts.append(text[done:])
    return "".join(parts)
