"""What would reach beyond the store, by any way of naming it: files, hosts, programs, other
servers.

Inside chdb the engine knows no such bounds: the function file(), also by name as in arrayMap(file,
...), tables whose name is a path (quoted, or as a string), table functions, formats with schemas.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from stepstream.local.clickhouse_server.errors import (
    ACCESS_DENIED,
    BAD_ARGUMENTS,
    UNKNOWN_FORMAT,
    error,
)
from stepstream.local.clickhouse_server.lexer import Kind, Token, tokens
from stepstream.local.clickhouse_server.statement import Statement

SAFE_TABLE_FUNCTIONS: Final = frozenset(
    {
        "format",
        "generate_series",
        "generaterandom",
        "generateseries",
        "input",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)
"""Table functions that compute, or read only tables of this store."""

_REACHING: Final = re.compile(
    r"file|ai(?:classify|embed|extract|filter|generate|redact|similarity|translate)|catboost\w*|dict(?:get|has|is)\w*|"
    r"hascolumnintable|naivebayes\w*|showcertificate"
)
"""Functions that reach files, hosts or dictionaries, which may have a source elsewhere.

``hasColumnInTable`` takes the name of a table as a string, and opens files by it.
"""

_FORMATS: Final = re.compile(
    r"arrow|arrowstream|avro|bsoneachrow|csv\w*|customseparated\w*|geojson|hash|json\w*|lineasstring\w*|markdown|md|msgpack|"
    r"native|ndjson|npy|null|one|orc|parquet|parquetmetadata|pretty\w*|prometheus|raw\w*|rowbinary\w*|sqlinsert|tabseparated\w*|"
    r"tskv|tsv\w*|values|vertical|xml"
)
"""Formats without schema files, templates or servers of their own."""

_PLAIN_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_.]+")
_TABLE_FOLLOWS: Final = frozenset(
    {"AND", "AS", "CLONE", "CREATE", "DATABASE", "DESC", "DESCRIBE", "EXCHANGE", "EXISTS", "FINAL",
    "FROM", "INTO", "JOIN",
     "OF", "TABLE", "TABLES", "TO", "TRUNCATE", "UPDATE", "USE", "VIEW"}
)  # fmt: skip
_FROM_ENDS: Final = frozenset(
    {"ARRAY", "EXCEPT", "FORMAT", "GROUP", "HAVING", "INTERSECT", "LIMIT", "OFFSET", "ON", "ORDER",
    "PREWHERE", "QUALIFY",
     "SAMPLE", "SELECT", "SET", "SETTINGS", "UNION", "USING", "VALUES", "WHERE", "WINDOW", "WITH"}
)  # fmt: skip


def is_reaching(name: str) -> bool:
    """Whether a function of that name, in lower case, reaches beyond the store."""
    return _REACHING.fullmatch(name) is not None


def check_reach(
    statement: Statement,
    parameters: Mapping[str, str],
    refused: frozenset[str],
    foreign: frozenset[str],
) -> None:
    """Refuse a statement that reaches beyond the store.

    ``refused`` are the engine's table functions that are not safe, in lower case; ``foreign`` the
    names of tables that an earlier release allowed and that read from elsewhere.
    """
    _check_names(statement.tokens, refused, foreign)
    _check_strings(statement.tokens)
    check_format(statement.format)
    for name in _identifier_parameters(statement):
        # Not one that a session remembers: it could not be checked here.
        value = parameters.get(name, "")
        if not _PLAIN_IDENTIFIER.fullmatch(value):
            raise error(
                BAD_ARGUMENTS,
                f"the parameter {name[:80]} must be given with this request, as a plain identifier",
            )
        if any(is_reaching(part.lower()) or part in foreign for part in value.split(".")):
            raise error(
                ACCESS_DENIED,
                f"statements are about this store alone: {value[:80]} reaches beyond it",
            )


def check_format(name: str) -> None:
    """Refuse a format that works with files or servers of its own."""
    if name and not _FORMATS.fullmatch(name.lower()):
        raise error(
            UNKNOWN_FORMAT,
            f"Unknown format {name[:80]}: formats with schemas or templates are not available here",
        )


def _check_names(
    found: tuple[Token, ...], refused: frozenset[str], foreign: frozenset[str]
) -> None:
    for at, token in enumerate(found):
        name = token.name.lower()
        if not name:
            continue
        following = found[at + 1] if at + 1 < len(found) else None
        called = following is not None and following.text == "(" and following.kind is Kind.MARK
        if is_reaching(name) or (called and name in refused) or token.name in foreign:
            raise error(
                ACCESS_DENIED,
                f"statements are about this store alone: {token.text[:80]} reaches beyond it",
            )
        if token.kind is Kind.QUOTED and _is_path(token.text):
            raise error(
                ACCESS_DENIED,
                f"names with a slash are refused, they may mean files: {token.text[:80]}",
            )
        if called and name in ("format", "formatrow", "formatrownonewline"):
            check_first = found[at + 2] if at + 2 < len(found) else None
            if (
                check_first is not None
                and check_first.kind in (Kind.STRING, Kind.WORD)
                and _is_schema_format(check_first.text)
            ):
                check_format(check_first.text)


def _is_schema_format(name: str) -> bool:
    return re.match(r"protobuf|capnproto|template|avroconfluent", name, re.IGNORECASE) is not None


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text


class _Level:
    """What is known within one pair of parentheses."""

    def __init__(self, tables: bool, call: bool) -> None:
        self.tables = tables
        """Whether tables are listed here: after FROM, until the next clause."""
        self.expression = call
        """Whether these are the arguments of a function, in which FROM is no clause: trim(BOTH 'x'
        FROM y)."""
        self.fresh = True


def _check_strings(found: tuple[Token, ...]) -> None:
    """A string where a table stands is a name of one: FROM '/a/file'."""
    levels = [_Level(False, False)]
    before: Token | None = None
    for token in found:
        level = levels[-1]
        if (
            token.kind is Kind.STRING
            and _is_path(token.text)
            and before is not None
            and _names_table(level, before)
        ):
            raise error(
                ACCESS_DENIED,
                f"names with a slash are refused, they may mean files: {token.text[:80]}",
            )
        if level.fresh and token.upper in ("SELECT", "WITH", "FROM"):
            level.expression = False
        level.fresh = False
        if token.kind is Kind.MARK and token.text == "(":
            levels.append(
                _Level(
                    level.tables,
                    bool(before is not None and before.name and before.upper not in _TABLE_FOLLOWS),
                )
            )
        elif token.kind is Kind.MARK and token.text == ")" and len(levels) > 1:
            levels.pop()
        elif token.upper in ("FROM", "JOIN"):
            level.tables = True
        elif token.upper in _FROM_ENDS:
            level.tables = False
        before = token


def _names_table(level: _Level, before: Token) -> bool:
    if level.expression:
        return False
    if before.upper in _TABLE_FOLLOWS:
        # BETWEEN '/a' AND '/b'; EXCHANGE TABLES a AND b.
        return before.upper != "AND" or level.tables
    return before.kind is Kind.MARK and (
        before.text == "." or (level.tables and before.text in ",(")
    )


def _identifier_parameters(statement: Statement) -> Iterator[str]:
    """Names of parameters written {name:Identifier}."""
    found = statement.tokens
    for at, token in enumerate(found[:-3]):
        if (
            token.text == "{"
            and found[at + 2].text == ":"
            and found[at + 3].name.lower() == "identifier"
        ):
            yield found[at + 1].name


_BEYOND_NAMES: Final = re.compile(r"[/\\\\*?{}\[\]\x00-\x1f\x7f]")
"""In a string: what a name of a table of this store has not, and paths, patterns of paths and
escapes have."""


def with_marked_strings(statement: Statement) -> tuple[str, tuple[str, ...]]:
    """The statement with a mark in place of each string that could be a file, and the marks.

    The engine accepts a string as a table in more places than rules about words can describe (after
    aliases and tables named like keywords, after conditions of joins), so its own parser is asked:
    see ``check_no_string_is_a_table``.
    """
    if not any(token.upper in ("FROM", "JOIN", "DESC", "DESCRIBE") for token in statement.tokens):
        return statement.sql, ()
    start = 0 if statement.data is not None else statement.tokens[0].start
    pieces: list[str] = []
    marks: list[str] = []
    at = start
    for before, token in pairwise(statement.tokens):
        may_be = before.upper in _TABLE_FOLLOWS or (
            before.kind is Kind.MARK and before.text in ",("
        )
        if (
            token.kind is Kind.STRING
            and may_be
            and _BEYOND_NAMES.search(statement.sql, token.start - start, token.end - start)
        ):
            marks.append(f"string_{len(marks)}_that_is_no_table")
            pieces += [statement.sql[at - start : token.start - start], f"'{marks[-1]}'"]
            at = token.end
    return "".join([*pieces, statement.sql[at - start :]]), tuple(marks)


def check_no_string_is_a_table(syntax_tree: str, marks: tuple[str, ...]) -> None:
    """Refuse a statement in whose syntax tree (EXPLAIN AST) one of the marked strings is a
    table."""
    tables = set(re.findall(r"^ *TableIdentifier (\w+)", syntax_tree, re.MULTILINE))
    # SHOW hides what it asks.
    if tables.intersection(marks) or any(mark not in syntax_tree for mark in marks):
        raise error(
            ACCESS_DENIED,
            "strings with a slash or a pattern are refused as names of tables, they may mean files",
        )


_EVALUATED: Final = re.compile(
    rb"[`\"]|\xe2\x80\x9c|(?i:file|ai[a-z]|catboost|dict|from|select|view)"
)
"""In data of the format Values, which may hold expressions: what an expression that reaches further
cannot do without."""
INSPECTED_BYTES: Final = 1 << 20
"""Data of the format Values up to this size may hold expressions."""


def may_evaluate(data: bytes, refused: frozenset[str]) -> bool:
    """Whether the engine may evaluate expressions in these data of the format Values.

    Not where they are larger than ``INSPECTED_BYTES``. Raises for expressions that reach beyond the
    store.
    """
    if len(data) > INSPECTED_BYTES:
        return False
    if not _EVALUATED.search(data):
        return True
    found = tuple(tokens(data.decode("utf-8", "surrogateescape")))
    _check_names(found, refused, frozenset())
    _check_strings(found)
    if any(token.upper in ("SELECT", "FROM") for token in found):
        return False  # a query among data: which of its strings are tables cannot be decided here
    return not any(token.kind is Kind.BROKEN for token in found)
