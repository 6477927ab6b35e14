"""ClickHouse on this machine: chdb behind ClickHouse's HTTP protocol, in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from stepstream.embedded.disk import require_space
from stepstream.embedded.errors import EmbeddedError, FolderHeld, MissingPackage, PortTaken, StartFailed
from stepstream.embedded.lock import FolderLock
from stepstream.embedded.ports import LOOPBACK, free_ports, is_free
from stepstream.embedded.process import Child, Identity, end_leftover, identity_of
from stepstream.priority import give_way

START_SECONDS = 60.0
PORT_ATTEMPTS = 3
# The server's exit codes, see stepstream.sinks.embedded.__main__.
EXIT_PORT, EXIT_FOLDER = 3, 4


class EmbeddedClickHouse:
    """A ClickHouse in a folder: started here, ended with this process, its data kept for the next start.

    ``port`` 0 takes a free port and the same one again at the next start where that is possible, ``prefer_port`` the
    first time. The user ``default`` writes, with ``password`` when one is given; the user ``reader`` can only read.
    ``options`` go to the server: ``python -m stepstream.sinks.embedded --help``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        prefer_port: int = 0,
        password: str = "",
        options: tuple[str, ...] = (),
        log: Callable[[str], None] | None = None,
        port_setting: str = "clickhouse_port",
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self._port = port
        self._prefer = prefer_port
        self._password = password
        self._options = options
        self._say = log or (lambda _line: None)
        self._port_setting = port_setting
        self._lock = FolderLock(self._folder, "an embedded ClickHouse")
        self._child: Child | None = None
        self._used_port = 0
        self._guard = threading.RLock()

    @property
    def url(self) -> str:
        """Where it answers, ``http://127.0.0.1:port``."""
        if not self._used_port:
            raise EmbeddedError("the embedded ClickHouse has not been started")
        return f"http://{LOOPBACK}:{self._used_port}"

    @property
    def pid(self) -> int | None:
        """The server's process, while it runs."""
        return self._child.pid if self._child is not None and self._child.running else None

    @property
    def pids(self) -> list[int]:
        return [self.pid] if self.pid is not None else []

    @property
    def data_dir(self) -> Path:
        return self._folder

    @property
    def failed(self) -> bool:
        """Whether it was started and has ended without being told to."""
        return self._child is not None and not self._child.running

    def start(self) -> str:
        """Start, and return the URL once a query was answered."""
        with self._guard:
            if self._child is not None:
                raise EmbeddedError("the embedded ClickHouse has been started already")
            if "?" in str(self._folder):
                raise EmbeddedError(f"chdb takes no folder with a question mark in its name: {self._folder}")
            self._lock.acquire()
            try:
                self._start()
            except BaseException:
                self.stop()
                raise
            return self.url

    def _start(self) -> None:
        require_space(self._folder)
        if importlib.util.find_spec("chdb") is None:
            raise MissingPackage("chdb", "the ClickHouse engine")
        held_port, leftover = self._load()
        if leftover is not None and not end_leftover(leftover):
            raise FolderHeld(f"an earlier ClickHouse (process {leftover.pid}) still works on {self._folder}: end it")
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._used_port = self._choose_port(held_port)
            try:
                self._launch()
                self._wait_ready()
                return
            except PortTaken:  # somebody was quicker; with a port of our own choice another will do
                self._child = None
                if self._port or attempt == PORT_ATTEMPTS:
                    raise

    def _choose_port(self, held: int) -> int:
        if self._port:
            if not is_free(self._port):
                raise PortTaken(self._port, self._port_setting)
            return self._port
        for port in (held, 0 if held else self._prefer):
            if port and is_free(port):
                return port
        return free_ports(1)[0]

    def _launch(self) -> None:
        command = [sys.executable, "-P", "-m", "stepstream.sinks.embedded", "--path", str(self._folder)]
        command += ["--port", str(self._used_port), *self._options]
        if self._password:
            command += ["--password-file", str(self._write_password())]
        self._child = Child(command, self._folder / "server.out")
        give_way(self._child.pid)
        self._save(identity_of(self._child.pid))

    def _write_password(self) -> Path:
        file = self._folder / "password"
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as opened:
            opened.write(self._password)
        return file

    def _wait_ready(self) -> None:
        assert self._child is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self._child.running:
                self._raise_ended(self._child)
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"ClickHouse gave no answer within {START_SECONDS:.0f} s; its log in {self._folder}: "
                    f"{self._child.last_words()}"
                )
            time.sleep(0.03)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._used_port, timeout=5)
        token = base64.b64encode(f"default:{self._password}".encode()).decode()
        try:
            connection.request("POST", "/", b"SELECT 1", {"Authorization": f"Basic {token}"})
            answer = connection.getresponse()
            return answer.status == 200 and answer.read() == b"1\n"
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _raise_ended(self, child: Child) -> None:
        words = child.last_words()
        if child.exit_code == EXIT_PORT:
            raise PortTaken(self._used_port, self._port_setting)
        if child.exit_code == EXIT_FOLDER:
            raise FolderHeld(f"another process works on {self._folder}: {words}")
        raise StartFailed(f"ClickHouse ended with exit code {child.exit_code}: {words}")

    def _load(self) -> tuple[int, Identity | None]:
        """The port of the last start, and the process that may still be there."""
        try:
            held = json.loads((self._folder / "instance.json").read_text())
            return int(held["port"]), Identity(*held["running"]) if held["running"] else None
        except (OSError, ValueError, KeyError, TypeError):
            return 0, None

    def _save(self, running: Identity | None) -> None:
        fresh = self._folder / "instance.json.new"
        held = {"port": self._used_port, "running": [running.pid, running.began] if running else None}
        fresh.write_text(json.dumps(held))
        os.replace(fresh, self._folder / "instance.json")

    def stop(self, timeout: float = 20) -> None:
        """End it, asking first; it is killed after ``timeout`` seconds. Nothing happens when it does not run."""
        with self._guard:
            try:
                if self._child is not None:
                    self._child.stop(timeout)
                    self._child = None
                    self._save(None)
            finally:
                self._lock.release()

    def kill(self) -> None:
        """SIGKILL, for fault tests; restart() goes on from the folder."""
        if self._child is None:
            raise EmbeddedError("the embedded ClickHouse has not been started")
        self._child.kill()

    def pause(self) -> None:
        """SIGSTOP, for fault tests: it keeps its connections and answers nobody."""
        if self._child is not None:
            self._child.send("stop")

    def resume(self) -> None:
        """Let it go on after pause()."""
        if self._child is not None:
            self._child.send("cont")

    def restart(self) -> None:
        """Start it again on its own port, after ending it if it runs."""
        with self._guard:
            if self._child is None:
                raise EmbeddedError("the embedded ClickHouse has not been started")
            self._child.stop(20)
            self._launch()
            self._wait_ready()

    def __enter__(self) -> EmbeddedClickHouse:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
