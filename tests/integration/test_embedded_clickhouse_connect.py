"""clickhouse-connect's documented client works on the embedded store as on a server."""

from __future__ import annotations

import datetime as dt
import ipaddress
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, ProgrammingError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.tools import insert_file


def at(*moment: int) -> dt.datetime:
    """A moment in UTC."""
    return dt.datetime(*moment, tzinfo=dt.UTC)  # type: ignore[arg-type,misc]


def in_utc(value: Any) -> Any:
    """Times that the client returns have no zone where the column is in UTC."""
    return value.replace(tzinfo=dt.UTC) if isinstance(value, dt.datetime) else value


@pytest.fixture
def client(clickhouse_url: str, clickhouse_database: str) -> Iterator[Client]:
    """A client with a table of numbers and names."""
    with clickhouse_connect.get_client(
        dsn=clickhouse_url, database=clickhouse_database
    ) as connected:
        connected.command("CREATE TABLE t (id UInt32, name String) ENGINE = MergeTree ORDER BY id")
        connected.insert("t", [[1, "a"], [2, "b"], [3, "c"]], column_names=["id", "name"])
        yield connected


def test_command_returns_a_value_a_list_a_text_or_a_summary(client: Client) -> None:
    """A value by its type, several of a row as a list of texts, a write as a summary."""
    assert client.command("SELECT count() FROM t") == 3
    assert client.command("SELECT 'x', 'y'") == ["x", "y"]
    assert client.command("SELECT {a:String} || 'y'", parameters={"a": "x"}) == "xy"
    written: Any = client.command("INSERT INTO t VALUES", data="(4, 'd'), (5, 'e')")
    assert written.written_rows in (2, "2")
    assert client.command("SELECT count() FROM t") == 5


def test_a_result_has_types_and_names(client: Client) -> None:
    """Rows, columns, names, types, the first of each, the number, the query's id."""
    result = client.query("SELECT id, name FROM t ORDER BY id")
    assert result.result_rows == [(1, "a"), (2, "b"), (3, "c")]
    assert [tuple(column) for column in result.result_columns] == [(1, 2, 3), ("a", "b", "c")]
    assert result.column_names == ("id", "name")
    assert [kind.name for kind in result.column_types] == ["UInt32", "String"]
    assert (result.row_count, result.first_row, result.first_item) == (
        3,
        (1, "a"),
        {"id": 1, "name": "a"},
    )
    assert list(result.named_results())[2] == {"id": 3, "name": "c"}
    assert result.query_id
    assert int(result.summary["read_rows"]) == 3
    nothing = client.query("SELECT id FROM t WHERE 0")
    assert (nothing.result_rows, nothing.row_count) == ([], 0)
    named = client.query("SELECT 1", settings={"query_id": "of-my:own_1.0"})
    assert named.query_id == "of-my:own_1.0"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("UInt64", 2**64 - 1),
        ("Int128", -(2**100)),
        ("Float64", -1.5),
        ("Decimal(18, 9)", Decimal("-1.000000001")),
        ("String", "it's \\ \n\t \0 ☃"),
        ("Date", dt.date(2026, 2, 28)),
        ("DateTime64(6, 'UTC')", at(2026, 2, 28, 1, 2, 3, 456789)),
        ("Array(Nullable(String))", ["a", None, ""]),
        ("UUID", uuid.UUID("12345678-1234-5678-1234-567812345678")),
        ("IPv4", ipaddress.IPv4Address("10.0.0.1")),
        ("Bool", True),
    ],
)
def test_values_are_bound_by_the_server(client: Client, kind: str, value: Any) -> None:
    """Every type that a parameter may have comes back as it was given."""
    found = client.query(f"SELECT {{value:{kind}}}", parameters={"value": value}).result_rows[0][0]
    assert in_utc(found) == value


def test_values_may_be_bound_by_the_client(client: Client) -> None:
    """Python's own formats, by name and by place; NULL and lists among them."""
    by_name = client.query(
        "SELECT %(a)s, %(b)s, %(c)s", parameters={"a": "x'y", "b": None, "c": [1, 2]}
    )
    assert by_name.result_rows == [("x'y", None, [1, 2])]
    assert client.query(
        "SELECT id FROM t WHERE id IN %s ORDER BY id", parameters=[(1, 3)]
    ).result_rows == [(1,), (3,)]


TYPES: dict[str, list[Any]] = {
    "Int8": [-128, 127],
    "UInt256": [0, 2**256 - 1],
    "Float32": [0.5, -2.25],
    "Decimal(38, 9)": [Decimal("0.000000001"), Decimal("-99999999999999999999.999999999")],
    "FixedString(4)": [b"abcd", b"x\0\0\0"],
    "LowCardinality(Nullable(String))": ["a", None],
    "Date32": [dt.date(1925, 1, 1), dt.date(2200, 12, 31)],
    "DateTime('UTC')": [at(2026, 1, 1, 12), at(1970, 1, 1)],
    "DateTime64(3, 'UTC')": [at(2026, 1, 1, 12, 0, 0, 123000), at(1969, 12, 31, 23, 59)],
    "Enum8('a' = 1, 'b' = 2)": ["a", "b"],
    "Array(Array(UInt8))": [[], [[1], []]],
    "Tuple(n UInt8, s String)": [{"n": 1, "s": "x"}, {"n": 2, "s": ""}],
    "Map(LowCardinality(String), Array(String))": [{}, {"k": ["v"]}],
    "IPv6": [ipaddress.IPv6Address("::1"), ipaddress.IPv6Address("2001:db8::2")],
    "Nullable(UUID)": [None, uuid.UUID(int=7)],
    "SimpleAggregateFunction(sum, UInt64)": [1, 2],
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_of_column_is_inserted_and_read(client: Client, kind: str) -> None:
    """Native blocks in both directions."""
    client.command(f"CREATE TABLE kinds (n UInt8, value {kind}) ENGINE = MergeTree ORDER BY n")
    client.insert(
        "kinds",
        [[number, value] for number, value in enumerate(TYPES[kind])],
        column_names=["n", "value"],
    )
    found = [row[0] for row in client.query("SELECT value FROM kinds ORDER BY n").result_rows]
    assert list(map(in_utc, found)) == TYPES[kind]


def test_how_values_are_read_is_chosen_by_query(client: Client) -> None:
    """Formats by type and by column, zones, zeros instead of None, columns instead of rows."""

    def first(sql: str, **how: Any) -> Any:
        return client.query(sql, **how).result_rows[0][0]

    some_id, moment = (
        "12345678-1234-5678-1234-567812345678",
        "SELECT toDateTime('2026-01-01 00:00:00', 'UTC') AS d",
    )
    assert first(f"SELECT toUUID('{some_id}')", query_formats={"UUID": "string"}) == some_id
    assert first(moment, column_formats={"d": "int"}) == 1_767_225_600
    assert first("SELECT now()", query_tz="Europe/Berlin").utcoffset() is not None
    assert first("SELECT CAST(NULL, 'Nullable(UInt8)')", use_none=False) == 0
    assert list(
        map(list, client.query("SELECT id FROM t ORDER BY id", column_oriented=True).result_set)
    ) == [[1, 2, 3]]


def test_streams_are_read_piece_by_piece(client: Client) -> None:
    """By row blocks, by column blocks, by rows; left early, the client goes on working."""
    sql = "SELECT number, toString(number) FROM numbers(300000)"
    with client.query_row_block_stream(sql) as blocks:
        sizes = [len(block) for block in blocks]
    # More rows than the engine puts into one block.
    assert (sum(sizes), len(sizes) > 1) == (300_000, True)
    with client.query_column_block_stream(sql) as blocks:
        assert sum(sum(block[0]) for block in blocks) == sum(range(300_000))
    with client.query_rows_stream(sql) as rows:
        assert [next(rows) for _ in range(2)] == [(0, "0"), (1, "1")]
    assert client.command("SELECT 1") == 1
    with pytest.raises(ProgrammingError):
        list(client.query_rows_stream("SELECT 1"))  # only within a with block


def test_raw_formats_in_both_directions(client: Client, tmp_path: Path) -> None:
    """raw_query, raw_stream, raw_insert and insert_file pass any format through."""
    assert (
        client.raw_query("SELECT id FROM t ORDER BY id", fmt="JSONEachRow")
        == b'{"id":1}\n{"id":2}\n{"id":3}\n'
    )
    with client.raw_stream("SELECT number FROM numbers(100000)", fmt="TabSeparated") as pieces:
        assert sum(piece.count(b"\n") for piece in pieces) == 100_000
    summary = client.raw_insert("t", ["id", "name"], b"4,d\n5,e\n", fmt="CSV")
    assert summary.written_rows == 2
    client.raw_insert(
        "t", None, (piece for piece in (b'{"id":6,"na', b'me":"f"}\n')), fmt="JSONEachRow"
    )
    file = tmp_path / "rows.csv"
    file.write_text("7,g\n8,h\n")
    insert_file(client, "t", str(file), fmt="CSV", column_names=["id", "name"])
    assert (
        client.command("SELECT groupArray(name) FROM (SELECT name FROM t ORDER BY id)")
        == "['a','b','c','d','e','f','g','h']"
    )


def test_inserts_by_columns_and_contexts(client: Client, clickhouse_database: str) -> None:
    """Columns instead of rows, given types, a reused context, another database; exact summary."""
    summary = client.insert(
        "t", [[4, 5], ["d", "e"]], column_names=["id", "name"], column_oriented=True
    )
    assert summary.written_rows == 2
    client.insert(
        "t", [[6, "f"]], column_names=["id", "name"], column_type_names=["UInt32", "String"]
    )
    context = client.create_insert_context("t", ["id", "name"], data=[[7, "g"]])
    client.insert(context=context)
    context.data = [[8, "h"]]
    client.insert(context=context)
    client.insert("t", [[9, "i"]], database=clickhouse_database, column_names="*")
    assert client.command("SELECT sum(id) FROM t") == 45
    with pytest.raises(ProgrammingError):
        client.insert("t", [[1, 2, 3]], column_names=["id", "nope", "name"])
    with pytest.raises((DataError, ValueError)):
        client.insert("t", [["text", "x"]], column_names=["id", "name"])
    # The two refused inserts have left no row behind.
    assert client.command("SELECT count() FROM t") == 9


def test_settings_of_the_client_and_of_a_query(clickhouse_url: str, client: Client) -> None:
    """A client's settings apply to its queries, a query's own win; an unknown one is an error."""
    with clickhouse_connect.get_client(
        dsn=clickhouse_url, settings={"max_block_size": 5000}
    ) as other:
        assert other.command("SELECT getSetting('max_block_size')") == 5000
        assert (
            other.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 7})
            == 7
        )
        other.set_client_setting("max_threads", 1)
        assert other.get_client_setting("max_threads") == "1"
        assert other.command("SELECT getSetting('max_threads')") == 1
    with pytest.raises((ProgrammingError, DatabaseError), match="no_such_setting"):
        client.query("SELECT 1", settings={"no_such_setting": 1})


def test_a_session_holds_temporary_tables(clickhouse_url: str) -> None:
    """A client with a session keeps SET and temporary tables; one without has neither."""
    with clickhouse_connect.get_client(dsn=clickhouse_url, session_id="mine") as client:
        client.command("CREATE TEMPORARY TABLE scratch (a UInt8)")
        client.insert("scratch", [[1], [2]], column_names=["a"], column_type_names=["UInt8"])
        assert client.command("SELECT sum(a) FROM scratch") == 3
    with (
        clickhouse_connect.get_client(dsn=clickhouse_url, autogenerate_session_id=False) as other,
        pytest.raises(DatabaseError, match="UNKNOWN_TABLE"),
    ):
        other.query("SELECT * FROM scratch")


def test_external_data_are_tables_of_one_query(client: Client) -> None:
    """Rows sent with a query are tables that it may join, and nothing is left of them."""
    people = ExternalData(
        file_name="people.csv",
        fmt="CSV",
        structure="id UInt32, city String",
        data=b"1,Rome\n3,Oslo\n",
    )
    people.add_file(file_name="more", fmt="TSV", types=["UInt32"], data=b"2\n3\n")
    sql = "SELECT name, city FROM t JOIN people USING id WHERE id IN (SELECT _1 FROM more)"
    assert client.query(sql, external_data=people).result_rows == [("c", "Oslo")]
    with pytest.raises(DatabaseError, match="people"):
        client.query("SELECT * FROM people")
    broken = ExternalData(
        file_name="x", fmt="CSV", structure="a UInt8) ENGINE = File(CSV", data=b"1\n"
    )
    with pytest.raises(DatabaseError):
        client.query("SELECT * FROM x", external_data=broken)


def test_errors_carry_the_servers_words(client: Client) -> None:
    """The code, the name and the sentence of ClickHouse; the connection goes on."""
    for sql, code, message in (
        ("SELECT nope FROM t", 47, "nope"),
        ("SELECT * FROM nope", 60, "nope"),
        ("SELECT FROM WHERE", 62, "Syntax error"),
        ("SELECT throwIf(1, 'as asked')", 395, "as asked"),
        ("SELECT toUInt8('x')", 6, "x"),
    ):
        with pytest.raises(DatabaseError, match=message) as caught:
            client.query(sql)
        assert f"code {code}" in str(caught.value).lower() or f"Code: {code}" in str(caught.value)
    assert client.command("SELECT 1") == 1


def test_the_client_knows_its_server(client: Client, clickhouse_url: str) -> None:
    """Version, zone, ping, and a refusal that is reported as one."""
    assert client.ping()
    assert client.min_version("24.8")
    assert str(client.server_version).startswith(("2", "3"))
    assert str(client.server_tz) == "UTC" or client.server_tz is not None
    with pytest.raises(DatabaseError, match="Authentication"):
        clickhouse_connect.get_client(dsn=clickhouse_url, username="stranger")
    with clickhouse_connect.get_client(dsn=clickhouse_url, query_limit=2) as limited:
        assert limited.query("SELECT number FROM numbers(5)").row_count == 2


async def test_the_async_client_does_the_same(
    clickhouse_url: str, clickhouse_database: str
) -> None:
    """Queries, commands, inserts, raw formats and streams without blocking."""
    client = await clickhouse_connect.get_async_client(
        dsn=clickhouse_url, database=clickhouse_database
    )
    await client.command("CREATE TABLE a (id UInt32, name String) ENGINE = MergeTree ORDER BY id")
    await client.insert("a", [[1, "x"], [2, "y"]], column_names=["id", "name"])
    result = await client.query("SELECT * FROM a WHERE id = {id:UInt32}", parameters={"id": 2})
    assert result.result_rows == [(2, "y")]
    assert await client.raw_query("SELECT count() FROM a", fmt="TSV") == b"2\n"
    async with await client.query_row_block_stream("SELECT number FROM numbers(200000)") as blocks:
        assert sum([len(block) async for block in blocks]) == 200_000
    with pytest.raises(DatabaseError, match="nope"):
        await client.query("SELECT nope")
    await client.close()
