"""A view of OTLP that shares its wire format: attributes as maps from name to encoded value.

A repeated ``KeyValue`` has the wire form of ``map<string, bytes>`` (field 1 the key, field 2 the
value), so one loop in C makes the dictionary, and values are read from their bytes. With the
official messages each attribute takes several accesses from Python: 9.7 us a span against 4.4.
Texts are declared as bytes: text that is not UTF-8 would make the decoder refuse the whole
request.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from stepstream.producers.gateway.mapping.spans import Attributes

__all__ = [
    "LOGS",
    "MESSAGES",
    "SEPARATE_MESSAGES",
    "TRACES",
    "DecodeError",
    "attributes_of",
    "fields",
    "has_more_fields",
    "pairs_of",
    "parts",
    "text",
    "value_of",
]

MAX_NESTED_BYTES: Final = 1 << 20
"""Arrays and maps of one item, its events included, that are decoded; further ones are described by
their size.

They are decoded in Python: 64 MB of empty values would take half a minute.
"""
MAX_DEPTH: Final = 16
"""Arrays and maps within each other in one value; what lies deeper is refused."""

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "bytes": _F.TYPE_BYTES,
    "string": _F.TYPE_STRING,
    "int32": _F.TYPE_INT32,
    "fixed64": _F.TYPE_FIXED64,
    "fixed32": _F.TYPE_FIXED32,
}
_Shape = dict[str, tuple[tuple[str, int, str], ...]]

_SHAPE: Final[_Shape] = {
    "KeyValue": (("key", 1, "bytes"), ("value", 2, "bytes")),
    "Status": (("message", 2, "bytes"), ("code", 3, "int32")),
    "Event": (("time", 1, "fixed64"), ("name", 2, "bytes"), ("attributes", 3, "map")),
    "Span": (
        ("trace_id", 1, "bytes"),
        ("span_id", 2, "bytes"),
        ("trace_state", 3, "bytes"),
        ("parent_span_id", 4, "bytes"),
        ("name", 5, "bytes"),
        ("kind", 6, "int32"),
        ("start", 7, "fixed64"),
        ("end", 8, "fixed64"),
        ("attributes", 9, "map"),
        ("events", 11, "*Event"),
        ("status", 15, "Status"),
        ("flags", 16, "fixed32"),
    ),
    "LogRecord": (
        ("time", 1, "fixed64"),
        ("body", 5, "bytes"),
        ("attributes", 6, "map"),
        ("trace_id", 9, "bytes"),
        ("span_id", 10, "bytes"),
        ("observed", 11, "fixed64"),
        ("event_name", 12, "bytes"),
    ),
    "Scope": (("name", 1, "bytes"), ("version", 2, "bytes")),
    "Resource": (("attributes", 1, "map"),),
    "ScopeSpans": (("scope", 1, "Scope"), ("items", 2, "*Span")),
    "ScopeLogs": (("scope", 1, "Scope"), ("items", 2, "*LogRecord")),
    "ResourceSpans": (("resource", 1, "Resource"), ("scopes", 2, "*ScopeSpans")),
    "ResourceLogs": (("resource", 1, "Resource"), ("scopes", 2, "*ScopeLogs")),
    "Traces": (("resources", 1, "*ResourceSpans"),),
    "Logs": (("resources", 1, "*ResourceLogs"),),
}
# For requests that ``MESSAGES`` cannot decode: each span on its own, attributes one by one.
_SEPARATE_SHAPE: Final[_Shape] = {
    **{
        name: tuple(
            (field, number, "*KeyValue" if kind == "map" else kind)
            for field, number, kind in fields
        )
        for name, fields in _SHAPE.items()
    },
    "Resource": (("attributes", 1, "*bytes"),),
    "ScopeSpans": (("scope", 1, "bytes"), ("items", 2, "*bytes")),
    "ScopeLogs": (("scope", 1, "bytes"), ("items", 2, "*bytes")),
    "ResourceSpans": (("resource", 1, "bytes"), ("scopes", 2, "*ScopeSpans")),
    "ResourceLogs": (("resource", 1, "bytes"), ("scopes", 2, "*ScopeLogs")),
}


def _file(package: str, shape: _Shape) -> descriptor_pb2.FileDescriptorProto:
    made = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    for name, fields in shape.items():
        message = made.message_type.add(name=name)
        for field_name, number, kind in fields:
            repeated = kind.startswith("*")
            plain = kind.lstrip("*")
            field = message.field.add(
                name=field_name,
                number=number,
                label=_F.LABEL_REPEATED if repeated or plain == "map" else _F.LABEL_OPTIONAL,
            )
            if plain == "map":
                entry = message.nested_type.add(name=f"{field_name.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, label=_F.LABEL_OPTIONAL, type=_F.TYPE_STRING)
                entry.field.add(name="value", number=2, label=_F.LABEL_OPTIONAL, type=_F.TYPE_BYTES)
                field.type, field.type_name = _F.TYPE_MESSAGE, f".{package}.{name}.{entry.name}"
            elif plain in _SCALARS:
                field.type = cast(Any, _SCALARS[plain])
            else:
                field.type, field.type_name = _F.TYPE_MESSAGE, f".{package}.{plain}"
    return made


def _classes(package: str, shape: _Shape) -> dict[str, Any]:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file(package, shape).SerializeToString())
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in shape
    }


MESSAGES: Final[dict[str, Any]] = _classes("stepstream_otlp", _SHAPE)
TRACES: Final[Any] = MESSAGES["Traces"]
LOGS: Final[Any] = MESSAGES["Logs"]
SEPARATE_MESSAGES: Final[dict[str, Any]] = _classes("stepstream_otlp_separate", _SEPARATE_SHAPE)


def text(data: bytes) -> str:
    """Bytes as text; what is not UTF-8 is replaced."""
    return data.decode("utf-8", "replace")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at a place, and the place after it. Raises ``ValueError``."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


_STRING, _BOOL, _INT, _DOUBLE, _BYTES = 10, 16, 24, 33, 58
"""The first byte of an encoded value: its field and wire type."""
_double = struct.Struct("<d").unpack_from


class NestedBytesLeft:
    """Bytes of nested values still to be decoded: of one item, or of a request's resources."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_NESTED_BYTES

    def takes(self, size: int) -> bool:
        """Whether this many bytes are left; if so they are subtracted."""
        if size > self._left:
            return False
        self._left -= size
        return True


def value_of(data: bytes, budget: NestedBytesLeft) -> Any:
    """An encoded ``AnyValue`` as a Python value. Raises ``ValueError`` for what is none."""
    if not data:
        return None
    # One value, canonically encoded, is nearly all there is.
    kind = data[0]
    size = len(data)
    if kind == _STRING and size > 1:
        length = data[1]
        if length < 128 and length + 2 == size:
            return str(data[2:], "utf-8", "replace")
        length, at = _varint(data, 1)
        if at + length == size:
            return str(data[at:], "utf-8", "replace")
    elif kind == _INT:
        number, at = _varint(data, 1)
        if at == size:
            return number - (1 << 64) if number >> 63 else number
    elif kind == _DOUBLE and size == 9:
        return _double(data, 1)[0]
    elif kind == _BOOL and size == 2:
        return data[1] != 0
    elif kind == _BYTES and size > 1:
        length, at = _varint(data, 1)
        if at + length == size:
            return data[at:]
    # Not only arrays and maps: any other encoding may have them behind its first field.
    return _value_slowly(data, 0) if budget.takes(size) else f"[nested values of {size:,} bytes]"


def fields(data: bytes) -> Iterable[tuple[int, int, Any]]:
    """Field numbers, wire types and contents of a message. Raises ``ValueError``."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            value = data[at : at + length]
            if len(value) < length:
                raise ValueError("a field is cut off")
            at += length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value = data[at : at + size]
            if len(value) < size:
                raise ValueError("a field is cut off")
            at += size
        else:
            raise ValueError(f"wire type {kind} is not known")
        yield number, kind, value


def parts(data: bytes, number: int) -> Iterator[bytes]:
    """The messages in a repeated field of a message. Raises ``ValueError``."""
    return (raw for found, kind, raw in fields(data) if found == number and kind == 2)


def has_more_fields(data: bytes, most: int) -> bool:
    """Whether a message has more than this many fields; true for what is no message."""
    try:
        return any(place >= most for place, _ in enumerate(fields(data)))
    except ValueError:
        return True


def _value_slowly(data: bytes, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError(f"values lie in each other more than {MAX_DEPTH} deep")
    found: Any = None
    for number, kind, raw in fields(data):
        match number, kind:
            case 1, 2:
                found = text(raw)
            case 2, 0:
                found = raw != 0
            case 3, 0:
                found = raw - (1 << 64) if raw >> 63 else raw
            case 4, 1:
                found = _double(raw)[0]
            case 5, 2:
                found = [
                    _value_slowly(item, depth + 1)
                    for inner, form, item in fields(raw)
                    if (inner, form) == (1, 2)
                ]
            case 6, 2:
                found = _map(raw, depth + 1)
            case 7, 2:
                found = raw
    return found


def _map(data: bytes, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number, kind, entry in fields(data):
        if (number, kind) != (1, 2):
            continue
        name, value = "", b""
        for inner, form, item in fields(entry):
            if form == 2 and inner == 1:
                name = text(item)
            elif form == 2 and inner == 2:
                value = item
        found[name] = _value_slowly(value, depth)
    return found


_MAX_KNOWN: Final = 16_384
_MAX_KNOWN_BYTES: Final = 48
_known: dict[bytes, Any] = {}
"""Values by their encoded form: names of models, tools and agents come with every span. Bounded to
16,384 values of 48 bytes. Several threads may use it: each access is one atomic operation.
"""


def attributes_of(encoded: Any, budget: NestedBytesLeft) -> Attributes:
    """A map of encoded values as attributes. Raises ``ValueError``."""
    made: Attributes = {}
    known = _known.get
    for name in encoded:  # its items() is a generator in Python, which costs twice as much
        data = encoded[name]
        value = known(data)
        if value is None:
            # Short texts are most of all values: 10 is their field, the next byte their length.
            if data[:1] == b"\n" and len(data) - 2 == data[1] < 128:
                value = str(data[2:], "utf-8", "replace")
            else:
                value = value_of(data, budget)
            if len(data) <= _MAX_KNOWN_BYTES:
                _remember(data, value)
        made[name] = value
    return made


def _remember(data: bytes, value: Any) -> None:
    # Lists and maps can be changed by who receives them, so they are never shared.
    if isinstance(value, str | int | float):
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[data] = value


def pairs_of(encoded: Iterable[Any], budget: NestedBytesLeft) -> Attributes:
    """Encoded pairs as attributes. Raises ``ValueError``."""
    return attributes_of({text(pair.key): pair.value for pair in encoded}, budget)
