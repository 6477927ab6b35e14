"""Compares a store with what the migrations make: tables, materialized views, columns, types,
indexes.

That a migration is recorded as applied does not mean that what it made is still there unchanged,
so the comparison is with the store's system tables. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.migrated import CREATE, Made, everything, target_of, type_of

_ARGUMENTS: Final = re.compile(r"\([^()]*\)")


class Column(NamedTuple):
    """A column of the store."""

    table: str
    name: str
    type: str


@dataclass(frozen=True)
class Lack:
    """Something that the migrations make and the store does not have, and the statements that make
    it.
    """

    what: str
    statements: tuple[str, ...]
    note: str = ""
    """What the statements cannot bring back."""

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Findings:
    """``lacks`` can be made again. ``wrong`` differs, and changing it could lose data."""

    lacks: tuple[Lack, ...] = ()
    wrong: tuple[str, ...] = ()


def compare(
    settings: Settings,
    applied: Container[int],
    engines: Mapping[str, str],
    columns: Iterable[Column],
    indexes: Iterable[tuple[str, str]],
) -> Findings:
    """What a store lacks of the ``applied`` migrations.

    ``engines`` by table, ``columns`` and ``indexes`` (table, name) as its system tables list them.
    """
    types: dict[str, dict[str, str]] = {}
    for column in columns:
        types.setdefault(column.table, {})[column.name] = column.type
    present = set(indexes)
    lacks: list[Lack] = []
    wrong: list[str] = []
    made = everything(settings, applied)
    absent = {name for name in made if name not in engines}
    for one in made.values():
        if one.name in absent:
            lacks.append(_absent(one, made))
        elif not _is_kind(engines[one.name], one.is_view):
            wanted = "a materialized view" if one.is_view else "a table"
            wrong.append(
                f"{one.name} is a {engines[one.name]} and should be {wanted}: rename or drop it"
            )
        elif not one.is_view:
            found = types.get(one.name, {})
            lacks += _columns(one, found)
            lacks += _indexes(one, {index for table, index in present if table == one.name})
            wrong += _types(one, found)
    return Findings(tuple(lacks), tuple(wrong))


def _is_kind(engine: str, is_view: bool) -> bool:
    return engine == "MaterializedView" if is_view else engine.endswith("MergeTree")


def _absent(one: Made, made: Mapping[str, Made]) -> Lack:
    kind = "materialized view" if one.is_view else "table"
    if not one.is_view:
        filled_by = [view for view in made.values() if view.fills == one.name]
        refill = tuple(sql for view in filled_by if (sql := _refill(view)))
        note = (
            ""
            if refill
            else "its rows are lost; a backup may have them (`stepstream store restore`)"
        )
        if filled_by and not refill:
            note = "`stepstream store reconcile` fills it again from the steps"
        return Lack(f"{kind} {one.name} is missing", (*one.create(), *refill), note)
    refill_view = _refill(one)
    note = "" if refill_view else "`stepstream store reconcile` adds what was inserted meanwhile"
    return Lack(
        f"{kind} {one.name} is missing",
        (*one.create(), *((refill_view,) if refill_view else ())),
        note,
    )


def _refill(view: Made) -> str:
    """A statement that copies what the view would have copied; empty for views that add up rows.

    Copied rows that exist already count once, added-up ones would count twice.
    """
    query = view.create()[0][target_of(view.create()[0]).end() :].strip()
    if "GROUP BY" in query:
        return ""
    return f"INSERT INTO {_full_name(view.create()[0], view.fills)}{_listed(query)} {query}"


def _listed(query: str) -> str:
    """The column list for an INSERT, of a plain SELECT: aliases, and columns without one."""
    listed = re.match(r"SELECT\s+(.*?)\s+FROM\b", query, re.DOTALL)
    if listed is None or "*" in listed[1]:
        return ""
    items = listed[1]
    # Arguments go first: the commas that are left are those between columns.
    while (shorter := _ARGUMENTS.sub("", items)) != items:
        items = shorter
    names = (re.split(r"[\s.]", item.strip())[-1] for item in items.split(","))
    return f" ({', '.join(names)})"


def _full_name(statement: str, table: str) -> str:
    database = re.search(r"IF NOT EXISTS (\w+)\.", statement)
    return f"{database[1]}.{table}" if database else table


def _columns(one: Made, found: Mapping[str, str]) -> Iterator[Lack]:
    before = ""
    for name, definition in one.columns.items():
        if name not in found:
            place = f" AFTER {before}" if before else " FIRST"
            add = f"ALTER TABLE {_altered(one)} ADD COLUMN IF NOT EXISTS {definition}{place}"
            later = [s for s in one.statements if re.search(rf"\bMODIFY COLUMN {name}\b", s)]
            yield Lack(
                f"column {name} of {one.name} is missing",
                (add, *later),
                "existing rows have its default",
            )
        before = f"`{name}`"


def _indexes(one: Made, found: set[str]) -> Iterator[Lack]:
    for name, definition in one.indexes.items():
        if name not in found:
            table = _altered(one)
            add = f"ALTER TABLE {table} ADD INDEX IF NOT EXISTS {name} {definition}"
            yield Lack(
                f"index {name} of {one.name} is missing",
                (add, f"ALTER TABLE {table} MATERIALIZE INDEX {name}"),
            )


def _types(one: Made, found: Mapping[str, str]) -> Iterator[str]:
    for name, definition in one.columns.items():
        wanted = type_of(definition)
        if name in found and _squeezed(found[name]) != _squeezed(wanted):
            yield (
                f"column {name} of {one.name} is {found[name]} and should be {wanted}: "
                "change it with ALTER TABLE"
            )


def _altered(one: Made) -> str:
    """The table as ALTER names it, with its cluster."""
    head = one.statements[0]
    found = CREATE.match(head)
    cluster = re.match(r" ON CLUSTER '[^']*'", head[found.end() :] if found else "")
    return _full_name(head, one.name) + (cluster[0] if cluster else "")


def _squeezed(type_name: str) -> str:
    return "".join(type_name.split())
