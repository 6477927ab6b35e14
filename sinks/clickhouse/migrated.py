"""The tables, materialized views, columns and indexes that the migrations make, read from their
text.

This is the one source of the columns: row builders, public views and the check of a store's schema
take them from here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.schema import migrations, split

CREATE: Final = re.compile(r"CREATE (TABLE|MATERIALIZED VIEW) IF NOT EXISTS \w+\.(\w+)")
_ALTER: Final = re.compile(r"ALTER TABLE \w+\.(\w+)")
_TARGET: Final = re.compile(r"\bTO \w+\.(\w+) AS\b")
_SOURCE: Final = re.compile(r"\bFROM \w+\.(\w+)")
_BODY: Final = re.compile(r"^\($(.*?)^\)$", re.DOTALL | re.MULTILINE)
_INDEX: Final = re.compile(r"\bINDEX (?:IF NOT EXISTS )?(\w+) (.+?),?$", re.MULTILINE)
_ADDED: Final = re.compile(r"\bADD COLUMN IF NOT EXISTS (\S.*?),?$", re.MULTILINE)
_DROPPED: Final = re.compile(r"\bDROP (?:COLUMN|INDEX) (?:IF EXISTS )?`?(\w+)`?")
_COLUMN: Final = re.compile(r"`?(\w+)`?\s+(\w+)")
_QUERY: Final = re.compile(r"\bMODIFY QUERY\b\s*")

ARRIVAL: Final = ("append_time", "kafka_topic_id", "kafka_partition", "kafka_offset")
"""The columns of where a row came from, in every table that the sink fills."""

INTERNAL: Final = frozenset({"ver", "is_deleted"})
"""Columns that no view shows: they decide between rows of the same key."""

_TABLE: Final = re.compile(r"(?:CREATE TABLE IF NOT EXISTS|ALTER TABLE) \$\{database\}\.(\w+)")
_RETENTION: Final = re.compile(r"\$\{(\w+)_retention_days\}")
_GENERATED: Final = re.compile(r"\b(?:DEFAULT|MATERIALIZED|ALIAS)\b")
_PLACE: Final = re.compile(r"\s+AFTER `?(\w+)`?$")


@dataclass
class Made:
    """A table or materialized view as all migrations together make it."""

    name: str
    is_view: bool
    statements: list[str] = field(default_factory=list)
    """The statements that make and change it, in order."""
    columns: dict[str, str] = field(default_factory=dict)
    """Of a table: the definition of each column, in order."""
    indexes: dict[str, str] = field(default_factory=dict)
    reads: str = ""
    """Of a materialized view: the table that it reads."""
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
        return [head[: target_of(head).end()] + "\n" + _QUERY.split(queries[-1], maxsplit=1)[1]]


def everything(settings: Settings, applied: Container[int] | None = None) -> dict[str, Made]:
    """All tables and materialized views by name, tables first, since views are made from them.

    With ``applied`` only what these migrations make.
    """
    known = [
        migration for migration in migrations() if applied is None or migration.version in applied
    ]
    found = _read(statement for migration in known for statement in migration.statements(settings))
    return dict(sorted(found.items(), key=lambda item: item[1].is_view))


def _read(statements: Iterable[str]) -> dict[str, Made]:
    found: dict[str, Made] = {}
    for statement in statements:
        if create := CREATE.match(statement):
            one = found[create[2]] = Made(create[2], create[1] != "TABLE", [statement])
            if one.is_view:
                one.fills = target_of(statement)[1]
                one.reads = (_SOURCE.search(statement) or [""] * 2)[1]
            else:
                _read_body(one, statement)
        elif (alter := _ALTER.match(statement)) and alter[1] in found:
            one = found[alter[1]]
            one.statements.append(statement)
            for definition in _ADDED.findall(statement):
                _add(one, definition)
            for name in _DROPPED.findall(statement):
                one.columns.pop(name, None)
                one.indexes.pop(name, None)
    return found


def _add(one: Made, definition: str) -> None:
    """Add a column at the end, or after the one that the definition names."""
    name, place = name_of(definition), _PLACE.search(definition)
    added = {name: _PLACE.sub("", definition)}
    if place is None:
        one.columns |= added
        return
    names = list(one.columns)
    later = names[names.index(place[1]) + 1 :]
    moved = {other: one.columns.pop(other) for other in later}
    one.columns |= {**added, **moved}


def _read_body(one: Made, statement: str) -> None:
    body = _BODY.search(statement)
    for line in (body[1] if body else "").strip().splitlines():
        definition = line.strip().rstrip(",")
        if index := _INDEX.match(definition):
            one.indexes[index[1]] = index[2]
        elif definition:
            one.columns[name_of(definition)] = definition


def target_of(statement: str) -> re.Match[str]:
    found = _TARGET.search(statement)
    if found is None:
        raise ValueError(f"a materialized view without a target: {statement[:100]}")
    return found


def name_of(definition: str) -> str:
    found = _COLUMN.match(definition)
    if found is None:
        raise ValueError(f"not the definition of a column: {definition}")
    return found[1]


def type_of(definition: str) -> str:
    """The type in a column's definition: a word, with its brackets."""
    found = _COLUMN.match(definition)
    if found is None:
        raise ValueError(f"not the definition of a column: {definition}")
    start, at, depth = found.start(2), found.end(2), 0
    while at < len(definition) and (depth or definition[at] == "("):
        depth += {"(": 1, ")": -1}.get(definition[at], 0)
        at += 1
    return definition[start:at]


@lru_cache(maxsize=1)
def retention_kinds() -> dict[str, str]:
    """The kind of data, as settings name it, of each table whose rows expire."""
    kinds = {}
    for migration in migrations():
        for statement in split(migration.sql):
            table, days = _TABLE.match(statement), _RETENTION.search(statement)
            if table and days:
                kinds[table[1]] = days[1]
    return kinds


@lru_cache(maxsize=1)
def _all() -> dict[str, Made]:
    return everything(Settings())


def inserted_columns(table: str) -> dict[str, str]:
    """Name and type of each column that an insert names: all but those that the table computes or
    has a default for.
    """
    return {
        name: type_of(definition)
        for name, definition in _all()[table].columns.items()
        if not _GENERATED.search(definition)
    }


def shown_columns(table: str) -> dict[str, str]:
    """Name and type of each column that a public view shows, those of the arrival last."""
    shown = {
        name: type_of(definition)
        for name, definition in _all()[table].columns.items()
        if name not in INTERNAL and "EPHEMERAL" not in definition
    }
    arrival = {name: shown.pop(name) for name in ARRIVAL if name in shown}
    return shown | arrival


BASE_TABLES: Final = frozenset(everything(Settings()))
"""The names of all tables and materialized views."""
