"""With `up --kafka-auth` nothing answers without credentials, this user's programs need no
variable, and no secret shows."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from stepstream.common import endpoints
from stepstream.common.settings import load
from stepstream.local.embedded.quota import QuotaRefused, set_producer_rate
from stepstream.local.priority import NICENESS
from stepstream.local.supervisor import Pipeline
from tests.support.store_login import basic

TEN_LINES = """
import stepstream

with stepstream.run(task="refund", agent="support", input="Where is my order?") as run:
    with run.tool("lookup_order", input={"order": 7}) as step:
        step.set_output({"order": 7, "state": "shipped"})
    run.set_output("It is on its way.")
"""
SMALL_FILE_BYTES = 4_000_000


@dataclass
class Up:
    """A running pipeline and its log lines."""

    pipeline: Pipeline
    found: endpoints.Endpoints
    folder: Path
    logged: list[str] = field(default_factory=list)

    @property
    def secrets(self) -> list[str]:
        return [
            self.found.writer.password,
            self.found.reader.password,
            self.found.kafka_login.password,
        ]

    def command(self, *line: str) -> subprocess.CompletedProcess[str]:
        """A program of this user, with nothing set but where the state folder is."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")
        }
        variables = {
            **kept,
            "STEPSTREAM_STATE_DIR": str(self.folder),
            "STEPSTREAM_SETTINGS": os.devnull,
        }
        return subprocess.run(
            [sys.executable, *line],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Everything that `up --kafka-auth` runs."""
    folder = tmp_path_factory.mktemp("up")
    logged: list[str] = []
    environ = {
        "STEPSTREAM_STATE_DIR": str(folder),
        "STEPSTREAM_SETTINGS": os.devnull,
        "STEPSTREAM_LOG_LEVEL": "info",
    }
    with Pipeline(
        load(environ=environ, kafka_auth=True), report=lambda _who, line: logged.append(line)
    ) as pipeline:
        found = endpoints.read(folder)
        assert found is not None
        yield Up(pipeline, found, folder, logged)


def ask(
    url: str, sql: str, headers: dict[str, str] | None = None, **parameters: str
) -> tuple[int, str]:
    request = urllib.request.Request(f"{url}/?{urlencode(parameters)}", sql.encode(), headers or {})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


@pytest.mark.timeout(600)
def test_the_ten_lines_need_no_variable(up: Up) -> None:
    """Agent, commands, worker, sink and notifier find their users and passwords by themselves."""
    agent = up.command("-c", TEN_LINES)
    assert agent.returncode == 0, agent.stderr
    question = "SELECT count() AS runs FROM runs WHERE status = 'ok' AND steps = 2"
    deadline = time.monotonic() + 60
    while json.loads(up.command("-m", "stepstream", "sql", question, "--format", "json").stdout)[0][
        "runs"
    ] in (0, "0"):
        assert time.monotonic() < deadline, (agent.stderr, up.logged)
        time.sleep(0.2)
    doctor = up.command("-m", "stepstream", "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert up.pipeline.status().healthy


def test_kafka_refuses_clients_without_the_password(up: Up) -> None:
    """Clients of the brokers and of the controller; with the password everything works."""
    servers: dict[str, Any] = {
        "bootstrap.servers": up.found.kafka,
        "log_level": 0,
        "socket.timeout.ms": 3_000,
    }
    sasl = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": up.found.kafka_login.user,
    }
    # None, a wrong one, and the right password of a user that does not exist.
    wrong: list[dict[str, str]] = [
        {},
        {**sasl, "sasl.password": "guess"},
        {**sasl, "sasl.username": "admin", "sasl.password": up.secrets[2]},
    ]
    for more in wrong:
        with pytest.raises(KafkaException):
            AdminClient({**servers, **more}).list_topics(timeout=4)
    assert (
        AdminClient({**servers, **sasl, "sasl.password": up.secrets[2]})
        .list_topics(timeout=10)
        .topics
    )
    ports = json.loads((up.folder / "data" / "kafka" / "instance.json").read_text())["ports"][0]
    # The controller's port as well: its requests change the cluster.
    for port in ports:
        with pytest.raises((OSError, QuotaRefused)):
            set_producer_rate(f"127.0.0.1:{port}", 1.0)


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ({}, {}),
        ({}, {"user": "default"}),
        ({}, {"user": "default", "password": ""}),
        ({}, {"user": "reader"}),
        ({}, {"user": "reader", "password": "guess"}),
        (basic("default", ""), {}),
        (basic("reader", "reader"), {}),
        ({"X-ClickHouse-User": "default"}, {}),
        ({"X-ClickHouse-User": "reader", "X-ClickHouse-Key": "x"}, {}),
    ],
)
def test_the_store_refuses_requests_without_a_password(
    up: Up, headers: dict[str, str], parameters: dict[str, str]
) -> None:
    """The name of the reader without its password is refused too."""
    status, text = ask(up.found.clickhouse, "SELECT 42", headers, **parameters)
    assert status in (401, 403, 429)
    assert "42" not in text.replace(up.found.clickhouse, "")


def test_the_users_are_what_they_are_called(up: Up) -> None:
    """The reader's password is not the writer's, and it changes nothing."""
    reader, writer = up.found.reader, up.found.writer
    assert ask(up.found.clickhouse, "SELECT 42", basic(reader.user, reader.password)) == (
        200,
        "42\n",
    )
    assert ask(up.found.clickhouse, "SELECT 42", basic(writer.user, reader.password))[0] in (
        401,
        403,
    )
    assert ask(up.found.clickhouse, "SELECT 42", basic(reader.user, writer.password))[0] in (
        401,
        403,
    )
    for sql in (
        "DROP TABLE stepstream.steps_raw",
        "TRUNCATE TABLE stepstream.steps_raw",
        "CREATE TABLE stepstream.t (a Int8) ENGINE = Memory",
        "INSERT INTO stepstream.steps_raw (trace_id) VALUES ('x')",
        "ALTER TABLE stepstream.steps_raw DELETE WHERE 1",
    ):
        assert ask(up.found.clickhouse, sql, basic(reader.user, reader.password))[0] != 200, sql
        refused = up.command("-m", "stepstream", "sql", sql)  # commands read as the reader
        assert refused.returncode != 0, sql
    assert ask(
        up.found.clickhouse,
        "EXISTS TABLE stepstream.steps_raw",
        basic(writer.user, writer.password),
    ) == (200, "1\n")


def test_guessing_is_slowed_down(up: Up) -> None:
    """After a few wrong passwords from an address the next ones are refused as too many, while the
    right one goes on."""
    answers = {
        ask(up.found.clickhouse, "SELECT 42", basic("reader", f"guess{number}"))[1]
        for number in range(30)
    }
    assert any("too many" in text for text in answers)
    reader = up.found.reader
    assert ask(up.found.clickhouse, "SELECT 42", basic(reader.user, reader.password)) == (
        200,
        "42\n",
    )


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="this platform shows no processes as files"
)
def test_secrets_are_where_only_their_owner_reads_them(up: Up) -> None:
    """Not on command lines, not in logs or listings, in no file that others may read; each process
    knows what it needs."""
    pids = {name: pid for name, pids in up.pipeline.pids().items() for pid in pids}
    for pid in pids.values():
        shown = Path(f"/proc/{pid}/cmdline").read_text()
        assert not any(secret in shown for secret in up.secrets)
        # The environment has the passwords; only its owner may read it.
        assert Path(f"/proc/{pid}/environ").stat().st_mode & 0o077 == 0
    writer, reader, _ = up.secrets
    for name, wanted in (("worker", False), ("notify", False), ("sink", True)):
        environment = Path(f"/proc/{pids[name]}/environ").read_text()
        assert (writer in environment) is wanted, name
        # The sink evaluates the rules `sql` as the user that only reads.
        assert (reader in environment) is (name == "sink"), name
    assert not any(secret in line for secret in up.secrets for line in up.logged)
    listed = up.command("-m", "stepstream", "settings").stdout
    assert "stepstream up" in listed
    assert not any(secret in listed for secret in up.secrets)
    holding = set()
    for place, _, names in os.walk(up.folder):  # the store makes and removes files meanwhile
        for file in (Path(place, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                data = file.read_bytes() if file.stat().st_size < SMALL_FILE_BYTES else b""
                if any(secret.encode() in data for secret in up.secrets):
                    assert file.stat().st_mode & 0o077 == 0, file
                    holding.add(file.name)
    # Every file that has one of them: a new one has to be added here with a reason.
    assert holding == {"endpoints.json", "secrets.json", "node0.properties"}


def test_the_store_has_less_of_a_busy_cpu_than_alerts(up: Up) -> None:
    """The sink and ClickHouse may wait, Kafka and the worker may not."""
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    niceness = {
        name: {os.getpriority(os.PRIO_PROCESS, pid) for pid in up.pipeline.pids()[name]}
        for name in ("kafka", "worker", "clickhouse", "sink")
    }
    lowered = max(usual, NICENESS)
    assert niceness == {
        "kafka": {usual}, "worker": {usual}, "clickhouse": {lowered}, "sink": {lowered},
    }  # fmt: skip
