"""The columns of steps: of ended ones for ``steps_raw``, of starts for ``steps_open``. Pure.

Steps are added a few hundred at a time and dropped at once: only their values stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from msgspec.structs import astuple

from stepstream.schemas.accept import Accepted
from stepstream.schemas.prices import PriceBook
from stepstream.schemas.step import FIELDS, Step
from stepstream.schemas.usage import NO_TOKENS, TOTALLED, details_of
from stepstream.sinks.batching.records import Record, Source
from stepstream.sinks.clickhouse.rows import Columns, arrivals, sink_table

STEPS: Final = sink_table("steps_raw")
OPEN: Final = sink_table("steps_open")

_LOW: Final = "LowCardinality(String)"

# The fields that are stored as they came, with the types of the migrations.
_FIELDS: Final = {name: STEPS.types[name] for name, field in FIELDS.items() if field.column}
_OPEN_FIELDS: Final = {name: kind for name, kind in _FIELDS.items() if name in OPEN.types}

_NO_DOCUMENTS: Final[list[Any]] = []
_NO_DETAILS: Final[dict[str, int]] = {}
_totalled: Any = attrgetter(*TOTALLED)


class _FieldLists:
    """Some fields of structs of one kind, column by column.

    Columns with few values keep one object per value.
    """

    def __init__(self, kind: Any, types: Mapping[str, str]) -> None:
        places: tuple[str, ...] = kind.__struct_fields__
        self.columns: dict[str, list[Any]] = {name: [] for name in types}
        self._places = [
            (places.index(name), column, types[name] == _LOW)
            for name, column in self.columns.items()
        ]
        self._known: dict[str, str] = {}

    def add(self, structs: Iterable[Any]) -> None:
        """Add rows, at least one."""
        # astuple takes a third of the time of reading field by field.
        values = list(zip(*map(astuple, structs), strict=True))
        known = self._known.setdefault
        for place, column, few in self._places:
            column.extend(map(known, values[place], values[place]) if few else values[place])


class EndColumns:
    """Collects the rows of ended steps."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._offsets: list[int] = []
        self._times_ms: list[int] = []
        self._fields = _FieldLists(Step, _FIELDS)
        self._tokens: dict[str, list[int]] = {name: [] for name in TOTALLED}
        self._nanos: list[int | None] = []
        self._sources: list[str] = []
        self._versions: list[str] = []
        self._details: list[dict[str, int]] = []
        self._documents: list[list[tuple[str, float | None, str]]] = []

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._offsets)

    def add(self, ends: Sequence[Accepted], records: Sequence[Record]) -> None:
        """Add steps, and the record of each."""
        if not ends:
            return
        steps = [result.step for result in ends]
        offsets, times_ms, *_ = zip(*records, strict=True)
        self._offsets += offsets
        self._times_ms += times_ms
        self._fields.add(steps)
        usages = [step.usage for step in steps]
        totalled = zip(*(_totalled(usage or NO_TOKENS) for usage in usages), strict=True)
        for column, values in zip(self._tokens.values(), totalled, strict=True):
            column.extend(values)
        self._details += [
            _NO_DETAILS if usage is None else details_of(usage) or _NO_DETAILS for usage in usages
        ]
        self._documents += [
            [(d.id, d.score, d.content) for d in step.documents]
            if step.documents
            else _NO_DOCUMENTS
            for step in steps
        ]
        self._add_costs(ends)

    def _add_costs(self, ends: Sequence[Accepted]) -> None:
        price, nanos, sources, versions = (
            self._prices.cost,
            self._nanos,
            self._sources,
            self._versions,
        )
        for result in ends:
            cost = price(result.step, result.cost_nanos)
            nanos.append(cost.nanos)
            sources.append(cost.source)
            versions.append(cost.price_version)

    def columns(self, source: Source) -> Columns:
        """All columns of the table."""
        columns: Columns = {**self._fields.columns, **self._tokens}
        columns |= {
            "cost_nanos": self._nanos,
            "cost_source": self._sources,
            "price_version": self._versions,
        }
        columns |= {"usage_details": self._details, "documents": self._documents}
        return columns | arrivals(self._offsets, self._times_ms, source)


def open_columns(steps: Sequence[Step], records: Sequence[Record], source: Source) -> Columns:
    """The columns of starts, of which there must be at least one."""
    fields = _FieldLists(Step, _OPEN_FIELDS)
    fields.add(steps)
    offsets, times_ms, *_ = zip(*records, strict=True)
    return {**fields.columns, **arrivals(offsets, times_ms, source)}
