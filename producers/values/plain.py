"""Plain data (text, numbers, lists, dictionaries) from any value, within a number of characters.

Values of known types are read by the methods of the built-in or library class itself, never by
those of a subclass. Any other object becomes its type name and its plain attributes. Of what is
too long the beginning and the end are kept, and a mark between them states how much is missing.
"""

from __future__ import annotations

import decimal
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from stepstream.producers.values.inspection import field_of, module_of, type_name
from stepstream.producers.values.known_types import (
    CONTAINERS,
    LEAST_CHARS,
    NUMBERS,
    is_number,
    is_scalar,
    reader_of,
)
from stepstream.producers.values.shortening import SHORTEST_FILE, cut_middle, is_file, shortened
from stepstream.schemas.money import nanos_from_usd

DEEPEST: Final = 12
KEY_CHARS: Final = 256
_AMOUNT_CHARS: Final = 64
_MOST_SIBLINGS: Final = 8
_CHARS_A_VISIT: Final = 56
_LEAST_VISITS: Final = 64
_SAMPLED: Final = 4
# With less room than this for each item, fewer items are kept.
_SHARE_CHARS: Final = 256
# The least that an item counts, so that the number of visited items is bounded as the text is.
_ITEM_CHARS: Final = 32


class ValueReader:
    """Reads one value.

    ``visited`` counts the values and ``characters`` the characters that were read, ``used`` the
    characters of the result, ``cut`` the characters that were left out.
    """

    def __init__(self) -> None:
        self.visited = 0
        self.characters = 0
        self.used = 0
        self.cut = 0
        self._most_visits = 0
        self._above: set[int] = set()

    def plain(self, value: Any, room: int, depth: int = 0) -> Any:
        """The value as text, numbers, lists and dictionaries, in about ``room`` characters.

        Never raises an ``Exception``.
        """
        if depth == 0:
            self.visited += 1
            self._most_visits = self.visited + max(room // _CHARS_A_VISIT, _LEAST_VISITS)
        kind = type(value)
        if kind is str:
            return self.text(value, room)
        if value is None or kind is bool or kind is float:
            self.used += 5
            return value
        try:
            read = reader_of(kind)
            if read not in CONTAINERS:
                made = read(self, value, room, depth)
                if read in NUMBERS:
                    self.used += 8
                return made
            # Only containers above this one: the same object may be in a list twice.
            if id(value) in self._above:
                return self.text("<circular>", room)
            if depth >= DEEPEST:
                return self.text("<deeper>", room)
            self._above.add(id(value))
            try:
                return read(self, value, room, depth)
            finally:
                self._above.discard(id(value))
        except Exception:  # changed by another thread while it was read, or broken
            return self.text(f"<{type_name(kind)}>", room)

    def text(self, value: str, room: int) -> str:
        """The text, shortened to ``room`` characters, without halves of surrogate pairs."""
        out = shortened(value, max(room, LEAST_CHARS))
        if not out.isascii():
            out = out.encode("utf-8", "replace").decode("utf-8")
        self.characters += min(len(value), 2 * max(room, LEAST_CHARS))
        self.used += len(out) + 3
        self.cut += max(0, len(value) - len(out))
        return out

    # --- containers ---

    def items(
        self, count: int, front: Iterator[Any], back: Iterator[Any] | None, room: int, depth: int
    ) -> list[Any]:
        """Items from both ends of a list; each gets an equal share of the remaining room."""
        first, last = self._chosen(count, front, back, room, estimate)
        chosen = first + last[::-1]
        plain = [item for item, _ in chosen if _is_small_number(item)]
        if len(plain) < len(chosen):
            plain = self._shared(
                [size for _, size in chosen],
                room,
                lambda i, share: self.plain(chosen[i][0], share, depth + 1),
            )
        else:
            self.used += 8 * len(plain)
        left_out = count - len(chosen)
        if left_out > 0:
            plain.insert(len(first), f"...[{left_out:,} items cut]...")
            self._left_out(left_out, chosen)
        return plain

    def mapping(
        self,
        count: int,
        front: Iterator[tuple[Any, Any]],
        back: Iterator[tuple[Any, Any]] | None,
        room: int,
        depth: int,
    ) -> dict[str, Any]:
        """Keys and values from both ends of a dictionary, as ``items``."""
        first, last = self._chosen(count, front, back, room, _estimate_pair)
        chosen = first + last[::-1]
        keys = [self._key(pair[0]) for pair, _ in chosen]
        values = self._shared(
            [size for _, size in chosen],
            room,
            lambda i, share: self._value(keys[i], chosen[i][0][1], share, depth),
        )
        out: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for number, (key, value) in enumerate(zip(keys, values, strict=True)):
            if number == len(first) and count > len(chosen):
                out["..."] = f"[{count - len(chosen):,} keys cut]"
            seen[key] = again = seen.get(key, 0) + 1
            out[key if again == 1 else f"{key} ({again})"] = value
        if count > len(chosen):
            out.setdefault("...", f"[{count - len(chosen):,} keys cut]")
            self._left_out(count - len(chosen), chosen)
        return out

    def _value(self, key: str, value: Any, share: int, depth: int) -> Any:
        self.used += len(key) + 4
        if _is_small_number(value):
            self.used += 5
            return value
        return self.plain(value, share - len(key) - 4, depth + 1)

    def _left_out(self, count: int, chosen: list[tuple[Any, int]]) -> None:
        self.cut += count * sum(size for _, size in chosen) // max(1, len(chosen))

    def _chosen(
        self,
        count: int,
        front: Iterator[Any],
        back: Iterator[Any] | None,
        room: int,
        estimate: Callable[[Any], int],
    ) -> tuple[list[tuple[Any, int]], list[tuple[Any, int]]]:
        """The items to keep and their estimated length, from the front and from the back.

        They are taken alternately (the last, the first, the last but one ...) until the room is
        used.
        """
        least = max(room // _MOST_SIBLINGS, _SHARE_CHARS)
        first: list[tuple[Any, int]] = []
        last: list[tuple[Any, int]] = []
        spent = 0
        while len(first) + len(last) < count:
            from_back = back is not None and len(last) <= len(first)
            try:
                item = next(back if from_back and back is not None else front)
            except StopIteration:
                break
            self.visited += 1
            size = max(estimate(item), _ITEM_CHARS)
            spent += min(size, least)
            if (spent > room or self.visited > self._most_visits) and (first or last):
                break
            (last if from_back else first).append((item, size))
        return first, last

    def _shared(self, sizes: list[int], room: int, make: Callable[[int, int], Any]) -> list[Any]:
        """``make(index, share)`` for each size; short ones first, so that long ones get more."""
        out: list[Any] = [None] * len(sizes)
        left = room
        # Ascending, so that room which short values leave goes to the long ones.
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        for done, index in enumerate(order):
            before = self.used
            out[index] = make(index, left // (len(sizes) - done))
            left = max(0, left - (self.used - before))
        return out

    def _key(self, key: Any) -> str:
        """A key, shortened like a value. Its length is counted with the value."""
        if type(key) is not str:
            return str(key) if _is_small_number(key) and type(key) is int else label(key, KEY_CHARS)
        before = self.used
        text = self.text(key, KEY_CHARS)
        self.used = before
        return text

    # --- objects ---

    def fields(self, names: Iterable[str], value: Any, room: int, depth: int) -> dict[str, Any]:
        """The named fields of an object."""
        pairs = [(name, field_of(value, name)) for name in names]
        return self.mapping(len(pairs), iter(pairs), reversed(pairs), room, depth)

    def label(self, value: object, most: int) -> str:
        """As the function ``label``, counted in ``characters``."""
        text = label(value, most)
        self.characters += len(text)
        return text


def number_of(value: object) -> float | None:
    """The float of a number (Python's, numpy's, ``Decimal``); None for anything else.

    Also None for a number beyond the range of floats.
    """
    kind = type(value)
    if kind is bool or not is_number(kind):
        return None
    try:
        if issubclass(kind, decimal.Decimal):
            return decimal.Decimal.__float__(value)  # type: ignore[arg-type]  # it is one
        plain = ValueReader().plain(value, LEAST_CHARS)
        return float(plain) if type(plain) is int or type(plain) is float else None
    except (OverflowError, ValueError):
        return None


def nanos_of(value: object) -> int | None:
    """Nano-dollars of an amount in US dollars; None for what is not an amount."""
    if issubclass(type(value), str):
        amount: Any = label(value, _AMOUNT_CHARS)
    else:
        amount = value if type(value) is decimal.Decimal else number_of(value)
    try:
        return None if amount is None else nanos_from_usd(amount)
    except ValueError:
        return None


def items_of(value: object) -> Iterator[Any] | None:
    """An iterator over a list, tuple, set, deque or built-in iterator; None for anything else.

    A subclass is iterated over as its built-in base, so that none of its code runs.
    """
    kind = type(value)
    for base in (list, tuple, set, frozenset, deque):
        if issubclass(kind, base):
            own: Any = base
            return own.__iter__(value)  # type: ignore[no-any-return]
    is_text = issubclass(kind, str | bytes | bytearray | dict)
    built_in: Any = value
    return (
        iter(built_in)
        if module_of(kind) == "builtins" and not is_text and hasattr(kind, "__iter__")
        else None
    )


def label(value: object, most: int) -> str:
    """A text of at most ``most`` characters for a value that should be a text, such as a name.

    Other values become JSON, objects their type.
    """
    if type(value) is str:
        return value if len(value) <= most else cut_middle(value, most)
    plain = ValueReader().plain(value, most)
    text = plain if type(plain) is str else msgspec.json.encode(plain).decode("utf-8")
    return text if len(text) <= most else cut_middle(text, most)


def _is_small_number(value: Any) -> bool:
    """True for None, bool, float, and an integer that JSON readers take."""
    kind = type(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    return kind is float or kind is bool or value is None


# --- estimated length of values, from their first items ---


def estimate(value: Any) -> int:
    """The estimated characters of a value, from its first items. An object counts as 64."""
    kind = type(value)
    if kind is str:
        return _estimate_text(value)
    if is_scalar(value):
        return 6
    if kind is dict:
        size = sum(
            _estimate_pair(pair, deeper=False) for pair in itertools.islice(value.items(), _SAMPLED)
        )
        return 2 + _scaled(size, len(value))
    if kind is list or kind is tuple:
        return 2 + _scaled(sum(map(_estimate_inside, value[:_SAMPLED])), len(value))
    return 64


def _estimate_pair(pair: tuple[Any, Any], *, deeper: bool = True) -> int:
    key, value = pair
    return (
        4
        + (len(key) if type(key) is str else 8)
        + (estimate(value) if deeper else _estimate_inside(value))
    )


def _estimate_inside(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return _estimate_text(value)
    return 24 * len(value) if kind is dict or kind is list or kind is tuple else 8


def _estimate_text(value: str) -> int:
    length = len(value)
    return LEAST_CHARS if length >= SHORTEST_FILE and is_file(value) else length + 3


def _scaled(size: int, count: int) -> int:
    return size if count <= _SAMPLED else size * count // _SAMPLED
