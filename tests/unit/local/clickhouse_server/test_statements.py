"""The embedded store's SQL tokenizer: one statement, its kind, its data.

Strings and comments are no SQL.
"""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepstream.local.clickhouse_server.errors import ClickHouseError
from stepstream.local.clickhouse_server.guard import Known, check
from stepstream.local.clickhouse_server.lexer import Kind, tokens
from stepstream.local.clickhouse_server.statement import parse

KNOWN = Known(
    frozenset({"file", "url", "numbers", "remote"}), frozenset({"max_threads", "format_schema"})
)


@pytest.mark.parametrize(
    ("sql", "texts"),
    [
        ("a.b 'it''s' \"x\"\"y\" `z\\`q`", ["a", ".", "b", "it's", 'x"y', "z`q"]),
        ("1 -- ;\n+ # ;\n2 #! ;\n- // ;\n3", ["1", "+", "2", "-", "3"]),
        ("1 /* ; /* ; */ ; */ 2", ["1", "2"]),
        ("$tag$ ; ' $tag$ a$b$c $d", [" ; ' ", "a$b$c", "$d"]),
        ("\u2018a;\u2019 \u201cb;\u201d", ["a;", "b;"]),
        (r"'\x2f\n\\'", ["/\n\\"]),
    ],
)
def test_comments_and_quotes_are_clickhouses(sql: str, texts: list[str]) -> None:
    """Comments, strings and names are those of ClickHouse's own tokenizer."""
    assert [token.text for token in tokens(sql)] == texts


@pytest.mark.parametrize(
    "sql", ["'open", "`open", '"open', "/* open", "/* /* */", "\u2018open", "1 \u00e9", "1$a$"]
)
def test_what_never_ends_is_broken(sql: str) -> None:
    """An unfinished string or comment, and a letter that no statement has, are not guessed at."""
    assert list(tokens(sql))[-1].kind is Kind.BROKEN
    with pytest.raises(ClickHouseError, match="Syntax error"):
        parse("SELECT " + sql)


@given(st.text(alphabet="'\"`\\/*-#! $ab1.;()\n\u2018\u2019\u201c\u201d\u00e9", max_size=40))
@example("/**/*/'")
def test_tokens_follow_the_text_in_order(sql: str) -> None:
    """Tokens never overlap or go back; only space and comments lie between them."""
    at = 0
    for token in tokens(sql):
        assert at <= token.start < token.end <= len(sql)
        at = token.end


@given(st.text(max_size=60))
def test_a_quoted_text_comes_back(text: str) -> None:
    """A string written by ClickHouse's rules is read as the same string, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    doubled = text.replace("\\", "\\\\").replace("'", "''")
    for sql in (f"'{escaped}'", f"'{doubled}'"):
        assert [(token.kind, token.text) for token in tokens(sql)] == [(Kind.STRING, text)]


@pytest.mark.parametrize(
    ("sql", "verb", "form", "data"),
    [
        ("insert into t values (1)", "INSERT", "Values", " (1)"),
        ("INSERT INTO t (a, `values`) FORMAT Native\n\x00'", "INSERT", "Native", "\x00'"),
        ("INSERT INTO t FORMAT JSONEachRow {}", "INSERT", "JSONEachRow", "{}"),
        ("INSERT INTO t FORMAT CSV;\n1", "INSERT", "CSV", "1"),
        ("INSERT INTO FUNCTION null('a Int8') VALUES (1)", "INSERT", "Values", " (1)"),
        ("INSERT INTO t SETTINGS a = 'format X' FORMAT TSV 1", "INSERT", "TSV", "1"),
        ("INSERT INTO t SELECT 1 FORMAT Null", "INSERT", "Null", None),
        ("INSERT INTO t", "INSERT", "", None),
        ("WITH 1 AS x INSERT INTO t SELECT x", "INSERT", "", None),
        ("SELECT 1 FORMAT JSON;", "SELECT", "JSON", None),
        ("SELECT 1 FORMAT TSV SETTINGS max_threads = 1", "SELECT", "TSV", None),
        ("SELECT format FROM (SELECT 1 FORMAT X)", "SELECT", "", None),
        ("(SELECT 1)", "(", "", None),
        ("-- x\n show tables", "SHOW", "", None),
    ],
)
def test_a_statement_is_known_by_its_shape(
    sql: str, verb: str, form: str, data: str | None
) -> None:
    """The verb, the format it names, and where its data begin, which need not be SQL at all."""
    found = parse(sql)
    assert (found.verb, found.format) == (verb, form)
    assert (sql[found.data :] if found.data is not None else None) == data


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; SELECT 2",
        "SELECT 1;;SELECT 2",
        "CREATE TABLE t (a Int8); DROP TABLE t",
        "",
        " ; ",
        "HELLO",
    ],
)
def test_one_statement_and_a_known_one(sql: str) -> None:
    """Several statements would all be run by the engine: they are refused, as is what is none."""
    with pytest.raises(ClickHouseError) as caught:
        parse(sql)
    assert (caught.value.code, caught.value.status) == (62, 400)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a Int8) ENGINE = MergeTree ORDER BY a",
        "CREATE TABLE t (a Int8) ENGINE MergeTree() ORDER BY a",
        "CREATE MATERIALIZED VIEW v TO t AS SELECT 1",
        "CREATE TABLE t (engine String COMMENT 'ENGINE = Kafka') "
        "ENGINE = ReplacingMergeTree(v) ORDER BY tuple()",
        "CREATE DATABASE d ENGINE = Atomic",
        "CREATE VIEW v AS SELECT name, engine FROM system.tables",
        "SYSTEM FLUSH LOGS",
        "SELECT engine FROM system.tables WHERE engine = 'Kafka'",
    ],
)
def test_what_the_store_can_hold_passes(sql: str) -> None:
    """The engines of the schema, and words that only look like a clause, are let through."""
    check(parse(sql), {}, KNOWN)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a Int8) ENGINE = Kafka",
        "CREATE TABLE t (a Int8) ENGINE /* MergeTree */ = `kafka`",
        "CREATE TABLE t AS u ENGINE = Kafka",
        "CREATE MATERIALIZED VIEW v ENGINE = Kafka AS SELECT 1",
        "ATTACH TABLE t (a Int8) ENGINE=S3Queue('x')",
        "CREATE DATABASE d ENGINE = MaterializedPostgreSQL('x')",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "SYSTEM SUSPEND FOR 1 SECOND",
        "SELECT 1 INTO /**/ OUTFILE 'x'",
    ],
)
def test_what_would_harm_the_store_does_not(sql: str) -> None:
    """Engines whose tables the store cannot open again, ending the server, writing files: refused
    for everyone.
    """
    with pytest.raises(ClickHouseError) as caught:
        check(parse(sql), {}, KNOWN)
    assert caught.value.code == 48


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT file FROM t", 497),
        ("SELECT * FROM url ('x')", 497),
        ("SELECT * FROM `a/b`", 497),
        ("SET a = 1", 452),
        ("SELECT * FROM {t:Identifier}", 36),
    ],
)
def test_every_statement_is_kept_inside(sql: str, code: int) -> None:
    """What reaches beyond the store is refused before the engine sees it."""
    with pytest.raises(ClickHouseError) as caught:
        check(parse(sql), {"t": "a/b"}, KNOWN)
    assert caught.value.code == code


def test_a_statement_may_be_long() -> None:
    """Columns, strings and functions whose names only resemble the refused ones are let through."""
    for sql in (
        "SELECT url, 'file()', 'a/b', x / y FROM t",
        "SELECT * FROM numbers(3)",
        "SELECT {t:String}",
    ):
        check(parse(sql), {"t": "a/b"}, KNOWN)
