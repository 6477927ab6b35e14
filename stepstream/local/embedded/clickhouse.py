"""ClickHouse on this machine: chdb behind ClickHouse's HTTP protocol, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from stepstream.common.process import Child, Identity, end_leftover, identity_of
from stepstream.local.embedded.access import Access, prepare
from stepstream.local.embedded.disk import require_space
from stepstream.local.embedded.errors import (
    FolderHeld,
    LocalError,
    MissingPackage,
    PortTaken,
    StartFailed,
)
from stepstream.local.embedded.lock import FolderLock
from stepstream.local.embedded.ports import LOOPBACK, free_ports, is_free
from stepstream.local.priority import give_way

START_SECONDS = 60.0
PORT_ATTEMPTS = 3
# The server's exit codes, see stepstream.local.clickhouse_server.__main__.
EXIT_PORT, EXIT_FOLDER = 3, 4


class EmbeddedClickHouse:
    """A ClickHouse in a folder: started here, ended with this process, its data kept for the next start.

    ``port`` 0 takes a free port and the same one again at the next start where that is possible, ``prefer_port`` the
    first time. ``access`` says who may use it; None makes users of its own in the folder. ``options`` go to the server:
    ``python -m stepstream.local.clickhouse_server --help``.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        prefer_port: int = 0,
        access: Access | None = None,
        options: tuple[str, ...] = (),
        log: Callable[[str], None] | None = None,
        port_setting: str = "clickhouse_port",
    ) -> None:
        self._folder = Path(data_dir).absolute()
        self._port = port
        self._prefer = prefer_port
        self._given_access = access
        self._access: Access | None = None
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
            raise LocalError("the embedded ClickHouse has not been started")
        return f"http://{LOOPBACK}:{self._used_port}"

    @property
    def access(self) -> Access:
        """Who may use it."""
        if self._access is None:
            raise LocalError("the embedded ClickHouse has not been started")
        return self._access

    @property
    def writer_url(self) -> str:
        """Where it answers, with the login of the user that writes: not for logs or command lines."""
        return self.access.writer.url(self.url)

    @property
    def reader_url(self) -> str:
        """Where it answers, with the login of the user that only reads: not for logs or command lines."""
        return self.access.reader.url(self.url)

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
        """Start, and return the URL once the server says that it answers queries."""
        with self._guard:
            if self._child is not None:
                raise LocalError("the embedded ClickHouse has been started already")
            if "?" in str(self._folder):
                raise LocalError(
                    f"chdb takes no folder with a question mark in its name: {self._folder}"
                )
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
            raise FolderHeld(
                f"an earlier ClickHouse (process {leftover.pid}) still works on {self._folder}: end it"
            )
        self._access = self._given_access or prepare(self._folder)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._used_port = (
                self._choose_port(held_port) if attempt == 1 or self._port else free_ports(1)[0]
            )
            try:
                self._launch()
                self._wait_ready()
                return
            except (
                PortTaken
            ):  # another program was quicker; with a port of our own choice another will do
                if self._child is not None:
                    self._child.wait(10)
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
        command = [
            sys.executable,
            "-P",
            "-m",
            "stepstream.local.clickhouse_server",
            "--path",
            str(self._folder),
        ]
        command += [
            "--port",
            str(self._used_port),
            "--credentials",
            str(self.access.file),
            *self._options,
        ]
        self._child = Child(command, self._folder / "server.out")
        give_way(self._child.pid)
        self._save(identity_of(self._child.pid))

    def _wait_ready(self) -> None:
        """Until the server has said itself where it answers: whoever answers at the port may be another program."""
        assert self._child is not None
        deadline = time.monotonic() + START_SECONDS
        while (told := self._told_url(self._child)) is None:
            if not self._child.running:
                self._raise_ended(self._child)
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"ClickHouse was not ready within {START_SECONDS:.0f} s; its log in {self._folder}: "
                    f"{self._child.last_words()}"
                )
            time.sleep(0.03)
        if urlsplit(told).port != self._used_port:
            raise StartFailed(
                f"ClickHouse was told to listen on port {self._used_port} and says that it answers at {told}"
            )

    def _told_url(self, child: Child) -> str | None:
        """What the process itself wrote into the output file, which no other program writes: ``{"url": ...}``."""
        for line in child.output().splitlines():
            if line.startswith('{"url"'):
                try:
                    return str(json.loads(line)["url"])
                except ValueError:
                    return None  # half of the line is there
        return None

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
        held = {
            "port": self._used_port,
            "running": [running.pid, running.began] if running else None,
        }
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
            raise LocalError("the embedded ClickHouse has not been started")
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
                raise LocalError("the embedded ClickHouse has not been started")
            self._child.stop(20)
            self._launch()
            self._wait_ready()

    def __enter__(self) -> EmbeddedClickHouse:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
