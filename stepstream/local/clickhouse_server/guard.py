"""What no statement may do over HTTP, and what a reader may not do in addition.

No statement may use files, hosts, programs or other servers: no client of the store needs that. The
sink, migrations and backups work within these rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stepstream.local.clickhouse_server.allowed import check_settings
from stepstream.local.clickhouse_server.errors import NOT_IMPLEMENTED, READONLY, error
from stepstream.local.clickhouse_server.lexer import Kind, Token
from stepstream.local.clickhouse_server.reach import SAFE_TABLE_FUNCTIONS, check_reach
from stepstream.local.clickhouse_server.statement import Statement, nesting

# Everything else needs other servers or files, or leaves a directory behind that the engine cannot
# open again (Kafka).
ENGINES: Final = frozenset(
    f"{kind}mergetree"
    for kind in (
        "",
        "replacing",
        "aggregating",
        "summing",
        "collapsing",
        "versionedcollapsing",
        "graphite",
        "coalescing",
    )
) | frozenset(
    {
        "atomic",
        "generaterandom",
        "join",
        "lazy",
        "log",
        "materializedview",
        "memory",
        "null",
        "set",
        "stripelog",
        "tinylog",
        "view",
    }
)
ENGINES_OWN: Final = frozenset({"information_schema", "system"})
"""Databases of the engine itself."""
MAKES: Final = frozenset({"DATABASE", "TABLE", "VIEW"})
SYSTEM_COMMANDS: Final = frozenset(
    {
        ("CANCEL", "VIEW"),
        ("CLEAR", "QUERY"),
        ("DROP", "COMPILED"),
        ("DROP", "MARK"),
        ("DROP", "PRIMARY"),
        ("DROP", "QUERY"),
        ("DROP", "UNCOMPRESSED"),
        ("FLUSH", "LOGS"),
        ("JEMALLOC", "PURGE"),
        ("REFRESH", "VIEW"),
        ("START", "MERGES"),
        ("START", "TTL"),
        ("START", "VIEW"),
        ("START", "VIEWS"),
        ("STOP", "MERGES"),
        ("STOP", "TTL"),
        ("STOP", "VIEW"),
        ("STOP", "VIEWS"),
        ("WAIT", "VIEW"),
    }
)
REFUSED: Final = frozenset(
    {
        "ANALYZE",
        "BEGIN",
        "COMMIT",
        "COPY",
        "EXECUTE",
        "GRANT",
        "MOVE",
        "PARALLEL",
        "REVOKE",
        "ROLLBACK",
        "WATCH",
    }
)
_BACKUP_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


@dataclass(frozen=True)
class Known:
    """What the engine has: table functions, settings that need no value, and tables that read from
    elsewhere."""

    table_functions: frozenset[str] = frozenset()
    settings: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()

    @property
    def refused_functions(self) -> frozenset[str]:
        """Table functions that no statement may call."""
        return self.table_functions - SAFE_TABLE_FUNCTIONS


def check(statement: Statement, parameters: Mapping[str, str], known: Known) -> None:
    """Refuse, for everyone, what would reach beyond the store, corrupt it, or end the server."""
    _check_shape(statement)
    _check_outfile(statement.tokens)
    _check_engines(statement)
    check_settings(statement, known.settings)
    check_reach(
        _without_backup_place(statement), parameters, known.refused_functions, known.foreign
    )


def check_reads(statement: Statement, who: str) -> None:
    """Refuse a statement that does more than read; ``who`` begins the sentence."""
    if not statement.reads:
        what = "change settings" if statement.verb == "SET" else f"run {statement.verb}"
        raise error(READONLY, f"{who} {what}: Cannot execute query in readonly mode")


def _not_here(statement: Statement, why: str) -> Exception:
    return error(NOT_IMPLEMENTED, f"this embedded server does not do {statement.sql[:60]}: {why}")


def _check_shape(statement: Statement) -> None:
    words = [token.upper for token in statement.tokens[:8]] + [""] * 3
    if statement.verb in REFUSED:
        raise _not_here(statement, "users, transactions and programs are not for its clients")
    if any((one.upper, two.upper) == ("PARALLEL", "WITH") for one, two in pairs(statement.tokens)):
        raise _not_here(statement, "one statement at a time")
    if statement.verb in ("CREATE", "REPLACE"):
        kind = next(
            word
            for word in words
            if word not in ("CREATE", "OR", "REPLACE", "TEMPORARY", "MATERIALIZED")
        )
        if kind not in MAKES:
            raise _not_here(statement, "it makes databases, tables and views")
    if statement.verb in ("DETACH", "DROP", "RENAME", "TRUNCATE") and any(
        one.upper == "DATABASE"
        and not {token.name.lower() for token in statement.tokens[at + 1 : at + 4]}.isdisjoint(
            ENGINES_OWN
        )
        for at, one in enumerate(statement.tokens[:4])
    ):
        raise _not_here(statement, "the engine needs its own databases")
    if statement.verb == "ALTER" and "TABLE" not in words[1:3]:
        raise _not_here(statement, "it alters tables")
    if statement.verb == "ATTACH" and (words[1] != "TABLE" or not _is_bare(statement.tokens[2:])):
        raise _not_here(statement, "ATTACH TABLE name is possible")
    if statement.verb == "SYSTEM" and (words[1], words[2]) not in SYSTEM_COMMANDS:
        raise _not_here(statement, "it is configured and ended by its owner")


def _is_bare(found: tuple[Token, ...]) -> bool:
    """Whether these tokens are a table's name and nothing else."""
    return all(token.name or token.text == "." for token in found) and not any(
        token.upper in ("FROM", "AS", "ENGINE", "UUID", "ON") for token in found
    )


def _check_outfile(found: tuple[Token, ...]) -> None:
    for token, following in pairs(found):
        if token.upper == "INTO" and following.upper == "OUTFILE":
            raise error(
                NOT_IMPLEMENTED,
                "INTO OUTFILE is not allowed over HTTP: save the answer on the client's side",
            )
        if token.upper == "FROM" and following.upper == "INFILE":
            raise error(
                NOT_IMPLEMENTED,
                "FROM INFILE is not allowed over HTTP: send the data as the request's body",
            )


def _check_engines(statement: Statement) -> None:
    if statement.verb not in ("CREATE", "ATTACH", "REPLACE"):
        return
    for name in _engines(statement.tokens):
        if name.lower() not in ENGINES:
            raise error(
                NOT_IMPLEMENTED,
                f"the embedded server has no engine {name[:60]}: it holds MergeTree tables and "
                "their kin, views, Memory and "
                f"Log; for others use a ClickHouse server (docker compose up)",
            )


def _engines(found: tuple[Token, ...]) -> Iterator[str]:
    """What ENGINE clauses name: with a sign wherever they stand, without one before the query of AS
    SELECT."""
    depth, in_query = 0, False
    for at, token in enumerate(found):
        depth += nesting(token)
        in_query = in_query or (depth == 0 and token.upper in ("SELECT", "WITH"))
        if token.upper != "ENGINE" or at + 1 == len(found):
            continue
        sign = found[at + 1].text == "=" and found[at + 1].kind is Kind.MARK
        named = found[at + 2] if sign and at + 2 < len(found) else found[at + 1]
        if named.name and ((sign and not in_query) or (depth == 0 and not in_query)):
            yield named.name


def _without_backup_place(statement: Statement) -> Statement:
    """The statement without the places of backups, which are checked here: File('name'), in the
    server's own folder."""
    if statement.verb not in ("BACKUP", "RESTORE"):
        return statement
    kept: list[Token] = []
    found = statement.tokens
    at = 0
    places = 0
    while at < len(found):
        token = found[at]
        before = found[at - 1] if at else token
        if before.upper in ("TO", "FROM") or (
            before.text == "=" and found[at - 2].name.lower() == "base_backup"
        ):
            at = _after_place(statement, at)
            places += 1
            continue
        kept.append(token)
        at += 1
    if not places:
        raise _not_here(statement, "a place is missing: TO File('name')")
    return Statement(statement.verb, statement.sql, tuple(kept), statement.format, statement.data)


def _after_place(statement: Statement, at: int) -> int:
    words = statement.tokens[at : at + 4]
    shape = [token.text.lower() if token.kind is not Kind.STRING else "" for token in words]
    if shape != ["file", "(", "", ")"] or not _BACKUP_NAME.fullmatch(words[2].text):
        raise _not_here(
            statement,
            "backups are File('name'), with a plain name, in the server's own folder of backups",
        )
    return at + 4


def pairs(found: tuple[Token, ...]) -> Iterator[tuple[Token, Token]]:
    """Each token with the one that follows."""
    end = Token(Kind.MARK, "", -1, -1)
    yield from zip(found, [*found[1:], end], strict=True)
