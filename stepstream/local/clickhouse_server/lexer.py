"""ClickHouse's tokens: enough to recognise statements in spite of comments, strings and quoted
names."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass


class Kind(enum.Enum):
    WORD = "word"
    QUOTED = "quoted name"
    STRING = "string"
    NUMBER = "number"
    MARK = "mark"
    BROKEN = "unfinished"


@dataclass(frozen=True, slots=True)
class Token:
    """One token; ``text`` is its value: a name without quotes, escapes replaced."""

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def upper(self) -> str:
        """The keyword this may be; empty for what is quoted."""
        return self.text.upper() if self.kind is Kind.WORD else ""

    @property
    def name(self) -> str:
        """The identifier this may be; empty for what cannot be one."""
        return self.text if self.kind in (Kind.WORD, Kind.QUOTED) else ""


_SPACES = "\\s\u00a0\u200b-\u200d\u2060\ufeff"
_SKIP = re.compile(rf"(?:[{_SPACES}]++|(?:--|//|\#[ !])[^\n]*+)++")
_COMMENT_MARKS = re.compile(r"/\*|\*/")
_WORD = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*+")
_NUMBER = re.compile(
    r"(?:0[xX][0-9a-fA-F_]++|\d[\d_]*+(?:\.\d*+)?(?:[eE][+-]?\d++)?|\.\d++(?:[eE][+-]?\d++)?)[A-Za-z0-9_]*+"
)
_HEREDOC = re.compile(r"\$([^$]*+)\$")
# Both ways to write the quote itself: doubled, and after a backslash.
_QUOTED = {
    quote: re.compile(rf"{quote}((?:[^\\{quote}]++|\\.|{quote}{quote})*+){quote}", re.DOTALL)
    for quote in ("'", '"', "`")
}
_CURLY = {"\u2018": ("\u2019", Kind.STRING), "\u201c": ("\u201d", Kind.QUOTED)}
_MARKS = frozenset("()[]{},;.:?+-*/%=<>!|&@^~")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "b": "\b",
    "f": "\f",
    "0": "\0",
    "a": "\a",
    "v": "\v",
    "e": "\x1b",
}


def tokens(sql: str, start: int = 0) -> Iterator[Token]:
    """The tokens of a text.

    One that never ends (a string, a comment) or has no meaning is BROKEN and the last.
    """
    at = start
    while at < len(sql):
        if skipped := _SKIP.match(sql, at):
            at = skipped.end()
            continue
        if sql.startswith("/*", at) and (end := _comment_end(sql, at)) > 0:
            at = end
            continue
        token = _token(sql, at)
        yield token
        if token.kind is Kind.BROKEN:
            return
        at = token.end


def _comment_end(sql: str, at: int) -> int:
    """Comments nest."""
    depth = 0
    for mark in _COMMENT_MARKS.finditer(sql, at):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return -1


def _token(sql: str, at: int) -> Token:
    first = sql[at]
    if first == "$" and (opened := _HEREDOC.match(sql, at)):
        end = sql.find(opened[0], opened.end())
        if end >= 0:
            return Token(Kind.STRING, sql[opened.end() : end], at, end + len(opened[0]))
    if found := _WORD.match(sql, at):
        return Token(Kind.WORD, found[0], at, found.end())
    if first in _QUOTED:
        return _quoted(sql, at, first)
    if first in _CURLY:
        return _curly(sql, at, *_CURLY[first])
    if (found := _NUMBER.match(sql, at)) and not sql.startswith("$", found.end()):
        return Token(Kind.NUMBER, found[0], at, found.end())
    if first in _MARKS and not sql.startswith("/*", at):
        return Token(Kind.MARK, first, at, at + 1)
    return Token(Kind.BROKEN, sql[at:], at, len(sql))


def _quoted(sql: str, at: int, quote: str) -> Token:
    found = _QUOTED[quote].match(sql, at)
    if not found:
        return Token(Kind.BROKEN, sql[at:], at, len(sql))
    text = _ESCAPE.sub(_unescape, found[1].replace(quote * 2, quote))
    return Token(Kind.STRING if quote == "'" else Kind.QUOTED, text, at, found.end())


def _unescape(found: re.Match[str]) -> str:
    code = found[1]
    return chr(int(code[1:], 16)) if code[0] == "x" and len(code) == 3 else _ESCAPED.get(code, code)


def _curly(sql: str, at: int, close: str, kind: Kind) -> Token:
    end = sql.find(close, at + 1)
    if end < 0:
        return Token(Kind.BROKEN, sql[at:], at, len(sql))
    return Token(kind, sql[at + 1 : end], at, end + 1)
