"""Expressions compiled to closures: types are checked once, an evaluation only calls functions.

No Python code is made of an expression. Measured for a comparison of three variables: 0.2 us for
an evaluation here, 8 us with the bindings of the Rust implementation, 221 us with the one that is
written in Python.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from stepstream.schemas.expression import values
from stepstream.schemas.expression.syntax import ExpressionError, Node, parse
from stepstream.schemas.expression.values import (
    BOOL,
    COUNTS,
    DOUBLE,
    DYN,
    INT,
    STRING,
    NoValue,
    Read,
    Variables,
)
from stepstream.schemas.suggestions import did_you_mean, nearest_name

_INT_MIN: Final = -(2**63)
_INT_MAX: Final = 2**63 - 1
_NUMBERS: Final = (INT, DOUBLE)


class Moment(Protocol):
    """What an expression is evaluated on. The variables of the language read the rest of it."""

    local: Any
    """The item that a macro is at."""


class EvaluationError(Exception):
    """An evaluation that has no result; the message has nothing of the data."""


class Typed(NamedTuple):
    """A compiled part: its type and how it is read."""

    type: str
    read: Read


class Expression:
    """A compiled expression whose result is true or false."""

    __slots__ = ("_known", "_read", "text", "variables")

    def __init__(self, text: str, variables: Variables) -> None:
        """``variables`` are the names of the language. Raises ``ExpressionError``."""
        compiler = _Compiler(text, variables)
        self._known = variables
        self.text = text
        self._read = compiler.condition()
        self.variables = tuple(sorted(compiler.used))

    def holds(self, moment: Moment) -> bool:
        """Whether it is true. Raises ``EvaluationError``."""
        return bool(self._read(moment))

    def values(self, moment: Moment) -> str:
        """The variables that it uses with their values, for people."""
        parts = []
        for name in self.variables:
            variable = self._known[name]
            # A JSON value may be long, and is what a step contains.
            if variable.type == DYN:
                continue
            value = variable.read(moment)
            if not isinstance(value, dict):
                shown = f"{value:.6g}" if isinstance(value, float) else str(value)
                parts.append(f"{name} {shown or 'empty'}")
        return ", ".join(parts)


class _Compiler:
    def __init__(self, text: str, variables: Variables) -> None:
        self._text = text
        self._variables = variables
        self.used: set[str] = set()
        self._local: tuple[str, str] | None = None
        """Name and type of the variable of the macro around."""

    def condition(self) -> Read:
        node = parse(self._text)
        made = self._make(node)
        if made.type not in (BOOL, DYN):
            self._refuse(node, f"its value is {_a(made.type)}, not true or false")
        return self._truth(node, made)

    def _truth(self, node: Node, made: Typed) -> Read:
        """A part that must be true or false. Of a JSON value that is known when it is read."""
        self._want(node, made, BOOL)
        return self._checked(node, made, values.truth)

    def _checked(self, node: Node, made: Typed, check: Callable[[Any], Any]) -> Read:
        """How a part is read; a JSON value is passed through ``check``, which may raise."""
        return self._failing(node, _applied(check, made.read)) if made.type == DYN else made.read

    def _refuse(self, node: Node, reason: str) -> None:
        raise ExpressionError(self._text, node.at, reason)

    def _make(self, node: Node) -> Typed:
        makers = {
            "value": self._value, "name": self._name, "select": self._select, "list": self._list,
            "index": self._index, "call": self._call, "method": self._method, "?": self._choice,
            "!": self._not, "negate": self._negate, "&&": self._and, "||": self._or,
            "in": self._in,
        }  # fmt: skip
        if (maker := makers.get(node.kind)) is not None:
            return maker(node)
        return self._compare(node) if node.kind in _COMPARING else self._arithmetic(node)

    def _value(self, node: Node) -> Typed:
        value = node.value
        kinds: dict[type, str] = {bool: BOOL, int: INT, float: DOUBLE, str: STRING}
        kind = kinds[type(value)]
        return Typed(kind, lambda _: value)

    def _name(self, node: Node) -> Typed:
        if self._local is not None and node.value == self._local[0]:
            return Typed(self._local[1], lambda moment: moment.local)
        if node.value in self._variables:
            self.used.add(str(node.value))
            variable = self._variables[str(node.value)]
            return Typed(variable.type, variable.read)
        fields = ", ".join(name for name in self._variables if name.startswith(f"{node.value}."))
        if fields:
            self._refuse(node, f"{node.value} alone is no value; it has {fields}")
        self._unknown(node, str(node.value))
        raise AssertionError

    def _unknown(self, node: Node, name: str) -> None:
        root, _, field = name.partition(".")
        # The part behind the point decides: run.x and run.y are alike in all that does not matter.
        known = [one.partition(".")[2] for one in self._variables if one.startswith(f"{root}.")]
        near = nearest_name(field, known)
        hint = f"did you mean {root}.{near}?" if near else did_you_mean(name, self._variables)
        self._refuse(node, f"{name} is unknown; {hint}")

    def _select(self, node: Node) -> Typed:
        (of,) = node.parts
        is_local = self._local is not None and of.value == self._local[0]
        if of.kind == "name" and not is_local and of.value not in self._variables:
            name = f"{of.value}.{node.value}"
            if name not in self._variables:
                self._unknown(of, name)
            self.used.add(name)
            return Typed(self._variables[name].type, self._variables[name].read)
        made = self._make(of)
        if made.type == DYN:
            name = str(node.value)
            return Typed(DYN, self._failing(node, _applied_to(values.field, made.read, name)))
        if made.type != COUNTS:
            self._refuse(node, f"{_a(made.type)} has no field {node.value}")
        return self._looked_up(made.read, lambda _, name=node.value: name)  # type: ignore[misc]

    def _looked_up(self, counts: Read, key: Read) -> Typed:
        # CEL fails for a missing key; a count of what has not occurred is 0.
        return Typed(INT, lambda moment: counts(moment).get(key(moment), 0))

    def _list(self, node: Node) -> Typed:
        items = [self._make(part) for part in node.parts]
        types = {item.type for item in items}
        if DYN in types:
            types = {DYN}
        if len(types) > 1:
            self._refuse(node, f"the items of a list have one type, not {', '.join(sorted(types))}")
        kind = f"list({types.pop() if types else STRING})"
        if all(part.kind == "value" for part in node.parts):
            constants = [part.value for part in node.parts]
            return Typed(kind, lambda _: constants)
        reads = [item.read for item in items]
        return Typed(kind, lambda moment: [read(moment) for read in reads])

    def _index(self, node: Node) -> Typed:
        of, key = map(self._make, node.parts)
        if of.type == DYN and key.type in (STRING, INT, DYN):
            return Typed(DYN, self._failing(node, lambda m: values.field(of.read(m), key.read(m))))
        if of.type == COUNTS and key.type == STRING:
            return self._looked_up(of.read, key.read)
        if _is_list(of.type) and key.type == INT:
            return Typed(
                _item(of.type), self._failing(node, lambda m: _item_at(of.read(m), key.read(m)))
            )
        self._refuse(node, f"{_a(of.type)} has no items by {_a(key.type)}")
        raise AssertionError

    def _failing(self, node: Node, read: Read) -> Read:
        """``read`` with Python's arithmetic errors as ours, which name the place."""
        where = str(ExpressionError(self._text, node.at, "")).rstrip(": ")

        def guarded(moment: Moment) -> Any:
            try:
                value = read(moment)
            except NoValue as error:
                raise EvaluationError(f"{error} {where}") from None
            except (ZeroDivisionError, IndexError, OverflowError, ValueError) as error:
                raise EvaluationError(f"{_REASONS[type(error)]} {where}") from None
            if type(value) is int and not _INT_MIN <= value <= _INT_MAX:
                raise EvaluationError(f"a number beyond 64 bits {where}")
            return value

        return guarded

    def _choice(self, node: Node) -> Typed:
        condition, yes, no = map(self._make, node.parts)
        first, second, third = self._truth(node.parts[0], condition), yes.read, no.read
        kind = DYN if DYN in (yes.type, no.type) else yes.type
        if kind != DYN and yes.type != no.type:
            self._refuse(node, f"one value is {_a(yes.type)}, the other one {_a(no.type)}")
        return Typed(kind, lambda m: second(m) if first(m) else third(m))

    def _want(self, node: Node, made: Typed, *types: str) -> None:
        if made.type not in (DYN, *types):
            self._refuse(node, f"{' or '.join(types)} is expected, not {_a(made.type)}")

    def _not(self, node: Node) -> Typed:
        read = self._truth(node.parts[0], self._make(node.parts[0]))
        return Typed(BOOL, lambda moment: not read(moment))

    def _negate(self, node: Node) -> Typed:
        made = self._make(node.parts[0])
        self._want(node.parts[0], made, *_NUMBERS)
        return Typed(made.type, self._failing(node, _applied(values.negated, made.read)))

    def _both(self, node: Node) -> tuple[Read, Read]:
        left, right = map(self._make, node.parts)
        return self._truth(node.parts[0], left), self._truth(node.parts[1], right)

    def _and(self, node: Node) -> Typed:
        return Typed(BOOL, _decided(*self._both(node), by=False))

    def _or(self, node: Node) -> Typed:
        return Typed(BOOL, _decided(*self._both(node), by=True))

    def _in(self, node: Node) -> Typed:
        item, of = map(self._make, node.parts)
        if DYN in (item.type, of.type) or of.type == f"list({DYN})":
            if of.type not in (DYN, COUNTS) and not _is_list(of.type):
                self._refuse(node, f"{_a(item.type)} cannot be in {_a(of.type)}")
            return Typed(
                BOOL, self._failing(node, lambda m: values.contains(of.read(m), item.read(m)))
            )
        wanted = STRING if of.type == COUNTS else _item(of.type) if _is_list(of.type) else ""
        if item.type != wanted:
            self._refuse(node, f"{_a(item.type)} cannot be in {_a(of.type)}")
        first, second = item.read, of.read
        return Typed(BOOL, lambda moment: first(moment) in second(moment))

    def _compare(self, node: Node) -> Typed:
        left, right = map(self._make, node.parts)
        if DYN in (left.type, right.type):
            return self._compare_dyn(node, left.read, right.read)
        numbers = left.type in _NUMBERS and right.type in _NUMBERS
        if not numbers and (left.type != right.type or not _is_scalar(left.type)):
            self._refuse(node, f"{_a(left.type)} and {_a(right.type)} cannot be compared")
        compare = _COMPARING[node.kind]
        first, second = left.read, right.read
        if node.parts[1].kind == "value":
            # The usual form, a variable and a limit: one call less.
            limit = node.parts[1].value
            return Typed(BOOL, lambda moment: compare(first(moment), limit))
        return Typed(BOOL, lambda moment: compare(first(moment), second(moment)))

    def _compare_dyn(self, node: Node, first: Read, second: Read) -> Typed:
        compare = values.COMPARING[node.kind]
        if node.kind in ("==", "!="):
            return Typed(BOOL, lambda moment: compare(first(moment), second(moment)))
        return Typed(
            BOOL, self._failing(node, lambda moment: compare(first(moment), second(moment)))
        )

    def _arithmetic(self, node: Node) -> Typed:
        left, right = map(self._make, node.parts)
        if DYN in (left.type, right.type):
            compute = values.computed(_COMPUTING_DYN[node.kind], node.kind)
            first, second = left.read, right.read
            return Typed(DYN, self._failing(node, lambda m: compute(first(m), second(m))))
        allowed: tuple[str, ...] = (*_NUMBERS, STRING) if node.kind == "+" else _NUMBERS
        if node.kind == "%":
            allowed = (INT,)
        self._want(node.parts[0], left, *allowed)
        if left.type != right.type:
            self._refuse(
                node,
                f"{_a(left.type)} and {_a(right.type)} have no {node.kind}; "
                "write 2.0 for 2, or double(x)",
            )
        compute = _COMPUTING[node.kind]
        if left.type == INT and node.kind in ("/", "%"):
            compute = _divided if node.kind == "/" else _remainder
        first, second = left.read, right.read
        return Typed(left.type, self._failing(node, lambda m: compute(first(m), second(m))))

    def _call(self, node: Node) -> Typed:
        name = str(node.value)
        known = ("size", "has", *_CONVERT)
        if name == "has":
            return self._has(node)
        if name not in known:
            self._refuse(
                node,
                f"there is no function {name}; {did_you_mean(name, [*known, *_METHODS, *_MACROS])}",
            )
        if len(node.parts) != 1:
            self._refuse(node, f"{name} takes one value")
        made = self._make(node.parts[0])
        if name == "size":
            if made.type in (BOOL, *_NUMBERS):
                self._refuse(node, f"{_a(made.type)} has no size")
            return Typed(INT, self._failing(node, _applied(values.size, made.read)))
        self._want(node.parts[0], made, *((*_NUMBERS, STRING) if name == "string" else _NUMBERS))
        read = made.read
        if made.type == DYN and name != "string":
            read = _applied(values.number, read)
        return Typed(name, self._failing(node, _applied(_CONVERT[name], read)))

    def _has(self, node: Node) -> Typed:
        """``has(args.x)``: whether an object has the field."""
        part = node.parts[0] if len(node.parts) == 1 else node
        of = self._make(part.parts[0]) if part.kind == "select" else None
        if of is None or of.type != DYN:
            self._refuse(node, "write has(x.field) for a field of a JSON value")
        assert of is not None
        read, name = of.read, str(part.value)

        def present(moment: Moment) -> bool:
            try:
                return values.has_field(read(moment), name)
            except EvaluationError:  # has(args.a.b), and there is no args.a
                return False

        return Typed(BOOL, present)

    def _method(self, node: Node) -> Typed:
        name, (of, *given) = str(node.value), node.parts
        if name in _MACROS:
            return self._macro(node, name, of, given)
        if name == "size" and not given:
            return self._call(Node("call", node.at, (of,), "size"))
        if name not in _METHODS:
            hint = did_you_mean(name, [*_METHODS, *_MACROS])
            self._refuse(node, f"there is no function {name}; {hint}")
        if len(given) != 1:
            self._refuse(node, f"{name} takes one text")
        text, part = self._make(of), self._make(given[0])
        self._want(of, text, STRING)
        self._want(given[0], part, STRING)
        test = _METHODS[name]
        first = self._checked(of, text, values.text)
        second = self._checked(given[0], part, values.text)
        return Typed(BOOL, lambda moment: test(first(moment), second(moment)))

    def _macro(self, node: Node, name: str, of: Node, given: list[Node]) -> Typed:
        if self._local is not None:
            self._refuse(node, f"{name} cannot be used within another macro")
        if len(given) != 2 or given[0].kind != "name":
            self._refuse(node, f"write {name}(x, CONDITION)")
        items = self._make(of)
        if items.type not in (COUNTS, DYN) and not _is_list(items.type):
            self._refuse(node, f"{name} needs a list or a map, not {_a(items.type)}")
        kinds = {COUNTS: STRING, DYN: DYN}
        item = kinds.get(items.type) or _item(items.type)
        self._local = (str(given[0].value), item)
        condition = self._make(given[1])
        self._local = None
        test = self._truth(given[1], condition)
        run_macro, over = _MACROS[name], self._checked(of, items, values.items_of)

        def read(moment: Moment) -> Any:
            return run_macro(moment, over(moment), test)

        return Typed(f"list({item})" if name == "filter" else BOOL, read)


def _a(kind: str) -> str:
    return {INT: "an int", DYN: "a JSON value", "": "nothing"}.get(kind, f"a {kind}")


def _is_list(kind: str) -> bool:
    return kind.startswith("list(")


def _item(kind: str) -> str:
    return kind[5:-1]


def _is_scalar(kind: str) -> bool:
    return kind in (BOOL, INT, DOUBLE, STRING)


def _applied(function: Callable[[Any], Any], read: Read) -> Read:
    return lambda moment: function(read(moment))


def _applied_to(function: Callable[[Any, Any], Any], read: Read, name: str) -> Read:
    return lambda moment: function(read(moment), name)


def _decided(left: Read, right: Read, *, by: bool) -> Read:
    """``&&`` (by False) or ``||`` (by True); a side that decides does so if the other one fails."""

    def read(moment: Moment) -> Any:
        try:
            if left(moment) is by:
                return by
        except EvaluationError:
            if right(moment) is by:
                return by
            raise
        return right(moment)

    return read


def _item_at(items: list[Any], index: int) -> Any:
    if index < 0:
        raise IndexError
    return items[index]


def _divided(a: int, b: int) -> int:
    # CEL rounds towards zero, Python down.
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _remainder(a: int, b: int) -> int:
    return a - b * _divided(a, b)


def _quotient(a: float, b: float) -> float:
    if b == 0:
        raise ZeroDivisionError
    return a / b


def _text_of(value: Any) -> str:
    if isinstance(value, dict | list):
        raise NoValue(f"{values.kind(value)} has no text")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _exists(moment: Moment, items: Any, test: Read) -> bool:
    return any(test(moment) for moment.local in items)


def _all(moment: Moment, items: Any, test: Read) -> bool:
    return all(test(moment) for moment.local in items)


def _filtered(moment: Moment, items: Any, test: Read) -> list[Any]:
    kept = []
    for moment.local in items:
        if test(moment):
            kept.append(moment.local)
    return kept


_COMPARING: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_COMPUTING: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _quotient, "%": operator.mod,
}  # fmt: skip


def _divided_dyn(a: float, b: float) -> float:
    # As with numbers of known types: two ints give an int.
    return _divided(a, b) if isinstance(a, int) and isinstance(b, int) else _quotient(a, b)


def _remainder_dyn(a: float, b: float) -> int:
    if isinstance(a, int) and isinstance(b, int):
        return _remainder(a, b)
    raise NoValue("% needs two ints")


_COMPUTING_DYN: Final[dict[str, Callable[[Any, Any], Any]]] = {
    **_COMPUTING, "/": _divided_dyn, "%": _remainder_dyn,
}  # fmt: skip
_CONVERT: Final[dict[str, Callable[[Any], Any]]] = {INT: int, DOUBLE: float, STRING: _text_of}
_METHODS: Final[dict[str, Callable[[str, str], bool]]] = {
    "startsWith": str.startswith, "endsWith": str.endswith, "contains": str.__contains__,
}  # fmt: skip
_MACROS: Final[dict[str, Callable[[Moment, Any, Read], Any]]] = {
    "exists": _exists, "all": _all, "filter": _filtered,
}  # fmt: skip
_REASONS: Final[dict[type, str]] = {
    ZeroDivisionError: "division by zero",
    IndexError: "an item beyond the end of a list",
    OverflowError: "a number that is too large",
    ValueError: "a number that cannot be converted",
}
