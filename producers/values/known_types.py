"""Readers of the known types: Python's own, pydantic, dataclasses, attrs, msgspec, numpy, pandas.

A value is recognised by its class or a base class, and read by the methods of that base class,
never by those of a subclass.
"""

from __future__ import annotations

import array
import datetime
import decimal
import enum
import gc
import ipaddress
import itertools
import pathlib
import sys
import types
import uuid
import zoneinfo
from collections import UserDict, UserList, UserString, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from stepstream.producers.values.inspection import (
    field_of,
    instance_dict,
    module_of,
    mro_of,
    namespace_of,
    simple_name,
    type_name,
)
from stepstream.producers.values.shortening import (
    cut_mark,
    cut_middle,
    file_mark,
    media_type_of,
    shortened,
)

# A text is not cut to less than this.
LEAST_CHARS: Final = 48
# How many attributes of an object of unknown type, and arguments of an exception, are recorded.
MOST_FIELDS: Final = 8
# How many fields of one object are read.
MOST_MEMBERS: Final = 2_000
MOST_TYPES: Final = 1_000
_FIELD_CHARS: Final = 100
_HEAD_ITEMS: Final = 16
_BIG_BITS: Final = 8_192
_BIG_SCALAR_BYTES: Final = 1_024

_args_of: Final = BaseException.__dict__["args"].__get__
_struct_fields: Final = type(msgspec.Struct).__dict__["__struct_fields__"].__get__


class Reading(Protocol):
    """The operations of ``plain.ValueReader`` that the readers of this module use."""

    cut: int

    def plain(self, value: Any, room: int, depth: int = 0) -> Any: ...
    def text(self, value: str, room: int) -> str: ...
    def label(self, value: object, most: int) -> str: ...
    def items(
        self, count: int, front: Iterator[Any], back: Iterator[Any] | None, room: int, depth: int
    ) -> list[Any]: ...
    def mapping(
        self,
        count: int,
        front: Iterator[tuple[Any, Any]],
        back: Iterator[tuple[Any, Any]] | None,
        room: int,
        depth: int,
    ) -> dict[str, Any]: ...
    def fields(self, names: Iterable[str], value: Any, room: int, depth: int) -> dict[str, Any]: ...


ReadFunction = Callable[[Reading, Any, int, int], Any]
"""Makes plain data of a value: (reading, value, room in characters, depth)."""


def _list(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.items(
        list.__len__(value), list.__iter__(value), list.__reversed__(value), room, depth
    )


def _tuple(reading: Reading, value: Any, room: int, depth: int) -> Any:
    count = tuple.__len__(value)
    back = (tuple.__getitem__(value, -1 - i) for i in range(count))
    return reading.items(count, tuple.__iter__(value), back, room, depth)


def _deque(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.items(
        deque.__len__(value), deque.__iter__(value), deque.__reversed__(value), room, depth
    )


def _set(reading: Reading, value: Any, room: int, depth: int) -> Any:
    base = set if issubclass(type(value), set) else frozenset
    return reading.items(base.__len__(value), base.__iter__(value), None, room, depth)


def _array(reading: Reading, value: Any, room: int, depth: int) -> Any:
    count = array.array.__len__(value)
    back = (array.array.__getitem__(value, -1 - i) for i in range(count))
    return reading.items(count, array.array.__iter__(value), back, room, depth)


def _dict(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.mapping(
        dict.__len__(value), iter(dict.items(value)), reversed(dict.items(value)), room, depth
    )


def _view(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.items(len(value), iter(value), reversed(value), room, depth)


def _behind_proxy(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.plain(gc.get_referents(value)[0], room, depth)


def _data(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.plain(field_of(value, "data"), room, depth)


def _attributes(reading: Reading, value: Any, room: int, depth: int) -> Any:
    attributes = instance_dict(value)
    return reading.mapping(
        len(attributes), iter(attributes.items()), reversed(attributes.items()), room, depth
    )


def _model(reading: Reading, value: Any, room: int, depth: int) -> Any:
    """A pydantic model: its fields, without excluded ones. No serializer or computed field runs."""
    attributes = instance_dict(value)
    infos = _namespaces(type(value), "__pydantic_fields__") or {}
    excluded = (
        {name for name, info in infos.items() if field_of(info, "exclude")}
        if type(infos) is dict
        else set()
    )
    extra = field_of(value, "__pydantic_extra__")
    pairs = [
        (name, item)
        for name, item in itertools.islice(attributes.items(), MOST_MEMBERS)
        if name not in excluded
    ]
    if type(extra) is dict:
        pairs += itertools.islice(extra.items(), MOST_MEMBERS)
    # A RootModel is recorded as its value.
    if len(pairs) == 1 and pairs[0][0] == "root":
        return reading.plain(pairs[0][1], room, depth)
    return reading.mapping(len(pairs), iter(pairs), reversed(pairs), room, depth)


def _dataclass(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.fields(
        itertools.islice(_namespaces(type(value), "__dataclass_fields__"), MOST_MEMBERS),
        value,
        room,
        depth,
    )


def _attrs(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.fields(
        [field_of(one, "name") for one in _namespaces(type(value), "__attrs_attrs__")],
        value,
        room,
        depth,
    )


def _struct(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.fields(_struct_fields(type(value)), value, room, depth)


def _namespaces(kind: type, name: str) -> Any:
    """The attribute that a class or one of its bases defines; None if there is none."""
    for base in mro_of(kind):
        if name in namespace_of(base):
            return namespace_of(base)[name]
    return None


def _text(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    most = max(room, LEAST_CHARS)
    length = str.__len__(value)
    if length <= 2 * most:
        return reading.text(str.__getitem__(value, slice(None)), room)
    head, tail = (
        str.__getitem__(value, slice(0, most)),
        str.__getitem__(value, slice(length - most, length)),
    )
    reading.cut += length - 2 * most
    return reading.text(head + cut_mark(length - 2 * most) + tail, room)


def _bytes(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    kind = type(value)
    base = next(one for one in (bytes, bytearray, memoryview) if issubclass(kind, one))
    size = value.nbytes if base is memoryview else base.__len__(value)
    if base is memoryview and (value.ndim != 1 or value.itemsize != 1):
        return reading.text(f"<{size:,} bytes>", room)
    most = 2 * max(room, LEAST_CHARS)
    head = bytes(base.__getitem__(value, slice(0, most)))
    media_type = media_type_of(head)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if media_type or size <= most or error.start < len(head) - 4:
            mark = file_mark(media_type, size) if media_type else f"<{size} bytes>"
            reading.cut += max(0, size - len(mark))
            return reading.text(mark, room)
        text = head.decode("utf-8", "ignore")
    if size > most:
        tail = bytes(base.__getitem__(value, slice(max(most, size - most), size))).decode(
            "utf-8", "replace"
        )
        reading.cut += size - len(head) - len(tail)
        text += cut_mark(max(1, size - len(head) - len(tail))) + tail
    return reading.text(text, room)


def _int(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    number = int.__index__(value) if type(value) is int else int.__add__(value, 0)
    # The range of integers that msgspec encodes and decodes.
    if -(2**63) <= number < 2**64:
        return number
    bits = number.bit_length()
    return reading.text(str(number) if bits <= _BIG_BITS else f"<int of {bits:,} bits>", room)


def _float(_reading: Reading, value: Any, _room: int, _depth: int) -> Any:
    return float.__add__(value, 0.0)


def _complex(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(complex.__repr__(value), room)


def _decimal(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    size = decimal.Decimal.__sizeof__(value)
    return reading.text(
        decimal.Decimal.__str__(value)
        if size <= _BIG_SCALAR_BYTES
        else f"<Decimal of {size:,} bytes>",
        room,
    )


def _datetime(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    zone = datetime.datetime.__dict__["tzinfo"].__get__(value)
    if zone is None or type(zone) in (datetime.timezone, zoneinfo.ZoneInfo):
        text = datetime.datetime.isoformat(value)
        return reading.text(text[:-6] + "Z" if text.endswith("+00:00") else text, room)
    day, clock = (
        datetime.date(*_parts(value, datetime.date, _DATE)),
        datetime.time(*_parts(value, datetime.datetime, _TIME)),
    )
    return reading.text(f"{day.isoformat()}T{clock.isoformat()} <{type_name(type(zone))}>", room)


_DATE: Final = ("year", "month", "day")
_TIME: Final = ("hour", "minute", "second", "microsecond")


def _parts(value: Any, base: type, names: tuple[str, ...]) -> list[Any]:
    return [base.__dict__[name].__get__(value) for name in names]


def _date(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(datetime.date.isoformat(value), room)


def _time(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(datetime.time(*_parts(value, datetime.time, _TIME)).isoformat(), room)


def _timedelta(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    span = datetime.timedelta(
        *_parts(value, datetime.timedelta, ("days", "seconds", "microseconds"))
    )
    return reading.text(msgspec.json.encode(span).decode().strip('"'), room)


def _uuid(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(str(uuid.UUID(int=int.__index__(field_of(value, "int")))), room)


def _path(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(pathlib.PurePath.__str__(value), room)


def _enum(reading: Reading, value: Any, room: int, depth: int) -> Any:
    return reading.plain(field_of(value, "_value_"), room, depth)


def _secret(reading: Reading, _value: Any, room: int, _depth: int) -> Any:
    return reading.text("**********", room)


def _not_a_time(reading: Reading, _value: Any, room: int, _depth: int) -> Any:
    return reading.text("NaT", room)


def _address(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    base = (
        ipaddress.IPv4Address
        if issubclass(type(value), ipaddress.IPv4Address)
        else ipaddress.IPv6Address
    )
    return reading.text(str(base(int.__index__(field_of(value, "_ip")))), room)


def _function(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(f"<function {value.__qualname__}>", room)


def _class(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(f"<class {type_name(value)}>", room)


def _range(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(repr(value), room)


def _exception(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    text = exception_text(value, max(room, LEAST_CHARS), reading.label)
    return reading.text(f"{simple_name(type(value))}: {text}", room)


def exception_text(error: BaseException, most: int, label: Callable[[object, int], str]) -> str:
    """The text of an exception: its arguments, else its attributes, else empty.

    Its ``__str__`` is not called. ``label`` makes a text of a value.
    """
    try:
        return shortened(_exception_text(error, most, label), most)
    except Exception:
        return ""


def _exception_text(error: BaseException, most: int, label: Callable[[object, int], str]) -> str:
    kind = type(error)
    if module_of(kind).startswith("pydantic_core") and simple_name(kind) == "ValidationError":
        return _validation(error)
    args = _args_of(error)
    if issubclass(kind, UnicodeError) and len(args) == 5 and type(args[4]) is str:
        return f"{args[0]!r:.40} codec: {args[4]}, position {args[2]!r:.20}"
    if issubclass(kind, OSError) and len(args) >= 2:
        return _os_error(error, most, label)
    if len(args) == 1:
        key = type(args[0]) is str and issubclass(kind, KeyError)
        return repr(cut_middle(args[0], most)) if key else label(args[0], most)
    if args:
        return ", ".join(label(one, most) for one in args[:MOST_FIELDS])
    fields = {
        name: item
        for name, item in instance_dict(error).items()
        if type(name) is str and not name.startswith("_")
    }
    return ", ".join(
        f"{name}={label(item, most)}"
        for name, item in itertools.islice(fields.items(), MOST_FIELDS)
    )


def _os_error(error: BaseException, most: int, label: Callable[[object, int], str]) -> str:
    number, reason, name = (
        OSError.__dict__[part].__get__(error) for part in ("errno", "strerror", "filename")
    )
    text = f"[Errno {label(number, 40)}] {label(reason, most)}"
    return text if name is None else f"{text}: {label(name, most)!r}"


def _validation(error: Any) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    texts = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:MOST_FIELDS]]
    return f"{len(found)} validation errors for {error.title}: {'; '.join(texts)}"


def _numpy_scalar(reading: Reading, value: Any, room: int, depth: int) -> Any:
    generic = sys.modules["numpy"].generic
    if generic.nbytes.__get__(value) > _BIG_SCALAR_BYTES:
        return reading.text(f"<{type_name(type(value))}>", room)
    item = generic.item(value)
    return (
        reading.plain(item, room, depth)
        if type(item) is not type(value)
        else reading.text(f"<{type_name(type(value))}>", room)
    )


def _ndarray(reading: Reading, value: Any, room: int, depth: int) -> Any:
    """Shape, type and the first values."""
    ndarray = sys.modules["numpy"].ndarray
    shape, size = ndarray.shape.__get__(value), ndarray.size.__get__(value)
    head = ndarray.flat.__get__(value)[:_HEAD_ITEMS].tolist()
    pairs = [
        ("type", type_name(type(value))),
        ("shape", list(shape)),
        ("dtype", ndarray.dtype.__get__(value).str),
    ]
    pairs.append(("values" if size <= _HEAD_ITEMS else "first_values", head))
    return reading.mapping(len(pairs), iter(pairs), reversed(pairs), room, depth)


def _frame(reading: Reading, value: Any, room: int, depth: int) -> Any:
    """A table of pandas or polars: its shape and the names of its columns."""
    kind = type(value)
    rows, columns = kind.shape.__get__(value)
    names = list(kind.columns.__get__(value)[:_HEAD_ITEMS])
    pairs = [("type", type_name(kind)), ("shape", [rows, columns]), ("columns", names)]
    return reading.mapping(len(pairs), iter(pairs), reversed(pairs), room, depth)


def _series(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    return reading.text(f"<{type_name(type(value))} of {len(value):,} values>", room)


def is_scalar(value: object) -> bool:
    """True for None and for str, int, float and bool themselves, not their subclasses."""
    kind = type(value)
    return kind is str or kind is int or kind is float or kind is bool or value is None


def _unknown(reading: Reading, value: Any, room: int, _depth: int) -> Any:
    """An object of unknown type: its type, and its public attributes that are plain."""
    parts = [type_name(type(value))]
    for name, item in itertools.islice(instance_dict(value).items(), 8 * MOST_FIELDS):
        if len(parts) > MOST_FIELDS:
            parts.append("...")
            break
        if type(name) is str and not name.startswith("_") and is_scalar(item):
            shown = shortened(item, _FIELD_CHARS) if type(item) is str else item
            parts.append(f"{cut_middle(name, _FIELD_CHARS)}={shown!r:.{3 * _FIELD_CHARS}}")
    return reading.text(f"<{' '.join(parts)}>", room)


_BASES: Final[tuple[tuple[tuple[type, ...], ReadFunction], ...]] = (
    ((dict,), _dict),
    ((list,), _list),
    ((tuple,), _tuple),
    ((set, frozenset), _set),
    ((deque,), _deque),
    ((array.array,), _array),
    ((str,), _text),
    ((bytes, bytearray, memoryview), _bytes),
    ((int,), _int),
    ((float,), _float),
    ((complex,), _complex),
    ((decimal.Decimal,), _decimal),
    ((datetime.datetime,), _datetime),
    ((datetime.date,), _date),
    ((datetime.time,), _time),
    ((datetime.timedelta,), _timedelta),
    ((uuid.UUID,), _uuid),
    ((pathlib.PurePath,), _path),
    ((enum.Enum,), _enum),
    ((ipaddress.IPv4Address, ipaddress.IPv6Address), _address),
    ((BaseException,), _exception),
    ((type,), _class),
    ((range,), _range),
    ((types.MappingProxyType,), _behind_proxy),
    ((UserDict, UserList, UserString), _data),
    ((types.SimpleNamespace,), _attributes),
    ((types.FunctionType, types.BuiltinFunctionType), _function),
    ((type({}.keys()), type({}.values()), type({}.items())), _view),
    ((msgspec.Struct,), _struct),
)
_BY_BASE: Final = {id(base): read for bases, read in _BASES for base in bases}
_BY_NAME: Final[dict[tuple[str, str], ReadFunction]] = {
    ("pydantic.main", "BaseModel"): _model,
    ("pydantic.v1.main", "BaseModel"): _model,
    ("pydantic.types", "_SecretBase"): _secret,
    ("pydantic.types", "Secret"): _secret,
    ("pydantic.types", "SecretStr"): _secret,
    ("pydantic.v1.types", "SecretStr"): _secret,
    ("pydantic.v1.types", "SecretBytes"): _secret,
    ("numpy", "generic"): _numpy_scalar,
    ("numpy", "ndarray"): _ndarray,
}
_EXACTLY: Final[dict[tuple[str, str], ReadFunction]] = {
    ("pandas.core.frame", "DataFrame"): _frame,
    ("pandas", "DataFrame"): _frame,
    ("pandas.api.typing", "NaTType"): _not_a_time,
    ("pandas._libs.tslibs.nattype", "NaTType"): _not_a_time,
    ("pandas.core.series", "Series"): _series,
    ("pandas", "Series"): _series,
    ("polars.dataframe.frame", "DataFrame"): _frame,
    ("polars.series.series", "Series"): _series,
}
_BY_MARK: Final = (("__dataclass_fields__", _dataclass, dict), ("__attrs_attrs__", _attrs, tuple))
NUMBERS: Final = frozenset({_int, _float})
# Readers that read other values, so that a value may contain itself.
CONTAINERS: Final = frozenset(
    {
        _dict,
        _list,
        _tuple,
        _set,
        _deque,
        _view,
        _behind_proxy,
        _data,
        _attributes,
        _model,
        _dataclass,
        _attrs,
        _struct,
        _ndarray,
        _enum,
        _exception,
    }
)

_readers: Final[dict[int, tuple[type, ReadFunction]]] = {}


def is_number(kind: type) -> bool:
    """True for the classes of real numbers: Python's, ``Decimal``, numpy's."""
    return issubclass(kind, int | float | decimal.Decimal) or reader_of(kind) is _numpy_scalar


def reader_of(kind: type) -> ReadFunction:
    """The reader of a class, cached."""
    known = _readers.get(id(kind))
    if known is None:
        if len(_readers) >= MOST_TYPES:
            _readers.clear()
        known = _readers[id(kind)] = (kind, _found(kind))
    return known[1]


def _found(kind: type) -> ReadFunction:
    exact = _EXACTLY.get((module_of(kind), simple_name(kind)))
    if exact is not None:
        return exact
    for base in mro_of(kind):
        read = _BY_BASE.get(id(base)) or _BY_NAME.get((module_of(base), simple_name(base)))
        if read is not None:
            return read
        for mark, read_marked, form in _BY_MARK:
            if issubclass(type(namespace_of(base).get(mark)), form):
                return read_marked
    return _unknown
