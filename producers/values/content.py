"""What an agent hands over, as text: JSON where it has a shape, the text itself where it is text. Never raises.

Serialising happens in the agent's thread, because the agent may change the object a moment later. What that costs depends on
how much is kept, not on the size of the value, and nothing of the value is called (``stepstream.producers.values.plain``).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stepstream.producers.values.plain import KEY_CHARS, Walk
from stepstream.producers.values.shortening import SHORTEST_FILE, files_in, shortened, size_of

SLACK_CHARS: Final = 4_096
"""A text this much longer than the limit is kept whole until secrets are out, so that one across a cut is recognised."""

_CONTAINER_CHARS: Final = 16
"""What a list or dictionary counts, so that looking at many empty ones ends."""
_encode: Final = msgspec.json.Encoder().encode


def to_text(value: Any, max_bytes: int) -> tuple[str, int | None]:
    """The value as text and, where part of it was left out here, about how many bytes it had before."""
    kind = type(value)
    if kind is str:
        if len(value) < SHORTEST_FILE:
            return value, None
        return _text(value, max_bytes)
    if value is None:
        return "", None
    if kind is dict or kind is list or kind is tuple:
        try:
            if fits(value, max_bytes):
                text = _encode(value).decode()
                if len(text) <= max_bytes:
                    return text, None
        except Exception:  # halves of surrogate pairs, numbers that JSON lacks, changed by another thread meanwhile
            pass
    return _walked(value, max_bytes)


def _text(value: str, max_bytes: int) -> tuple[str, int | None]:
    most = max_bytes + SLACK_CHARS
    text = shortened(value, most if len(value) <= most else max_bytes)
    return text, None if len(text) == len(value) else size_of(value)


def _walked(value: Any, max_bytes: int) -> tuple[str, int | None]:
    kind = type(value)
    as_text = issubclass(kind, str | bytes | bytearray | memoryview)
    room = (
        max_bytes if as_text else max_bytes - max_bytes // 16
    )  # quotes, commas and brackets are counted roughly
    for _ in range(3):
        walk = Walk()
        plain = walk.plain(value, room)
        text = plain if as_text and type(plain) is str else _encode(plain).decode()
        size = size_of(text)
        if size <= max_bytes or as_text:
            break
        room = (
            room * max_bytes // size * 9 // 10
        )  # escapes and wide characters took more than was thought
    return text, (size + walk.cut if walk.cut else None)


def fits(value: Any, room: int) -> bool:
    """Whether a structure is made of plain values alone, and short. Looks at no more than there is room for."""
    inside = [value]
    for container in inside:  # which grows as containers are found
        if type(container) is dict:
            room -= 6 * len(container) + _CONTAINER_CHARS
            if room < 0:
                return False
            for key, item in container.items():
                if type(key) is not str:
                    return False
                size = len(key)
                if size > KEY_CHARS:
                    return False
                kind = type(item)
                if kind is str:
                    size += len(item)
                    if size >= SHORTEST_FILE and (size > room or files_in(item)):
                        return False
                elif kind is int or kind is float or kind is bool or item is None:
                    pass
                elif kind is dict or kind is list or kind is tuple:
                    inside.append(item)
                else:
                    return False
                room -= size
        else:
            room -= 3 * len(container) + _CONTAINER_CHARS
            if room < 0:
                return False
            for item in container:
                kind = type(item)
                if kind is dict or kind is list or kind is tuple:
                    inside.append(item)
                elif kind is str:
                    size = len(item)
                    if size >= SHORTEST_FILE and (size > room or files_in(item)):
                        return False
                    room -= size
                elif not (kind is int or kind is float or kind is bool or item is None):
                    return False
        if room < 0:
            return False
    return True
