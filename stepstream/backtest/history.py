"""Recorded runs as the step events that they were made of, in the order of their times.

The store has one row for each ended step. Its start event is made again from the row: at the time
of the start and with the fields that producers know by then.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import msgspec

from stepstream.schemas.step import FIELDS
from stepstream.schemas.times import us_of
from stepstream.schemas.usage import DETAILS, TOTALLED

Row = Mapping[str, Any]

STEP_TIMES: Final = ("start_time", "end_time", "first_token_time")
# Written by ``start_event`` and ``end_event`` themselves: one phase has them, or another form.
_APART: Final = frozenset({"schema_version", "phase", "usage", "cost_usd", *STEP_TIMES})
_IN_END: Final = tuple(name for name in FIELDS if name not in _APART)
_IN_START: Final = tuple(name for name in _IN_END if FIELDS[name].in_start)

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Event:
    """A step event: when it happened, its run, and the value of its record."""

    at_us: int
    trace_id: str
    value: bytes


def in_order(rows: Iterable[Row]) -> Iterator[Event]:
    """The events of steps, in the order of their times.

    ``rows`` are rows of the views ``steps`` and ``open_steps``, in the order of ``start_time``; a
    row without ``end_time`` is a step that has not ended. Ends wait in memory until every step that
    started before them was read.
    """
    ends: list[tuple[int, int, Event]] = []
    number = count()
    for row in rows:
        start_us = us_of(row["start_time"])
        while ends and ends[0][0] <= start_us:
            yield heapq.heappop(ends)[2]
        end_us = _end_of(row)
        # A step without duration was reported by its end alone.
        if end_us is None or end_us > start_us:
            yield Event(start_us, row["trace_id"], _encode(start_event(row)))
        if end_us is not None:
            event = Event(end_us, row["trace_id"], _encode(end_event(row)))
            heapq.heappush(ends, (end_us, next(number), event))
    while ends:
        yield heapq.heappop(ends)[2]


def start_event(row: Row) -> dict[str, Any]:
    """The step event of a step's start."""
    found = _fields(row, _IN_START)
    return {**found, "phase": "start", "start_time": us_of(row["start_time"])}


def end_event(row: Row) -> dict[str, Any]:
    """The step event of a step's end. A cost that was priced is given, so that it stays the same
    under other prices."""
    found = _fields(row, _IN_END)
    for name in STEP_TIMES:
        if row.get(name) is not None:
            found[name] = us_of(row[name])
    usage = {name: row[name] for name in TOTALLED if row.get(name)}
    usage |= {name: n for name, n in (row.get("usage_details") or {}).items() if name in DETAILS}
    if usage:
        found["usage"] = usage
    if row.get("cost_usd") is not None:
        found["cost_usd"] = str(row["cost_usd"])
    return {**found, "phase": "end"}


def _fields(row: Row, names: Iterable[str]) -> dict[str, Any]:
    found = {name: value for name in names if (value := row.get(name))}
    if documents := found.get("documents"):
        found["documents"] = [_document(document) for document in documents]
    return found


def _document(document: Any) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        document = dict(zip(("id", "score", "content"), document, strict=False))
    return {name: value for name, value in document.items() if value not in (None, "")}


def _end_of(row: Row) -> int | None:
    if row.get("phase") == "start" or row.get("end_time") is None:
        return None
    return max(us_of(row["end_time"]), us_of(row["start_time"]))
