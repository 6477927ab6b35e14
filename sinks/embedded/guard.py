"""What no statement may do here, and what a reader may not.

The engine's own ``readonly=1`` stops writing and setting changes, but inside chdb it lets through what reads files of
the machine: the function file(), also by name as in arrayMap(file, ...), tables whose name is a path, INTO OUTFILE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from stepstream.sinks.embedded.errors import ACCESS_DENIED, BAD_ARGUMENTS, NOT_IMPLEMENTED, READONLY, error
from stepstream.sinks.embedded.lexer import Kind, Token
from stepstream.sinks.embedded.statement import Statement, nesting

# Everything else either needs other servers, or leaves a directory behind that the engine cannot open again (Kafka).
ENGINES = frozenset(
    f"{kind}mergetree"
    for kind in ("", "replacing", "aggregating", "summing", "collapsing", "versionedcollapsing", "graphite", "coalescing")
) | frozenset(
    [
        "alias",
        "atomic",
        "buffer",
        "dictionary",
        "generaterandom",
        "join",
        "log",
        "materializedview",
        "memory",
        "merge",
        "null",
        "set",
        "stripelog",
        "tinylog",
        "view",
        "file",
        "url",
        "lazy",
    ]
)
SYSTEM_COMMANDS = frozenset(
    ["START", "STOP", "FLUSH", "DROP", "CLEAR", "RELOAD", "WAIT", "REFRESH", "CANCEL", "SYNC", "JEMALLOC"]
)
# Table functions that compute, or read only tables of this store.
SAFE_TABLE_FUNCTIONS = frozenset(
    [
        "numbers",
        "numbers_mt",
        "zeros",
        "zeros_mt",
        "primes",
        "generateseries",
        "generate_series",
        "generaterandom",
        "values",
        "null",
        "view",
        "format",
    ]
)
# Functions that reach files or the network by any way of naming them.
REACHING_FUNCTIONS = frozenset(
    [
        "file",
        "aiclassify",
        "aiembed",
        "aiextract",
        "aifilter",
        "aigenerate",
        "airedact",
        "aisimilarity",
        "aitranslate",
        "catboostevaluate",
    ]
)
_PLAIN_IDENTIFIER = re.compile(r"[A-Za-z0-9_.]*")


def check(statement: Statement) -> None:
    """Refuse, for everyone, what would corrupt the store, end the server, or write files beside it."""
    _refuse_files(statement)
    _refuse_engines(statement)
    if statement.verb == "SYSTEM" and (len(statement.tokens) < 2 or statement.tokens[1].upper not in SYSTEM_COMMANDS):
        raise error(NOT_IMPLEMENTED, f"this embedded server does not do {statement.sql[:60]}: it is ended by its owner")


def _refuse_files(statement: Statement) -> None:
    for token, following in _pairs(statement.tokens):
        if token.upper == "INTO" and following.upper == "OUTFILE":
            raise error(NOT_IMPLEMENTED, "INTO OUTFILE is not allowed over HTTP: save the answer on the client's side")
        if token.upper == "FROM" and following.upper == "INFILE":
            raise error(NOT_IMPLEMENTED, "FROM INFILE is not allowed over HTTP: send the data as the request's body")


def _refuse_engines(statement: Statement) -> None:
    if statement.verb not in ("CREATE", "ATTACH", "REPLACE"):
        return
    for name in _engines(statement.tokens):
        if name.lower() not in ENGINES:
            raise error(
                NOT_IMPLEMENTED,
                f"the embedded server has no engine {name}: it holds MergeTree tables and their kin, views, Memory and Log; "
                f"for others use a ClickHouse server (docker compose up)",
            )


def _engines(found: tuple[Token, ...]) -> Iterator[str]:
    """What ENGINE clauses name: outside of parentheses, and before the query of AS SELECT."""
    depth = 0
    for at, token in enumerate(found):
        depth += nesting(token)
        if depth == 0 and token.upper in ("SELECT", "WITH"):
            return
        if depth == 0 and token.upper == "ENGINE":
            named = next((after for after in found[at + 1 : at + 3] if after.text != "="), token)
            yield named.name


def check_reader(statement: Statement, parameters: Mapping[str, str], table_functions: frozenset[str]) -> None:
    """Refuse what a reader may not do; the statement runs with ``readonly=1`` besides.

    ``table_functions`` are all that the engine has, in lower case: those that are not known to be safe are refused.
    """
    check_reads(statement, "read-only access cannot")
    _refuse_reaching(statement, table_functions - SAFE_TABLE_FUNCTIONS)
    for name in _identifier_parameters(statement):
        if not _PLAIN_IDENTIFIER.fullmatch(parameters.get(name, "")):
            raise error(BAD_ARGUMENTS, f"the parameter {name} must be a plain identifier for read-only access")


def check_reads(statement: Statement, who: str) -> None:
    """Refuse a statement that does more than read; ``who`` begins the sentence."""
    if not statement.reads:
        what = "change settings" if statement.verb == "SET" else f"run {statement.verb}"
        raise error(READONLY, f"{who} {what}: Cannot execute query in readonly mode")


def _refuse_reaching(statement: Statement, refused: frozenset[str]) -> None:
    for token, following in _pairs(statement.tokens):
        name = token.name.lower()
        called = following.text == "(" and following.kind is Kind.MARK
        if name in REACHING_FUNCTIONS or (called and name in refused):
            raise error(ACCESS_DENIED, f"read-only access is to the store alone: {token.text} reaches beyond it")
        if token.kind is Kind.QUOTED and ("/" in token.text or "\\" in token.text):
            raise error(ACCESS_DENIED, f"read-only access has no names with a slash, which may mean files: {token.text[:80]}")


def _identifier_parameters(statement: Statement) -> Iterator[str]:
    """Names of parameters written {name:Identifier}."""
    found = statement.tokens
    for at, token in enumerate(found[:-3]):
        if token.text == "{" and found[at + 2].text == ":" and found[at + 3].name.lower() == "identifier":
            yield found[at + 1].name


def _pairs(found: tuple[Token, ...]) -> Iterator[tuple[Token, Token]]:
    end = Token(Kind.MARK, "", -1, -1)
    yield from zip(found, [*found[1:], end], strict=True)
