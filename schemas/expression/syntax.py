"""The syntax of expressions: text to tree, with static limits.

The grammar is that of CEL (https://github.com/google/cel-spec) without messages, map literals,
bytes, unsigned numbers and timestamps. Everything that a tree can cost is bounded here: characters,
nodes, nesting and the items of a list.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_CHARS: Final = 4_000
MAX_NODES: Final = 200
MAX_NESTING: Final = 16
MAX_ITEMS: Final = 100
"""Items of a list in an expression."""
_INT_LIMIT: Final = 2**63


class ExpressionError(ValueError):
    """An expression that cannot be used; the message states where and why."""

    def __init__(self, text: str, at: int, reason: str) -> None:
        line = text.count("\n", 0, at) + 1
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        where = (
            f"line {line}, character {column}" if "\n" in text.strip() else f"character {at + 1}"
        )
        super().__init__(f"at {where}: {reason}")


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    ``kind`` is ``value``, ``name``, ``list``, ``index``, ``call``, ``select`` or an operator;
    ``at`` the offset of its text.
    """

    kind: str
    at: int
    parts: tuple[Node, ...] = ()
    value: bool | int | float | str | None = None
    """The value of a constant; the name of a variable, field or function."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


_TOKENS: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)
    |(?P<int>0[xX][0-9a-fA-F]+|\d+)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||<=|>=|==|!=|[<>!+\-*/%?:.,()\[\]])""",
    re.VERBOSE,
)
_ESCAPES: Final = {
    "n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?",
}  # fmt: skip
_COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "==", "!=", "in"})
_LEVELS: Final = (
    frozenset({"||"}),
    frozenset({"&&"}),
    _COMPARISONS,
    frozenset({"+", "-"}),
    frozenset({"*", "/", "%"}),
)
"""Operators by increasing precedence."""
_WORDS: Final = {"true": True, "false": False}


def parse(text: str) -> Node:
    """The tree of an expression. Raises ``ExpressionError``."""
    if len(text) > MAX_CHARS:
        reason = f"it has {len(text)} characters, {MAX_CHARS} are the most"
        raise ExpressionError(text, MAX_CHARS, reason)
    return _Parser(text).whole()


class _Parser:
    """A recursive descent over the tokens; its recursion is bounded by ``MAX_NESTING``."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split(text))
        self._next = 0
        self._nodes = 0
        self._depth = 0

    def _split(self, text: str) -> list[_Token]:
        found, at = [], 0
        while at < len(text):
            match = _TOKENS.match(text, at)
            if match is None:
                raise ExpressionError(text, at, f"{text[at]!r} is not part of the language")
            if match.lastgroup != "space":
                found.append(_Token(match.lastgroup or "", match.group(), at))
            at = match.end()
        found.append(_Token("end", "the end", len(text)))
        return found

    def whole(self) -> Node:
        node = self._ternary()
        if self._token.kind != "end":
            self._refuse(f"{self._token.text} is not expected here")
        return node

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _refuse(self, reason: str, at: int | None = None) -> None:
        raise ExpressionError(self._text, self._token.at if at is None else at, reason)

    def _take(self, *marks: str) -> _Token | None:
        """The next token if it is one of these marks or words."""
        token = self._token
        if token.kind in ("mark", "name") and token.text in marks:
            self._next += 1
            return token
        return None

    def _need(self, mark: str) -> None:
        if self._take(mark) is None:
            self._refuse(f"{mark} is expected here, not {self._token.text}")

    def _node(
        self, kind: str, at: int, *parts: Node, value: bool | int | float | str | None = None
    ) -> Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._refuse(f"it has more than {MAX_NODES} names, values and operators", at)
        return Node(kind, at, parts, value)

    def _ternary(self) -> Node:
        self._depth += 1
        if self._depth > MAX_NESTING:
            self._refuse(f"it is nested more than {MAX_NESTING} deep")
        condition = self._binary(0)
        if mark := self._take("?"):
            yes = self._ternary()
            self._need(":")
            condition = self._node("?", mark.at, condition, yes, self._ternary())
        self._depth -= 1
        return condition

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._binary(level + 1)
        while mark := self._take(*_LEVELS[level]):
            left = self._node(mark.text, mark.at, left, self._binary(level + 1))
        return left

    def _unary(self) -> Node:
        marks = []
        while mark := self._take("!", "-"):
            marks.append(mark)
        if len(marks) > MAX_NESTING:
            self._refuse(f"it is nested more than {MAX_NESTING} deep")
        node = self._member()
        for mark in reversed(marks):
            negative = mark.text == "-"
            if negative and node.kind == "value" and type(node.value) in (int, float):
                node = Node("value", mark.at, (), -node.value)  # type: ignore[operator]
            else:
                node = self._node("negate" if negative else "!", mark.at, node)
        return node

    def _member(self) -> Node:
        node = self._primary()
        while mark := self._take(".", "["):
            if mark.text == "[":
                node = self._node("index", mark.at, node, self._ternary())
                self._need("]")
                continue
            name = self._token
            if name.kind != "name":
                self._refuse(f"a name is expected after the point, not {name.text}")
            self._next += 1
            if self._take("("):
                node = self._node("method", name.at, node, *self._listed(")"), value=name.text)
            else:
                node = self._node("select", name.at, node, value=name.text)
        return node

    def _primary(self) -> Node:
        token = self._token
        self._next += 1
        if token.kind == "name":
            if token.text in _WORDS:
                return self._node("value", token.at, value=_WORDS[token.text])
            if self._take("("):
                return self._node("call", token.at, *self._listed(")"), value=token.text)
            return self._node("name", token.at, value=token.text)
        if token.kind in ("int", "float", "string"):
            return self._node("value", token.at, value=self._constant(token))
        if token.text == "(" and token.kind == "mark":
            inside = self._ternary()
            self._need(")")
            return inside
        if token.text == "[" and token.kind == "mark":
            return self._node("list", token.at, *self._listed("]"))
        self._next -= 1
        self._refuse(f"a value is expected here, not {token.text}")
        raise AssertionError

    def _listed(self, end: str) -> list[Node]:
        items: list[Node] = []
        while self._take(end) is None:
            if items:
                self._need(",")
            items.append(self._ternary())
            if len(items) > MAX_ITEMS:
                self._refuse(f"a list has more than {MAX_ITEMS} items", items[0].at)
        return items

    def _constant(self, token: _Token) -> int | float | str:
        if token.kind == "float":
            return float(token.text)
        if token.kind == "int":
            number = int(token.text, 16 if token.text[:2].lower() == "0x" else 10)
            if number >= _INT_LIMIT:
                self._refuse(f"{token.text} is beyond 64 bits", token.at)
            return number
        return re.sub(r"\\(.)", lambda found: self._escaped(found[1], token.at), token.text[1:-1])

    def _escaped(self, letter: str, at: int) -> str:
        if letter not in _ESCAPES:
            self._refuse(f"\\{letter} is not supported in a text", at)
        return _ESCAPES[letter]
