"""Other makers' clients on the embedded store: aiochclient, curl, ClickHouse's own for Node.js."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from aiochclient import ChClient, ChClientError
from aiohttp import ClientSession

from stepstream.schemas.settings import split_login


async def test_aiochclient(clickhouse_url: str, clickhouse_database: str) -> None:
    """Ping, create, insert, fetch, iterate and refuse, over a client that is not ClickHouse's."""
    async with ClientSession() as session:
        url, user, password = split_login(clickhouse_url)
        login = {"user": user, "password": password} if user else {}
        client = ChClient(
            session, url=url, database=clickhouse_database, compress_response=True, **login
        )
        assert await client.is_alive()
        await client.execute(
            "CREATE TABLE t (id UInt32, name Nullable(String), cost Decimal(18, 9), at DateTime) "
            "ENGINE = MergeTree ORDER BY id"
        )
        moment = dt.datetime.fromisoformat("2026-03-01T12:30:00")
        rows = [(1, "it's", Decimal("0.000000001"), moment), (2, None, Decimal("2.5"), moment)]
        await client.execute("INSERT INTO t VALUES", *rows)
        await client.execute(
            "INSERT INTO t (id, cost) VALUES", *[(number, Decimal(0)) for number in range(3, 5_000)]
        )
        found = await client.fetch("SELECT * FROM t ORDER BY id LIMIT 2")
        assert [tuple(row.values()) for row in found] == rows
        assert (
            await client.fetchval("SELECT count() FROM t WHERE id > {low}", params={"low": 2})
            == 4_997
        )
        assert sum([row["id"] async for row in client.iterate("SELECT id FROM t")]) == sum(
            range(1, 5_000)
        )
        with pytest.raises(ChClientError, match="nope"):
            await client.fetch("SELECT nope FROM t")
        stranger = ChClient(session, url=url, user="default", password="wrong", database="nowhere")
        with pytest.raises(ChClientError):
            await stranger.fetch("SELECT 1")


def curl(*arguments: str, data: bytes = b"") -> tuple[int, bytes]:
    """Exit code and output."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl on this machine")
    done = subprocess.run(
        [program, "-sS", *arguments], input=data, capture_output=True, timeout=30, check=False
    )
    return done.returncode, done.stdout


def test_curl(clickhouse_url: str, clickhouse_database: str) -> None:
    """Examples of ClickHouse's manual: query in URL or body, piped data, compression, an error."""
    url = f"{clickhouse_url}/?database={clickhouse_database}"
    assert curl(f"{clickhouse_url}/ping") == (0, b"Ok.\n")
    assert curl(f"{clickhouse_url}/?query=SELECT%201") == (0, b"1\n")
    assert curl(url, "-d", "CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a") == (0, b"")
    assert curl(
        f"{url}&query=INSERT%20INTO%20t%20FORMAT%20TSV", "--data-binary", "@-", data=b"1\n2\n3\n"
    ) == (0, b"")
    assert curl(url, "-X", "POST", "-F", "query=SELECT {p:UInt8} + 1", "-F", "param_p=4") == (
        0,
        b"5\n",
    )
    assert curl(
        f"{url}&enable_http_compression=1",
        "--compressed",
        "-d",
        "SELECT sum(a) FROM t FORMAT JSONEachRow",
    ) == (
        0, b'{"sum(a)":6}\n',
    )  # fmt: skip
    chunked = (
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        "@-",
    )
    assert curl(
        f"{url}&query=INSERT%20INTO%20t%20FORMAT%20CSV", *chunked, data=b"4\n" * 50_000
    ) == (0, b"")
    code, text = curl("-f", url, "-d", "SELECT nope")
    assert (code, text) == (22, b"")
    plain, user, password = split_login(url)
    code, text = curl("-u", f"{user or 'default'}:{password}", plain, "-d", "SELECT count() FROM t")
    assert (code, text) == (0, b"50003\n")


NODE = """
const {createClient} = require('@clickhouse/client');
(async () => {
  const client = createClient({
      url: process.argv[2], database: process.argv[3],
      compression: {response: true, request: true},
    });
  const seen = {ping: (await client.ping()).success};
  await client.command({
      query: 'CREATE TABLE t (id UInt32, name String) ENGINE = MergeTree ORDER BY id',
    });
  await client.insert({
      table: 't', values: [{id: 1, name: 'a'}, {id: 2, name: "it's"}], format: 'JSONEachRow',
    });
  const query = 'SELECT * FROM t WHERE id = {id:UInt32}';
  const rows = await client.query({query, query_params: {id: 2}, format: 'JSONEachRow'});
  seen.rows = await rows.json();
  let count = 0;
  const stream = (await client.query({
      query: 'SELECT number FROM numbers(100000)', format: 'JSONEachRow',
    })).stream();
  for await (const some of stream) count += some.length;
  seen.count = count;
  try {
      await client.query({query: 'SELECT nope'});
    } catch (error) { seen.error = [error.code, error.type]; }
  await client.close();
  console.log(JSON.stringify(seen));
})().catch(error => { console.error(error); process.exit(1); });
"""


def test_the_client_for_node(clickhouse_url: str, clickhouse_database: str, tmp_path: Path) -> None:
    """Runs where ``@clickhouse/client`` is installed for Node.js in a folder of NODE_PATH."""
    node = shutil.which("node")
    places = [Path(place) for place in os.environ.get("NODE_PATH", "").split(os.pathsep) if place]
    if node is None or not any((place / "@clickhouse" / "client").is_dir() for place in places):
        pytest.skip(
            "there is no Node.js with @clickhouse/client: npm install it "
            "and set NODE_PATH to its node_modules"
        )
    script = tmp_path / "client.cjs"
    script.write_text(NODE)
    done = subprocess.run(
        [node, str(script), clickhouse_url, clickhouse_database],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    sys.stderr.write(done.stderr)
    assert json.loads(done.stdout) == {
        "ping": True,
        "rows": [{"id": 2, "name": "it's"}],
        "count": 100_000,
        "error": ["47", "UNKNOWN_IDENTIFIER"],
    }
