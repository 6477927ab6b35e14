"""Forwarding of special methods (``len(x)``, ``x[0]``, ``x == y``) to a wrapped object.

Python takes special methods from the class, so a wrapper needs a class of its own for each class
that it wraps: one that defines exactly the special methods of that class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from stepstream.producers.values.inspection import mro_of, namespace_of

MOST_TYPES: Final = 1_000
_ARITHMETIC: Final = (
    "add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor",
    "lshift", "rshift",
)  # fmt: skip
_OTHERS: Final = (
    "len", "length_hint", "bool", "getitem", "setitem", "delitem", "contains", "reversed", "call",
    "str", "format", "bytes", "eq", "ne", "lt", "le", "gt", "ge", "hash", "int", "float", "index",
    "neg", "pos", "abs", "invert", "fspath",
)  # fmt: skip
_FORWARDED: Final = tuple(
    f"__{name}__"
    for name in (
        *_OTHERS,
        *_ARITHMETIC,
        *(f"r{name}" for name in _ARITHMETIC),
        *(f"i{name}" for name in _ARITHMETIC),
    )
)
_made: Final[dict[tuple[int, int], tuple[type, type]]] = {}


def forwarding_type(base: type, kind: type, source: str) -> type:
    """A subclass of ``base`` that wraps an object of class ``kind`` in the attribute ``source``.

    It forwards the special methods that ``kind`` defines and ``base`` does not. Cached.
    """
    known = _made.get((id(base), id(kind)))
    if known is None:
        if len(_made) >= MOST_TYPES:
            _made.clear()
        # The class is kept in the value: while it lives, no other class gets its id.
        known = _made[id(base), id(kind)] = (_create(base, kind, source), kind)
    return known[0]


def _create(base: type, kind: type, source: str) -> type:
    defined = {name for one in mro_of(base) if one is not object for name in namespace_of(one)}
    taken = defined - {"__eq__", "__hash__"}
    namespace: dict[str, Any] = {"__slots__": (), "__module__": base.__module__}
    for one in mro_of(kind):
        if one is object:
            break
        methods = namespace_of(one)
        for name in _FORWARDED:
            if name in methods and name not in taken and name not in namespace:
                # None means "not supported", as in ``__hash__ = None``, and stays None.
                namespace[name] = None if methods[name] is None else _forward(name, source)
    return type(base.__name__, (base,), namespace)


def _forward(name: str, source: str) -> Callable[..., Any]:
    def forwarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        wrapped = object.__getattribute__(self, source)
        return getattr(type(wrapped), name)(wrapped, *args, **kwargs)

    return forwarded
