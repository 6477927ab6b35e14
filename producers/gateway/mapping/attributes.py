"""One pass over a span's attributes: what fills a field, what belongs to a flattened list, and the
rest.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import msgspec

from stepstream.producers.gateway.mapping.contents import MAX_INDEX, Flat
from stepstream.producers.gateway.mapping.names import (
    ALSO_KEPT,
    COUNT,
    DROPPED,
    GENERAL,
    GROUPS,
    SLOTS,
    Field,
)
from stepstream.producers.gateway.mapping.texts import LONGEST_NOTHING, NOTHING, is_nothing
from stepstream.schemas.model_names import provider_id

MAX_KEYS: Final = 50_000
MAX_KEY_CHARS: Final = 128
"""Attribute names whose place is remembered, and their length."""
_REMEMBERED_CHARS: Final = 64

_REST: Final = -1
_DROP: Final = -2
_FLAT: Final = -3

Place = tuple[int, int, str, str]
"""Field or one of the three above; rank or index; group; path within the group's item."""

_NO_RANK: Final = 1 << 30
_PROVIDER: Final = int(Field.PROVIDER)
# MLflow writes every attribute as JSON, so that a text has quotes.
_QUOTED: Final = frozenset(
    f"mlflow.{name}" for name in ["llm.model", "llm.provider", "trace.session", "trace.user"]
)
_FIXED: Final[dict[str, Place]] = {
    **{
        name: (
            slot.field,
            slot.rank,
            "kept" if name in ALSO_KEPT else "json" if name in _QUOTED else "",
            "",
        )
        for name, slot in SLOTS.items()
    },
    **dict.fromkeys(DROPPED, (_DROP, 0, "", "")),
}
# Copied for each span: a copy takes half the time of ``[None] * COUNT``.
_NO_VALUES: Final[list[Any]] = [None] * COUNT
_NO_RANKS: Final = [_NO_RANK] * COUNT
_NO_NAMES: Final = [""] * COUNT
_IS_KNOWN: Final = tuple(Field(index) not in GENERAL for index in range(COUNT))


class Read(msgspec.Struct, gc=False):
    """A span's attributes, assigned to fields."""

    values: list[Any]
    """By ``Field``: the value of the attribute with the lowest rank; None where no attribute of
    the field has a value.
    """
    names: list[str]
    """By ``Field``: the name of that attribute."""
    rest: dict[str, Any]
    flat: dict[str, Flat]
    known: bool
    """Whether an attribute shows that the span belongs to an agent."""


_remembered_provider = lru_cache(maxsize=4_096)(provider_id)


def provider_of(named: str) -> str:
    """``provider_id``, remembered for names that are not too long to be remembered."""
    # Two regular expressions a call: 3 us, in each of which a span names its provider twice.
    return _remembered_provider(named) if len(named) <= _REMEMBERED_CHARS else provider_id(named)


def _place_of(name: str) -> Place:
    """Where an attribute that fills no field belongs."""
    for start, group in GROUPS:
        if name.startswith(start):
            index, dot, path = name[len(start) :].partition(".")
            if not dot or not path or not index.isascii() or not index.isdigit():
                break
            if len(index) > 5 or int(index) >= MAX_INDEX:
                return (_DROP, 0, "", "")
            return (_FLAT, int(index), group, path)
    return (_REST, 0, "", "")


class AttributeReader:
    """Sorts attributes out; remembers where each name belongs, within a bound."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = dict(_FIXED)

    # A function of its own for a branch would cost a call for each attribute of each span.
    def read(self, attributes: dict[str, Any]) -> Read:  # noqa: C901, PLR0912
        """Sort out the attributes of one span."""
        values: list[Any] = _NO_VALUES.copy()
        ranks = _NO_RANKS.copy()
        names = _NO_NAMES.copy()
        rest: dict[str, Any] = {}
        flat: dict[str, Flat] = {}
        known = False
        places = self._places
        for name, value in attributes.items():
            place = places.get(name) or self._learn(name)
            field = place[0]
            if field >= 0:
                if place[1] >= ranks[field]:
                    continue
                if value.__class__ is str:
                    if len(value) <= LONGEST_NOTHING and value in NOTHING:
                        continue
                elif is_nothing(value):
                    continue
                if field == _PROVIDER and not provider_of(str(value).strip('"')):
                    continue  # the name of a framework
                ranks[field], values[field], names[field] = place[1], value, name
                if place[2] == "json":
                    values[field] = str(value).strip('"')
                elif place[2]:
                    rest[name] = value
                if not known:
                    known = _IS_KNOWN[field]
            elif field == _REST:
                if value is not None and value != "":
                    rest[name] = value
            elif field == _FLAT:
                known = True
                flat.setdefault(place[2], {}).setdefault(place[1], {})[place[3]] = value
        return Read(values, names, rest, flat, known)

    def _learn(self, name: str) -> Place:
        place = _place_of(name)
        # A name may have megabytes, and is kept for as long as the process runs.
        if len(name) <= MAX_KEY_CHARS:
            if len(self._places) > MAX_KEYS:
                self._places = dict(_FIXED)
            self._places[name] = place
        return place
