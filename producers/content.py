"""What an agent hands over, as text: JSON where it has a shape, the text itself where it is text. Never raises.

Serialising happens in the agent's thread, because the agent may change the object a moment later; so it is quick for what is
small and bounded for what is huge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

import msgspec

SLACK_CHARS: Final = 4_096
"""Kept beyond the limit until secrets are out, so that one that lies across the cut is still recognised."""

MOST_ITEMS: Final = 50_000
"""A structure with more values than this is shortened before it is written, however small its limit."""

DEEPEST: Final = 12
_REPR_CHARS: Final = 2_000


def to_text(value: Any, max_bytes: int) -> tuple[str, int | None]:
    """The value as text and, where that is longer than about ``max_bytes``, its size in bytes before it was cut here."""
    if value is None:
        return "", None
    text = value if type(value) is str else _written(value, max_bytes)
    keep = max_bytes + SLACK_CHARS
    if len(text) <= keep:
        return text, None
    return text[:keep], size_of(text)


def size_of(text: str) -> int:
    """Bytes of the text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _written(value: Any, max_bytes: int) -> str:
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _from_bytes(bytes(value))
        if not _huge(value):
            return msgspec.json.encode(value, enc_hook=_plain).decode("utf-8")
    except Exception:  # circular, too deep, keys that JSON lacks, a property that raises: written the patient way
        pass
    try:
        limit = min(MOST_ITEMS, max_bytes + SLACK_CHARS)
        return msgspec.json.encode(_Walk(limit).plain(value)).decode("utf-8")
    except Exception:
        return safe_repr(value)


def _from_bytes(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return f"<{len(value)} bytes>"


def _huge(value: Any) -> bool:
    """Whether a container holds so many values that writing them all would be felt."""
    return isinstance(value, list | tuple | dict | set | frozenset) and len(value) > 8 and _count(value, 0) > MOST_ITEMS


def _count(value: Any, depth: int) -> int:
    """Values inside, looked at no deeper than three levels and judged by the first of many siblings."""
    count = len(value)
    if depth == 3 or count > MOST_ITEMS:
        return count
    total = count
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, list | tuple | dict | set | frozenset):
            total += _count(item, depth + 1)
            if total > MOST_ITEMS:
                break
    return total


def _plain(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        return dump()
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    if isinstance(value, bytes | bytearray | memoryview):
        return _from_bytes(bytes(value))
    if isinstance(value, Mapping):
        return dict(value)
    for name in ("to_dict", "dict", "_asdict"):
        method = getattr(value, name, None)
        if callable(method) and not isinstance(value, type) and type(value).__module__ not in _LARGE:
            return method()
    return safe_repr(value)


_LARGE: Final = frozenset({"pandas.core.frame", "pandas.core.series", "polars.dataframe.frame"})


class _Walk:
    """Plain data from anything, with an end: at most ``items`` values, ``DEEPEST`` levels, no circle followed."""

    def __init__(self, items: int) -> None:
        self._left = items
        self._above: set[int] = set()

    def plain(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**64 else str(value)
        if isinstance(value, str):
            return value.encode("utf-8", "replace").decode("utf-8")
        if isinstance(value, bytes):
            return _from_bytes(value)
        if id(value) in self._above:
            return "<circular>"
        if depth >= DEEPEST:
            return "<deeper>"
        self._above.add(id(value))
        try:
            return self._inside(value, depth)
        except Exception:
            return safe_repr(value)
        finally:
            self._above.discard(id(value))

    def _inside(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return self._items(value, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._mapping({f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}, depth)
        fields = getattr(type(value), "model_fields", None)
        if isinstance(fields, dict):
            return self._mapping({name: getattr(value, name, None) for name in fields}, depth)
        return safe_repr(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, item in value.items():
            if self._left <= 0:
                out["..."] = f"{len(value) - len(out)} more"
                break
            out[key if type(key) is str else str(key)] = self.plain(item, depth + 1)
        return out

    def _items(self, value: Any, depth: int) -> list[Any]:
        out: list[Any] = []
        for item in value:
            if self._left <= 0:
                out.append(f"... {len(value) - len(out)} more")
                break
            out.append(self.plain(item, depth + 1))
        return out


def safe_repr(value: Any) -> str:
    """``repr``, shortened; the type's name where even that fails."""
    try:
        text = repr(value)
    except Exception:
        return f"<{type(value).__name__}>"
    return text if len(text) <= _REPR_CHARS else text[:_REPR_CHARS] + "..."
