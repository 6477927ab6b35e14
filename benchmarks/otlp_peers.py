"""Other backends that take OTLP, each with its own store and default settings."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.peers import Peer
from stepstream.local.embedded.ports import free_ports

READY_S: Final = 180.0


@dataclass(frozen=True)
class OtlpPeer:
    """A backend: its package, how it is started, where it takes spans, how they are counted."""

    package: Peer
    # Arguments of its program, with ``{port}`` and ``{folder}``.
    command: tuple[str, ...]
    environment: Mapping[str, str]
    path: str
    # Its SQLite file, within its folder.
    database: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.package.name


PHOENIX: Final = OtlpPeer(
    Peer("Phoenix", "", ("arize-phoenix==20.26.1",)),
    ("phoenix", "serve"),
    {
        "PHOENIX_PORT": "{port}",
        "PHOENIX_GRPC_PORT": "{port2}",
        "PHOENIX_WORKING_DIR": "{folder}",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    },
    "/v1/traces",
    "phoenix.db",
)
MLFLOW: Final = OtlpPeer(
    Peer("MLflow", "", ("mlflow==3.17.2",)),
    (
        "mlflow", "server", "--host", "127.0.0.1", "--port", "{port}", "--backend-store-uri",
        "sqlite:///{folder}/mlflow.db", "--default-artifact-root", "{folder}/artifacts",
    ),
    {"MLFLOW_DISABLE_TELEMETRY": "true"},
    "/v1/traces",
    "mlflow.db",
    {"x-mlflow-experiment-id": "0"},
)  # fmt: skip
PEERS: Final = (PHOENIX, MLFLOW)


class PeerFailed(Exception):
    """A peer did not start; the message has the end of its log."""


@dataclass
class Running:
    """A started peer."""

    peer: OtlpPeer
    folder: Path
    url: str
    pid: int

    def stored(self) -> int:
        """The spans that SQL finds."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.folder / self.peer.database}?mode=ro", uri=True)
        ) as database:
            return int(database.execute("SELECT count(*) FROM spans").fetchone()[0])


@contextmanager
def running(peer: OtlpPeer, folder: Path) -> Iterator[Running]:
    """The peer's server, until the block ends. Raises ``PeerFailed``."""
    port, port2 = free_ports(2)
    names = {"port": str(port), "port2": str(port2), "folder": str(folder)}
    program = peer.package.python.with_name(peer.command[0])
    folder.mkdir(parents=True)
    environment = {name: value.format(**names) for name, value in peer.environment.items()}
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(program), *(part.format(**names) for part in peer.command[1:])],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_ready(process, url, log)
        yield Running(peer, folder, url + peer.path, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.3)
    raise PeerFailed("it did not start:\n" + log.read_text(errors="replace")[-1_500:])
