"""Other wordings of a tool's error: the word "Error" removed or replaced, and synonyms for the same
problem.

Applied only to outputs that are errors in the source. Which of several wordings is taken depends on
the text alone, so that all measurements use the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final, TypeVar
from zlib import crc32

Reword = Callable[[str], str]
_T = TypeVar("_T")

_WORD: Final = re.compile(r"\s*\b(?:an |the )?(?:[Ee]rrors?|ERROR)\b\s*[:.!-]?\s*")
_OPENINGS: Final = (
    "Failed: {}",
    "Unable to do this: {}",
    "Could not complete the request: {}",
    "Sorry, that did not work. {}",
    "Request rejected: {}",
    "Problem: {}",
    "Operation not permitted: {}",
    "Exception: {}",
    "[FAIL] {}",
    "Warning! The call was not carried out. {}",
)
_FORMS: Final[tuple[Reword, ...]] = (
    lambda text: json.dumps({"success": False, "message": text}),
    lambda text: json.dumps({"status": "failed", "reason": text}),
    lambda text: json.dumps({"status": 400, "detail": text}),
    lambda text: json.dumps({"ok": False, "data": None, "msg": text}),
    lambda text: json.dumps({"exception": {"type": "ToolException", "message": text}}),
    lambda text: json.dumps([{"type": "text", "text": text}]),
    lambda text: f"HTTP 422 Unprocessable Entity\n\n{text}",
    lambda text: (
        f'Traceback (most recent call last):\n  File "tool.py", line 7, in call\nValueError: {text}'
    ),
)
_SYNONYMS: Final = (
    (r"\bnot available\b", ("unavailable", "sold out", "no longer offered")),
    (r"\bnot found\b", ("does not exist", "could not be located", "is unknown")),
    (r"\bnot enough\b", ("insufficient", "too few", "a shortage of")),
    (r"\bis not enough\b", ("is insufficient", "is too low", "falls short")),
    (r"\bcannot be used\b", ("is not accepted", "is ineligible", "may not be used")),
    (r"\bdoes not add up\b", ("is incorrect", "mismatch", "differs from what is due")),
    (r"\binvalid\b", ("malformed", "not valid", "unrecognised")),
)


def as_it_stands(text: str) -> str:
    """Nothing changed."""
    return text


def without_the_word(text: str) -> str:
    """The word "Error" removed wherever it stands."""
    return _WORD.sub("", text).strip() or text


def another_opening(text: str) -> str:
    """The word removed, another opening before what is left."""
    return _pick(_OPENINGS, text).format(without_the_word(text))


def another_form(text: str) -> str:
    """The word removed, what is left as a field of an answer, or as a traceback."""
    return _pick(_FORMS, text)(without_the_word(text))


def other_words(text: str) -> str:
    """The word removed, and the problem described in synonyms."""
    reworded = without_the_word(text)
    for pattern, synonyms in _SYNONYMS:
        reworded = re.sub(pattern, _pick(synonyms, text), reworded)
    return reworded


WAYS: Final[dict[str, Reword]] = {
    "as it stands": as_it_stands,
    'without "Error"': without_the_word,
    "another opening": another_opening,
    "another form": another_form,
    "synonyms": other_words,
}


def _pick(choices: tuple[_T, ...], text: str) -> _T:
    return choices[crc32(text.encode()) % len(choices)]
