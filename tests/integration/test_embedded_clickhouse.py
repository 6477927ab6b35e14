"""The embedded store's HTTP protocol: clients, curl, chunks, compression, cancelling."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import clickhouse_connect
import lz4.frame
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import DatabaseError

from stepstream.common.process import identity_of
from stepstream.local.embedded.access import prepare
from stepstream.local.embedded.clickhouse import EmbeddedClickHouse
from stepstream.local.embedded.errors import FolderInUse, PortTaken
from tests.support.processes import wait_until
from tests.support.store_login import without_login


@pytest.fixture
def client(clickhouse_url: str, clickhouse_database: str) -> Iterator[Any]:
    """clickhouse-connect on a database of the test's own."""
    with clickhouse_connect.get_client(
        dsn=clickhouse_url, database=clickhouse_database
    ) as connected:
        yield connected


def ask(
    url: str,
    sql: str | bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    **parameters: object,
) -> tuple[int, bytes, Message]:
    """One plain request: status, body, headers."""
    data = sql.encode() if isinstance(sql, str) else sql
    plain, login = without_login(url)
    request = urllib.request.Request(
        f"{plain}{'&' if '?' in plain else '/?'}{urlencode(parameters)}",
        data or None,
        login | (headers or {}),
        method=method,
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read(), answer.headers


def test_rows_come_back_as_they_went_in(client: Any, clickhouse_url: str) -> None:
    """Every type the store uses survives the round trip, with each compression of the client."""
    client.command(
        "CREATE TABLE t (id UInt64, name String, cost Nullable(Decimal(18, 9)), "
        "at DateTime64(6, 'UTC'), "
        "tags Map(String, String), kind LowCardinality(String), path Array(String)) "
        "ENGINE = MergeTree ORDER BY id"
    )
    moment = datetime(2026, 3, 1, 12, 30, 0, 123456, tzinfo=UTC)
    row = [
        7,
        "it's \\ a\ttab\n√",
        Decimal("0.000000001"),
        moment,
        {"k": "v"},
        "llm_call",
        ["a", ""],
    ]
    empty = [8, "", None, moment, {}, "", []]
    for compression in ("lz4", "zstd", "gzip", False):
        client.command("TRUNCATE TABLE t")
        with clickhouse_connect.get_client(
            dsn=clickhouse_url, database=client.database, compress=compression
        ) as other:
            other.insert("t", [row, empty])
            found = [
                list(found) for found in other.query("SELECT * FROM t ORDER BY id").result_rows
            ]
            naive = [
                [value.replace(tzinfo=None) if value is moment else value for value in kept]
                for kept in (row, empty)
            ]
            assert found == naive, compression


def test_query_parameters_bind_as_values(client: Any) -> None:
    """A parameter is a value, whatever is written in it."""
    hostile = "'; DROP TABLE t -- \\ \n\t"
    found = client.query(
        "SELECT {a:String}, {b:Array(Int32)}", parameters={"a": hostile, "b": [1, -2]}
    )
    assert found.result_rows == [(hostile, [1, -2])]


def test_parameters_may_come_as_a_form(clickhouse_url: str) -> None:
    """clickhouse-connect can send parameters as a form."""
    with clickhouse_connect.get_client(dsn=clickhouse_url, form_encode_query_params=True) as client:
        assert client.query("SELECT {a:String}", parameters={"a": "é\n"}).result_rows == [("é\n",)]


def test_an_insert_token_counts_once(client: Any) -> None:
    """A repeated insert with the same token changes neither the table nor what views make of it."""
    client.command(
        "CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    client.command(
        "CREATE TABLE sums (n UInt64) ENGINE = SummingMergeTree ORDER BY tuple() "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    client.command("CREATE MATERIALIZED VIEW v TO sums AS SELECT count() AS n FROM t")
    settings = {
        "insert_deduplication_token": "a:0-9",
        "deduplicate_blocks_in_dependent_materialized_views": 1,
    }
    for _ in range(3):
        client.insert(
            "t", [[number] for number in range(10)], column_names=["id"], settings=settings
        )
    client.insert(
        "t",
        [[10]],
        column_names=["id"],
        settings={**settings, "insert_deduplication_token": "a:10-10"},
    )
    assert client.query("SELECT count(), (SELECT sum(n) FROM sums) FROM t").result_rows == [
        (11, 11)
    ]


def test_large_answers_come_in_pieces(client: Any, clickhouse_url: str) -> None:
    """A large answer is sent as it is made: the server does not hold it as a whole."""
    with client.query_row_block_stream(
        "SELECT number, repeat('x', 100) FROM numbers(2000000)"
    ) as blocks:
        # 200 MB: as one text it would be in memory several times.
        assert sum(len(block) for block in blocks) == 2_000_000
    _, _, headers = ask(clickhouse_url, "SELECT number FROM numbers(2000000)")
    assert headers["Transfer-Encoding"] == "chunked"
    _, body, headers = ask(clickhouse_url, "SELECT number FROM numbers(10)", wait_end_of_query=1)
    assert headers["Content-Length"] == str(len(body))


def test_an_error_in_the_middle_is_seen(client: Any, clickhouse_url: str) -> None:
    """When a query fails after its first rows were sent, no client takes them for the answer."""
    sql = (
        "SELECT throwIf(number = 3000000, 'broke here') "
        "FROM numbers(4000000) SETTINGS max_threads = 1"
    )
    with pytest.raises(DatabaseError, match="broke here"):
        client.query(sql)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(clickhouse_url, sql)


def test_other_formats_are_whole_documents(clickhouse_url: str) -> None:
    """A format with a head and a tail is one document, however large the answer is."""
    _, body, headers = ask(clickhouse_url, "SELECT number FROM numbers(200000) FORMAT JSON")
    assert len(json.loads(body)["data"]) == 200_000
    assert headers["Content-Type"].startswith("application/json")
    _, body, _ = ask(
        clickhouse_url, "SELECT number FROM numbers(200000)", default_format="CSVWithNames"
    )
    assert body.count(b'"number"') == 1
    _, body, headers = ask(
        clickhouse_url, "SELECT 1 AS x WHERE 0", headers={"X-ClickHouse-Format": "TSVWithNames"}
    )
    assert (body, headers["X-ClickHouse-Format"]) == (b"x\n", "TSVWithNames")


def test_data_frames_and_arrow(client: Any) -> None:
    """The client's columnar ways in and out work."""
    pyarrow = pytest.importorskip("pyarrow")
    client.command("CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
    client.insert_arrow(
        "t", pyarrow.table({"a": pyarrow.array([1, 2], pyarrow.uint64()), "b": ["x", "y"]})
    )
    assert client.query_arrow("SELECT * FROM t ORDER BY a").to_pydict() == {
        "a": [1, 2],
        "b": ["x", "y"],
    }


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("lz4", lz4.frame.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
def test_bodies_and_answers_are_compressed_as_http_does(
    clickhouse_url: str, clickhouse_database: str, encoding: str, pack: Any
) -> None:
    """Content-Encoding works, also with several frames; Accept-Encoding if compression is on."""
    database = clickhouse_database
    ask(clickhouse_url, "CREATE TABLE t (a UInt64) ENGINE = Memory", database=database)
    # Clients that compress block by block send several frames in one body.
    body = pack(b"1\n2\n") + pack(b"3\n")
    headers = {"Content-Encoding": encoding}
    assert (
        ask(
            clickhouse_url,
            body,
            headers=headers,
            query="INSERT INTO t FORMAT TSV",
            database=database,
        )[0]
        == 200
    )
    accept = {"Accept-Encoding": encoding}
    sql = "SELECT sum(a) FROM t"
    _, packed, answered = ask(
        clickhouse_url, sql, headers=accept, enable_http_compression=1, database=database
    )
    unpack = {"gzip": gzip.decompress, "lz4": lz4.frame.decompress}.get(encoding)
    plain = (
        unpack(packed)
        if unpack
        else zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    )
    assert (plain, answered["Content-Encoding"]) == (b"6\n", encoding)
    assert "Content-Encoding" not in ask(clickhouse_url, "SELECT 1", headers=accept)[2]
    status, text, _ = ask(
        clickhouse_url,
        b"nonsense",
        headers=headers,
        query="INSERT INTO t FORMAT TSV",
        database=database,
    )
    assert (status, text.startswith(b"Code: 271.")) == (400, True)


@pytest.mark.parametrize(
    ("sql", "data", "expected"),
    [
        ("INSERT INTO t VALUES", b"(1, 'a'), (1+1, lower('B'))", b"1\ta\n2\tb\n"),
        (
            "INSERT INTO t (s, a) FORMAT JSONEachRow",
            b'{"a":1,"s":"x;y"}\n{"s":"--"}',
            b"0\t--\n1\tx;y\n",
        ),
        ("INSERT INTO t FORMAT CSV", b'5,"q""q"\n', b'5\tq"q\n'),
        ("INSERT INTO t FORMAT TabSeparated", b"6\tt\\tt\n", b"6\tt\\tt\n"),
        ("INSERT INTO t SETTINGS max_insert_block_size = 10 FORMAT Values", b"(7,'')", b"7\t\n"),
        ("INSERT INTO t SELECT number, '' FROM numbers(2)", b"", b"0\t\n1\t\n"),
    ],
)
def test_data_follow_an_insert_in_the_url_or_in_the_body(
    clickhouse_url: str, clickhouse_database: str, sql: str, data: bytes, expected: bytes
) -> None:
    """The statement may stand in the parameter and the data in the body, or both in the body."""
    database = clickhouse_database
    for in_body in (False, True):
        ask(
            clickhouse_url,
            "CREATE OR REPLACE TABLE t (a UInt64, s String) ENGINE = Memory",
            database=database,
        )
        if in_body:
            status, text, headers = ask(
                clickhouse_url, sql.encode() + b"\n" + data, database=database
            )
        else:
            status, text, headers = ask(clickhouse_url, data, query=sql, database=database)
        assert (status, text) == (200, b"")
        assert json.loads(headers["X-ClickHouse-Summary"])
        assert ask(clickhouse_url, "SELECT * FROM t ORDER BY a", database=database)[1] == expected


def test_an_insert_larger_than_memory_would_like_is_streamed(
    clickhouse_url: str, clickhouse_database: str
) -> None:
    """A chunked body that begins with the statement is inserted in pieces, as one insert."""
    ask(
        clickhouse_url,
        "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a",
        database=clickhouse_database,
    )
    address = urlsplit(clickhouse_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    pieces = (
        b"".join(b"%d\n" % (chunk * 10_000 + row) for row in range(10_000)) for chunk in range(40)
    )
    target, login = f"/?database={clickhouse_database}", without_login(clickhouse_url)[1]
    connection.request("POST", target, _then(b"INSERT INTO t FORMAT TSV\n", pieces), login)
    assert connection.getresponse().read() == b""
    connection.close()
    parts = "(SELECT count() FROM system.parts WHERE database = currentDatabase() AND active)"
    sql = f"SELECT count(), uniqExact(a), {parts} FROM t"
    assert ask(clickhouse_url, sql, database=clickhouse_database)[1] == b"400000\t400000\t1\n"


def _then(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


@pytest.mark.parametrize(
    ("sql", "status", "code", "message"),
    [
        ("SELEC 1", 400, 62, "Syntax error"),
        ("", 400, 62, "Empty query"),
        ("SELECT nope", 404, 47, "nope"),
        ("SELECT * FROM nope", 404, 60, "nope"),
        ("SELECT 1; DROP TABLE x", 400, 62, "Multi-statements"),
        ("SELECT 'open", 400, 62, "Syntax error"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 501, 48, "INTO OUTFILE"),
        ("INSERT INTO t FROM INFILE '/etc/passwd' FORMAT TSV", 501, 48, "FROM INFILE"),
        ("CREATE TABLE k (a Int8) ENGINE = Kafka", 501, 48, "no engine Kafka"),
        ("CREATE TABLE k (a Int8) ENGINE=/**/`RabbitMQ`()", 501, 48, "no engine RabbitMQ"),
        ("SYSTEM SHUTDOWN", 501, 48, "ended by its owner"),
        ("SYSTEM KILL", 501, 48, "ended by its owner"),
        ("INSERT INTO system.one VALUES (1)", 500, 48, "NOT_IMPLEMENTED"),
    ],
)
def test_errors_are_clickhouses_own(
    clickhouse_url: str, sql: str, status: int, code: int, message: str
) -> None:
    """An error has ClickHouse's number in text and header, and never a Python traceback."""
    answered, text, headers = ask(clickhouse_url, sql or " ")
    assert text.startswith(b"Code: %d. DB::Exception: " % code)
    assert message.encode() in text
    assert b"Traceback" not in text
    assert headers["X-ClickHouse-Exception-Code"] == str(code)
    assert answered == status or code == 48


def test_what_is_not_a_query(clickhouse_url: str) -> None:
    """Health checks answer without a user; unknown paths do not exist; GET cannot write."""
    plain, login = without_login(clickhouse_url)
    for path, headers in (
        ("/ping", {}),
        ("/healthz", {}),
        ("/replicas_status", login),
        ("/", login),
    ):
        with urllib.request.urlopen(
            urllib.request.Request(plain + path, headers=headers), timeout=10
        ) as answer:
            assert answer.read().lower() in (b"ok.\n", b"ok\n")
    for path, headers, status in (
        ("/play", login, 404),
        ("/", {}, 403),
        ("/replicas_status", {}, 403),
        ("/play", {}, 403),
    ):
        with pytest.raises(urllib.error.HTTPError, match=str(status)):
            urllib.request.urlopen(
                urllib.request.Request(plain + path, headers=headers), timeout=10
            )
    assert ask(clickhouse_url, method="GET", query="SELECT 1")[1] == b"1\n"
    status, text, _ = ask(
        clickhouse_url, method="GET", query="CREATE TABLE t (a Int8) ENGINE = Memory"
    )
    assert (status, b"readonly" in text) == (403, True)


def test_a_backup_comes_back(clickhouse_url: str, clickhouse_database: str) -> None:
    """A table can be backed up next to the store and restored; the answer is the outcome."""
    database = clickhouse_database
    ask(
        clickhouse_url, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a", database=database
    )
    ask(clickhouse_url, "INSERT INTO t VALUES (1), (2)", database=database)
    assert (
        b"BACKUP_CREATED"
        in ask(clickhouse_url, f"BACKUP TABLE t TO File('{database}')", database=database)[1]
    )
    ask(clickhouse_url, "DROP TABLE t SYNC", database=database)
    assert (
        b"RESTORED"
        in ask(clickhouse_url, f"RESTORE TABLE t FROM File('{database}')", database=database)[1]
    )
    assert ask(clickhouse_url, "SELECT sum(a) FROM t", database=database)[1] == b"3\n"


def test_a_session_remembers(clickhouse_url: str) -> None:
    """SET, USE and temporary tables last as long as the session; a request's settings do not."""

    def run(sql: str, url_end: str = "") -> bytes:
        return ask(f"{clickhouse_url}/?{url_end}", sql, session_id="s1")[1]

    assert run("CREATE TEMPORARY TABLE mine (a Int8)") == b""
    assert run("INSERT INTO mine VALUES (1), (2)") == b""
    assert run("SELECT sum(a) FROM mine") == b"3\n"
    # No default has this value.
    run("SET max_block_size = 777")
    assert run("SELECT getSetting('max_block_size')") == b"777\n"
    assert run("SELECT getSetting('max_block_size')", "max_block_size=888") == b"888\n"
    assert run("SELECT getSetting('max_block_size')") == b"777\n"
    run("USE system")
    assert run("SELECT currentDatabase()", "close_session=1") == b"system\n"
    assert run("SELECT sum(a) FROM mine").startswith(b"Code: 60.")
    status, text, _ = ask(clickhouse_url, "SELECT 1", session_id="never", session_check=1)
    assert (status, text.startswith(b"Code: 372.")) == (404, True)


def test_a_session_has_one_query_at_a_time(clickhouse_url: str) -> None:
    """A second query in a busy session is refused as ClickHouse does, not mixed with the first."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, clickhouse_url, "SELECT sleep(1)", session_id="busy")
        time.sleep(0.4)
        assert ask(clickhouse_url, "SELECT 1", session_id="busy")[1].startswith(b"Code: 373.")
        assert first.result()[0] == 200


async def test_the_async_client(clickhouse_url: str) -> None:
    """clickhouse-connect's async client works, and its queries run at the same time."""
    client = await clickhouse_connect.get_async_client(dsn=clickhouse_url)
    other = await clickhouse_connect.get_async_client(dsn=clickhouse_url)
    running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep(2)%'"
    answers = asyncio.gather(*(client.query("SELECT sleep(2)") for _ in range(6)))
    most = 0
    while not answers.done():
        most = max(most, (await other.query(running)).result_rows[0][0])
    assert len(await answers) == 6
    assert most > 1
    await other.close()
    await client.close()


def test_many_readers_with_a_writer(clickhouse_url: str, client: Any) -> None:
    """Readers see whole inserts only, while a writer goes on."""
    client.command("CREATE TABLE t (batch UInt64, n UInt64) ENGINE = MergeTree ORDER BY batch")
    done = threading.Event()
    torn: list[object] = []

    def read() -> int:
        count = 0
        with clickhouse_connect.get_client(dsn=clickhouse_url, database=client.database) as reader:
            while not done.is_set():
                rows = reader.query(
                    "SELECT batch, count() FROM t GROUP BY batch HAVING count() != 500"
                ).result_rows
                torn.extend(rows)
                count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for batch in range(20):
            client.insert(
                "t", [[batch, number] for number in range(500)], column_names=["batch", "n"]
            )
        done.set()
        assert all(reader.result() > 0 for reader in readers)
    assert torn == []
    assert client.query("SELECT count() FROM t").result_rows == [(10_000,)]


def test_a_query_ends_when_its_client_leaves(clickhouse_url: str) -> None:
    """When the client has gone, the engine stops working on its query."""
    mark = f"left{time.monotonic_ns()}"
    address = urlsplit(clickhouse_url)
    sql = (
        f"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 7 AND '{mark}' != ''"
    ).encode()
    raw = socket.create_connection((address.hostname, address.port))
    login = without_login(clickhouse_url)[1]["Authorization"].encode()
    head = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n"
        % (login, len(sql))
    )
    raw.sendall(head + sql)
    running = (
        "SELECT count() FROM system.processes "
        f"WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
    )
    wait_until(lambda: ask(clickhouse_url, running)[1] == b"1\n", 30, "the query to run")
    raw.close()
    wait_until(lambda: ask(clickhouse_url, running)[1] == b"0\n", 30, "the query to end")


def test_an_answer_in_a_closed_window_ends_too(clickhouse_url: str) -> None:
    """A client that stops in the middle of a long answer frees its query."""
    address = urlsplit(clickhouse_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
    sql = b"SELECT number, 'abandoned' FROM numbers(100000000000)"
    connection.request("POST", "/", sql, without_login(clickhouse_url)[1])
    answer = connection.getresponse()
    assert len(answer.read(1_000_000)) == 1_000_000
    answer.close()
    connection.close()
    running = (
        "SELECT count() FROM system.processes "
        "WHERE query LIKE '%abandoned%' AND query NOT LIKE '%processes%'"
    )
    wait_until(lambda: ask(clickhouse_url, running)[1] == b"0\n", 30, "the query to end")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    """A store of the test's own, to be killed."""
    with EmbeddedClickHouse(tmp_path / "store é") as running:
        yield running


def test_kill_nine_in_the_middle_of_inserts_loses_and_doubles_nothing(
    own: EmbeddedClickHouse,
) -> None:
    """After a SIGKILL during inserts, repeating them with the same tokens makes the count exact."""
    settings = "non_replicated_deduplication_window = 1000"
    ask(
        own.writer_url,
        "CREATE TABLE t (batch UInt64, n UInt64) ENGINE = MergeTree ORDER BY batch "
        f"SETTINGS {settings}",
    )

    def insert(batch: int) -> bool:
        rows = b"".join(b"%d\t%d\n" % (batch, number) for number in range(200))
        try:
            return (
                ask(
                    own.writer_url,
                    rows,
                    query="INSERT INTO t FORMAT TSV",
                    insert_deduplication_token=f"b:{batch}",
                )[0]
                == 200
            )
        except (OSError, http.client.HTTPException):
            return False

    for round_ in range(2):
        batches = range(round_ * 300, round_ * 300 + 300)
        with ThreadPoolExecutor(3) as pool:
            sent = [pool.submit(insert, batch) for batch in batches]
            wait_until(
                lambda: sum(answer.done() for answer in sent) >= 5,  # noqa: B023 called at once
                30,
                "five inserts acknowledged",
            )
            own.kill()
            sure = sum(answer.result() for answer in sent)
        assert 5 <= sure < 300
        own.restart()
        assert all(insert(batch) for batch in batches)
    assert (
        ask(own.writer_url, "SELECT count(), uniqExact(batch, n) FROM t")[1] == b"120000\t120000\n"
    )


@pytest.mark.parametrize("password", ["", "s3cret"], ids=["a random one", "one of the operator"])
def test_a_password_is_asked_for(tmp_path: Path, password: str) -> None:
    """Both users need theirs, by every way ClickHouse knows; strangers get nowhere."""
    access = prepare(tmp_path, writer_password=password)
    writer, reader = access.writer.password, access.reader.password
    # None is empty, and none may be used in the place of another.
    assert len({writer, reader, access.kafka.password, ""}) == 4
    with EmbeddedClickHouse(tmp_path / "store", access=access) as store:
        for wrong in (
            "",
            "password=x",
            "user=stranger",
            "user=reader",
            "user=reader&password=x",
            f"user=reader&password={writer}",
        ):
            status, text, headers = ask(f"{store.url}/?{wrong}", "SELECT 1")
            assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "516"), wrong
            assert writer.encode() not in text
        assert ask(store.url, "SELECT 1", password=writer)[1] == b"1\n"
        assert ask(store.url, "SELECT 1", user="reader", password=reader)[1] == b"1\n"
        assert ask(store.url, "CREATE DATABASE x", user="reader", password=reader)[0] == 403
        assert (
            ask(
                store.url,
                "SELECT 1",
                headers={"X-ClickHouse-User": "default", "X-ClickHouse-Key": writer},
            )[0]
            == 200
        )
        for url in (store.writer_url, store.reader_url):
            with clickhouse_connect.get_client(dsn=url) as client:
                assert client.command("SELECT 1") == 1
        if Path("/proc").exists():
            assert not any(
                secret in Path(f"/proc/{store.pid}/cmdline").read_text()
                for secret in (writer, reader)
            )
        for file in tmp_path.rglob("*"):
            if file.is_file() and any(
                secret.encode() in file.read_bytes() for secret in (writer, reader)
            ):
                assert (file.name, file.stat().st_mode & 0o777) == ("secrets.json", 0o600)
        with pytest.raises(FolderInUse):
            EmbeddedClickHouse(tmp_path / "store").start()
        with pytest.raises(PortTaken, match="clickhouse_port"):
            EmbeddedClickHouse(tmp_path / "other", port=urlsplit(store.url).port or 0).start()
        known = identity_of(store.pid or 0)
        assert known is not None
    assert identity_of(known.pid) != known


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://example.org"}, {"Host": "example.org:8123"}],
    ids=["a page of another site", "a name that was made to point here"],
)
def test_web_pages_are_no_clients(clickhouse_url: str, headers: dict[str, str]) -> None:
    """A page in a browser on this machine cannot send statements to the store."""
    assert ask(clickhouse_url, "SELECT 1", headers=headers)[0] == 403
