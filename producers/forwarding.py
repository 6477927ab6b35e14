"""Special methods (``len(x)``, ``x[0]``, ``x == y``) of an object that stands for another: those that the other's class has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.values.inspection import mro_of, namespace_of

MOST_TYPES: Final = 1_000
_ARITHMETIC: Final = (
    "add",
    "sub",
    "mul",
    "matmul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
)
_FORWARDED: Final = tuple(f"__{name}__" for name in (
    "len", "length_hint", "bool", "getitem", "setitem", "delitem", "contains", "reversed", "call", "str", "format", "bytes",
    "eq", "ne", "lt", "le", "gt", "ge", "hash", "int", "float", "index", "neg", "pos", "abs", "invert", "fspath",
    *_ARITHMETIC, *(f"r{name}" for name in _ARITHMETIC), *(f"i{name}" for name in _ARITHMETIC),
))  # fmt: skip
_made: Final[dict[tuple[int, int], tuple[type, type]]] = {}


def standing_for(base: type, kind: type, source: str) -> type:
    """A subclass of ``base`` for objects that stand for one of class ``kind``, which they keep under the name ``source``.

    It passes on the special methods that ``kind`` defines and ``base`` does not. Made once for each class.
    """
    known = _made.get((id(base), id(kind)))
    if known is None:
        if len(_made) >= MOST_TYPES:
            _made.clear()
        known = _made[id(base), id(kind)] = (
            _made_for(base, kind, source),
            kind,
        )  # held, so that its id stays its own
    return known[0]


def _made_for(base: type, kind: type, source: str) -> type:
    taken = {name for one in mro_of(base) if one is not object for name in namespace_of(one)} - {
        "__eq__",
        "__hash__",
    }
    namespace: dict[str, Any] = {"__slots__": (), "__module__": base.__module__}
    for one in mro_of(kind):
        if one is object:
            break
        for name in _FORWARDED:
            if name in namespace_of(one) and name not in taken and name not in namespace:
                namespace[name] = (
                    None if namespace_of(one)[name] is None else _passing_on(name, source)
                )
    return type(base.__name__, (base,), namespace)


def _passing_on(name: str, source: str) -> Callable[..., Any]:
    def passed_on(self: Any, *args: Any, **kwargs: Any) -> Any:
        whole = object.__getattribute__(self, source)
        return getattr(type(whole), name)(whole, *args, **kwargs)

    return passed_on
