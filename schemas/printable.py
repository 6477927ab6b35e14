"""Replaces characters that would steer a terminal: controls, direction marks, zero-width
characters.

Texts of agents, tools and models are printed on terminals and in logs. An escape sequence there
moves the cursor, sets a title or writes the clipboard; a direction mark changes what is read.
"""

from __future__ import annotations

import re
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

_FORMATS: Final = (
    "\\u00ad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u0890\\u0891\\u08e2\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f"
    "\\ufeff\\ufff0-\\ufffb\\U000110bd\\U000110cd\\U00013430-\\U0001345f\\U0001bca0-\\U0001bca3\\U0001d173-\\U0001d17a"
    "\\U000e0000-\\U000e0fff"
)
"""Unicode format characters (Cf) and the ranges reserved for more of them."""
_CONTROLS: Final = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff"
"""Control characters except tab and LF; line and paragraph separators; surrogates."""
_UNSAFE: Final = re.compile(f"[{_CONTROLS}{_FORMATS}]")
_CRLF: Final = re.compile("\r\n?")


def printable(text: str) -> str:
    """The text with every character replaced, except tab and LF, that a terminal would act on."""
    # Almost all texts end here, without a search.
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(REPLACEMENT, _CRLF.sub("\n", text) if "\r" in text else text)


def indented(text: str, indent: str = "    ") -> str:
    """The printable text with its further lines indented, so that none looks like a line of its
    own.
    """
    return printable(text).replace("\n", f"\n{indent}")


def escaped_json(text: str) -> str:
    """JSON text with characters that a terminal would act on as ``\\uXXXX``; the same value."""
    if text.isascii() and "\x7f" not in text:
        return text
    return _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    # JSON escapes are UTF-16 units: a character beyond U+FFFF takes two of them.
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
