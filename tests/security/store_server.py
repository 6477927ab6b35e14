"""An embedded store for one test, started as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from stepstream.common.web.credentials import Credential, Credentials, new_credential, save
from tests.security.raw import RawAnswer, basic, request


@dataclass
class Store:
    """A running server, and the secrets of its users ``writer``, ``reader`` and ``sender``, who may
    only send steps."""

    folder: Path
    url: str
    pid: int
    secrets: dict[str, str] = field(default_factory=dict)

    def ask(
        self,
        sql: str | bytes = b"",
        *,
        user: str = "writer",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        **parameters: object,
    ) -> RawAnswer:
        """One request of that user; ``user`` empty: without credentials."""
        given = {"Authorization": basic(user, self.secrets[user])} if user else {}
        target = "/?" + urlencode(parameters, errors="surrogateescape") if parameters else "/"
        return request(
            self.url,
            target,
            method,
            {**given, **(headers or {})},
            sql.encode() if isinstance(sql, str) else sql,
        )

    def value(self, sql: str) -> str:
        """What a query of the writer answers. Raises when it fails."""
        answer = self.ask(sql)
        assert answer.status == 200, answer
        return answer.body.decode().strip()

    @property
    def rss_mb(self) -> int:
        """Memory of the server now."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) >> 10


def code(answer: RawAnswer) -> int:
    """ClickHouse's number of the error, 0 for none."""
    return int(answer.header("x-clickhouse-exception-code") or 0)


def server_command(data: Path) -> list[str]:
    """The command of a server at a free port, without credentials."""
    program = [sys.executable, "-P", "-m", "stepstream.local.clickhouse_server"]
    return [*program, "--path", str(data), "--port", "0"]


@contextmanager
def store(folder: Path, *options: str) -> Iterator[Store]:
    """A store for as long as it is needed."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[Credential] = []
    secrets: dict[str, str] = {}
    for name, scopes in (
        ("writer", ["admin", "read"]),
        ("reader", ["read"]),
        ("sender", ["ingest"]),
    ):
        entry, secrets[name] = new_credential(name, scopes)  # type: ignore[arg-type]
        entries.append(entry)
    table = folder / "credentials.json"
    save(table, Credentials(entries))
    command = [*server_command(folder / "data"), "--credentials", str(table), *options]
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
    try:
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, (folder / "log").read_text()
        started = json.loads(line)
        assert started["pid"] == child.pid
        yield Store(folder / "data", started["url"], child.pid, secrets)
    finally:
        child.terminate()
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
