"""The exceptions that decoders raise for a body that is not taken at all."""

from __future__ import annotations

import re
from typing import Final

MAX_ITEMS: Final = 100_000
"""Items of one request. A body of 64 MiB could hold two million, each of which becomes a record."""
MAX_CONTAINERS: Final = 2_000_000
"""Objects and arrays in one JSON body: each takes up to 230 bytes of memory, also an empty one."""
MAX_VALUES: Final = 5_000_000
"""Values in one JSON body, texts and numbers too: each takes up to 70 bytes of memory, and a body
of 64 MiB could hold 13 million.
"""
SMALL_BYTES: Final = 1 << 20
"""A body of at most this size needs no check: decoded, it has at most a hundred times its size."""


_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class Malformed(ValueError):
    """The body is not a valid request; the message has the reason where it is known."""


class TooMany(Exception):
    """A request has more items than one may have; ``str`` is the reason."""

    def __init__(self, what: str = "") -> None:
        super().__init__(
            f"the request has more than {what or f'{MAX_ITEMS:,} items'}: send smaller ones"
        )


class Groups:
    """Counts the groups of a request's items, resources and scopes, of which each takes time even
    where it is empty.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def add(self) -> None:
        """Count one. Raises ``TooMany``."""
        self._left -= 1
        if self._left < 0:
            raise TooMany(f"{MAX_ITEMS:,} resources and scopes")


def check_json(body: bytes) -> None:
    """Raise ``TooMany`` for a body whose decoded form would take gigabytes."""
    if len(body) <= SMALL_BYTES:
        return
    if body.count(b"{") + body.count(b"[") > MAX_CONTAINERS:
        raise TooMany(f"{MAX_CONTAINERS:,} objects and arrays")
    if has_more_values(body, MAX_VALUES):
        raise TooMany(f"{MAX_VALUES:,} values")


def has_more_values(body: bytes, most: int) -> bool:
    """Whether a JSON body has more than ``most`` values, counted by the commas between them."""
    # The second count leaves out the commas in texts. It takes 0.1 to 1.5 s for 64 MiB, the first
    # one 0.02 s, which is enough for nearly all bodies.
    return body.count(b",") > most and _STRING.sub(b"", body).count(b",") > most
