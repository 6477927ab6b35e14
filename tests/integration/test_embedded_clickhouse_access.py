"""Read-only access to the embedded store: no write, no change of settings, no files or network."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from stepstream.local.clickhouse_server.reach import SAFE_TABLE_FUNCTIONS, is_reaching
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from tests.support.store_login import without_login

SECRET = "the secret of the machine"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A store with tight limits for readers."""
    limits = (
        "--max-execution-time",
        "1",
        "--max-result-rows",
        "100000",
        "--max-memory-usage-mb",
        "100",
    )
    with EmbeddedClickHouse(tmp_path_factory.mktemp("access"), options=limits) as running:
        ask(running, "CREATE TABLE kept (a UInt64) ENGINE = MergeTree ORDER BY a", user="default")
        ask(running, "INSERT INTO kept VALUES (1)", user="default")
        yield running


@pytest.fixture
def secret(store: EmbeddedClickHouse) -> Path:
    """A file that the server can read and no client may: only rules for statements protect it."""
    file = store.data_dir / "secret.csv"
    file.write_text(f"{SECRET}\n")
    return file


def ask(store: EmbeddedClickHouse, sql: str, **parameters: object) -> str:
    """The answer as a text, errors too; as the reader unless another user is given."""
    writes = parameters.pop("user", "reader") == "default"
    plain, login = without_login(store.writer_url if writes else store.reader_url)
    request = urllib.request.Request(f"{plain}/?{urlencode(parameters)}", sql.encode(), login)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.read().decode()


def code(answer: str) -> int:
    """The error's number, 0 for none."""
    return (
        int(answer.removeprefix("Code: ").partition(".")[0]) if answer.startswith("Code: ") else 0
    )


def test_a_reader_reads(store: EmbeddedClickHouse) -> None:
    """What people do to read the store works, with clickhouse-connect too."""
    for sql in (
        "SELECT sum(a) FROM kept",
        "  /* x */ WITH 1 AS x SELECT x + a FROM kept -- y",
        "(SELECT 1) UNION ALL (SELECT a FROM kept)",
        "SHOW TABLES",
        "DESCRIBE kept",
        "EXISTS TABLE kept",
        "EXPLAIN SELECT * FROM kept",
        "SELECT format('{}', 'a'), `a` AS `p50/ p99`, left('file', 2) FROM kept".replace("/", ""),
        "SELECT * FROM numbers(3) AS n JOIN generateSeries(1, 3) AS g "
        "ON n.number = g.generate_series",
    ):
        assert code(ask(store, sql)) == 0, sql
    with clickhouse_connect.get_client(dsn=store.reader_url) as client:
        assert client.query(
            "SELECT a FROM kept WHERE a = {a:UInt64}", parameters={"a": 1}
        ).result_rows == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO kept VALUES (2)",
        "INSERT INTO kept SELECT 2",
        "WITH 1 AS x INSERT INTO kept SELECT x",
        "CREATE TABLE t (a Int8) ENGINE = Memory",
        "CREATE TEMPORARY TABLE t (a Int8)",
        "DROP TABLE kept",
        "TRUNCATE TABLE kept",
        "ALTER TABLE kept DELETE WHERE 1",
        "DELETE FROM kept WHERE 1",
        "UPDATE kept SET a = 2 WHERE 1",
        "OPTIMIZE TABLE kept",
        "RENAME TABLE kept TO other",
        "EXCHANGE TABLES kept AND kept",
        "DETACH TABLE kept",
        "SYSTEM STOP MERGES",
        "KILL QUERY WHERE 1",
        "SET max_threads = 1",
        "SET readonly = 0",
        "USE system",
        "BACKUP TABLE kept TO File('x')",
        "GRANT ALL ON *.* TO reader",
        "SELECT 1 SETTINGS max_threads = 1",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1; DROP TABLE kept",
        "SELECT 1 /* ; */; DROP TABLE kept",
        "/* /* */ SELECT 1; */ DROP TABLE kept",
        "SELECT $a$ ' $a$; DROP TABLE kept --'",
    ],
)
def test_a_reader_changes_nothing(store: EmbeddedClickHouse, sql: str) -> None:
    """Data and settings stay, whatever the statement; with readonly=1 for the writer too."""
    assert code(ask(store, sql)) in (48, 62, 164, 452, 497), sql
    assert code(ask(store, sql, user="default", readonly=1)) in (48, 62, 164, 452, 497), sql
    assert ask(store, "SELECT count(), sum(a) FROM kept") == "1\t1\n"


def test_a_reader_sets_nothing_in_the_url(store: EmbeddedClickHouse) -> None:
    """Settings of a request are refused, except the form of the answer and tighter limits."""
    assert code(ask(store, "SELECT 1", max_threads=1)) == 164
    assert code(ask(store, "INSERT INTO kept VALUES (2)", readonly=0)) == 164
    assert ask(store, "SELECT getSetting('readonly')", readonly=0) == "1\n"
    assert ask(store, "SELECT getSetting('max_execution_time')", max_execution_time=3600) == "1\n"
    assert ask(store, "SELECT getSetting('max_result_rows')", max_result_rows=5) == "5\n"


def test_no_table_function_reaches_out(store: EmbeddedClickHouse) -> None:
    """Table functions are refused unless they only compute; in DESCRIBE and quoted too."""
    names = ask(store, "SELECT name FROM system.table_functions").split()
    # The engine lists all its functions, so that a new one cannot be forgotten in this test.
    assert len(names) > 80
    for name in names:
        if name.lower() in SAFE_TABLE_FUNCTIONS:
            continue
        for sql in (
            f"SELECT * FROM {name}('x', 'y')",
            f"DESCRIBE TABLE `{name.upper()}` /* */ ('x')",
            f"SELECT 1 IN {name}('x')",
        ):
            assert code(ask(store, sql)) == 497, sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT file('{file}')",
        "SELECT `file`('{file}')",
        "SELECT FILE /* */ ('{file}')",
        "SELECT arrayMap(file, ['{file}'])",
        "SELECT * APPLY(file) FROM (SELECT '{file}')",
        "SELECT arrayMap(x -> file(x), ['{file}'])",
        "SELECT * FROM file('{file}')",
        "SELECT * FROM `{file}`",
        'SELECT * FROM "{file}"',
        "SELECT * FROM default.`{file}`",
        "SELECT '{secret}' IN `{file}`",
        "SELECT * FROM \u201c{file}\u201d",
        "SELECT * FROM `{escaped}`",
        "DESCRIBE TABLE `{file}`",
        "SELECT * FROM eval('SELECT file(''{file}'')')",
        "SELECT * FROM view(SELECT * FROM file('{file}'))",
        "SELECT 1 FORMAT Template SETTINGS format_template_row = '{file}'",
        "SELECT 1 INTO OUTFILE '{file}.out'",
        "SELECT 1 INTO/**/OUTFILE '{file}.out' TRUNCATE",
        "SELECT * FROM merge('default', 'csv')",
        "SELECT * FROM url('file://{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM default.'{file}'",
        "SELECT * FROM numbers(1), '{file}'",
        "SELECT * FROM ('{file}')",
        "SELECT * FROM (SELECT * FROM '{file}')",
        "SELECT * FROM numbers(1) AS n CROSS JOIN '{file}' AS f",
        "SELECT * FROM $x${file}$x$",
        "SELECT count() FROM view(SELECT * FROM '{file}')",
        "DESCRIBE '{file}'",
        "DESCRIBE TABLE '{file}'",
        "SHOW CREATE TABLE '{file}'",
        "WITH '{file}' AS f SELECT * FROM f",
    ],
)
def test_no_file_is_reached(store: EmbeddedClickHouse, secret: Path, sql: str) -> None:
    """Not by a function, its bare name, a table that is called like a path, nor by writing one."""
    escaped = "".join(f"\\x{ord(letter):02x}" for letter in str(secret))
    asked = (
        sql.replace("{file}", str(secret)).replace("{escaped}", escaped).replace("{secret}", SECRET)
    )
    for more in ({}, {"user": "default", "readonly": 1}, {"user": "default"}):
        answer = ask(store, asked, **more)
        assert code(answer), answer
        assert SECRET not in answer
    assert not Path(f"{secret}.out").exists()


def test_a_name_in_a_parameter_is_no_path(store: EmbeddedClickHouse, secret: Path) -> None:
    """Where a parameter stands for a table, its value is a plain name."""
    assert code(ask(store, "SELECT * FROM { t : Identifier }", param_t=str(secret))) == 36
    assert ask(store, "SELECT * FROM {t:Identifier}", param_t="kept") == "1\n"


def test_no_function_asks_the_network(store: EmbeddedClickHouse) -> None:
    """The engine's functions that call other services are not for readers; none is forgotten."""
    listed = ask(
        store,
        "SELECT lower(name) FROM system.functions "
        "WHERE match(lower(name), '^ai[a-z]+$|^file$|catboost')",
    )
    assert all(is_reaching(name) for name in listed.split())
    for name in listed.split():
        assert code(ask(store, f"SELECT {name}('x', 'y')")) == 497


def test_a_readers_query_has_limits(store: EmbeddedClickHouse) -> None:
    """Time, rows and memory of one reader's query end somewhere; the writer has no such limits."""
    assert (
        code(ask(store, "SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 1"))
        == 159
    )
    assert code(ask(store, "SELECT number FROM numbers(200000)")) == 396
    assert code(ask(store, "SELECT uniqExact(number) FROM numbers(50000000)")) == 241
    # The same query as the writer: the limit is the user's, not the server's.
    assert len(ask(store, "SELECT number FROM numbers(200000)", user="default").split()) == 200_000


def test_a_reader_cannot_take_the_writers_session(store: EmbeddedClickHouse) -> None:
    """Sessions belong to their user: what the writer keeps in one is not the reader's."""
    # The session's name is known to both: it must not be what protects the table.
    ask(store, "CREATE TEMPORARY TABLE hers (a Int8)", user="default", session_id="one")
    assert code(ask(store, "SELECT * FROM hers", session_id="one")) == 60
    assert code(ask(store, "DROP TABLE kept", user="default", session_id="one", readonly=1)) == 164
    assert (
        ask(store, "SELECT count() FROM hers", user="default", session_id="one", close_session=1)
        == "0\n"
    )


def test_clickhouse_connect_reports_what_is_refused(store: EmbeddedClickHouse) -> None:
    """The client's exception carries the server's sentence."""
    with (
        clickhouse_connect.get_client(dsn=store.reader_url) as client,
        pytest.raises(DatabaseError, match="readonly mode"),
    ):
        client.command("DROP TABLE kept")
