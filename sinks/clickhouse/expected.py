"""What the migrations make, read from their own text, and what of it a store lacks. Pure.

A migration is noted once it was applied, which says nothing about what somebody dropped or changed afterwards. So what is
really there is compared with what the files say: tables, materialized views, columns, types, indexes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.schema import migrations

_CREATE: Final = re.compile(r"CREATE (TABLE|MATERIALIZED VIEW) IF NOT EXISTS \w+\.(\w+)")
_ALTER: Final = re.compile(r"ALTER TABLE \w+\.(\w+)")
_TARGET: Final = re.compile(r"\bTO \w+\.(\w+) AS\b")
_SOURCE: Final = re.compile(r"\bFROM \w+\.(\w+)")
_BODY: Final = re.compile(r"^\($(.*?)^\)$", re.DOTALL | re.MULTILINE)
_INDEX: Final = re.compile(r"\bINDEX (?:IF NOT EXISTS )?(\w+) (.+?),?$", re.MULTILINE)
_ADDED: Final = re.compile(r"\bADD COLUMN IF NOT EXISTS (\S.*?),?$", re.MULTILINE)
_DROPPED: Final = re.compile(r"\bDROP (?:COLUMN|INDEX) (?:IF EXISTS )?`?(\w+)`?")
_COLUMN: Final = re.compile(r"`?(\w+)`?\s+(\w+)")
_QUERY: Final = re.compile(r"\bMODIFY QUERY\b\s*")


@dataclass
class Made:
    """A table or materialized view as all migrations together make it."""

    name: str
    is_view: bool
    statements: list[str] = field(default_factory=list)
    """What makes it and changes it, in order."""
    columns: dict[str, str] = field(default_factory=dict)
    """Of a table: the definition of each column, in order."""
    indexes: dict[str, str] = field(default_factory=dict)
    reads: str = ""
    """Of a materialized view: the table whose rows it takes."""
    fills: str = ""
    """Of a materialized view: the table that it writes to."""

    def create(self) -> list[str]:
        """Statements that make it where it is missing."""
        if not self.is_view:
            return self.statements
        queries = [statement for statement in self.statements if _QUERY.search(statement)]
        if not queries:
            return self.statements
        head = self.statements[0]
        return [head[: _target_of(head).end()] + "\n" + _QUERY.split(queries[-1], maxsplit=1)[1]]


class Column(NamedTuple):
    """A column that is there."""

    table: str
    name: str
    type: str


@dataclass(frozen=True)
class Lack:
    """Something that the migrations make and the store does not have, and what puts it back."""

    what: str
    statements: tuple[str, ...]
    note: str = ""
    """What putting it back cannot bring back."""

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True)
class Findings:
    """``lacks`` can be put back; ``wrong`` is there and is something else, which no program should change by itself."""

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

    ``engines`` by table, ``columns`` and (table, ``indexes``) as its system tables list them.
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


def everything(settings: Settings, applied: Container[int] | None = None) -> dict[str, Made]:
    """All tables and materialized views by name: tables first, so that what reads them can be made after them.

    With ``applied`` only what these migrations make.
    """
    known = [
        migration for migration in migrations() if applied is None or migration.version in applied
    ]
    found = _read(statement for migration in known for statement in migration.statements(settings))
    return dict(sorted(found.items(), key=lambda item: item[1].is_view))


def _is_kind(engine: str, is_view: bool) -> bool:
    return engine == "MaterializedView" if is_view else engine.endswith("MergeTree")


def _read(statements: Iterable[str]) -> dict[str, Made]:
    found: dict[str, Made] = {}
    for statement in statements:
        if create := _CREATE.match(statement):
            one = found[create[2]] = Made(create[2], create[1] != "TABLE", [statement])
            if one.is_view:
                one.fills = _target_of(statement)[1]
                one.reads = (_SOURCE.search(statement) or [""] * 2)[1]
            else:
                _read_body(one, statement)
        elif (alter := _ALTER.match(statement)) and alter[1] in found:
            one = found[alter[1]]
            one.statements.append(statement)
            for definition in _ADDED.findall(statement):
                one.columns[_name_of(definition)] = definition
            for name in _DROPPED.findall(statement):
                one.columns.pop(name, None)
                one.indexes.pop(name, None)
    return found


def _read_body(one: Made, statement: str) -> None:
    body = _BODY.search(statement)
    for line in (body[1] if body else "").strip().splitlines():
        definition = line.strip().rstrip(",")
        if index := _INDEX.match(definition):
            one.indexes[index[1]] = index[2]
        elif definition:
            one.columns[_name_of(definition)] = definition


def _absent(one: Made, made: Mapping[str, Made]) -> Lack:
    kind = "materialized view" if one.is_view else "table"
    if not one.is_view:
        filled_by = [view for view in made.values() if view.fills == one.name]
        refill = tuple(sql for view in filled_by if (sql := _refill(view)))
        note = (
            ""
            if refill
            else "the rows that were in it are gone; a backup has them (`stepstream store restore`)"
        )
        if filled_by and not refill:
            note = "`stepstream store reconcile` fills it again from the steps"
        return Lack(f"{kind} {one.name} is missing", (*one.create(), *refill), note)
    refill_view = _refill(one)
    note = "" if refill_view else "`stepstream store reconcile` adds what came meanwhile"
    return Lack(
        f"{kind} {one.name} is missing",
        (*one.create(), *((refill_view,) if refill_view else ())),
        note,
    )


def _refill(view: Made) -> str:
    """Copies what the view would have copied. Only where rows that come twice count once, not where they are summed up."""
    query = view.create()[0][_target_of(view.create()[0]).end() :].strip()
    if "GROUP BY" in query:
        return ""
    return f"INSERT INTO {_full_name(view.create()[0], view.fills)}{_listed(query)} {query}"


def _listed(query: str) -> str:
    """The columns of a plain SELECT, as an INSERT names them."""
    listed = re.match(r"SELECT\s+(.*?)\s+FROM\b", query, re.DOTALL)
    return f" ({listed[1]})" if listed and "*" not in listed[1] else ""


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
                "rows that are there have its default",
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
        wanted = _type_of(definition)
        if name in found and _squeezed(found[name]) != _squeezed(wanted):
            yield f"column {name} of {one.name} is {found[name]} and should be {wanted}: change it with ALTER TABLE"


def _altered(one: Made) -> str:
    """The table as an ALTER names it, with its cluster."""
    head = one.statements[0]
    found = _CREATE.match(head)
    cluster = re.match(r" ON CLUSTER '[^']*'", head[found.end() :] if found else "")
    return _full_name(head, one.name) + (cluster[0] if cluster else "")


def _target_of(statement: str) -> re.Match[str]:
    found = _TARGET.search(statement)
    if found is None:
        raise ValueError(f"a materialized view without a target: {statement[:100]}")
    return found


def _name_of(definition: str) -> str:
    found = _COLUMN.match(definition)
    if found is None:
        raise ValueError(f"no definition of a column: {definition}")
    return found[1]


def _type_of(definition: str) -> str:
    """The type in a column's definition: a word, with what stands in its brackets."""
    found = _COLUMN.match(definition)
    if found is None:
        raise ValueError(f"no definition of a column: {definition}")
    start, at, depth = found.start(2), found.end(2), 0
    while at < len(definition) and (depth or definition[at] == "("):
        depth += {"(": 1, ")": -1}.get(definition[at], 0)
        at += 1
    return definition[start:at]


def _squeezed(type_name: str) -> str:
    return "".join(type_name.split())


BASE_TABLES: Final = frozenset(everything(Settings()))
"""The names of all tables and materialized views."""
