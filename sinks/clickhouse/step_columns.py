"""The columns of steps: of ended ones for ``steps_raw``, of starts for ``steps_open``. Pure.

Steps come a few hundred at a time and are let go at once: what stays is what the columns hold.
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
from stepstream.sinks.clickhouse.rows import ARRIVAL_TYPES, Columns, Table, arrivals

_LOW: Final = "LowCardinality(String)"
_TIME: Final = "DateTime64(6, 'UTC')"
_TYPES: Final[dict[str, str]] = {
    "label": _LOW,
    "text": "String",
    "time": _TIME,
    "optional time": f"Nullable({_TIME})",
    "number": "UInt32",
    "size": "Nullable(UInt64)",
    "map": f"Map({_LOW}, String)",
}
# In the order of the step event's fields.
_SHARED: Final = {
    name: _TYPES[field.column] for name, field in FIELDS.items() if field.column and field.in_start
}
_ENDED: Final = {
    name: _TYPES[field.column]
    for name, field in FIELDS.items()
    if field.column and not field.in_start
}
_TOKENS: Final = dict.fromkeys(TOTALLED, "UInt64")
_DETAILS: Final = {"usage_details": f"Map({_LOW}, UInt64)"}
_COSTS: Final = {"cost_nanos": "Nullable(Int64)", "cost_source": _LOW, "price_version": _LOW}
_DOCUMENTS: Final = {
    "documents": "Array(Tuple(id String, score Nullable(Float64), content String))"
}

STEPS: Final = Table(
    "steps_raw",
    {**_SHARED, **_ENDED, **_TOKENS, **_DETAILS, **_COSTS, **_DOCUMENTS, **ARRIVAL_TYPES},
)
OPEN: Final = Table("steps_open", {**_SHARED, **ARRIVAL_TYPES})

_NO_DOCUMENTS: Final[list[Any]] = []
_NO_DETAILS: Final[dict[str, int]] = {}
_totalled: Any = attrgetter(*TOTALLED)


class _Fields:
    """Some fields of structs of one kind, column by column; what has few values is held once for each."""

    def __init__(self, kind: Any, types: Mapping[str, str]) -> None:
        places: tuple[str, ...] = kind.__struct_fields__
        self.columns: dict[str, list[Any]] = {name: [] for name in types}
        self._places = [
            (places.index(name), column, types[name] == _LOW)
            for name, column in self.columns.items()
        ]
        self._known: dict[str, str] = {}

    def add(self, structs: Iterable[Any]) -> None:
        """Add rows; there must be one at least."""
        values = list(
            zip(*map(astuple, structs), strict=True)
        )  # a third of what it takes to ask for field by field
        known = self._known.setdefault
        for place, column, few in self._places:
            column.extend(map(known, values[place], values[place]) if few else values[place])


class EndColumns:
    """Rows of ended steps."""

    def __init__(self, prices: PriceBook) -> None:
        self._prices = prices
        self._offsets: list[int] = []
        self._times_ms: list[int] = []
        self._fields = _Fields(Step, {**_SHARED, **_ENDED})
        self._tokens: dict[str, list[int]] = {name: [] for name in _TOKENS}
        self._nanos: list[int | None] = []
        self._sources: list[str] = []
        self._versions: list[str] = []
        self._details: list[dict[str, int]] = []
        self._documents: list[list[tuple[str, float | None, str]]] = []

    @property
    def rows(self) -> int:
        """How many there are."""
        return len(self._offsets)

    def add(self, ends: Sequence[Accepted], records: Sequence[Record]) -> None:
        """Add steps and the records that they came in."""
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
        """All of them, in the order of the table's."""
        columns: Columns = {**self._fields.columns, **self._tokens}
        columns |= {
            "cost_nanos": self._nanos,
            "cost_source": self._sources,
            "price_version": self._versions,
        }
        columns |= {"usage_details": self._details, "documents": self._documents}
        return columns | arrivals(self._offsets, self._times_ms, source)


def open_columns(steps: Sequence[Step], records: Sequence[Record], source: Source) -> Columns:
    """Rows of steps that have started; there must be one at least."""
    fields = _Fields(Step, _SHARED)
    fields.add(steps)
    offsets, times_ms, *_ = zip(*records, strict=True)
    return {**fields.columns, **arrivals(offsets, times_ms, source)}
