"""Inputs, outputs and attributes as text: a text as it is, anything else as JSON. Never raises.

This happens in the program's thread, because the program may change the object a moment later.
The time depends on how much is kept, not on the size of the value, and no code of the value runs
(``stepstream.producers.values.plain``).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from stepstream.producers.values.plain import KEY_CHARS, ValueReader
from stepstream.producers.values.shortening import SHORTEST_FILE, files_in, shortened, size_of

# A text longer than the limit by this much is cut after redaction, so that a secret across the cut
# is recognised.
SLACK_CHARS: Final = 4_096

# What a list or dictionary counts itself, so that reading many empty ones ends.
_CONTAINER_CHARS: Final = 16
# Texts and keys up to this length count as if they had it.
_SHORT_CHARS: Final = 128
_MOST_ITEM_CHARS: Final = 2 * _SHORT_CHARS + 6
_encode: Final = msgspec.json.Encoder().encode


def to_text(value: Any, max_bytes: int) -> tuple[str, int | None]:
    """The value as text; and its approximate size in bytes if a part was left out, else None."""
    kind = type(value)
    if kind is str:
        if len(value) < SHORTEST_FILE:
            return value, None
        return _text(value, max_bytes)
    if value is None:
        return "", None
    if kind is dict or kind is list or kind is tuple:
        try:
            # The fast path of small plain structures: one check, then msgspec.
            if room_left(value, max_bytes) >= 0 or fits(value, max_bytes):
                text = _encode(value).decode()
                if len(text) <= max_bytes:
                    return text, None
        except Exception:  # surrogates, numbers that JSON lacks, changed by another thread
            pass
    return _read(value, max_bytes)


def _text(value: str, max_bytes: int) -> tuple[str, int | None]:
    most = max_bytes + SLACK_CHARS
    text = shortened(value, most if len(value) <= most else max_bytes)
    return text, None if len(text) == len(value) else size_of(value)


def _read(value: Any, max_bytes: int) -> tuple[str, int | None]:
    kind = type(value)
    as_text = issubclass(kind, str | bytes | bytearray | memoryview)
    # The characters of JSON (quotes, commas, brackets) are counted roughly: a sixteenth is left.
    room = max_bytes if as_text else max_bytes - max_bytes // 16
    for _ in range(3):
        reader = ValueReader()
        plain = reader.plain(value, room)
        text = plain if as_text and type(plain) is str else _encode(plain).decode()
        size = size_of(text)
        if size <= max_bytes or as_text:
            break
        # Escapes and characters of several bytes took more than was estimated.
        room = room * max_bytes // size * 9 // 10
    return text, (size + reader.cut if reader.cut else None)


# Most structures are like this: the check takes two thirds of the time of ``fits``, because short
# texts are not counted one by one. The two loops are much alike: a call for each item would take
# longer than the check of the item.
def room_left(value: Any, room: int) -> int:  # noqa: C901, PLR0911, PLR0912 - see above
    """The room that a structure of few plain values and short texts leaves at least.

    Negative for anything else; ``fits`` counts exactly.
    """
    room -= _MOST_ITEM_CHARS * len(value) + _CONTAINER_CHARS
    if room < 0:
        return room
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str or len(key) > _SHORT_CHARS:
                return -1
            kind = type(item)
            if kind is str:
                if len(item) > _SHORT_CHARS:
                    room -= len(item)
                    if len(item) >= SHORTEST_FILE:
                        return -1
            elif kind is dict or kind is list or kind is tuple:
                room = room_left(item, room)
                if room < 0:
                    return room
            elif not (kind is int or kind is float or kind is bool or item is None):
                return -1
        return room
    for item in value:
        kind = type(item)
        if kind is str:
            if len(item) > _SHORT_CHARS:
                room -= len(item)
                if len(item) >= SHORTEST_FILE:
                    return -1
        elif kind is dict or kind is list or kind is tuple:
            room = room_left(item, room)
            if room < 0:
                return room
        elif not (kind is int or kind is float or kind is bool or item is None):
            return -1
    return room


# One loop and no helper functions: this runs for every structure of every step, and a call for each
# item would take three times as long as the check.
def fits(value: Any, room: int) -> bool:
    """True if a structure consists of plain values only and has at most ``room`` characters.

    It visits no more items than there is room for.
    """
    inside = [value]
    for container in inside:  # it grows as nested containers are found
        items = container
        # Quotes, commas and colons around each item, and the brackets.
        room -= (6 if type(container) is dict else 3) * len(container) + _CONTAINER_CHARS
        if room < 0:
            return False
        if type(container) is dict:
            for key in container:
                if type(key) is not str or len(key) > KEY_CHARS:
                    return False
                room -= len(key)
            items = container.values()
        for item in items:
            kind = type(item)
            if kind is str:
                size = len(item)
                if size >= SHORTEST_FILE and (size > room or files_in(item)):
                    return False
                room -= size
            elif kind is dict or kind is list or kind is tuple:
                inside.append(item)
            elif not (kind is int or kind is float or kind is bool or item is None):
                return False
        if room < 0:
            return False
    return True
