"""Reads fields of objects without running any of their code.

A class is read through the slots of ``type`` itself, a field from the instance's own dictionary or
slot. No property, ``__getattr__``, ``__repr__`` or method of the object runs, so nothing blocks,
raises or has an effect.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, GetSetDescriptorType, MappingProxyType, MemberDescriptorType
from typing import Any, Final

mro_of: Final[Callable[[type], tuple[type, ...]]] = type.__dict__["__mro__"].__get__
namespace_of: Final[Callable[[type], MappingProxyType[str, Any]]] = type.__dict__[
    "__dict__"
].__get__
_name_of: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__
_module_of: Final[Callable[[type], Any]] = type.__dict__["__module__"].__get__

# The caches are cleared at this number of classes.
MOST_TYPES: Final = 1_000
# How many absent names are cached for each class.
MOST_NAMES: Final = 200
# How a class defines ``__getattribute__`` in Python; the built-in one is a slot wrapper.
_WRITTEN: Final = (FunctionType, property)
_DESCRIPTORS: Final = frozenset({"member_descriptor", "_tuplegetter"})


def simple_name(kind: type) -> str:
    """The name of a class, without its module."""
    return _name_of(kind)


def module_of(kind: type) -> str:
    """The module of a class; empty if it has none."""
    module = _module_of(kind)
    return module if type(module) is str else ""


def type_name(kind: type) -> str:
    """The name of a class with its module, unless it is built in or the program's own."""
    module = module_of(kind)
    return (
        _name_of(kind) if module in ("", "builtins", "__main__") else f"{module}.{_name_of(kind)}"
    )


class Layout:
    """Where the objects of one class keep their fields.

    ``absent`` are names that the class does not define as plain values. ``opaque`` is True if even
    ``isinstance`` would run code of the class, as with lazy proxies.
    """

    __slots__ = ("absent", "dictionary", "extra", "is_dict", "kind", "opaque", "slots")

    def __init__(self, kind: type) -> None:
        # The cache key is the class's id(): the reference keeps the class, and so the id, alive.
        self.kind = kind
        self.is_dict = issubclass(kind, dict)
        self.dictionary: Callable[[Any], dict[str, Any]] | None = None
        self.slots: dict[str, Callable[[Any], Any]] = {}
        self.absent: set[str] = set()
        self.opaque = False
        for base in mro_of(kind):
            namespace = namespace_of(base)
            if base is not object and (
                "__class__" in namespace or type(namespace.get("__getattribute__")) in _WRITTEN
            ):
                self.opaque = True
            for name, value in namespace.items():
                if name == "__dict__":
                    own = (
                        type(value) in (GetSetDescriptorType, MemberDescriptorType)
                        and "__class__" not in namespace
                    )
                    # The __dict__ of a proxy is that of the object behind it.
                    if self.dictionary is None and own:
                        self.dictionary = value.__get__
                elif name not in self.slots and simple_name(type(value)) in _DESCRIPTORS:
                    self.slots[name] = value.__get__
        self.extra = self.slots.get("__pydantic_extra__")


_layouts: Final[dict[int, Layout]] = {}


def layout_of(kind: type) -> Layout:
    """The layout of a class, cached."""
    known = _layouts.get(id(kind))
    if known is None:
        if len(_layouts) >= MOST_TYPES:
            _layouts.clear()
        known = _layouts[id(kind)] = Layout(kind)
    return known


def instance_dict(value: object) -> dict[str, Any]:
    """The attribute dictionary of an object, not to be changed; empty if it has none."""
    dictionary = layout_of(type(value)).dictionary
    found: Any = None if dictionary is None else dictionary(value)
    if type(found) is dict:
        return found
    return dict(dict.items(found)) if issubclass(type(found), dict) else {}


def field_of(value: object, name: str) -> Any:
    """The item of a dictionary, or the stored attribute of an object.

    None if there is none or if it would have to be computed.
    """
    kind = type(value)
    layout = _layouts.get(id(kind)) or layout_of(kind)
    if layout.is_dict:
        items: Any = value
        return dict.get(items, name)
    if layout.dictionary is not None:
        attributes = layout.dictionary(value)
        if type(attributes) is dict:
            if name in attributes:
                return attributes[name]
        elif issubclass(type(attributes), dict) and dict.__contains__(attributes, name):
            return dict.__getitem__(attributes, name)
    if name in layout.slots:
        return _from_slot(layout.slots[name], value)
    if layout.extra is not None:
        extra = _from_slot(layout.extra, value)
        if type(extra) is dict and name in extra:
            return extra[name]
    if name in layout.absent:
        return None
    found = constant_of(kind, name)
    if found is None and len(layout.absent) < MOST_NAMES:
        layout.absent.add(name)
    return found


def _from_slot(slot: Callable[[Any], Any], value: object) -> Any:
    try:
        return slot(value)
    except AttributeError:  # the slot is empty
        return None


def constant_of(kind: type, name: str) -> Any:
    """The plain value that a class defines under a name; None for functions and descriptors."""
    for base in mro_of(kind):
        found = namespace_of(base).get(name)
        if found is not None:
            computed = any("__get__" in namespace_of(one) for one in mro_of(type(found)))
            return None if computed or type(found) is FunctionType else found
    return None
